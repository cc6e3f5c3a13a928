"""Judges which cards must not be given out, and when they may be again. Pure: times are arguments, in seconds.

A card falls ill by what a look at its GPU finds (it does not answer, uncorrected memory errors, a failed row remap,
the driver wants it reset), or by an Xid error: one of a MIG instance concerns that instance only, any other all cards
of the GPU. It is well again when a look finds nothing any more and, after an Xid, 60 s were quiet. What falls ill
again soon after waits twice as long each time, up to an hour. After an Xid that only a reset or a reboot heals, one of
these is asked for as well: the driver wants nothing done (where it says so), the memory errors that were counted are
no longer, or the driver had called the GPU gone, and it answers again.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

from fracgpu.names import GpuUuid
from plugin.gpus.cards import Card
from plugin.gpus.vitals import RECOVERY_NONE, Vitals, XidEvent

QUIET_SECONDS: Final = 60.0
"""How long a card has to be quiet after an Xid."""
LONGEST_QUIET_SECONDS: Final = 3600.0
"""The most that this grows to when a card falls ill again and again."""
FORGIVEN_SECONDS: Final = 3600.0
"""A card that was well for so long starts with the shortest wait again."""

RESET_XIDS: Final = frozenset({46, 48, 62, 64, 79, 95, 109, 110, 119, 120, 136, 140, 143, 155, 156, 158})
"""Xids for which NVIDIA's catalogue says that the GPU has to be reset or the machine rebooted.

48 among them, though a contained one (with 94, and then often without a recovery action) only ends its process. Not
among them: 94, of which the catalogue says the same, and the NVLink ones (144 to 150), which have milder variants: in
both the recovery action and the memory errors tell.
"""

_RECOVERIES: Final = {
    1: "reset it (nvidia-smi --gpu-reset) when nothing runs on it",
    2: "reboot the node",
    3: "end what uses it together with other GPUs (P2P)",
    4: "end what uses it together with other GPUs (P2P), and reset it (nvidia-smi --gpu-reset)",
    5: "recover the IMEX domain",
    6: "reset its PCIe bus",
    7: "reboot the node",
}
"""What the driver's recovery actions ask of the administrator."""


@dataclass(slots=True)
class _Case:
    """The history of one card.

    Attributes:
        trouble: what the last look found; empty where nothing.
        xid: the Xid because of which it is ill, the gravest; None without one.
        reset_seen: whether the GPU has been reset since that.
        counted: whether uncorrected memory errors were counted at the last look.
        ill: whether it must not be used.
        last_sign: when something was last wrong.
        well_since: when it last became well; None where it was never ill.
        relapses: how often it fell ill again soon after it had become well.
    """

    trouble: str = ""
    xid: int | None = None
    reset_seen: bool = False
    counted: bool = False
    ill: bool = False
    last_sign: float = 0.0
    well_since: float | None = None
    relapses: int = 0

    def sign(self, now: float) -> None:
        """Something is wrong."""
        if not self.ill:
            recent = self.well_since is not None and now - self.well_since < FORGIVEN_SECONDS
            self.relapses = self.relapses + 1 if recent else 0
            self.ill = True
        self.last_sign = now

    @property
    def wait(self) -> float:
        """For how long nothing may be wrong before the card is well again."""
        if self.xid is None and not self.relapses:
            return 0.0
        return min(LONGEST_QUIET_SECONDS, QUIET_SECONDS * 2.0 ** min(self.relapses, 16))


