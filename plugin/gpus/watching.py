"""Watches the cards while the plugin runs: looks at them, hears of Xid errors, and says when their health changes.

Everything that asks NVML does so in threads, with a deadline; the judgement is `plugin.gpus.health`. Also notices
cards that were not there before, which the caller has to take up.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import Final, Protocol

from fracgpu.errors import FracgpuError, UnavailableError
from fracgpu.names import GpuUuid
from plugin.gpus.cards import Card
from plugin.gpus.discovery import Discovery, MigStrategy
from plugin.gpus.health import Health, remap_note
from plugin.gpus.patience import Patience
from plugin.gpus.vitals import Vitals, XidEvent

LOOK_SECONDS: Final = 5.0
"""Between two looks at the cards; an Xid error is acted on at once."""
ANSWER_SECONDS: Final = 5.0
"""How long a GPU may take to answer a look."""
REDISCOVER_SECONDS: Final = 30.0
"""Between two looks for cards that are new, and between two sessions opened because a GPU is lost."""
SESSION_SECONDS: Final = 60.0
"""How long opening a session may take: the driver initialises every GPU, without persistence mode from scratch."""
LONGEST_SESSION_PAUSE_SECONDS: Final = 600.0
"""What the latter grows to while a GPU stays lost: a new session disturbs the looks at the others."""
EVENT_WAIT_MS: Final = 1000

_logger = logging.getLogger(__name__)


class Session(Protocol):
    """What is asked of NVML here; every call blocks."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What the administrator should know of the session."""

    def cards(self, mig_strategy: MigStrategy) -> Discovery:
        """List the cards."""

    def vitals(self, gpu: GpuUuid) -> Vitals:
        """Look at a GPU."""

    def wait_for_event(self, timeout_ms: int) -> XidEvent | None:
        """Wait for an Xid error."""

    def reopen(self) -> bool:
        """Begin the session anew."""


