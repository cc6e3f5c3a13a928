"""Which cards a node has, from what NVML lists and the administrator's MIG strategy. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fracgpu.errors import SettingError
from plugin.gpus.cards import Card

MigStrategy = Literal["none", "single", "mixed"]


@dataclass(frozen=True, slots=True)
class Discovery:
    """What was found: the cards, and sentences for the administrator.

    Attributes:
        cards: in NVML's order.
        nameless: a sentence for each GPU of which not even the name could be read.
        notes: what else is worth knowing: GPUs in MIG mode that are not used as such, or offer nothing.
    """

    cards: tuple[Card, ...]
    nameless: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FoundGpu:
    """A GPU, whether it is in MIG mode, and its MIG instances in NVML's order."""

    card: Card
    mig_mode: bool = False
    instances: tuple[Card, ...] = ()


def choose(found: Sequence[FoundGpu], *, strategy: MigStrategy, nameless: tuple[str, ...] = ()) -> Discovery:
    """Choose the cards by the MIG strategy: whole GPUs (none), instances of one profile (single), or of any (mixed).

    A GPU in MIG mode that has no instances offers nothing, except under `none`.

    Raises:
        SettingError: `single`, and the GPUs are not all in MIG mode, or not all of one profile.
    """
    in_mig_mode = [gpu for gpu in found if gpu.mig_mode]
    if strategy == "none":
        notes = [
            f"{gpu.card.uuid} is in MIG mode, and is shared as a whole GPU: containers cannot compute on it without an "
            "instance. Set --mig-strategy to single or mixed, or turn MIG off (nvidia-smi -mig 0)"
            for gpu in in_mig_mode
        ]
        return Discovery(tuple(gpu.card for gpu in found), nameless, tuple(notes))
    if strategy == "single":
        _check_single(found, in_mig_mode)
    cards = [card for gpu in found for card in (gpu.instances if gpu.mig_mode else (gpu.card,))]
    notes = [
        f"{gpu.card.uuid} is in MIG mode and has no instances, so it offers nothing: create some (nvidia-smi mig -cgi)"
        for gpu in in_mig_mode
        if not gpu.instances
    ]
    return Discovery(tuple(cards), nameless, tuple(notes))


def profile(card: Card) -> str:
    """The MIG profile of an instance as NVML names it, such as ``1g.10gb``; its size where the name does not tell."""
    _, mig, name = card.product.rpartition(" MIG ")
    return name if mig else f"{round(card.memory / 1024)} GiB"


def _check_single(found: Sequence[FoundGpu], in_mig_mode: Sequence[FoundGpu]) -> None:
    whole = [str(gpu.card.uuid) for gpu in found if not gpu.mig_mode]
    if in_mig_mode and whole:
        raise SettingError(
            f"--mig-strategy is single, which takes a node whose GPUs are all in MIG mode or all not, but "
            f"{', '.join(str(gpu.card.uuid) for gpu in in_mig_mode)} is and {', '.join(whole)} is not: use mixed, or "
            "change the GPUs (nvidia-smi -mig)"
        )
    profiles = sorted({profile(card) for gpu in in_mig_mode for card in gpu.instances if not card.problem})
    if len(profiles) > 1:
        raise SettingError(
            f"--mig-strategy is single, which takes MIG instances of one profile, but this node has "
            f"{', '.join(profiles)}: use mixed, or change the instances (nvidia-smi mig)"
        )
