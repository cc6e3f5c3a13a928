"""Random arguments for the ledger's script: mostly what an extender would pass, now and then what none should.

They are drawn before it is known what the ledger holds, so that a run does not depend on time; what refers to the
ledger's state is a word that the test looks up when it asks.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from hypothesis import strategies as st

from tests.extender.ledger_model import MAX_AMOUNT

T = TypeVar("T")

Limits = Mapping[str, tuple[int, int]]
"""GPU as ``<node>/<GPU UUID>`` -> its units and seats."""

LIMITS: Final[Limits] = {f"node-{node}/GPU-{gpu}": (6, 3) for node in (1, 2) for gpu in ("a", "b")}


@dataclass(frozen=True)
class Known:
    """What a caller knows of the ledger, and how often it asks."""

    epoch: str = "present"  # or "earlier", or the epoch itself
    seq: int = 0  # from the number of the last change
    times: int = 1


@dataclass(frozen=True)
class Stored:
    """A pod's claim as it is stored, or as it would be in another state; another text where there is none."""

    state: str | None = None
    otherwise: str = ""


Text = Stored | str
"""A claim, or what is passed for one."""


@dataclass(frozen=True)
class Wish:
    """A claim that is to be made, within what its caller believes the limits to be."""

    uid: str
    text: Text
    lifetime: str  # in ms
    limits: Limits
    known: Known


@dataclass(frozen=True)
class Step:
    """What one of several replicas that rebuild does next."""

    operation: str
    token: str  # or "present"
    lifetime: str  # in ms
    filled: dict[str, str]  # uid -> claim
    times: int


def mostly(usual: st.SearchStrategy[T], rare: st.SearchStrategy[T]) -> st.SearchStrategy[T]:
    """One in ten is rare."""
    return st.integers(0, 9).flatmap(lambda n: usual if n < 9 else rare)


def plans(amounts: st.SearchStrategy[Any], *, at_most: int) -> st.SearchStrategy[Any]:
    """Up to so many containers with up to so many shares."""
    share = st.fixed_dictionaries(
        {"gpu": st.sampled_from(["GPU-a", "GPU-b"]), "units": amounts, "seats": st.integers(0, 2)}
    )
    shares = st.lists(share, min_size=1, max_size=at_most)
    containers = st.dictionaries(st.sampled_from(["main", "sidecar"]), shares, max_size=at_most)
    return st.fixed_dictionaries({"containers": containers})


def claims(*states: str) -> st.SearchStrategy[str]:
    """Claims of GPUs of one node; now and then of an impossible amount, or no claim at all."""
    possible = mostly(st.integers(0, 4), st.sampled_from([6, MAX_AMOUNT]))
    impossible: st.SearchStrategy[Any] = st.sampled_from([-1, MAX_AMOUNT + 1, 2**63, 1.5, None, "many", []])
    plan = mostly(plans(possible, at_most=2), plans(impossible, at_most=1))
    node = st.sampled_from(["node-1", "node-2"])
    claim = st.fixed_dictionaries({"node": node, "state": st.sampled_from(states), "plan": plan})
    malformed = ["", "null", "no JSON", "{}", "[]", '"text"', '{"plan":{}}', '{"plan":{"containers":null}}']
    return mostly(claim.map(json.dumps), st.sampled_from(malformed))


STATES: Final = ("held", "binding", "bound")
UIDS: Final = st.sampled_from(["pod-1", "pod-2", "pod-3", "pod-4", "pod-5"])
TIMES: Final = st.sampled_from([1, 1, 2])
KNOWN: Final = st.builds(
    Known,
    mostly(st.just("present"), st.sampled_from(["", "earlier", "an epoch of nobody"])),
    mostly(st.just(0), st.sampled_from([-1, -2, -7, -1000, 1, 1000])),
    TIMES,
)
LIFETIMES: Final = st.sampled_from(["60000"] * 4 + ["1", "2", "3", "61000", "3600000", "0", "-1", "soon"])
"""Those of a few ms are over at one of the next steps; a hold of more than a minute seems to be from before the clock
jumped back."""

CLAIMS: Final = claims(*STATES)
TEXTS: Final[st.SearchStrategy[Text]] = CLAIMS | st.builds(Stored, st.sampled_from([None, *STATES]), CLAIMS)
EXPECTED: Final[st.SearchStrategy[Text]] = mostly(st.just(Stored()), st.just("") | TEXTS)

SHRUNK: Final[Limits] = dict.fromkeys(LIMITS, (3, 1))
HALF: Final[Limits] = {gpu: limit for gpu, limit in LIMITS.items() if gpu.endswith("GPU-a")}
WISHES: Final = st.lists(
    st.builds(Wish, UIDS, TEXTS, LIFETIMES, mostly(st.just(LIMITS), st.sampled_from([SHRUNK, HALF])), KNOWN),
    min_size=1,
    max_size=4,
)

FILLED: Final = st.dictionaries(UIDS, mostly(claims("binding", "bound"), claims("held")), max_size=3)
"""What a rebuild writes; it may not write holds."""

STEPS: Final = st.lists(
    st.builds(
        Step,
        st.sampled_from(["begin", "begin", "fill", "commit"]),
        st.sampled_from(["present", "present", "present", "token-1", "token-2", ""]),
        LIFETIMES,
        FILLED,
        TIMES,
    ),
    max_size=2,
)