class GpuWatch:
    """Watches the cards of a node.

    Args:
        nvml: the session, open or not.
        cards: the cards to watch.
        mig_strategy: how cards are looked for.
        disabled: health checks to leave out.
        ignored_xids: Xid errors that say nothing of a GPU.
        on_change: called with the cards that must not be given out now, and why, when that has changed.
        on_xid: called with every Xid error, also those that are ignored.
        on_cards_changed: called when there are cards that are not watched, or a watched MIG instance is no more; once
            for each such finding. Call `follow` with the cards to watch then.
        clock: seconds that only go forward.
    """

    def __init__(
        self,
        nvml: Session,
        cards: Iterable[Card],
        *,
        mig_strategy: MigStrategy = "none",
        disabled: Collection[str] = (),
        ignored_xids: Collection[int] = (),
        on_change: Callable[[Mapping[GpuUuid, str]], None],
        on_xid: Callable[[GpuUuid, int], None],
        on_cards_changed: Callable[[Discovery], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._nvml = nvml
        self._cards = {card.uuid: card for card in cards}
        self._strategy = mig_strategy
        self._health = Health(self._cards.values(), disabled=disabled, ignored_xids=ignored_xids)
        self._on_change = on_change
        self._on_xid = on_xid
        self._on_cards_changed = on_cards_changed
        self._clock = clock
        self._patience = Patience()
        self._problems: dict[GpuUuid, str] = {}  # card -> why it must not be given out, as last told
        self._said: dict[str, str] = {}  # what it is about -> what was last logged of it
        self._change: frozenset[GpuUuid] = frozenset()  # cards that are new, or have ended, as last told
        self._is_nameless = False  # a GPU of the session could not even be named, so nobody looks at it
        self._next_session = clock()
        self._session_pause = REDISCOVER_SECONDS
        self._ended_session = False  # by us: that nothing answers then says nothing of the GPUs
        self._next_discovery = clock() + REDISCOVER_SECONDS

    def follow(
        self,
        cards: Iterable[Card],
        *,
        mig_strategy: MigStrategy,
        disabled: Collection[str],
        ignored_xids: Collection[int],
    ) -> None:
        """Watch these cards, in this way, from now on; what is known of cards that were watched already stays known."""
        self._strategy = mig_strategy
        self._health.configure(disabled=disabled, ignored_xids=ignored_xids)
        self._cards = {card.uuid: card for card in cards}
        self._change = frozenset()
        self._health.follow(self._cards.values())
        self._tell()

    async def run(self) -> None:
        """Watch until cancelled."""
        stopped = threading.Event()
        loop = asyncio.get_running_loop()
        self._say("events", "; ".join(self._nvml.notes))
        # A daemon: it may hang in the driver, and is not waited for.
        threading.Thread(target=self._listen, args=(loop, stopped), name="nvml events", daemon=True).start()
        try:
            while True:
                await self.look()
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            stopped.set()

    async def look(self) -> None:
        """Look at all GPUs once, and begin a new session or look for new cards where that is due."""
        over = gone = False
        answering = set()
        for gpu in self._health.gpus:
            try:
                vitals = await self._patience.ask(gpu, partial(self._nvml.vitals, gpu), seconds=ANSWER_SECONDS)
            except UnavailableError as exc:
                over, vitals = True, Vitals(problem=str(exc), down=not self._ended_session)
            except TimeoutError:
                vitals = Vitals(problem=_hanging(gpu))
            gone = gone or vitals.down
            if not vitals.problem:
                answering.add(gpu)
            self._say(f"row remap of {gpu}", remap_note(vitals))
            self._health.look(gpu, vitals, now=self._clock())
        self._tell()
        is_missing = gone or self._is_nameless
        if not is_missing:
            self._session_pause = REDISCOVER_SECONDS
        if over or ((is_missing or not self._cards) and self._clock() >= self._next_session):
            self._ended_session = self._ended_session or not over
            await self._reopen(longer_next_time=is_missing and not over)
        elif self._clock() >= self._next_discovery:
            await self._rediscover(answering)

    def heard(self, event: XidEvent) -> None:
        """Act on an Xid error."""
        concerned = self._health.xid(event, now=self._clock())
        _logger.warning("Xid error", extra={"gpu": event.gpu, "xid": event.xid, "ignored": not concerned})
        self._on_xid(event.gpu, event.xid)
        self._tell()

    def _tell(self) -> None:
        problems = self._health.problems()
        if problems == self._problems:
            return
        for uuid in self._problems.keys() - problems.keys():
            _logger.info("GPU is well again", extra={"gpu": uuid})
        for uuid, problem in problems.items():
            if self._problems.get(uuid) != problem:
                _logger.error("unusable GPU", extra={"gpu": uuid, "problem": problem})
        self._problems = problems
        self._on_change(dict(problems))

    async def _reopen(self, *, longer_next_time: bool) -> None:
        """A GPU that is back, and a driver that was restarted, is only seen by a new session."""
        self._next_session = self._clock() + self._session_pause
        if longer_next_time:
            self._session_pause = min(2 * self._session_pause, LONGEST_SESSION_PAUSE_SECONDS)
        try:
            if not await self._patience.ask("session", self._nvml.reopen, seconds=SESSION_SECONDS):
                return
        except UnavailableError as exc:
            self._say("session", str(exc))
            return
        except TimeoutError:
            self._say("session", f"opening a session with NVML has taken more than {SESSION_SECONDS:.0f} s")
            return
        self._ended_session = False
        self._say("session", "")
        self._say("events", "; ".join(self._nvml.notes))
        self._next_discovery = self._clock()

    async def _rediscover(self, answering: Collection[GpuUuid]) -> None:
        self._next_discovery = self._clock() + REDISCOVER_SECONDS
        try:
            found = await self._patience.ask("cards", lambda: self._nvml.cards(self._strategy), seconds=SESSION_SECONDS)
        except (FracgpuError, TimeoutError) as exc:
            self._say("discovery", str(exc) or "NVML does not list the GPUs")
            return
        self._say("discovery", "; ".join((*found.nameless, *found.notes)))
        self._is_nameless = bool(found.nameless)
        names = frozenset(card.uuid for card in found.cards)
        # What could not be read when the cards were found: its size and name are not known here yet.
        mended = {
            card.uuid
            for card in found.cards
            if not card.problem and card.uuid in self._cards and self._cards[card.uuid].problem
        }
        # Neither a whole GPU that is not found nor an instance of one that does not answer is removed: they are lost.
        ended = {
            card.uuid
            for card in self._cards.values()
            if card.uuid not in names and card.mig is not None and card.mig.parent in answering
        }
        change = (names - self._cards.keys()) | ended | mended
        if change and change != self._change:
            self._on_cards_changed(found)
        self._change = change

    def _listen(self, loop: asyncio.AbstractEventLoop, stopped: threading.Event) -> None:
        """Pass Xid errors on; in a thread of its own."""
        while not stopped.is_set():
            try:
                event = self._nvml.wait_for_event(EVENT_WAIT_MS)
            except UnavailableError:
                stopped.wait(EVENT_WAIT_MS / 1000)  # the next look finds out what is wrong
                continue
            if event is not None:
                with suppress(RuntimeError):  # the loop was closed: the plugin ends
                    loop.call_soon_threadsafe(self.heard, event)

    def _say(self, about: str, what: str) -> None:
        """Log what is new."""
        if self._said.get(about, "") != what:
            self._said[about] = what
            if what:
                _logger.warning("NVML", extra={"about": about, "note": what})


def _hanging(gpu: GpuUuid) -> str:
    return (
        f"{gpu} does not answer: a question to it has hung for more than {ANSWER_SECONDS:.0f} s. Look for Xid errors "
        "in the node's kernel log; where it stays so, drain the node, and reset the GPU or reboot"
    )
