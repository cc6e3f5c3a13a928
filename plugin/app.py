"""The plugin's process: reads what it was told, finds the GPUs, and lives one life of the device plugin after another.

A life ends when the process is to end, or when something has changed that only another life can follow: a setting, the
GPUs themselves. Between two lives nothing is forgotten: grants are in the journal, containers run on.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any, Final

from fracgpu.errors import FracgpuError, UnavailableError
from fracgpu.kube.backoff import TroubleLog
from fracgpu.kube.client import KubeClient
from fracgpu.names import GpuUuid
from fracgpu.process.running import announce_ready
from fracgpu.process.serving import HttpServer
from fracgpu.quantities import Mib
from plugin.deviceplugin import DevicePlugin
from plugin.gpus.cards import Card
from plugin.gpus.layout import check_unit
from plugin.gpus.session import GpuSession
from plugin.http import HttpApp
from plugin.injection.injector import Injector
from plugin.isolation.choosing import NodeMeans, make_isolation, mps_daemon
from plugin.isolation.driver_limit import DriverLimitNeeds, names_hook
from plugin.isolation.mechanism import Isolation
from plugin.isolation.mps import MpsNeeds, find_control
from plugin.isolation.mps_daemon import MpsDaemon
from plugin.isolation.preload import PreloadTemplate
from plugin.kubelet.cgroups import PodCgroups
from plugin.kubelet.podresources import PodResourcesClient
from plugin.metrics import Metrics
from plugin.settings import PluginSettings
from plugin.sharing.file import PluginFile
from plugin.sharing.filewatch import FileWatch
from plugin.wishes import NodeWish

_PREPARE_SECONDS: Final = 30.0  # between two attempts to write what containers need to see their GPUs
_LEFTOVER_SECONDS: Final = 5.0  # between two looks whether an MPS daemon of before may be ended
_CDI_FOLDERS: Final = (Path("/etc/cdi"), Path("/var/run/cdi"))

_logger = logging.getLogger(__name__)


async def serve(argv: Sequence[str], settings: PluginSettings, file: PluginFile, stop: asyncio.Event) -> None:
    """Run the device plugin until `stop` is set.

    Args:
        argv: the command line, by which a changed file is read.
        settings: what it and the file said.
        file: the file.
        stop: set when the process is to end.

    Raises:
        SettingError: a setting cannot be used on this node.
        UnavailableError: NVML does not answer.
    """
    gpus, metrics = GpuSession(), Metrics()
    gpus.on_xid = metrics.xid
    try:
        while not stop.is_set():
            life = _Life(argv, settings, file, gpus, metrics, stop)
            await life.run()
            settings, file = life.settings, life.file
    finally:
        await gpus.close()


class _Life:
    """One life of the plugin, and all that it needs.

    Attributes:
        settings: those of this life; when it has ended, those of the next.
        file: what the file says; likewise.
    """

    def __init__(
        self,
        argv: Sequence[str],
        settings: PluginSettings,
        file: PluginFile,
        gpus: GpuSession,
        metrics: Metrics,
        stop: asyncio.Event,
    ) -> None:
        self._argv = argv
        self.settings = settings
        self.file = file
        self._gpus = gpus
        self._metrics = metrics
        self._stop = stop
        self._changed = asyncio.Event()  # the file says something that another life has to follow
        self._plugin: DevicePlugin | None = None

    async def run(self) -> None:
        """Live, until the process is to end or another life has to begin."""
        settings = self.settings
        for message in self.file.messages:
            _logger.warning("configuration", extra={"note": message})
        async with AsyncExitStack() as closing:
            cgroups = PodCgroups(settings.cgroup_root)
            cgroups.check()
            preload = _preload(settings)
            checks = {"device plugin": self._unready}
            http = HttpApp(registry=self._metrics.registry, checks=checks)
            server = HttpServer(http, host=settings.host, port=settings.port, tls_cert=None, tls_key=None)
            await server.start()
            closing.push_async_callback(server.stop)
            found = await self._unless_stopped(self._gpus.find(settings))
            if found is None:
                return
            check_unit(found.cards, unit=Mib(settings.memory_unit_mib))
            client = await KubeClient.connect(kubeconfig=settings.kubeconfig)
            closing.push_async_callback(client.close)
            devices = PodResourcesClient(settings.pod_resources_socket)
            closing.push_async_callback(devices.close)
            means = await self._means(found.cards, preload)
            injector = _injector(settings)
            injection = _Injection(injector, found.cards, driver_version=self._gpus.nvml.driver_version)
            await injection.attempt()
            plugin = DevicePlugin(
                settings,
                rules=self.file.sharing,
                cards=found.cards,
                problems=self._gpus.problems,
                client=client,
                devices=devices,
                cgroups=cgroups,
                processes=partial(self._gpus.ask, "processes", self._gpus.nvml.processes),
                metrics=self._metrics,
                injector=injector,
                isolate=lambda wish, on_change: self._isolate(wish, means, on_change),
            )
            closing.push_async_callback(plugin.stop)
            self._plugin = plugin
            self._gpus.on_problems = lambda: plugin.report(self._gpus.problems)
            leftover = mps_daemon(means.mps, modes=_ComputeModes(self._gpus), on_change=lambda: None)
            async with asyncio.TaskGroup() as tasks:
                running = [
                    tasks.create_task(injection.run(), name="injection"),
                    tasks.create_task(plugin.run(on_serving=partial(self._announce, server.url)), name="device plugin"),
                ]
                if leftover is not None:
                    running.append(tasks.create_task(_end_leftover(leftover, plugin), name="MPS of before"))
                if settings.config_file is not None:
                    running.append(tasks.create_task(self._follow_file(settings.config_file), name="file watch"))
                await _first_of(self._stop, self._changed, plugin.outdated, self._gpus.changed)
                for task in running:
                    task.cancel()

    async def _unless_stopped(self, work: Coroutine[Any, Any, Any]) -> Any:
        """The result of some work; None where the process is to end before."""
        working = asyncio.ensure_future(work)
        stopping = asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
            return await working if working.done() else None
        finally:
            working.cancel()
            stopping.cancel()

    async def _means(self, cards: Sequence[Card], preload: PreloadTemplate | None) -> NodeMeans:
        """What this node has to keep containers within their shares."""
        settings = self.settings
        version = self._gpus.nvml.driver_version
        return NodeMeans(
            DriverLimitNeeds(
                version,
                settings.device_list_strategy,
                cgroup_v2=(settings.cgroup_root / "cgroup.controllers").exists(),
                hook=await asyncio.to_thread(names_hook, (*_CDI_FOLDERS, settings.cdi_spec_dir)),
                cards=cards,
            ),
            MpsNeeds(
                settings.mps_root,
                find_control(settings.host_root / settings.nvidia_driver_root.relative_to("/")),
                version,
                cards,
                capabilities=await self._capabilities(cards),
            ),
            preload,
        )

    async def _capabilities(self, cards: Sequence[Card]) -> dict[GpuUuid, tuple[int, int]]:
        found = {}
        for card in cards:
            whole = card.mig.parent if card.mig else card.uuid
            try:
                found[card.uuid] = await self._gpus.ask(
                    f"the capability of {whole}", partial(self._gpus.nvml.cuda_compute_capability, whole)
                )
            except UnavailableError as exc:
                _logger.warning("no compute capability", extra={"gpu": card.uuid, "error": str(exc)})
        return found

    def _isolate(self, wish: NodeWish, means: NodeMeans, on_change: Callable[[], None]) -> Isolation:
        isolation = make_isolation(wish.isolation, means=means, modes=_ComputeModes(self._gpus), on_change=on_change)
        _logger.info("isolation", extra={"status": isolation.status})
        return isolation

    async def _follow_file(self, path: Path) -> None:
        watch = FileWatch(self._argv, path=path, file=self.file, changed=self._file_changed, failed=_complain)
        await watch.run()

    def _file_changed(self, settings: PluginSettings, file: PluginFile) -> None:
        for message in file.messages:
            _logger.warning("configuration", extra={"note": message})
        _logger.info("the configuration file has changed")
        is_only_sharing = settings == self.settings
        self.settings, self.file = settings, file
        if is_only_sharing and self._plugin is not None:
            self._plugin.follow_rules(file.sharing)
        else:
            self._changed.set()

    def _announce(self, url: str) -> None:
        announce_ready(url, ready_file=self.settings.ready_file)

    def _unready(self) -> str:
        return self._plugin.unready if self._plugin else "no GPUs were found yet"


class _Injection:
    """Gets ready to let containers see GPUs, again and again until it works; meanwhile `Allocate` refuses, and why."""

    def __init__(self, injector: Injector, cards: Sequence[Card], *, driver_version: str) -> None:
        self._injector = injector
        self._cards = cards
        self._driver_version = driver_version
        self._is_ready = False
        self._trouble = TroubleLog(_logger, subject="letting containers see GPUs", clock=time.monotonic)

    async def attempt(self) -> None:
        try:
            await asyncio.to_thread(self._injector.prepare, self._cards, driver_version=self._driver_version)
        except UnavailableError as exc:
            self._trouble.failed(exc)
            return
        self._trouble.succeeded()
        self._is_ready = True
        for gpu, problem in self._injector.problems.items():
            _logger.error("unusable GPU", extra={"gpu": gpu, "problem": problem})

    async def run(self) -> None:
        while not self._is_ready:
            await asyncio.sleep(_PREPARE_SECONDS)
            await self.attempt()


class _ComputeModes:
    """Sets compute modes by NVML (see `plugin.isolation.mps_daemon.ComputeModes`)."""

    def __init__(self, gpus: GpuSession) -> None:
        self._gpus = gpus

    def set(self, uuid: GpuUuid, *, exclusive: bool) -> None:
        self._gpus.nvml.set_compute_mode(uuid, exclusive=exclusive)


async def _end_leftover(daemon: MpsDaemon, plugin: DevicePlugin) -> None:
    """End the MPS daemon of an earlier life, where this one has another isolation, as soon as nobody holds a GPU."""
    while plugin.mechanism in ("", "mps") or not plugin.is_idle:
        if plugin.mechanism == "mps":
            return
        await asyncio.sleep(_LEFTOVER_SECONDS)
    try:
        await daemon.end()
    except FracgpuError as exc:
        _logger.error("an MPS daemon that is no longer wanted cannot be ended", extra={"error": str(exc)})


def _preload(settings: PluginSettings) -> PreloadTemplate | None:
    if settings.preload_library is None:
        return None
    return PreloadTemplate(settings.preload_library, env=settings.preload_env, mounts=settings.preload_mounts)


def _injector(settings: PluginSettings) -> Injector:
    return Injector(
        strategies=settings.device_list_strategy,
        id_strategy=settings.device_id_strategy,
        pass_device_specs=settings.pass_device_specs,
        driver_root=settings.nvidia_driver_root,
        cdi_spec_dir=settings.cdi_spec_dir,
        cdi_hook_path=settings.nvidia_cdi_hook_path,
        host_root=settings.host_root,
    )


def _complain(sentence: str) -> None:
    _logger.error("the configuration file cannot be used", extra={"problem": sentence})


async def _first_of(*events: asyncio.Event) -> None:
    """Wait until one of them is set."""
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
