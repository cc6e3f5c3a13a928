"""The node's GPUs for as long as this process lives: one session with NVML, and one watch over their health.

Both outlast the lives of `plugin.deviceplugin`: what is known of a GPU that fell ill is not forgotten because a setting
has changed.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Final, TypeVar

from fracgpu.errors import UnavailableError
from fracgpu.names import GpuUuid
from plugin.gpus.cards import Card
from plugin.gpus.discovery import Discovery
from plugin.gpus.layout import Problems
from plugin.gpus.nvml import Nvml
from plugin.gpus.patience import Patience
from plugin.gpus.watching import SESSION_SECONDS, GpuWatch
from plugin.settings import PluginSettings

RETRY_SECONDS: Final = 10.0
"""Between two attempts to open a session, where a node may be without a driver."""

_T = TypeVar("_T")

_logger = logging.getLogger(__name__)


class GpuSession:
    """Knows the GPUs of this node.

    Attributes:
        nvml: the session; ask it through `ask`.
        problems: the GPUs that are not well, and why.
        changed: set when there are other GPUs than `find` last found.
        on_problems: called when `problems` has changed.
        on_xid: called with every Xid error.
    """

    def __init__(self) -> None:
        self.nvml = Nvml()
        self.problems: Problems = {}
        self.changed = asyncio.Event()
        self.on_problems: Callable[[], None] = lambda: None
        self.on_xid: Callable[[GpuUuid, int], None] = lambda _gpu, _xid: None
        self._patience = Patience()
        self._is_open = False
        self._known: tuple[Card, ...] = ()  # what `find` has found
        self._watch: GpuWatch | None = None
        self._watched: tuple[object, ...] = ()  # the settings of the watch
        self._watching: asyncio.Task[None] | None = None

    async def find(self, settings: PluginSettings) -> Discovery:
        """Find the cards, and watch them from now on.

        Raises:
            UnavailableError: NVML does not answer, and that is to be an error.
            SettingError: the GPUs do not go with the MIG strategy.
        """
        if not self._is_open:
            await self._open(is_fatal=settings.fail_on_init_error)
            self._is_open = True
        found = await self.ask("cards", partial(self.nvml.cards, settings.mig_strategy))
        for problem in (*found.nameless, *found.notes, *(card.problem for card in found.cards if card.problem)):
            _logger.error("unusable GPU", extra={"problem": problem})
        self.changed.clear()
        found = replace(found, cards=(*found.cards, *_missing(self._known, found.cards)))
        self._known = found.cards
        await self._follow(found, settings)
        return found

    async def ask(self, name: str, question: Callable[[], _T]) -> _T:
        """Ask NVML something that blocks, and may hang.

        Raises:
            UnavailableError: there was no answer in time, besides what the question raises.
        """
        try:
            return await self._patience.ask(name, question, seconds=SESSION_SECONDS)
        except TimeoutError as exc:
            raise UnavailableError(
                f"NVML does not answer on this node (asked for {name} for {SESSION_SECONDS:.0f} s): check with "
                "nvidia-smi"
            ) from exc

    async def close(self) -> None:
        """Stop watching, and end the session where nothing hangs in it."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        if self._is_open:
            await self.ask("end", self.nvml.close)

    async def _open(self, *, is_fatal: bool) -> None:
        while True:
            try:
                await self.ask("session", self.nvml.open)
            except UnavailableError as exc:
                if is_fatal:
                    raise
                _logger.error("no GPUs yet", extra={"error": str(exc)})
                await asyncio.sleep(RETRY_SECONDS)
            else:
                return

    async def _follow(self, found: Discovery, settings: PluginSettings) -> None:
        watched = (settings.mig_strategy, settings.disable_health_checks, settings.ignored_xids)
        if self._watch is not None and watched == self._watched:
            self._watch.follow(found.cards)
            return
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        watch = self._watch = GpuWatch(
            self.nvml,
            found.cards,
            mig_strategy=settings.mig_strategy,
            disabled=settings.disable_health_checks,
            ignored_xids=settings.ignored_xids,
            on_change=lambda problems: self._take(watch, problems),
            on_xid=lambda gpu, xid: self.on_xid(gpu, xid),
            on_cards_changed=lambda _: self.changed.set(),
        )
        self._watched = watched
        self.problems = {}
        self._watching = asyncio.create_task(self._watch.run(), name="GPU watch")

    def _take(self, watch: GpuWatch, problems: Problems) -> None:
        if watch is self._watch:  # the thread of one that was replaced may speak once more
            self.problems = problems
            self.on_problems()


def _missing(known: Iterable[Card], found: Sequence[Card]) -> list[Card]:
    """The cards that are found no more: lost ones, which stay listed; not MIG instances that were taken away."""
    names = {card.uuid for card in found}
    answering = {card.mig.parent if card.mig else card.uuid for card in found}
    return [
        replace(card, problem=card.problem or f"NVML does not find {card.uuid} any more: look into the kernel's log")
        for card in known
        if card.uuid not in names and (card.mig.parent if card.mig else card.uuid) not in answering
    ]
