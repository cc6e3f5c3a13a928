"""The node's GPUs for as long as this process lives: one session with NVML, and one watch over their health.

Both outlast the lives of `plugin.deviceplugin`: what is known of a GPU that fell ill is not forgotten because a setting
has changed.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Final, TypeVar

from fracgpu.errors import UnavailableError
from fracgpu.names import GpuUuid
from fracgpu.trouble import TroubleLog
from plugin.gpus.cards import Card
from plugin.gpus.discovery import Discovery
from plugin.gpus.layout import Problems
from plugin.gpus.nvml import Nvml
from plugin.gpus.patience import Patience
from plugin.gpus.watching import SESSION_SECONDS, GpuWatch
from plugin.settings import PluginSettings

RETRY_SECONDS: Final = 10.0
"""Between two attempts to find GPUs, where a node may be without a driver."""
_CLOSING_SECONDS: Final = 3.0

_T = TypeVar("_T")

_logger = logging.getLogger(__name__)


class GpuSession:
    """Knows the GPUs of this node.

    Attributes:
        nvml: the session; ask it through `ask`.
        problems: the GPUs that are not well, and why.
        changed: set when there are other GPUs, or another driver, than when `follow` was called.
        broken: set when nobody watches the GPUs any more, because of a `defect`.
        on_problems: called when `problems` has changed.
        on_xid: called with every Xid error.
    """

    def __init__(self) -> None:
        self.nvml = Nvml()
        self.problems: Problems = {}
        self.changed = asyncio.Event()
        self.broken = asyncio.Event()
        self.defect: BaseException | None = None
        self.on_problems: Callable[[], None] = lambda: None
        self.on_xid: Callable[[GpuUuid, int], None] = lambda _gpu, _xid: None
        self._patience = Patience()
        self._known: tuple[Card, ...] = ()  # those that are followed
        self._driver_version = ""  # when they were
        self._watch: GpuWatch | None = None
        self._watching: asyncio.Task[None] | None = None
        self._trouble = TroubleLog(_logger, subject="finding GPUs", clock=time.monotonic)

    async def find(self, settings: PluginSettings, *, is_first: bool) -> Discovery:
        """Find the cards; those of before that are lost are among them.

        Args:
            settings: how, and whether it is an error that NVML does not answer.
            is_first: whether that is not known yet; later it is always an error.

        Raises:
            UnavailableError: NVML does not answer.
            SettingError: the GPUs do not go with the MIG strategy.
        """
        while True:
            try:
                await self.ask("session", self.nvml.open)
                found = await self.ask("cards", partial(self.nvml.cards, settings.mig_strategy))
            except UnavailableError as exc:
                if settings.fail_on_init_error or not is_first:
                    raise
                self._trouble.failed(exc)
                await asyncio.sleep(RETRY_SECONDS)
            else:
                self._trouble.succeeded()
                break
        for note in (*found.nameless, *found.notes, *(card.problem for card in found.cards if card.problem)):
            _logger.warning("GPUs", extra={"note": note})
        return replace(found, cards=(*found.cards, *_missing(self._known, found.cards)))

    def follow(self, found: Discovery, settings: PluginSettings) -> None:
        """Watch these cards from now on; what is known of those that were watched already stays known."""
        self._known = found.cards
        self._driver_version = self.nvml.driver_version
        self.changed.clear()
        if self._watch is not None:
            self._watch.follow(
                found.cards,
                mig_strategy=settings.mig_strategy,
                disabled=settings.disable_health_checks,
                ignored_xids=settings.ignored_xids,
            )
            return
        self._watch = GpuWatch(
            self.nvml,
            found.cards,
            mig_strategy=settings.mig_strategy,
            disabled=settings.disable_health_checks,
            ignored_xids=settings.ignored_xids,
            on_change=self._take,
            on_xid=lambda gpu, xid: self.on_xid(gpu, xid),
            on_cards_changed=lambda _: self.changed.set(),
        )
        self._watching = asyncio.create_task(self._watch.run(), name="GPU watch")
        self._watching.add_done_callback(self._ended)

    async def ask(self, name: str, question: Callable[[], _T], *, seconds: float = SESSION_SECONDS) -> _T:
        """Ask NVML something that blocks, and may hang, for so long.

        Raises:
            UnavailableError: there was no answer in time, besides what the question raises.
        """
        try:
            return await self._patience.ask(name, question, seconds=seconds)
        except TimeoutError as exc:
            raise UnavailableError(
                f"NVML does not answer on this node (asked for {name} for {seconds:.0f} s): check with nvidia-smi"
            ) from exc

    async def close(self) -> None:
        """Stop watching, and end the session where nothing hangs in it."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        with suppress(UnavailableError):
            await self.ask("end", self.nvml.close, seconds=_CLOSING_SECONDS)

    def _take(self, problems: Problems) -> None:
        self.problems = problems
        if self.nvml.driver_version != self._driver_version:
            self.changed.set()  # what containers are given, and kept within their shares by, may be another
        self.on_problems()

    def _ended(self, watching: asyncio.Task[None]) -> None:
        if not watching.cancelled():
            self.defect = watching.exception()
            self.broken.set()


def _missing(known: Iterable[Card], found: Sequence[Card]) -> list[Card]:
    """The cards that are found no more: lost ones, which stay listed; not MIG instances that were taken away."""
    names = {card.uuid for card in found}
    answering = {card.mig.parent if card.mig else card.uuid for card in found}
    return [
        replace(card, problem=card.problem or f"NVML does not find {card.uuid} any more: look into the kernel's log")
        for card in known
        if card.uuid not in names and (card.mig.parent if card.mig else card.uuid) not in answering
    ]
