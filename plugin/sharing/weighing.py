"""Of several values for the same thing the one that wins, and what has to be said of the others. Pure.

Relies on its caller for ranks and for the order of what is equally specific.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, Literal, TypeVar

from fracgpu.sharing import PolicyProblem

MAX_PROBLEMS: Final = 64
"""Problems, and complaints, of one node: its GPUNode is an object of bounded size."""
_MAX_MESSAGE: Final = 1024
_SHOWN_GPUS: Final = 4
_SHOWN_NAME: Final = 64  # of a rival's name, so that the advice behind it is not cut off

T = TypeVar("T")
Reason = Literal["Conflict", "Invalid", "UnitMismatch"]


@dataclass(frozen=True, slots=True)
class Source:
    """Who said something: a policy of this generation, or without `policy` the flags or the file, as `name` tells."""

    name: str
    policy: str = ""
    generation: int = 0


@dataclass(frozen=True, slots=True)
class Saying(Generic[T]):
    """One value; the highest rank wins (tier, how closely it names the GPU, whether its spec selects nodes)."""

    value: T
    source: Source
    rank: tuple[int, int, bool]


@dataclass(frozen=True, slots=True)
class _Complaint:
    source: Source
    reason: Reason
    text: str  # with {gpus} where it is about GPUs


@dataclass(slots=True)
class Complaints:
    """What is wrong, once for all GPUs of which the same is to be said."""

    _gpus: dict[_Complaint, list[str]] = field(default_factory=dict)  # complaint -> UUIDs that it is about

    def add(self, source: Source, reason: Reason, text: str, *, gpu: str = "") -> None:
        """Complain of `source`; ``{gpus}`` in the text becomes the list of GPUs."""
        self._gpus.setdefault(_Complaint(source, reason, text), []).append(gpu)

    def problems(self) -> tuple[PolicyProblem, ...]:
        """Those of policies, in order of their names."""
        found = [
            PolicyProblem(
                complaint.source.policy, complaint.source.generation, complaint.reason, _text(complaint, gpus)
            )
            for complaint, gpus in self._gpus.items()
            if complaint.source.policy
        ]
        found.sort(key=lambda problem: (problem.policy, problem.reason, problem.message))
        return tuple(found[:MAX_PROBLEMS])

    def sentences(self) -> tuple[str, ...]:
        """Those of anything else."""
        found = [_text(complaint, gpus) for complaint, gpus in self._gpus.items() if not complaint.source.policy]
        return tuple(found[:MAX_PROBLEMS])


def pick(
    sayings: Sequence[Saying[T]],
    *,
    name: str,
    default: T,
    complaints: Complaints,
    gpu: str = "",
    refuse: Callable[[T], str] = lambda _: "",
) -> T:
    """Take the first value of the highest rank that works, and complain of what does not work or says otherwise.

    Args:
        sayings: of equal rank the earlier wins.
        name: of the field, as administrators write it.
        default: where nobody says anything that works.
        complaints: where to complain.
        gpu: the GPU's UUID; empty for what is of the node.
        refuse: why a value cannot work; empty where it can.
    """
    winner: Saying[T] | None = None
    for saying in sorted(sayings, key=lambda saying: saying.rank, reverse=True):  # stable: the earlier stays first
        if winner is None:
            why = refuse(saying.value)
            if not why:
                winner = saying
                continue
            text = f"{name} {_shown(saying.value)} cannot be on {{gpus}}: {why}; what is less specific is taken there"
            complaints.add(saying.source, "Invalid", text, gpu=gpu)
        elif saying.rank != winner.rank:
            break
        elif saying.value != winner.value:
            complaints.add(saying.source, "Conflict", _conflict(saying, winner, name=name, has_gpu=bool(gpu)), gpu=gpu)
    return default if winner is None else winner.value


def _conflict(saying: Saying[T], winner: Saying[T], *, name: str, has_gpu: bool) -> str:
    is_same = saying.source == winner.source
    rival = "another rule of it" if is_same else winner.source.name[:_SHOWN_NAME]
    reason = "older" if winner.source.policy and not is_same else "stands before it"
    return (
        f"{name}{' on {gpus}' if has_gpu else ''} is {_shown(saying.value)} here; {rival} says {_shown(winner.value)}, "
        f"is as specific and {reason}, and wins. Let both say the same, or make one more specific: by a GPU's uuid, by "
        "model, with a nodeSelector"
    )


def _text(complaint: _Complaint, gpus: Sequence[str]) -> str:
    more = len(gpus) - _SHOWN_GPUS
    listed = ", ".join(gpus[:_SHOWN_GPUS]) + (f" and {more} more" if more > 0 else "")
    prefix = "" if complaint.source.policy else f"{complaint.source.name}: "
    text = prefix + complaint.text.replace("{gpus}", listed)
    return text if len(text) <= _MAX_MESSAGE else f"{text[: _MAX_MESSAGE - 1]}…"


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
