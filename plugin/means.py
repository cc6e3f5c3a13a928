"""What this node has to let containers see their GPUs and to keep them within their shares, made from its settings."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from fracgpu.errors import FracgpuError, UnavailableError
from fracgpu.names import GpuUuid
from fracgpu.trouble import TroubleLog
from plugin.deviceplugin import DevicePlugin
from plugin.gpus.cards import Card
from plugin.gpus.session import GpuSession
from plugin.injection.injector import Injector
from plugin.isolation.choosing import NodeMeans, make_isolation, mps_daemon
from plugin.isolation.driver_limit import DriverLimitNeeds, names_hook
from plugin.isolation.mechanism import Isolation
from plugin.isolation.mps import MpsNeeds, find_control
from plugin.isolation.preload import PreloadTemplate
from plugin.settings import PluginSettings
from plugin.wishes import NodeWish

_PREPARE_SECONDS: Final = 30.0  # between two attempts to write what containers need to see their GPUs
_LEFTOVER_SECONDS: Final = 5.0  # between two looks whether an MPS daemon of before may be ended
_CDI_FOLDERS: Final = (Path("/etc/cdi"), Path("/var/run/cdi"))

_logger = logging.getLogger(__name__)


async def find_means(
    settings: PluginSettings, gpus: GpuSession, cards: Sequence[Card], preload: PreloadTemplate | None
) -> NodeMeans:
    """What this node has to keep containers within their shares."""
    version = gpus.nvml.driver_version
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
            capabilities=await _capabilities(gpus, cards),
        ),
        preload,
    )


def isolate(wish: NodeWish, means: NodeMeans, gpus: GpuSession, on_change: Callable[[], None]) -> Isolation:
    """Make what keeps containers within their shares; excluded GPUs are left alone."""
    shared = [card for card in means.mps.cards if card.uuid not in wish.excluded]
    means = replace(means, mps=replace(means.mps, cards=shared), driver_limit=replace(means.driver_limit, cards=shared))
    isolation = make_isolation(wish.isolation, means=means, modes=_ComputeModes(gpus), on_change=on_change)
    _logger.info("isolation", extra={"status": isolation.status})
    return isolation


async def end_leftover(means: NodeMeans, gpus: GpuSession, plugin: DevicePlugin) -> None:
    """End the MPS daemon of an earlier life, where this one has another isolation, as soon as nobody holds a GPU."""
    daemon = mps_daemon(means.mps, modes=_ComputeModes(gpus), on_change=lambda: None)
    if daemon is None:
        return
    while plugin.mechanism in ("", "mps") or not plugin.is_idle:
        if plugin.mechanism == "mps":
            return
        await asyncio.sleep(_LEFTOVER_SECONDS)
    try:
        await daemon.end()
    except FracgpuError as exc:
        _logger.error("an MPS daemon that is no longer wanted cannot be ended", extra={"error": str(exc)})


async def _capabilities(gpus: GpuSession, cards: Sequence[Card]) -> dict[GpuUuid, tuple[int, int]]:
    found = {}
    for card in cards:
        whole = card.mig.parent if card.mig else card.uuid
        try:
            found[card.uuid] = await gpus.ask(
                f"the capability of {whole}", partial(gpus.nvml.cuda_compute_capability, whole)
            )
        except UnavailableError as exc:
            _logger.warning("no compute capability", extra={"gpu": card.uuid, "error": str(exc)})
    return found


class Injection:
    """Gets ready to let containers see GPUs, again and again until it works; meanwhile `Allocate` refuses, and why."""

    def __init__(self, injector: Injector, cards: Sequence[Card], *, driver_version: str) -> None:
        self._injector = injector
        self._cards = cards
        self._driver_version = driver_version
        self._is_ready = False
        self._problems: dict[GpuUuid, str] = {}
        self._trouble = TroubleLog(_logger, subject="letting containers see GPUs", clock=time.monotonic)

    async def attempt(self) -> None:
        """Get ready once; where that fails, `Allocate` refuses with the reason."""
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


def read_preload(settings: PluginSettings) -> PreloadTemplate | None:
    """The administrator's preload library; None where none is set.

    Raises:
        SettingError: it cannot be used.
    """
    if settings.preload_library is None:
        return None
    return PreloadTemplate(settings.preload_library, env=settings.preload_env, mounts=settings.preload_mounts)


def make_injector(settings: PluginSettings) -> Injector:
    """What lets containers see GPUs, as the settings say; not prepared yet."""
    return Injector(
        strategies=settings.device_list_strategy,
        id_strategy=settings.device_id_strategy,
        pass_device_specs=settings.pass_device_specs,
        driver_root=settings.nvidia_driver_root,
        cdi_spec_dir=settings.cdi_spec_dir,
        cdi_hook_path=settings.nvidia_cdi_hook_path,
        host_root=settings.host_root,
    )


class _ComputeModes:
    """Sets compute modes by NVML (see `plugin.isolation.mps_daemon.ComputeModes`)."""

    def __init__(self, gpus: GpuSession) -> None:
        self._gpus = gpus

    async def set(self, uuid: GpuUuid, *, exclusive: bool) -> None:
        await self._gpus.ask(
            f"the compute mode of {uuid}", partial(self._gpus.nvml.set_compute_mode, uuid, exclusive=exclusive)
        )
