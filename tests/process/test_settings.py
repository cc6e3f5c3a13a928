"""What a service is told, and how it answers when it was told wrong."""

import os
from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field, SecretStr, field_validator

from fracgpu.errors import SettingError
from fracgpu.process.configfile import parse_config, read_config, shown
from fracgpu.process.settings import ServiceSettings


class Settings(ServiceSettings):
    """A service for tests."""

    node_name: str
    """The node that we run on."""

    port: int = Field(8080, ge=0, le=65535)
    """The port to listen on; 100% configurable."""

    ratio: float = 0.5
    """A number."""

    policy: Literal["binpack", "spread"] = "binpack"
    """How nodes are scored."""

    tls_cert: Path | None = None
    """The certificate."""

    is_strict: bool = False
    """Whether to be strict."""

    password: SecretStr = SecretStr("")
    """A secret."""

    @field_validator("password")
    @classmethod
    def _long_enough(cls, value: SecretStr) -> SecretStr:
        if len(value.get_secret_value()) == 3:
            raise ValueError("it is too short")
        return value


NODE = ["--node-name", "n1"]


def test_defaults() -> None:
    settings = Settings.load(NODE)
    assert (settings.node_name, settings.port, settings.tls_cert, settings.log_level) == ("n1", 8080, None, "info")


def test_a_flag_wins_over_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRACGPU_PORT", "1")
    monkeypatch.setenv("FRACGPU_RATIO", "0.25")
    monkeypatch.setenv("FRACGPU_POLICY", "")
    settings = Settings.load([*NODE, "--port=2", "--is-strict", "--tls-cert", "/tmp/c"])
    assert (settings.port, settings.ratio, settings.policy) == (2, 0.25, "binpack")
    assert (settings.is_strict, settings.tls_cert) == (True, Path("/tmp/c"))


