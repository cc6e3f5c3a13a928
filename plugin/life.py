"""One life of the device plugin with all that it needs: prepared while another may go on, then serving, then ended."""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from fracgpu.kube.client import KubeClient
from fracgpu.process.running import announce_ready
from fracgpu.quantities import Mib
from plugin.deviceplugin import DevicePlugin
from plugin.gpus.discovery import Discovery
from plugin.gpus.layout import check_unit
from plugin.isolation.choosing import NodeMeans
from plugin.kubelet.cgroups import PodCgroups
from plugin.kubelet.front import KubeletFront
from plugin.kubelet.podresources import PodResourcesClient
from plugin.lasting import Lasting
from plugin.means import Injection, end_leftover, find_means, isolate, make_injector, read_preload
from plugin.settings import PluginSettings
from plugin.sharing.file import PluginFile
from plugin.sharing.filewatch import FileWatch

_logger = logging.getLogger(__name__)


class Life:
    """One life of the plugin, and all that it needs.

    Attributes:
        next: settings and file of the life that follows this one.
        changed: set when there has to be one.
        over: set when this one has ended by itself, of a defect or an error.
    """

    def __init__(self, argv: Sequence[str], settings: PluginSettings, file: PluginFile, lasting: Lasting) -> None:
        self._argv = argv
        self._settings = settings
        self._file = file
        self._lasting = lasting
        self._gpus = lasting.gpus
        self._closing = AsyncExitStack()
        self._plugin: DevicePlugin | None = None
        self._front: KubeletFront | None = None
        self._found: Discovery | None = None
        self._prepared = asyncio.Event()
        self._may_serve = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.next = (settings, file)
        self.changed = asyncio.Event()
        self.over = asyncio.Event()

    async def prepare(self, *, is_first: bool) -> None:
        """Learn all that can be learned while another life may still go on.

        Raises:
            FracgpuError: this life is not possible here, or now.
            ExceptionGroup: of such errors.
        """
        settings = self._settings
        for message in self._file.messages:
            _logger.warning("configuration", extra={"note": message})
        cgroups = PodCgroups(settings.cgroup_root)
        cgroups.check()
        preload = read_preload(settings)
        await self._lasting.serve_http(settings)
        self._found = found = await self._gpus.find(settings, is_first=is_first)
        check_unit(found.cards, unit=Mib(settings.memory_unit_mib))
        client = await KubeClient.connect(kubeconfig=settings.kubeconfig, observer=self._lasting.metrics.kube)
        self._closing.push_async_callback(client.close)
        devices = PodResourcesClient(settings.pod_resources_socket)
        self._closing.push_async_callback(devices.close)
        means = await find_means(settings, self._gpus, found.cards, preload)
        injector = make_injector(settings)
        injection = Injection(injector, found.cards, driver_version=self._gpus.nvml.driver_version)
        await injection.attempt()
        self._plugin = DevicePlugin(
            settings,
            rules=self._file.sharing,
            cards=found.cards,
            problems=self._gpus.problems,
            client=client,
            devices=devices,
            cgroups=cgroups,
            processes=partial(self._gpus.ask, "processes", self._gpus.nvml.processes),
            metrics=self._lasting.metrics,
            injector=injector,
            isolate=lambda wish, on_change: isolate(wish, means, self._gpus, on_change),
        )
        self._front = await self._lasting.front_at(settings.kubelet_socket)
        if self._front is not self._lasting.front:
            self._closing.push_async_callback(self._give_up_front, self._front)
        self._task = asyncio.create_task(self._live(self._plugin, self._front, injection, means), name="life")
        self._task.add_done_callback(lambda _: self.over.set())
        await first_of(self._prepared, self.over)
        self.raise_for_defect()

    async def serve(self) -> None:
        """Answer the kubelet from now on; whoever did before has ended, and this life is prepared."""
        plugin, front, found = self._plugin, self._front, self._found
        if plugin is None or front is None or found is None:
            raise RuntimeError("this life has not been prepared")
        await self._lasting.show(front)
        self._lasting.unready = self._unready
        self._gpus.on_problems = lambda: plugin.report(self._gpus.problems)
        self._gpus.follow(found, self._settings)
        plugin.report(
            self._gpus.problems
        )  # of a GPU that fell ill while this life was prepared, the one before was told
        self._may_serve.set()

    def raise_for_defect(self) -> None:
        """Raise what has ended this life, or the watch over its GPUs, by itself."""
        if self._task is not None and self._task.done():
            self._task.result()
        if self._gpus.broken.is_set():
            raise RuntimeError("the watch over the GPUs has ended") from self._gpus.defect

    async def reconsider(self, stop: asyncio.Event, *, seconds: float) -> None:
        """Wait for so long, or for something new, because the life that should follow is not possible now."""
        self.changed.clear()
        await first_of(stop, self.over, self.changed, seconds=seconds)
        if self.next[0] != self._settings or (self._plugin is not None and self._plugin.outdated.is_set()):
            self.changed.set()

    async def end(self) -> None:
        """End; whoever lives next may grant when this has returned."""
        if self._front is not None and self._may_serve.is_set():
            await self._front.detach()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._closing.aclose()

    async def _live(self, plugin: DevicePlugin, front: KubeletFront, injection: Injection, means: NodeMeans) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(
                plugin.run(front, prepared=self._prepared, may_serve=self._may_serve), name="device plugin"
            )
            await self._may_serve.wait()
            await self._announce()
            tasks.create_task(injection.run(plugin), name="injection")
            tasks.create_task(self._follow_plugin(plugin), name="outdated")
            tasks.create_task(end_leftover(means, self._gpus, plugin), name="MPS of before")
            if self._settings.config_file is not None:
                tasks.create_task(self._follow_file(self._settings.config_file), name="file watch")

    async def _give_up_front(self, front: KubeletFront) -> None:
        """Close what the kubelet was never shown."""
        if front is not self._lasting.front:
            await front.close()

    async def _follow_plugin(self, plugin: DevicePlugin) -> None:
        await plugin.outdated.wait()
        self.changed.set()

    async def _follow_file(self, path: Path) -> None:
        watch = FileWatch(self._argv, path=path, file=self._file, changed=self._file_changed, failed=_complain)
        await watch.run()

    def _file_changed(self, settings: PluginSettings, file: PluginFile) -> None:
        _logger.info("the configuration file has changed")
        self.next = (settings, file)
        if settings != self._settings or self._plugin is None:
            self.changed.set()
            return
        for message in file.messages:
            _logger.warning("configuration", extra={"note": message})
        self._file = file
        self.changed.clear()  # of a change that was not possible, and has been taken back
        self._plugin.follow_rules(file.sharing)

    async def _announce(self) -> None:
        if not self._lasting.is_announced:
            self._lasting.is_announced = True
            server = await self._lasting.serve_http(self._settings)
            announce_ready(server.url, ready_file=self._settings.ready_file)

    def _unready(self) -> str:
        plugin = self._plugin.unready if self._plugin else ""
        unheard = self._front.unheard if self._front else ""
        return plugin or (f"the kubelet does not listen for {unheard}" if unheard else "")


def _complain(sentence: str) -> None:
    _logger.error("the configuration file cannot be used", extra={"problem": sentence})


async def first_of(*events: asyncio.Event, seconds: float | None = None) -> None:
    """Wait until one of them is set, or for so long."""
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
