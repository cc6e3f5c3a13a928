"""The kubelet's choice of devices on a machine of several NUMA nodes, written after its Go code (v1.36), slowly.

`devicemanager/topology_hints.go` (generateDeviceTopologyHints), `topologymanager/policy.go` (HintMerger, best-effort,
one provider), `devicemanager/manager.go` (devicesToAllocate, filterByAffinity), for one resource. Masks are the
bit masks that they are there. Devices are named as fracgpu's, and the plugin's preference is given.
"""

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from itertools import combinations

Device = tuple[str, int]
"""GPU, number."""


@dataclass(frozen=True)
class Hint:
    affinity: int | None  # bit mask; None is Go's nil
    preferred: bool


@dataclass
class Manager:
    """The device manager's books on one resource.

    `nodes` says each GPU's NUMA node, None for none; `machine` are the machine's NUMA nodes.
    """

    all_devices: Set[Device]
    healthy: Set[Device]
    allocated: set[Device]
    nodes: Mapping[str, int | None]
    machine: tuple[int, ...]

    def admit(self, request: int, *, prefer: Callable[[Set[Device], Set[Device]], Set[Device]]) -> set[Device] | None:
        """Which devices a container gets; None where it is refused. `prefer` is told what is available, and a must."""
        hint = self._merge(self._hints(request))
        available = set(self.healthy - self.allocated)
        if len(available) < request:
            return None
        aligned = self._aligned(available, hint)
        if request < len(aligned):
            chosen = set(sorted(prefer(aligned, frozenset()) & aligned)[:request])
            chosen |= set(sorted(aligned - chosen)[: request - len(chosen)])
        else:
            chosen = set(aligned)
            rest = sorted((prefer(available, frozenset(aligned)) & available) - chosen)
            chosen |= set(rest[: request - len(chosen)])
            chosen |= set(sorted(available - chosen)[: request - len(chosen)])
        self.allocated |= chosen
        return chosen

    def _in_mask(self, devices: Set[Device], mask: int) -> int:
        return sum(node is not None and bool(mask & 1 << node) for node in (self.nodes[gpu] for gpu, _ in devices))

    def _has_alignment(self) -> bool:
        return any(self.nodes[gpu] is not None for gpu, _ in self.all_devices)

    def _hints(self, request: int) -> list[Hint] | None:
        available = self.healthy - self.allocated
        if not self._has_alignment():
            return None
        if len(available) < request:
            return []
        bits = sorted({node for gpu, _ in self.all_devices if (node := self.nodes[gpu]) is not None})
        smallest, masks = len(bits), []
        for size in range(1, len(bits) + 1):
            for chosen in combinations(bits, size):
                mask = sum(1 << bit for bit in chosen)
                if self._in_mask(self.all_devices, mask) >= request:
                    smallest = min(smallest, size)
                if self._in_mask(available, mask) >= request:
                    masks.append(mask)
        return [Hint(mask, mask.bit_count() == smallest) for mask in masks]

    def _merge(self, hints: list[Hint] | None) -> Hint:
        default = sum(1 << node for node in self.machine)
        filtered = [Hint(None, True)] if hints is None else hints or [Hint(None, False)]
        counts = [hint.affinity.bit_count() for hint in filtered if hint.affinity is not None]
        best_count = min(counts, default=0)
        best: Hint | None = None
        for hint in filtered:
            merged = Hint(default if hint.affinity is None else default & hint.affinity, hint.preferred)
            best = _compare(best, merged, best_count=best_count)
        return best or Hint(default, False)

    def _aligned(self, available: Set[Device], hint: Hint) -> set[Device]:
        if not self._has_alignment() or hint.affinity is None:
            return set()
        return {device for device in available if self._in_mask({device}, hint.affinity)}


def _compare(current: Hint | None, candidate: Hint, *, best_count: int) -> Hint:
    assert candidate.affinity is not None
    if current is None:
        return candidate  # the affinity is never empty here: the GPUs' NUMA nodes are the machine's
    assert current.affinity is not None
    if current.preferred != candidate.preferred:
        return candidate if candidate.preferred else current
    if current.preferred:
        return _narrower(current, candidate)
    ours, theirs = current.affinity.bit_count(), candidate.affinity.bit_count()
    if ours > best_count:
        return _narrower(current, candidate)
    if ours == best_count:
        return _narrower(current, candidate) if theirs == best_count else current
    if theirs > best_count:
        return current
    if theirs == best_count or theirs > ours:
        return candidate
    return current if theirs < ours else _narrower(current, candidate)


def _narrower(current: Hint, candidate: Hint) -> Hint:
    assert current.affinity is not None
    assert candidate.affinity is not None
    ours = (current.affinity.bit_count(), current.affinity)
    return candidate if (candidate.affinity.bit_count(), candidate.affinity) < ours else current
