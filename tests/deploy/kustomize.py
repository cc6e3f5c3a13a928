"""The plain manifests in deploy/kustomize, rendered from the chart: what they have to be, and writing them.

`python -m tests.deploy.kustomize` (scripts/manifests) writes; a test fails while what is written is stale.
"""

import shutil
from collections.abc import Mapping
from typing import Any, Final

import yaml

from tests.deploy import chart

FOLDER: Final = chart.CHART.parents[1] / "kustomize"
_BY_HAND: Final = frozenset({"values.yaml"})
_OPTIONAL: Final = frozenset({"admission/void-visible-devices.yaml", "scheduler/kube-scheduler-config.yaml"})
_HEADER: Final = "# Rendered from deploy/helm/fracgpu by scripts/manifests. Change that, not this.\n"
_NAMESPACE: Final = f"""\
apiVersion: v1
kind: Namespace
metadata:
  name: {chart.NAMESPACE}
  labels:
    app.kubernetes.io/part-of: fracgpu
    pod-security.kubernetes.io/enforce: privileged # the device plugin's pods see the host's processes and folders
---
"""
_KUSTOMIZATION: Final = """\
# fracgpu without Helm: `kubectl apply -k`, once cert-manager is there. Do it from a kustomization of your own, in which
# the images are named, and after the Secret with Redis' password:
#
#   kubectl create namespace fracgpu-system
#   kubectl -n fracgpu-system create secret generic fracgpu-redis --from-literal=password=$(openssl rand -hex 24)
#
#   # kustomization.yaml
#   resources: [PATH/deploy/kustomize]
#   images:
#     - {name: fracgpu, newName: WHERE/YOU/PUSHED/fracgpu, newTag: "1.2.3"}
#     - {name: kube-scheduler, newName: WHERE/IT/IS/kube-scheduler, newTag: VERSION-OF-YOUR-CLUSTER}
#
# Not in this list: admission/void-visible-devices.yaml, which needs Kubernetes 1.36 (docs/admission.md), and
# scheduler/kube-scheduler-config.yaml, which is for a kube-scheduler that you have.
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources:
"""
_EXISTING_SCHEDULER: Final = """\
# What makes a kube-scheduler that you have use the extender, instead of the second one in deployment.yaml: given to it
# by --config. Where it reaches the API server (clientConnection.kubeconfig) and leaderElection are as in your cluster;
# kubeadm: /etc/kubernetes/scheduler.conf. The files under /etc/kubernetes/fracgpu are those of the Secret
# fracgpu-scheduler-tls.
apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
"""


def expected() -> dict[str, str]:
    """Path in the folder -> content, of all that is rendered."""
    values = yaml.safe_load((FOLDER / "values.yaml").read_text())
    files = {
        path: _HEADER + _tidied(text)
        for path, text in chart.rendered(values).items()
        if path.endswith(".yaml") and not path.startswith("tests/")
    }
    files["rbac.yaml"] = files["rbac.yaml"].replace(_HEADER, _HEADER + _NAMESPACE, 1)
    files["scheduler/kube-scheduler-config.yaml"] = _HEADER + _EXISTING_SCHEDULER + existing_scheduler(values)
    listed = sorted(files.keys() - _OPTIONAL, key=lambda path: (not path.startswith(("rbac", "crds")), path))
    files["kustomization.yaml"] = _HEADER + _KUSTOMIZATION + "".join(f"  - {path}\n" for path in listed)
    return files


def existing_scheduler(values: Mapping[str, Any]) -> str:
    """The lines for a kube-scheduler that exists, as the chart's notes print them."""
    text = chart.notes({**values, "scheduler": {"enabled": False}})
    start = text.index("# Above 100 nodes")
    return text[start : text.index("\n\n", start)] + "\n"


def written() -> dict[str, str]:
    """What lies in the folder now."""
    return {
        str(path.relative_to(FOLDER)): path.read_text()
        for path in FOLDER.rglob("*")
        if path.is_file() and path.name not in _BY_HAND
    }


def _tidied(text: str) -> str:
    """Without what templates leave behind: empty lines, blanks at ends, a separator before the first object."""
    lines = [line.rstrip() for line in text.splitlines()]
    kept = [line for line in lines if line]
    if "---" in kept[:2]:
        kept.remove("---")
    return "\n".join(kept) + "\n"


def main() -> None:
    """Write all of it anew."""
    for entry in FOLDER.iterdir():
        if entry.name in _BY_HAND:
            continue
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    for path, text in expected().items():
        (FOLDER / path).parent.mkdir(parents=True, exist_ok=True)
        (FOLDER / path).write_text(text)


if __name__ == "__main__":
    main()
