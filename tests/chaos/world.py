"""A cluster in which anything may happen: the simulation with several extender replicas.

In front of them is a Service, between them (and the plugins) and the API server a gateway, and Redis is a server that
can lose its data. What can happen is in `events`; here are the operations that concern more than one part. None waits
for what it causes, and each takes effect whatever the state of the world, so that any sequence of them can be played.
What must hold is `truth`'s part, the end of a run `ending`'s.
"""

import asyncio
import contextlib
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cli.processes import ServiceProcess
from cli.simulation import SimulatedNode, Simulation
from fracgpu.names import NodeName, PodUid
from playground.cluster import ApiStatusError, JsonObject
from playground.node.containers import Container
from playground.node.kubelet import REJECTED
from playground.scheduling.scheduler import Scheduler
from tests.chaos.gateway import Gateway
from tests.chaos.redis_server import RedisServer
from tests.chaos.service import Replica, Service
from tests.chaos.shapes import LINGER_LABEL, NAMESPACE, Shape, manifest
from tests.chaos.truth import Truth

NODES = (
    SimulatedNode("node-1", "Test GPU", 10240, 2),  # of 20 units
    SimulatedNode("node-2", "Test GPU", 10240, 1),
    SimulatedNode("node-3", "Large Test GPU", 15360, 2),  # of 30 units
    SimulatedNode("node-4", "Odd Test GPU", 11264, 1),  # of 22 units: 4 seats do not divide them evenly
)
_MAX_BACKOFF_SECONDS = 3.0  # kube-scheduler's 10 s would leave a run of minutes little to see
_GONE_SECONDS = 30.0


