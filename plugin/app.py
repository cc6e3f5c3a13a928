"""The plugin's process: reads what it was told, finds the GPUs, and lives one life of the device plugin after another.

A life ends when the process is to end, or when something has changed that only another life can follow: a setting, the
GPUs or their driver, the isolation. The next one is prepared while the old one goes on; where it cannot be, the old one
stays, and it is tried again. What outlasts them: the kubelet's view of us, the watch over the GPUs, metrics and probes.
Grants are in the journal, containers run on.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from fracgpu.errors import FracgpuError, UnavailableError
from fracgpu.kube.backoff import TroubleLog
from fracgpu.kube.client import KubeClient
from fracgpu.names import GpuUuid
from fracgpu.process.running import announce_ready, errors_in
from fracgpu.process.serving import HttpServer
from fracgpu.quantities import Mib
from plugin.deviceplugin import DevicePlugin
from plugin.gpus.cards import Card
from plugin.gpus.discovery import Discovery
from plugin.gpus.layout import check_unit
from plugin.gpus.session import RETRY_SECONDS, GpuSession
from plugin.http import HttpApp
from plugin.injection.injector import Injector
from plugin.isolation.choosing import NodeMeans, make_isolation, mps_daemon
from plugin.isolation.driver_limit import DriverLimitNeeds, names_hook
from plugin.isolation.mechanism import Isolation
from plugin.isolation.mps import MpsNeeds, find_control
from plugin.isolation.mps_daemon import MpsDaemon
from plugin.isolation.preload import PreloadTemplate
from plugin.kubelet.cgroups import PodCgroups
from plugin.kubelet.front import KubeletFront
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
    lasting = _Lasting()
    trouble = TroubleLog(_logger, subject="following a change; what was before stays in force", clock=time.monotonic)
    life: _Life | None = None
    try:
        while not stop.is_set():
            following = _Life(argv, *(life.next if life else (settings, file)), lasting)
            try:
                is_prepared = await _unless(stop, following.prepare(is_first=life is None))
            except (FracgpuError, ExceptionGroup) as exc:
                await following.end()
                errors = list(errors_in(exc))
                if life is None or not all(isinstance(error, FracgpuError) for error in errors):
                    raise
                trouble.failed(FracgpuError("; ".join(map(str, errors))))
                await _first_of(stop, life.over, seconds=RETRY_SECONDS)
                continue
            except BaseException:
                await following.end()
                raise
            if not is_prepared:
                await following.end()
                break
            trouble.succeeded()
            if life is not None:
                await life.end()
            life = following
            await life.serve()
            await _first_of(stop, life.over, life.changed, lasting.gpus.changed, lasting.gpus.broken)
            life.raise_for_defect()
    finally:
        if life is not None:
            await life.end()
        await lasting.close()


class _Lasting:
    """What outlasts the lives of the plugin."""

    def __init__(self) -> None:
        self.gpus = GpuSession()
        self.metrics = Metrics()
        self.gpus.on_xid = self.metrics.xid
        self.unready: Callable[[], str] = lambda: "no GPUs were found yet"
        self.front: KubeletFront | None = None
        self._http: HttpServer | None = None
        self._address: tuple[str, int] | None = None
        self.is_announced = False

    async def serve_http(self, host: str, port: int) -> HttpServer:
        """Serve probes and metrics there, and nowhere else any more.

        Raises:
            SettingError: that address cannot be listened on; what was before goes on.
        """
        if self._http is None or self._address != (host, port):
            app = HttpApp(registry=self.metrics.registry, checks={"device plugin": lambda: self.unready()})
            server = HttpServer(app, host=host, port=port, tls_cert=None, tls_key=None, bounds_headers=True)
            await server.start()
            before, self._http, self._address = self._http, server, (host, port)
            if before is not None:
                await before.stop()
        return self._http

    async def front_at(self, kubelet: Path) -> KubeletFront:
        """What the kubelet with this socket sees.

        Raises:
            SettingError: our sockets cannot be made beside it.
        """
        if self.front is None or self.front.kubelet != kubelet:
            front = KubeletFront(kubelet, metrics=self.metrics)
            await front.start()
            before, self.front = self.front, front
            if before is not None:
                await before.close()
        return self.front

    async def close(self) -> None:
        if self.front is not None:
            await self.front.close()
        if self._http is not None:
            await self._http.stop()
        await self.gpus.close()


class _Life:
    """One life of the plugin, and all that it needs.

    Attributes:
        next: settings and file of the life that follows this one.
        changed: set when there has to be one.
        over: set when this one has ended by itself, of a defect or an error.
    """

    def __init__(self, argv: Sequence[str], settings: PluginSettings, file: PluginFile, lasting: _Lasting) -> None:
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

    async def prepare(self, *, is_first: bool) -> bool:
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
        preload = _preload(settings)
        await self._lasting.serve_http(settings.host, settings.port)
        self._found = found = await self._gpus.find(settings, is_first=is_first)
        check_unit(found.cards, unit=Mib(settings.memory_unit_mib))
        client = await KubeClient.connect(kubeconfig=settings.kubeconfig)
        self._closing.push_async_callback(client.close)
        devices = PodResourcesClient(settings.pod_resources_socket)
        self._closing.push_async_callback(devices.close)
        means = await self._means(found.cards, preload)
        injector = _injector(settings)
        injection = _Injection(injector, found.cards, driver_version=self._gpus.nvml.driver_version)
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
            isolate=lambda wish, on_change: self._isolate(wish, means, on_change),
        )
        self._front = await self._lasting.front_at(settings.kubelet_socket)
        self._task = asyncio.create_task(self._live(self._plugin, self._front, injection, means), name="life")
        self._task.add_done_callback(lambda _: self.over.set())
        await _first_of(self._prepared, self.over)
        self.raise_for_defect()
        return True

    async def serve(self) -> None:
        """Answer the kubelet from now on; whoever did before has ended."""
        plugin, found = self._plugin, self._found
        if plugin is None or found is None:
            return
        self._lasting.unready = self._unready
        self._gpus.on_problems = lambda: plugin.report(self._gpus.problems)
        self._gpus.follow(found, self._settings)
        self._may_serve.set()

    def raise_for_defect(self) -> None:
        """Raise what has ended this life, or the watch over its GPUs, by itself."""
        if self._task is not None and self._task.done():
            self._task.result()
        if self._gpus.broken.is_set():
            raise RuntimeError("the watch over the GPUs has ended") from self._gpus.defect

    async def end(self) -> None:
        """End; whoever lives next may grant when this has returned."""
        if self._front is not None and self._may_serve.is_set():
            await self._front.detach()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._closing.aclose()

    async def _live(self, plugin: DevicePlugin, front: KubeletFront, injection: "_Injection", means: NodeMeans) -> None:
        leftover = mps_daemon(means.mps, modes=_ComputeModes(self._gpus), on_change=lambda: None)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(
                plugin.run(front, prepared=self._prepared, may_serve=self._may_serve), name="device plugin"
            )
            await self._may_serve.wait()
            await self._announce()
            tasks.create_task(injection.run(plugin), name="injection")
            tasks.create_task(self._follow_plugin(plugin), name="outdated")
            if leftover is not None:
                tasks.create_task(_end_leftover(leftover, plugin), name="MPS of before")
            if self._settings.config_file is not None:
                tasks.create_task(self._follow_file(self._settings.config_file), name="file watch")

    async def _follow_plugin(self, plugin: DevicePlugin) -> None:
        await plugin.outdated.wait()
        self.changed.set()

    async def _means(self, cards: Sequence[Card], preload: PreloadTemplate | None) -> NodeMeans:
        """What this node has to keep containers within their shares."""
        settings = self._settings
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
        shared = [card for card in means.mps.cards if card.uuid not in wish.excluded]
        means = replace(
            means, mps=replace(means.mps, cards=shared), driver_limit=replace(means.driver_limit, cards=shared)
        )
        isolation = make_isolation(wish.isolation, means=means, modes=_ComputeModes(self._gpus), on_change=on_change)
        _logger.info("isolation", extra={"status": isolation.status})
        return isolation

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
            server = await self._lasting.serve_http(self._settings.host, self._settings.port)
            announce_ready(server.url, ready_file=self._settings.ready_file)

    def _unready(self) -> str:
        plugin = self._plugin.unready if self._plugin else ""
        unheard = self._front.unheard if self._front else ""
        return plugin or (f"the kubelet does not listen for {unheard}" if unheard else "")


class _ComputeModes:
    """Sets compute modes by NVML (see `plugin.isolation.mps_daemon.ComputeModes`)."""

    def __init__(self, gpus: GpuSession) -> None:
        self._gpus = gpus

    async def set(self, uuid: GpuUuid, *, exclusive: bool) -> None:
        await self._gpus.ask(
            f"the compute mode of {uuid}", partial(self._gpus.nvml.set_compute_mode, uuid, exclusive=exclusive)
        )


class _Injection:
    """Gets ready to let containers see GPUs, again and again until it works; meanwhile `Allocate` refuses, and why."""

    def __init__(self, injector: Injector, cards: Sequence[Card], *, driver_version: str) -> None:
        self._injector = injector
        self._cards = cards
        self._driver_version = driver_version
        self._is_ready = False
        self._problems: dict[GpuUuid, str] = {}
        self._trouble = TroubleLog(_logger, subject="letting containers see GPUs", clock=time.monotonic)

    async def attempt(self) -> None:
        try:
            await asyncio.to_thread(self._injector.prepare, self._cards, driver_version=self._driver_version)
        except UnavailableError as exc:
            self._trouble.failed(exc)
            self._is_ready = False
            return
        self._trouble.succeeded()
        self._is_ready = True
        problems = dict(self._injector.problems)
        for gpu in problems.keys() - self._problems.keys():
            _logger.error("unusable GPU", extra={"gpu": gpu, "problem": problems[gpu]})
        self._problems = problems

    async def run(self, plugin: DevicePlugin) -> None:
        """Keep it so: files of others come and go, and ours may be removed."""
        while True:
            await asyncio.sleep(_PREPARE_SECONDS)
            await self.attempt()
            if self._is_ready and plugin.is_idle:
                with suppress(UnavailableError):
                    await asyncio.to_thread(self._injector.retire)


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


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, bool]) -> bool:
    """Do some work; False where the process is to end before it is done."""
    working = asyncio.ensure_future(work)
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
        return await working if working.done() else False
    finally:
        stopping.cancel()
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)


async def _first_of(*events: asyncio.Event, seconds: float | None = None) -> None:
    """Wait until one of them is set, or for so long."""
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
