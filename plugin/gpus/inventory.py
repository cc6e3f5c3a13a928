"""What this node offers at the moment, and who is told when that changes.

The one place that knows the cards, the administrator's wishes and the GPUs' health together. It does not decide when a
change may come into force: whoever knows what is held calls `settle` (`plugin.granting.desk`).
"""

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType

from fracgpu.errors import SettingError
from fracgpu.gpunodes import Gpu, GpuNodeSpec
from fracgpu.names import GpuUuid
from fracgpu.quantities import Mib
from plugin.gpus.cards import Card
from plugin.gpus.layout import Problems, check_message_size, settle, wanted_spec, with_problems
from plugin.wishes import GpuWish

_logger = logging.getLogger(__name__)


class Inventory:
    """The GPUs of one node and how they are shared; offers nothing before `begin`.

    Args:
        cards: the node's GPUs.
        unit: the memory unit that is wished for.
        numa_hints: whether the kubelet is told the GPUs' NUMA nodes.

    Attributes:
        gpus: UUID -> GPU; a live view of `spec`.
        cards: UUID -> the card behind a GPU; absent where NVML did not find it.
    """

    def __init__(self, cards: Sequence[Card], *, unit: Mib, numa_hints: bool = False) -> None:
        self._cards = tuple(cards)
        self._unit = unit
        self._numa_hints = numa_hints
        self._wishes: Mapping[GpuUuid, GpuWish] = {}
        self._problems: Problems = {}
        self._changed = asyncio.Event()  # replaced by a new one each time that it is set
        self._settled = self._spec = GpuNodeSpec(unit, numa_hints=numa_hints)
        self._gpus: dict[GpuUuid, Gpu] = {}
        self.gpus: Mapping[GpuUuid, Gpu] = MappingProxyType(self._gpus)
        self.cards: Mapping[GpuUuid, Card] = {card.uuid: card for card in self._cards}

    def begin(self, wishes: Mapping[GpuUuid, GpuWish], *, before: GpuNodeSpec | None) -> None:
        """Offer what is wished for.

        Args:
            wishes: how each GPU is to be shared.
            before: what an earlier process offered, all of which counts as held until the next `settle`; None where
                nothing is known of that.

        Raises:
            SettingError: the unit is too small for the kubelet.
        """
        check_message_size(wanted_spec(self._cards, wishes, unit=self._unit))
        self._wishes = wishes
        held = [gpu.uuid for gpu in before.gpus] if before else []
        self._settled = settle(before, self._cards, wishes, unit=self._unit, held=held, numa_hints=self._numa_hints)
        self._show()

    @property
    def spec(self) -> GpuNodeSpec:
        """What the node offers, in the order of NVML."""
        return self._spec

    async def changed_from(self, spec: GpuNodeSpec) -> GpuNodeSpec:
        """Wait until the node offers something else than `spec`; returns what."""
        while self._spec == spec:
            await self._changed.wait()
        return self._spec

    def wish(self, wishes: Mapping[GpuUuid, GpuWish]) -> None:
        """Take other wishes; they come into force with the next `settle`."""
        self._wishes = wishes

    def report(self, problems: Problems) -> bool:
        """Take what is known of the GPUs' health, at once; those that are not named are well. Whether it is news."""
        self._problems = dict(problems)
        return self._show()

    def settle(self, held: Collection[GpuUuid]) -> bool:
        """Bring into force what can be, as of this moment `held` is granted or planned; whether anything changed."""
        settled = settle(
            self._settled, self._cards, self._wishes, unit=self._unit, held=held, numa_hints=self._numa_hints
        )
        if settled == self._settled:
            return False
        try:
            check_message_size(settled)
        except SettingError as exc:
            _logger.error("the GPUs stay shared as they are", extra={"problem": str(exc)})
            return False
        self._settled = settled
        return self._show()

    def _show(self) -> bool:
        spec = with_problems(self._settled, self._problems)
        if spec == self._spec:
            return False
        self._spec = spec
        self._gpus.clear()
        self._gpus.update((gpu.uuid, gpu) for gpu in spec.gpus)
        self._changed.set()
        self._changed = asyncio.Event()
        return True
