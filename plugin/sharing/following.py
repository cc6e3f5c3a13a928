"""Follows all that says how this node is to be shared, and weighs it anew whenever any of it changes."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from fracgpu.gpunodes import SharingStatus
from fracgpu.quantities import Mib
from fracgpu.sharing import IsolationChoice, SharingPolicy, SharingSpec
from plugin.gpus.cards import Card
from plugin.sharing.resolving import resolve
from plugin.wishes import NodeWish

_logger = logging.getLogger(__name__)


class Labels(Protocol):
    """This node (see `plugin.cluster.node`)."""

    @property
    def labels(self) -> Mapping[str, str]:
        """Its labels, as new as known."""
        ...


class Policies(Protocol):
    """The SharingPolicies (see `plugin.cluster.policies`)."""

    def policies(self) -> tuple[SharingPolicy, ...]:
        """All of the cluster, as new as known."""
        ...


class Sharing:
    """How one node is to be shared.

    Args:
        cards: its GPUs.
        node: its labels.
        policies: the cluster's.
        rules: those of the plugin's own file.
        replicas: the flag's or the variable's; None where neither was given, and so for the next two.
        reserved: MiB of each GPU.
        isolation: how containers are kept within their shares.
        unit: the memory unit that the plugin is set to.
        on_change: called with what was wished for before, when that has become something else.
    """

    def __init__(
        self,
        cards: Sequence[Card],
        *,
        node: Labels,
        policies: Policies,
        rules: Sequence[SharingSpec],
        replicas: int | None,
        reserved: Mib | None,
        isolation: IsolationChoice | None,
        unit: Mib,
        on_change: Callable[[NodeWish], None],
    ) -> None:
        self._cards = cards
        self._node = node
        self._policies = policies
        self._rules = rules
        self._replicas = replicas
        self._reserved = reserved
        self._isolation = isolation
        self._unit = unit
        self._on_change = on_change
        self._wish: NodeWish | None = None

    @property
    def wish(self) -> NodeWish:
        """What is wished for now."""
        if self._wish is None:
            self._wish = self._resolve()
        return self._wish

    @property
    def status(self) -> SharingStatus:
        """What is told of it."""
        return SharingStatus(self.wish.policies, self.wish.problems)

    def refresh(self) -> None:
        """Weigh everything anew: the labels or the policies have changed."""
        before, self._wish = self._wish, self._resolve()
        if before is not None and self._wish != before:
            self._on_change(before)

    def follow_rules(self, rules: Sequence[SharingSpec]) -> None:
        """Take other rules of the plugin's own file."""
        self._rules = rules
        self.refresh()

    def _resolve(self) -> NodeWish:
        wish = resolve(
            self._cards,
            labels=self._node.labels,
            policies=self._policies.policies(),
            rules=self._rules,
            replicas=self._replicas,
            reserved=self._reserved,
            isolation=self._isolation,
            unit=self._unit,
        )
        if self._wish is None or wish != self._wish:
            for problem in wish.problems:
                _logger.warning("a SharingPolicy cannot be followed in everything", extra={"problem": problem.message})
            for complaint in wish.complaints:
                _logger.warning(
                    "this node's configuration cannot be followed in everything", extra={"problem": complaint}
                )
        return wish
