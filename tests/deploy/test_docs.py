"""The pages that tell people what to type: names of values exist, links lead somewhere, and blocks of commands work."""

import json
import os
import re
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from kubernetes_validate import validate

from fracgpu.plans import decode_plan, encode_plan
from tests.deploy import chart
from tests.deploy.conftest import DEPLOY
from tests.realcluster import RealControlPlane, missing_binaries

DOCS: Final = DEPLOY.parent / "docs"
PAGES: Final = ("install", "upgrade", "migrate")
BIN: Final = Path(sys.executable).parent
SCHEMA: Final = json.loads((chart.CHART / "values.schema.json").read_text())
BLOCK: Final = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SET: Final = re.compile(r"--set(?:-string|-json)? '?([\w.\[\]]+)=")
VALUE: Final = re.compile(rf"`((?:{'|'.join(SCHEMA['properties'])})(?:\.\w+)*)(?:`|=|:)")
LINK: Final = re.compile(r"\]\(([^)]+)\)")


def text_of(page: str) -> str:
    return (DOCS / f"{page}.md").read_text()


def blocks(page: str, language: str) -> list[str]:
    return [content for found, content in BLOCK.findall(text_of(page)) if found == language]


def files_of_values() -> Iterator[tuple[str, dict[str, Any]]]:
    """The blocks whose first line names a file of values."""
    for page in PAGES:
        for block in blocks(page, "yaml"):
            if name := re.match(r"# (values[\w-]*\.yaml)\n", block):
                yield f"{page}: {name[1]}", yaml.safe_load(block)


def is_value(path: str) -> bool:
    """Whether the chart has such a value."""
    schema = SCHEMA
    for part in path.split("."):
        if part not in schema.get("properties", {}):
            return schema.get("additionalProperties", schema.get("type") == "object") is not False and "." in path
        schema = schema["properties"][part]
    return True


@pytest.mark.parametrize("page", PAGES)
def test_every_value_that_is_named_exists(page: str) -> None:
    text = text_of(page)
    # Of other tools' charts, as the line says by naming them.
    foreign = {"devicePlugin.enabled"}
    named = {*SET.findall(text), *VALUE.findall(text)} - foreign
    assert named
    assert [name for name in sorted(named) if not is_value(name)] == []


@pytest.mark.parametrize(
    ("name", "values"), list(files_of_values()), ids=lambda found: found if isinstance(found, str) else ""
)
def test_files_of_values_are_accepted(name: str, values: dict[str, Any]) -> None:
    chart.manifests(values | {"scheduler": {"image": "example.com/kube-scheduler:v1"}})


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for target in LINK.findall(text_of(page)):
        path, _, anchor = target.partition("#")
        file = DOCS / (path or f"{page}.md")
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file.read_text()), target


