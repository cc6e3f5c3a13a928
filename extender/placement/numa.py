"""Which GPUs the kubelet would let a container have, where it knows their NUMA nodes: it narrows them down by itself.

The kubelet's device manager and topology manager (v1.36, pkg/kubelet/cm/devicemanager/topology_hints.go and manager.go,
topologymanager/policy.go) count the free devices of the asked resource on each NUMA node, not on each GPU. Of the sets
of NUMA nodes that have as many as are asked, they take the narrowest, and of equally narrow ones that of the lowest
numbers; only the devices there are then offered to the plugin. Containers are admitted one after the other.

Left out, because nobody here knows it: the hints of the CPU and the memory manager and of other devices, the
topology manager's policy, its scope, and its option prefer-closest-numa-nodes.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from itertools import combinations

from extender.placement.views import GpuView
from fracgpu.requests import ContainerRequest


def offered(gpus: Collection[GpuView], request: ContainerRequest) -> list[GpuView]:
    """The GPUs among which the kubelet lets the plugin choose for a container, in the order given.

    Args:
        gpus: the usable ones of the node, with what the pod's earlier containers take taken off.
        request: what the container asks.
    """
    free: Counter[int | None] = Counter()  # NUMA node, None for those without one -> free devices
    for gpu in gpus:
        free[gpu.numa_node] += _free_devices(gpu, request)
    nodes = affinity({node: count for node, count in free.items() if node is not None}, wanted=_devices(request))
    if nodes is not None:
        return [gpu for gpu in gpus if gpu.numa_node in nodes]
    if any(count for node, count in free.items() if node is not None):
        # No NUMA nodes have enough: the kubelet takes all that is left on them before it asks the plugin about the
        # rest, and so would cut a share in pieces.
        return []
    return [gpu for gpu in gpus if gpu.numa_node is None]


def affinity(free: dict[int, int], *, wanted: int) -> Sequence[int] | None:
    """The NUMA nodes that the kubelet takes for so many devices; None where all together have too few.

    Args:
        free: NUMA node -> free devices there.
        wanted: how many devices the container asks.
    """
    most = sorted(free.values(), reverse=True)
    for size in range(1, len(most) + 1):
        if sum(most[:size]) >= wanted:
            enough = (
                nodes for nodes in combinations(sorted(free), size) if sum(free[node] for node in nodes) >= wanted
            )
            # The kubelet compares sets as binary numbers: of two, that without the highest NUMA node is the lower one.
            return min(enough, key=lambda nodes: nodes[::-1])
    return None


def _devices(request: ContainerRequest) -> int:
    return request.gpus * (request.seats or request.units)


def _free_devices(gpu: GpuView, request: ContainerRequest) -> int:
    """How many devices of the asked resource the kubelet takes for free on a GPU."""
    return max(0, gpu.free_seats if request.seats else gpu.free_units + gpu.seat_units)