class Health:
    """The health of the cards of a node.

    Args:
        cards: the cards to judge.
        disabled: checks to leave out, of ``all``, ``xids``, ``ecc`` and ``row-remap``.
        ignored_xids: Xids that say nothing of a GPU.
    """

    def __init__(
        self, cards: Iterable[Card], *, disabled: Collection[str] = (), ignored_xids: Collection[int] = ()
    ) -> None:
        self._disabled: frozenset[str] = frozenset()
        self._ignored: frozenset[int] = frozenset()
        self._cards: dict[GpuUuid, Card] = {}  # UUID -> card
        self._cases: dict[GpuUuid, _Case] = {}  # UUID of a card -> its history
        self.configure(disabled=disabled, ignored_xids=ignored_xids)
        self.follow(cards)

    def configure(self, *, disabled: Collection[str], ignored_xids: Collection[int]) -> None:
        """Judge by these checks from now on; what is known stays known, as far as it still counts."""
        self._disabled = frozenset(disabled)
        self._ignored = frozenset(ignored_xids)
        for case in self._cases.values():
            if case.xid in self._ignored or "xids" in self._disabled:
                case.xid = None

    def follow(self, cards: Iterable[Card]) -> None:
        """Judge these cards from now on; of those that were known already nothing is forgotten."""
        self._cards = {card.uuid: card for card in cards}
        self._cases = {uuid: self._cases.get(uuid, _Case()) for uuid in self._cards}

    @property
    def gpus(self) -> tuple[GpuUuid, ...]:
        """The whole GPUs to look at, each once."""
        return tuple(dict.fromkeys(_gpu(card) for card in self._cards.values()))

    def look(self, gpu: GpuUuid, vitals: Vitals, *, now: float) -> None:
        """Take note of a look at a GPU."""
        if "all" in self._disabled:
            return
        trouble = self._trouble(vitals)
        for card in self._cards.values():
            if _gpu(card) != gpu:
                continue
            case = self._cases[card.uuid]
            case.trouble = trouble
            if trouble:
                case.sign(now)
            if vitals.down or (case.counted and vitals.uncorrected == 0):
                case.reset_seen = True
            if vitals.uncorrected is not None:
                case.counted = vitals.uncorrected > 0
            if case.ill and not trouble and _recovered(case, vitals, now=now):
                case.ill, case.xid, case.reset_seen, case.well_since = False, None, False, now

    def xid(self, event: XidEvent, *, now: float) -> bool:
        """Take note of an Xid error; False where it says nothing of the cards."""
        if self._disabled & {"all", "xids"} or event.xid in self._ignored:
            return False
        concerned = [card for card in self._cards.values() if _concerns(event, card)]
        for card in concerned:
            case = self._cases[card.uuid]
            case.sign(now)
            if event.xid in RESET_XIDS:
                case.reset_seen = False
            if event.xid in RESET_XIDS or case.xid not in RESET_XIDS:
                case.xid = event.xid
        return bool(concerned)

    def problems(self) -> dict[GpuUuid, str]:
        """Why cards must not be given out: UUID -> a sentence, the same as long as nothing changes."""
        if "all" in self._disabled:
            return {}
        return {uuid: _sentence(self._cards[uuid], case) for uuid, case in self._cases.items() if case.ill}

    def _trouble(self, vitals: Vitals) -> str:
        if vitals.problem:
            return vitals.problem
        if vitals.remap_failed and "row-remap" not in self._disabled:
            return (
                "replacing a faulty row of its memory has failed: run NVIDIA's field diagnostics, and have it exchanged"
            )
        if vitals.uncorrected and "ecc" not in self._disabled:
            return (
                "memory errors that cannot be corrected (ECC) are counted since its last reset: drain the node, and "
                "reset the GPU (nvidia-smi --gpu-reset) or reboot"
            )
        if vitals.recovery is not None and vitals.recovery != RECOVERY_NONE:
            return f"the driver asks for a recovery: {_RECOVERIES.get(vitals.recovery, 'see nvidia-smi -q')}"
        return ""


def remap_note(vitals: Vitals) -> str:
    """What is worth a message but no reason to take a GPU out of use; empty where there is nothing."""
    if vitals.remap_pending and not vitals.remap_failed:
        return "a faulty row of its memory will be replaced when it is next reset; until then it can be used"
    return ""


def _recovered(case: _Case, vitals: Vitals, *, now: float) -> bool:
    if now - case.last_sign < case.wait:
        return False
    return case.xid not in RESET_XIDS or case.reset_seen or vitals.recovery == RECOVERY_NONE


def _gpu(card: Card) -> GpuUuid:
    return card.uuid if card.mig is None else card.mig.parent


def _concerns(event: XidEvent, card: Card) -> bool:
    if _gpu(card) != event.gpu:
        return False
    place = card.mig
    if place is None or event.gpu_instance is None:
        return True
    return place.gpu_instance == event.gpu_instance and event.compute_instance in (None, place.compute_instance)


def _sentence(card: Card, case: _Case) -> str:
    if case.trouble:
        return case.trouble if str(_gpu(card)) in case.trouble else f"{card.uuid}: {case.trouble}"
    if case.xid in RESET_XIDS and not case.reset_seen:
        return (
            f"{card.uuid}: the driver reported Xid {case.xid}, after which the GPU has to be reset or the node "
            f"rebooted. Drain the node, and run nvidia-smi --gpu-reset -i {card.index} (while "
            "this plugin is stopped) or reboot"
        )
    if case.xid is not None:
        return (
            f"{card.uuid}: the driver reported Xid {case.xid} (see NVIDIA's Xid catalogue); it is used again when "
            f"nothing was wrong for {case.wait:.0f} s"
        )
    return (
        f"{card.uuid}: it was not well {case.relapses + 1} times in short order; it is used again when nothing "
        f"was wrong for {case.wait:.0f} s"
    )