def anchors(text: str) -> set[str]:
    """What headings can be linked by, as GitHub makes it."""
    titles = re.findall(r"^#+ (.+)$", re.sub(BLOCK, "", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_manifests_are_what_kubernetes_takes() -> None:
    manifests = [yaml.safe_load(block) for page in PAGES for block in blocks(page, "yaml") if "\nkind: " in block]
    kinds = {manifest["kind"] for manifest in manifests}
    assert {"Pod", "RuntimeClass"} <= kinds
    for manifest in manifests:
        if manifest["kind"] != "KubeSchedulerConfiguration":
            validate(manifest, "1.36", strict=True)


def test_the_plan_that_is_shown_is_one() -> None:
    (line,) = re.findall(r'^\{"unitMiB".*$', text_of("install"), re.MULTILINE)
    plan = decode_plan(line)
    assert encode_plan(plan) == line
    assert [share.units for shares in plan.containers.values() for share in shares] == [8]


@pytest.mark.e2e
def test_the_commands_give_a_scheduler_and_an_extender_that_trust_each_other(
    plane: RealControlPlane, tmp_path: Path
) -> None:
    """`existing` certificates, and the way into an existing scheduler, as typed; /etc/kubernetes is another folder."""
    made, root = tmp_path / "made", tmp_path / "kubernetes"
    made.mkdir()
    root.mkdir()
    (root / "admin.conf").write_bytes(plane.kubeconfig().read_bytes())
    certificates, fetching = blocks("install", "sh")[1], blocks("install", "sh")[0]
    run("kubectl create namespace fracgpu-system", plane=plane, folder=made)
    run(certificates, plane=plane, folder=made)
    run(fetching.replace("/etc/kubernetes", str(root)), plane=plane, folder=made)
    fetched = root / "fracgpu"
    assert {path.name for path in fetched.iterdir()} == {"ca.crt", "tls.crt", "tls.key"}

    for part in ("extender", "plugin", "redis"):
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(made / f"{part}.crt", made / f"{part}.key")
        server.load_verify_locations(made / "ca.crt")
        server.verify_mode = ssl.CERT_REQUIRED
        client = ssl.create_default_context(cafile=str(fetched / "ca.crt"))
        client.load_cert_chain(fetched / "tls.crt", fetched / "tls.key")
        shown = handshake(server, client, name=f"fracgpu-{part}.fracgpu-system.svc")
        assert (("commonName", "fracgpu-scheduler"),) in shown["subject"]

    if reason := missing_binaries("kube-scheduler"):
        pytest.skip(reason)
    notes = chart.notes({"scheduler": {"enabled": False}})
    (head,) = [block for block in blocks("install", "yaml") if "/etc/kubernetes/scheduler.conf" in block]
    tail = notes[notes.index("percentageOfNodesToScore:") :].partition("\n\n")[0]
    configuration = tmp_path / "kube-scheduler-config.yaml"
    configuration.write_text((head + tail).replace("/etc/kubernetes", str(root)).replace("CLUSTER-IP", "10.0.0.10"))
    with plane.scheduler(configuration, name="asks-the-extender"):
        pass


@pytest.mark.e2e
@pytest.mark.parametrize("page", ["install", "migrate"])
def test_what_a_kubelet_leaves_in_its_nodes_status_can_be_taken_away(
    plane: RealControlPlane, tmp_path: Path, page: str
) -> None:
    (patch,) = re.findall(r"kubectl patch node gpu-1 .*?\]'", text_of(page), re.DOTALL)
    left = {name.replace("~1", "/") for name in re.findall(r"/status/capacity/([^\"]+)", patch)}
    amounts = {"cpu": "4", **dict.fromkeys(left, "0")}
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "gpu-1"}}
    plane.request("POST", "/api/v1/nodes", node)
    _, node = plane.request("GET", "/api/v1/nodes/gpu-1")
    node["status"] = {"capacity": amounts, "allocatable": amounts}
    plane.request("PUT", "/api/v1/nodes/gpu-1/status", node)
    assert left

    run(patch, plane=plane, folder=tmp_path)
    _, node = plane.request("GET", "/api/v1/nodes/gpu-1")
    assert node["status"]["capacity"] == {"cpu": "4"}


@pytest.mark.e2e
def test_the_search_for_what_is_left_finds_it(plane: RealControlPlane, tmp_path: Path) -> None:
    (search,) = re.findall(r"kubectl get crd,.* \| grep fracgpu", text_of("install"))
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "fracgpu-left"}}
    plane.request("POST", "/apis/rbac.authorization.k8s.io/v1/clusterroles", role)
    found = run(search, plane=plane, folder=tmp_path)
    assert "clusterrole.rbac.authorization.k8s.io/fracgpu-left" in found.splitlines()


@pytest.mark.e2e
@pytest.mark.parametrize("page", PAGES)
def test_lists_of_pods_are_something_that_kubectl_understands(
    plane: RealControlPlane, tmp_path: Path, page: str
) -> None:
    commands = re.findall(r"(?:^    |`)(kubectl get pods -A[^`\n]*)", text_of(page), re.MULTILINE)
    assert commands
    run("\n".join(commands), plane=plane, folder=tmp_path)


def run(commands: str, *, plane: RealControlPlane, folder: Path) -> str:
    """Run a block as a shell script, with our kubectl and the rights of an administrator; what it prints."""
    environment = {"PATH": f"{BIN}:{os.defpath}", "KUBECONFIG": str(plane.kubeconfig()), "HOME": str(folder)}
    done = subprocess.run(
        ["sh", "-euc", commands], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def handshake(server: ssl.SSLContext, client: ssl.SSLContext, *, name: str) -> dict[str, Any]:
    """Let two sides find each other trustworthy, without a network; what the server saw of the client."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = server.wrap_bio(to_server, to_client, server_side=True)
    theirs = client.wrap_bio(to_client, to_server, server_hostname=name)
    waiting = [theirs, ours]
    for _ in range(10):
        for side in list(waiting):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            waiting.remove(side)
    assert not waiting
    shown: dict[str, Any] = ours.getpeercert()  # type: ignore[assignment]
    return shown
