"""The metrics of the three services, read from the processes of a cluster that has something to tell."""

import asyncio
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from prometheus_client import Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from cli.simulation import SimulatedNode
from fracgpu.names import GpuUuid, PodUid
from playground.cluster import ApiStatusError
from plugin.metrics import Metrics as PluginMetrics
from plugin.usage.measuring import ContainerUsage, Usage
from tests.system.cluster import WAIT_SECONDS, Cluster, pod

SERVICES = ("extender", "webhook", "plugin")


class _Told(Cluster):
    """A cluster whose webhook knows the API server, as in a cluster it does."""

    def _webhook_options(self) -> list[str]:
        return [*super()._webhook_options(), "--kubeconfig", str(self._directory / "kubeconfig")]


@dataclass(frozen=True)
class Exposed:
    """What the services tell.

    Attributes:
        pages: service -> its whole page.
        rare: of the plugin, as it would be after what does not happen in this cluster.
    """

    pages: Mapping[str, str]
    rare: str

    def families(self, service: str) -> list[Metric]:
        """What a service tells; a family that nothing has happened to comes as it is in `rare`."""
        found = list(text_string_to_metric_families(self.pages[service]))
        rare = {family.name: family for family in text_string_to_metric_families(self.rare)}
        return [family if family.samples else rare.get(family.name, family) for family in found]

    def labels(self) -> dict[str, dict[str, set[str]]]:
        """Name of a sample -> label -> its values, of all services."""
        found: dict[str, dict[str, set[str]]] = {}
        for service in SERVICES:
            for family in self.families(service):
                for sample in family.samples:
                    labels = found.setdefault(sample.name, {})
                    for label, value in sample.labels.items():
                        labels.setdefault(label, set()).add(value)
        return found


def expose() -> Exposed:
    """Start a cluster, let things happen in it, and read."""
    return asyncio.run(_expose())


async def _expose() -> Exposed:
    directory = Path(tempfile.mkdtemp(prefix="fg-"))  # short, for Unix sockets
    cluster = _Told(directory, nodes=(SimulatedNode("node-1", "Test GPU", 10240, 1),))
    try:
        await cluster.start()
        await _live(cluster)
        return Exposed(await _read(cluster), _rare())
    finally:
        await cluster.stop()
        shutil.rmtree(directory)


async def _live(cluster: Cluster) -> None:
    await cluster.create(pod("runs", "6Gi"))
    await cluster.running("runs")
    await cluster.create(pod("waits", "6Gi"))
    await cluster.waiting("waits")
    try:
        await cluster.create(pod("mistyped", "6GB"))
    except ApiStatusError:
        return
    raise AssertionError("a mistyped size was let in")


async def _read(cluster: Cluster) -> dict[str, str]:
    (plugin,) = cluster.plugins.values()
    urls = {
        "extender": cluster.pages_url,
        "webhook": cluster.webhook.urls["metrics_url"],
        "plugin": plugin.urls["url"],
    }
    found = {}
    async with aiohttp.ClientSession() as session, asyncio.timeout(WAIT_SECONDS):
        for service, url in urls.items():
            async with session.get(f"{url}/metrics") as answer:
                assert answer.status == 200
                found[service] = await answer.text()
    return found


def _rare() -> str:
    """What a plugin tells of broken GPUs, refused calls and processes on GPUs: its real registry, after all that."""
    metrics = PluginMetrics()
    metrics.xid(GpuUuid("GPU-1"), 79)
    metrics.refusal("AdmissionRefused")
    metrics.measured(
        Usage(
            (ContainerUsage(PodUid("1"), "team-a", "runs", "main", GpuUuid("GPU-1"), 6 * 2**30, 2**30),),
            {GpuUuid("GPU-1"): 2**20},
            excesses={},
            hidden=frozenset(),
        )
    )
    return generate_latest(metrics.registry).decode()
