"""Which mechanism a node gets: the strongest that it has, or the one that was set."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from fracgpu.sharing import IsolationChoice
from plugin.isolation.driver_limit import DriverLimit, DriverLimitNeeds
from plugin.isolation.mechanism import Isolation, Mechanism, OnChange, sentences
from plugin.isolation.mps import Mps, MpsNeeds, most_clients
from plugin.isolation.mps_daemon import ComputeModes, MpsDaemon
from plugin.isolation.none import Advisory
from plugin.isolation.preload import NO_LIBRARY, Preload, PreloadTemplate
from plugin.isolation.unavailable import Unavailable

LADDER: Final[tuple[Mechanism, ...]] = ("driver-limit", "mps", "preload", "none")
"""Strongest first."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What a node gets.

    Attributes:
        mechanism: which.
        obstacle: why the node does not have it, though it was set; empty where it has.
        why_not_more: why it has nothing stronger; empty where this one was set.
    """

    mechanism: Mechanism
    obstacle: str = ""
    why_not_more: str = ""


@dataclass(frozen=True, slots=True)
class NodeMeans:
    """What a node has, as far as mechanisms need it; `preload` is None where no library is set."""

    driver_limit: DriverLimitNeeds
    mps: MpsNeeds
    preload: PreloadTemplate | None

    @property
    def obstacles(self) -> Mapping[Mechanism, str]:
        """Mechanism -> why the node does not have it; empty where it has."""
        return {
            "driver-limit": self.driver_limit.obstacle,
            "mps": self.mps.obstacle,
            "preload": "" if self.preload else NO_LIBRARY,
            "none": "",
        }


def choose(wanted: IsolationChoice, *, obstacles: Mapping[Mechanism, str]) -> Choice:
    """Pick the mechanism that was set, there or not, or the strongest without an obstacle. Pure."""
    if wanted != "auto":
        return Choice(wanted, obstacle=obstacles[wanted])
    chosen = next(mechanism for mechanism in LADDER if not obstacles[mechanism])
    stronger = LADDER[: LADDER.index(chosen)]
    return Choice(chosen, why_not_more=sentences(*(f"not {name}: {obstacles[name]}" for name in stronger)))


def make_isolation(wanted: IsolationChoice, *, means: NodeMeans, modes: ComputeModes, on_change: OnChange) -> Isolation:
    """Make what a node gets; nothing is started yet.

    Args:
        wanted: the setting.
        means: what the node has.
        modes: the GPUs' compute modes, for MPS.
        on_change: called in the event loop whenever the status has become another.
    """
    choice = choose(wanted, obstacles=means.obstacles)
    if choice.obstacle:
        return Unavailable(choice.mechanism, obstacle=choice.obstacle)
    if choice.mechanism == "driver-limit":
        return DriverLimit()
    if choice.mechanism == "mps" and (daemon := mps_daemon(means.mps, modes=modes, on_change=on_change)):
        clients = most_clients(means.mps.driver_version)
        return Mps(daemon, most_clients=clients, why_not_more=choice.why_not_more)
    if choice.mechanism == "preload" and means.preload:
        return Preload(means.preload, why_not_more=choice.why_not_more)
    return Advisory(why_not_more=choice.why_not_more)


def mps_daemon(needs: MpsNeeds, *, modes: ComputeModes, on_change: OnChange) -> MpsDaemon | None:
    """The node's MPS daemon, running or not; None where there can be none.

    For `make_isolation`, and for a start with another mechanism: its `end` takes away what an earlier plugin left.
    """
    if needs.root is None or needs.control is None:
        return None
    gpus = [card.uuid for card in needs.cards if not card.problem]
    return MpsDaemon(needs.control, root=needs.root, gpus=gpus, modes=modes, on_change=on_change)
