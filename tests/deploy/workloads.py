"""What the chart's pods are made of, for the tests that compare it with the rest."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from tests.deploy.chart import Manifest

OURS: Final = ("extender", "plugin", "webhook")


@dataclass(frozen=True)
class Workload:
    """A Deployment, StatefulSet, DaemonSet or bare pod.

    Attributes:
        part: what it is of the chart: extender, webhook, plugin, scheduler, redis, test.
        labels: of its pods.
        spec: of its pods.
    """

    part: str
    labels: dict[str, str]
    spec: dict[str, Any]
    manifest: Manifest

    @property
    def container(self) -> dict[str, Any]:
        """Its only container."""
        (container,) = self.spec["containers"]
        found: dict[str, Any] = container
        return found

    @property
    def ports(self) -> dict[str, int]:
        """Name -> number."""
        return {port["name"]: port["containerPort"] for port in self.container.get("ports", ())}


def workloads(manifests: Iterable[Manifest]) -> dict[str, Workload]:
    """By their part of the chart."""
    found = {}
    for manifest in manifests:
        if manifest["kind"] in ("Deployment", "StatefulSet", "DaemonSet"):
            template = manifest["spec"]["template"]
            labels, spec = template["metadata"]["labels"], template["spec"]
        elif manifest["kind"] == "Pod":
            labels, spec = manifest["metadata"]["labels"], manifest["spec"]
        else:
            continue
        part = manifest["metadata"]["name"].rpartition("-")[2]
        found[part] = Workload(part, labels, spec, manifest)
    return found


def of_kind(manifests: Iterable[Manifest], *kinds: str) -> dict[str, Manifest]:
    """Name -> object, of these kinds."""
    return {manifest["metadata"]["name"]: manifest for manifest in manifests if manifest["kind"] in kinds}