class World(Simulation):
    """One cluster, between `start` and `stop`.

    Args:
        directory: an empty folder of a short path.
        nodes: the nodes.
        replicas: how many extenders.
        seed: for the scheduler's choice between equal nodes.

    Attributes:
        truth: what is really held.
        service: the way to the extenders.
        replicas: the extenders, by number.
        gateway: the way of the services to the API server; its clients are the replicas' and the nodes' names.
        server: Redis.
    """

    def __init__(
        self, directory: Path, *, nodes: Sequence[SimulatedNode] = NODES, replicas: int = 3, seed: int = 0
    ) -> None:
        self.server = RedisServer(directory / "redis")
        super().__init__(directory, nodes=nodes, redis_url=self.server.url)
        self.node_names = [NodeName(node.name) for node in nodes]
        self.replicas = [
            Replica(
                f"extender-{number}",
                arguments=["-m", "extender", *self._options(f"extender-{number}")],
                directory=directory,
            )
            for number in range(replicas)
        ]
        self.extender = self.replicas[0]
        self.truth = Truth(self.kubelets, gpus={NodeName(node.name): node.gpus() for node in nodes})
        self.service = Service(self.replicas, nodes=self.node_names)
        self.gateway = Gateway(
            *(replica.name for replica in self.replicas), *self.node_names, server_url=lambda: self.api.url
        )
        self._seed = seed
        self._down: set[ServiceProcess] = set()  # what we have killed
        self._tasks: set[asyncio.Task[None]] = set()
        for kubelet in self.kubelets.values():
            kubelet.runtime.on_sigterm = _linger

    async def start(self) -> None:
        """Start everything; returns when all replicas can decide and every node offers its GPUs."""
        try:
            await self.server.start()
            self._stack.push_async_callback(self.server.kill)
            await self.gateway.start()
            self._stack.push_async_callback(self.gateway.stop)
            for client in self.gateway.clients:
                self._kubeconfig(client).write_text(self.gateway.kubeconfig(client))
            await self.service.start()
            self._stack.push_async_callback(self.service.stop)
            for replica in self.replicas[1:]:  # the first is the simulation's own
                self._stack.push_async_callback(replica.stop)
                await replica.start()
        except BaseException:
            await self.stop()
            raise
        await super().start()
        assert self.scheduler is not None
        await self.scheduler.stop()
        self.extender_url = self.service.url
        self.scheduler = Scheduler(
            self.api.cluster,
            extender_url=self.service.url,
            initial_backoff=0.2,
            max_backoff=_MAX_BACKOFF_SECONDS,
            seed=self._seed,
        )
        for replica in self.replicas:
            self.service.admit_when_ready(replica)
        await self.service.admitted()
        await self.scheduler.start()
        self._stack.push_async_callback(self.scheduler.stop)
        self._stack.push_async_callback(self._end_tasks)

    async def stop(self) -> None:
        """End everything."""
        for replica in self.replicas:
            replica.thaw()
        await super().stop()

    # Pods.

    async def create(self, pods: Mapping[str, Shape]) -> None:
        """Create pods; one whose name is taken is left as it is."""
        for name, shape in pods.items():
            with contextlib.suppress(ApiStatusError):
                await self.api.cluster.create("pods", manifest(name, shape))

    async def delete(self, names: Iterable[str], *, force: bool = False) -> None:
        """Delete pods, at once or with their grace period."""
        for name in names:
            with contextlib.suppress(ApiStatusError):
                await self.api.cluster.delete("pods", name, namespace=NAMESPACE, grace_seconds=0 if force else None)

    async def recreate(self, name: str, shape: Shape, *, force: bool) -> None:
        """Delete a pod and create another under its name as soon as it is free, as a StatefulSet does."""
        await self.delete([name], force=force)
        self._in_background(self._create_when_gone(name, shape))

    async def crash(self, name: str, *, back_off_seconds: float) -> None:
        """End a pod's processes with an error; its kubelet starts them again after a while, if it does at all."""
        ended = self._end_processes(name, exit_code=1)
        self._in_background(self._notice_after(back_off_seconds, ended))

    async def finish(self, name: str) -> None:
        """Have a pod's processes end by themselves."""
        await self._notice_after(0, self._end_processes(name, exit_code=0))

    async def fail_from_outside(self, name: str) -> None:
        """Write into a pod's status that it failed, as the node lifecycle and eviction controllers do."""
        with contextlib.suppress(ApiStatusError):
            await self.api.cluster.patch(
                "pods", name, {"status": {"phase": "Failed"}}, namespace=NAMESPACE, subresource="status"
            )

    # Processes.

    async def kill(self, process: ServiceProcess) -> None:
        """Kill -9 an extender or a plugin."""
        self._down.add(process)
        await process.kill()

    async def start_extender(self, replica: Replica) -> None:
        """Start a replica that was killed; nothing happens to one that runs."""
        if await self._start_again(replica):
            self.service.admit_when_ready(replica)

    async def thaw_extender(self, replica: Replica) -> None:
        """Let a frozen replica go on, with what it believed when it froze."""
        if replica.is_frozen:
            replica.thaw()
            self.service.admit_when_ready(replica)

    async def start_plugin(self, node: NodeName) -> None:
        """Start a device plugin that was killed; nothing happens to one that runs."""
        await self._start_again(self.plugins[node])

    async def reboot(self, node: NodeName) -> None:
        """End everything on a node, and start its kubelet and its plugin again."""
        await self.kill(self.plugins[node])
        await self.kubelets[node].stop()
        await self.kubelets[node].runtime.close()
        await self.kubelets[node].start()
        await self.start_plugin(node)

    def cut_watches(self, *, compact: bool) -> None:
        """Break every watch; with `compact` none can go on where it was."""
        self.api.cut_watches()
        if compact:
            self.api.compact()

    # The end.

    async def put_right(self) -> None:
        """Undo all that is wrong: everything runs, nobody is frozen, cut off or slow."""
        self.service.stop_echoes()
        for client in self.gateway.clients.values():
            await client.calm()
        await self.server.start()
        for replica in self.replicas:
            await self.thaw_extender(replica)
            await self.start_extender(replica)
        for node in self.node_names:
            await self.start_plugin(node)
        await self.service.admitted()
        for plugin in self.plugins.values():
            await plugin.ready()
        await self.joined()
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def refused(self) -> dict[PodUid, str]:
        """The pods that their node's kubelet or plugin refused, which nobody tries again, and why."""
        pods, _ = await self.api.cluster.list("pods")
        return {
            PodUid(pod["metadata"]["uid"]): f"{pod['metadata']['name']} on {pod['spec'].get('nodeName')}: "
            f"{pod['status'].get('message')}"
            for pod in pods
            if pod["status"].get("reason") == REJECTED
        }

    def died(self) -> list[ServiceProcess]:
        """The processes that ended without having been killed by an operation."""
        processes = (*self.replicas, *self.plugins.values(), self.webhook)
        return [process for process in processes if not process.is_running and process not in self._down]

    def gpu_count(self, node: NodeName) -> int:
        """How many GPUs a node has."""
        return next(found.count for found in self._nodes if found.name == node)

    async def _start_again(self, process: ServiceProcess) -> bool:
        """Start a process that does not run; whether it had to be started."""
        self._down.discard(process)
        if process.is_running:
            return False
        await process.start()
        return True

    def _kubeconfig(self, client: str) -> Path:
        return self._directory / f"{client}.kubeconfig"

    def _options(self, client: str) -> list[str]:
        return [
            *self._extender_options(),
            "--port",
            "0",
            "--pages-port",
            "0",
            "--kubeconfig",
            str(self._kubeconfig(client)),
        ]

    def _plugin_command(self, node: str, root: Path) -> list[str]:
        return [*super()._plugin_command(node, root), "--kubeconfig", str(self._kubeconfig(node))]

    async def _create_when_gone(self, name: str, shape: Shape) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GONE_SECONDS):
                while await self._find(name):  # noqa: ASYNC110 (as a controller that is told late)
                    await asyncio.sleep(0.05)
            await self.create({name: shape})

    async def _find(self, name: str) -> JsonObject | None:
        try:
            return await self.api.cluster.get("pods", name, namespace=NAMESPACE)
        except ApiStatusError:
            return None

    def _end_processes(self, name: str, *, exit_code: int) -> list[tuple[NodeName, PodUid, str]]:
        ended = []
        for node, kubelet in self.kubelets.items():
            for container in kubelet.runtime.alive():
                if container.config.pod["metadata"]["name"] == name:
                    kubelet.runtime.end(container, exit_code)
                    ended.append((node, container.config.pod_uid, container.config.name))
        return ended

    async def _notice_after(self, seconds: float, ended: list[tuple[NodeName, PodUid, str]]) -> None:
        """Have the kubelets look at what ended; until then they know nothing of it."""
        await asyncio.sleep(seconds)
        for node, uid, name in ended:
            self.kubelets[node].finish(uid, name, 0)

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _end_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _linger(container: Container) -> None:
    """React to SIGTERM as late as the pod's label says."""
    await asyncio.sleep(float(container.config.pod["metadata"]["labels"][LINGER_LABEL]))
