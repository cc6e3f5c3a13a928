"""deploy/kustomize is what the chart renders, and kubectl makes of it what it is meant to."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy import chart, kustomize

OVERLAY = """\
resources: [{folder}]
images:
  - {{name: fracgpu, newName: example.com/fracgpu, newTag: "1.2.3"}}
  - {{name: kube-scheduler, newName: example.com/kube-scheduler, newTag: v1.36.2}}
"""


def test_what_is_written_is_what_the_chart_renders() -> None:
    assert kustomize.written() == kustomize.expected(), "run scripts/manifests"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What `kubectl apply -k` would apply of a user's own kustomization."""
    folder = tmp_path_factory.mktemp("kustomize")
    shutil.copytree(kustomize.FOLDER, folder / "base")
    (folder / "kustomization.yaml").write_text(OVERLAY.format(folder="base"))
    kubectl = Path(sys.executable).parent / "kubectl"
    text = subprocess.run([kubectl, "kustomize", folder], check=True, capture_output=True, text=True).stdout
    return list(yaml.safe_load_all(text))


def identity(manifest: dict[str, Any]) -> tuple[str, str, str]:
    metadata = manifest["metadata"]
    return manifest["kind"], metadata.get("namespace", ""), metadata["name"]


def test_kubectl_builds_all_that_the_chart_has(built: list[dict[str, Any]]) -> None:
    values = yaml.safe_load((kustomize.FOLDER / "values.yaml").read_text())
    wanted = {identity(manifest) for manifest in chart.manifests(values) if "helm.sh/hook" not in str(manifest)}
    optional = {found for found in wanted if found[2] == "void-visible-devices.fracgpu.io"}

    assert {identity(manifest) for manifest in built} == wanted - optional | {("Namespace", "", chart.NAMESPACE)}
    assert len(optional) == 4


def test_images_can_be_named(built: list[dict[str, Any]]) -> None:
    images = {
        container["image"]
        for manifest in built
        if manifest["kind"] in ("Deployment", "DaemonSet")
        for container in manifest["spec"]["template"]["spec"]["containers"]
    }

    assert images == {"example.com/fracgpu:1.2.3", "example.com/kube-scheduler:v1.36.2"}
