"""One simulated node with the device plugin as the process that a node runs, and what is asked of it from outside."""

import asyncio
import contextlib
import ssl
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
import trustme

from bench.cluster import NAMESPACE
from bench.lab import Measured
from bench.plugin.apiserver import WRITES_PATH
from bench.plugin.kubelet import BareKubelet
from bench.plugin.nodes import NODE, Machine, PlannedPod
from playground.node.nvml import write_state

_QUIET_SECONDS: Final = 0.3  # without another write: what was caused by the last step is over
_POLL_SECONDS: Final = 0.05


class Rig:
    """The node; made by `open`.

    Attributes:
        kubelet: its kubelet.
        plugin: the process, once `start_plugin` was called.
        directory: for files and sockets.
    """

    def __init__(
        self, directory: Path, *, machine: Machine, kubelet: BareKubelet, api: aiohttp.ClientSession, port: int
    ) -> None:
        self.kubelet = kubelet
        self.directory = directory
        self.plugin: Measured | None = None
        self._api = api
        self._port = port
        self._state = directory / "nvml.json"
        write_state(self._state, machine.simulated())
        (directory / "cgroup" / "kubepods").mkdir(parents=True)  # as the kubelet makes it when it starts

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, machine: Machine) -> AsyncIterator["Rig"]:
        """Start API server, kubelet and floor; everything ends with the context."""
        async with contextlib.AsyncExitStack() as stack:
            # A short path: Unix sockets allow 107 bytes.
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fgb")))
            tls = _certificates(directory)
            server = Measured("apiserver", arguments=["-m", "bench.plugin.apiserver", *tls], directory=directory)
            await server.start()
            stack.push_async_callback(server.stop)
            url = await server.ready()
            trust = aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=directory / "ca.crt"))
            session = aiohttp.ClientSession(url, connector=trust, raise_for_status=True)
            api = await stack.enter_async_context(session)
            kubelet = BareKubelet(directory)
            await kubelet.start()
            sockets = ("--socket", str(directory / "floor.sock"), "--pod-resources-socket", str(kubelet.pod_resources))
            floor = Measured("floor", arguments=["-m", "bench.plugin.floor", *sockets], directory=directory)
            await floor.start()
            stack.push_async_callback(floor.stop)
            await floor.ready()
            stack.push_async_callback(kubelet.stop)
            kubelet.beside(directory / "floor.sock")
            rig = cls(directory, machine=machine, kubelet=kubelet, api=api, port=urlsplit(url).port or 0)
            await rig._post("/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}})
            stack.push_async_callback(rig.stop_plugin)
            yield rig

    async def start_plugin(self) -> tuple[float, float]:
        """Start it.

        Returns:
            The seconds from exec until the kubelet has both lists, and until the plugin says that it is ready.
        """
        await self.stop_plugin()
        arguments = {
            "--node-name": NODE,
            "--kubelet-socket": self.kubelet.plugins,
            "--pod-resources-socket": self.kubelet.pod_resources,
            "--cgroup-root": self.directory / "cgroup",
            "--port": 0,
        }
        flags = [str(part) for pair in arguments.items() for part in pair]
        launcher = ["-m", "bench.plugin.launcher", str(self.directory), str(self._port), str(self._state), "--", *flags]
        self.plugin = Measured("plugin", arguments=launcher, directory=self.directory)
        began = time.time()
        await self.plugin.start()
        advertised = await self.kubelet.advertised()
        await self.plugin.ready()
        return advertised - began, (self.directory / "plugin.ready").stat().st_mtime - began

    async def stop_plugin(self) -> None:
        """End it as SIGTERM does."""
        if self.plugin is not None:
            await self.kubelet.forget_plugin()  # first, so that its end is no news
            await self.plugin.stop()
            self.plugin = None

    async def create(self, pod: PlannedPod) -> None:
        """Create a pod that is bound to the node already."""
        await self._post(f"/api/v1/namespaces/{NAMESPACE}/pods", pod.as_json())

    async def report_running(self, pod: PlannedPod) -> None:
        """Write the pod's status as the kubelet does."""
        status = pod.running(self.kubelet.books.taken[pod.name])
        headers = {"Content-Type": "application/merge-patch+json"}
        async with self._api.patch(f"{pod.path}/status", json={"status": status}, headers=headers):
            pass

    async def delete(self, pod: PlannedPod) -> None:
        """Delete a pod whose processes have ended."""
        self.kubelet.remove(pod.name)
        async with self._api.delete(pod.path, params={"gracePeriodSeconds": 0}):
            pass

    async def writes(self) -> int:
        """How many writes the plugin has made at the API server."""
        async with self._api.get(WRITES_PATH) as answer:
            found: dict[str, int] = await answer.json()
        return sum(found.values())

    async def settled(self) -> int:
        """Wait until the plugin writes no more for a moment; returns `writes`."""
        count, since = await self.writes(), time.monotonic()
        while time.monotonic() - since < _QUIET_SECONDS:
            await asyncio.sleep(_POLL_SECONDS)
            if (now := await self.writes()) != count:
                count, since = now, time.monotonic()
        return count

    async def _post(self, path: str, body: dict[str, Any]) -> None:
        async with self._api.post(path, json=body):
            pass


def _certificates(directory: Path) -> list[str]:
    """Make a CA, the API server's certificate, and a service account that trusts it; returns the server's flags."""
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(directory / "ca.crt")
    (directory / "token").write_text("the-plugin-s-token")
    certificate.cert_chain_pems[0].write_to_path(directory / "tls.crt")
    certificate.private_key_pem.write_to_path(directory / "tls.key")
    return ["--tls-cert", str(directory / "tls.crt"), "--tls-key", str(directory / "tls.key")]