WRONG = {
    "a whole number is asked for": (
        [*NODE, "--port", "http"],
        "--port (environment: FRACGPU_PORT) is 'http'; it must be a whole number",
    ),
    "out of bounds": (
        [*NODE, "--port", "70000"],
        "--port (environment: FRACGPU_PORT) is '70000'; it must be at most 65535",
    ),
    "no choice": (
        [*NODE, "--policy", "random"],
        "--policy (environment: FRACGPU_POLICY) is 'random'; it must be 'binpack' or 'spread'",
    ),
    "missing": ([], "--node-name (environment: FRACGPU_NODE_NAME) is missing: The node that we run on."),
    "two at once": (
        ["--ratio", "much"],
        "--node-name (environment: FRACGPU_NODE_NAME) is missing: The node that we run on.\n"
        "--ratio (environment: FRACGPU_RATIO) is 'much'; it must be a number",
    ),
    "a secret is not repeated": (
        [*NODE, "--password", "abc"],
        "--password (environment: FRACGPU_PASSWORD) is not usable; it is too short",
    ),
    "unknown flag": ([*NODE, "--colour"], "unrecognized arguments: --colour; --help lists all settings"),
    "flag cut short": ([*NODE, "--por=1"], "unrecognized arguments: --por=1; --help lists all settings"),
    "value forgotten": ([*NODE, "--port"], "argument --port: expected one argument; --help lists all settings"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_settings(case: str) -> None:
    argv, want = WRONG[case]
    with pytest.raises(SettingError) as caught:
        Settings.load(argv)
    assert str(caught.value) == want


def test_a_wrong_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRACGPU_IS_STRICT", "perhaps")
    with pytest.raises(SettingError, match=r"FRACGPU_IS_STRICT\) is 'perhaps'; it must be true or false"):
        Settings.load(NODE)


def test_help_shows_meaning_default_and_variable(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        Settings.load(["--help"])
    assert caught.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "A service for tests." in text
    assert "--port PORT The port to listen on; 100% configurable. (default: 8080; environment: FRACGPU_PORT)" in text
    assert "The node that we run on. (required; environment: FRACGPU_NODE_NAME)" in text
    assert "--is-strict [true|false]" in text
    assert "(not set by default; environment: FRACGPU_READY_FILE)" in text


# --- lists, and a file


class FileSettings(Settings):
    """A service that has a file of settings too."""

    config_file: Path | None = None
    """The file."""

    memory_unit_mib: int = 512
    """Size of a unit."""

    device_id_strategy: Literal["uuid", "index"] = "uuid"
    """What GPUs are called."""

    xids: tuple[int, ...] = (13, 31)
    """Xids."""

    strategies: tuple[Literal["envvar", "cdi"], ...] = Field(default=("envvar",), min_length=1)
    """How devices are listed."""


def test_lists_are_written_with_commas_or_with_the_flag_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRACGPU_STRATEGIES", "cdi, envvar")

    settings = FileSettings.load([*NODE, "--xids=1,2", "--xids", "3"])

    assert (settings.xids, settings.strategies) == ((1, 2, 3), ("cdi", "envvar"))
    assert FileSettings.load([*NODE, "--xids="]).xids == ()


def test_help_shows_a_list_as_it_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        FileSettings.load(["--help"])
    assert "(default: 13,31; environment: FRACGPU_XIDS)" in " ".join(capsys.readouterr().out.split())


def test_flag_over_variable_over_file_over_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(
        "port: 1\nratio: 0.25\npolicy: spread\nmemoryUnitMiB: 1024\ndeviceIDStrategy: index\n"
        "xids: 7\nstrategies: [cdi, envvar]\nnodeName: from-file\ntlsCert:\n"
    )
    monkeypatch.setenv("FRACGPU_CONFIG_FILE", str(file))
    monkeypatch.setenv("FRACGPU_RATIO", "0.125")
    monkeypatch.setenv("FRACGPU_PORT", "2")

    settings = FileSettings.load(["--port=3"])

    assert (settings.port, settings.ratio, settings.policy) == (3, 0.125, "spread")
    assert (settings.memory_unit_mib, settings.device_id_strategy) == (1024, "index")
    assert (settings.xids, settings.strategies) == ((7,), ("cdi", "envvar"))
    assert (settings.node_name, settings.tls_cert, settings.is_strict) == ("from-file", None, False)


WRONG_FILES: dict[str, tuple[str, str]] = {
    "a wrong value": ("port: http", "port in FILE is 'http'; it must be a whole number"),
    "a wrong element": ("xids: [1, many]", "xids in FILE has 'many'; it must be a whole number"),
    "an empty list": ("strategies: []", "strategies in FILE is '[]'; it must be a list of at least 1"),
    "a number for text": (
        "nodeName: 4",
        "nodeName in FILE is '4'; it must be text (in quotes, where it looks like a number)",
    ),
    "two at once": (
        "{port: http, ratio: much}",
        "port in FILE is 'http'; it must be a whole number\nratio in FILE is 'much'; it must be a number",
    ),
    "a misspelled key": (
        "memoryUnit: 1024",
        "FILE has an unknown key 'memoryUnit'; did you mean memoryUnitMiB? settings are deviceIDStrategy, "
        "exitWithParent, isStrict, logFormat, logLevel, memoryUnitMiB, nodeName, otlpEndpoint, password, policy, port, "
        "ratio, readyFile, "
        "strategies, tlsCert, xids",
    ),
    "a file that names a file": ("configFile: other.yaml", "FILE has an unknown key 'configFile'; "),
    "one setting in two spellings": (
        "{memoryUnitMiB: 1, memoryUnitMib: 2}",
        "FILE says both memoryUnitMiB and memoryUnitMib; keep one of them",
    ),
    "one key twice": (
        "port: 1\nport: 2",
        "FILE cannot be used: it is not YAML of the plain kind: 'port' is there twice (line 2, column 1)",
    ),
    "an alias": (
        "port: &a 1\nratio: *a",
        "FILE cannot be used: it is not YAML of the plain kind: aliases (*name) are not allowed; write the value out "
        "(line 2, column 8)",
    ),
    "a tag": ("port: !!python/name:os.system", "FILE cannot be used: it is not YAML of the plain kind: tags "),
    "no YAML": (
        "port: {",
        "FILE cannot be used: it is not YAML of the plain kind: expected the node content, but found '<stream end>' "
        "(line 1, column 8)",
    ),
    "no mapping": ("- port", "FILE cannot be used: it is not a list of settings, a name, a colon and a value each"),
    "too deep": ("port: " + "[" * 100_000, "FILE cannot be used: it is nested too deeply"),
    "a number of 5000 digits": ("port: " + "1" * 5000, "FILE cannot be used: it is not YAML of the plain kind: "),
    "too large": ("#" * (2**20 + 1), "FILE has more than 1 MiB; a file of settings is smaller"),
}


@pytest.mark.parametrize("case", WRONG_FILES)
def test_a_wrong_file(case: str, tmp_path: Path) -> None:
    text, want = WRONG_FILES[case]
    file = tmp_path / "settings.yaml"
    file.write_text(text)

    with pytest.raises(SettingError) as caught:
        FileSettings.load([*(() if "nodeName" in text else NODE), "--config-file", str(file)])

    assert str(caught.value).replace(str(file), "FILE").startswith(want)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"absent.yaml cannot be read: No such file or directory"):
        FileSettings.load([*NODE, f"--config-file={tmp_path}/absent.yaml"])


def test_what_is_no_regular_file_is_no_file_of_settings(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", Path("/dev/zero"), tmp_path):
        with pytest.raises(SettingError, match=r"is not a regular file|cannot be read"):
            read_config(path)


@pytest.mark.parametrize("number", ["0x" + "f" * 6000, "0b" + "1" * 20000, ":".join(["59"] * 5000) + ".5"])
def test_numbers_of_thousands_of_digits_are_a_sentence(tmp_path: Path, number: str) -> None:
    with pytest.raises(SettingError) as caught:
        shown_or_refused(number)
    assert len(str(caught.value)) < 500


def shown_or_refused(number: str) -> None:
    """As a caller does with a value of the wrong kind."""
    document = parse_config(f"port: {number}".encode())
    raise SettingError(f"port is {shown(document['port'])}")
