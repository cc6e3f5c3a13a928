"""Why a pod of a trace fits nowhere, in a sentence: no CPU and memory, or no GPUs where these are. Pure.

What is counted here are thousandths of GPUs, as traces have them; for memory sizes see extender.placement.explaining.
The sentences have no commas, so that they stand in a CSV file without quotes.
"""

from collections.abc import Sequence

from extender.placement.views import NodeView
from fracgpu.hosts import HostAmount
from fracgpu.quantities import format_mib
from replay.engine import product_of
from replay.workloads import GPU_PARTS, TracePod


def why_not(pod: TracePod, *, roomy: Sequence[NodeView]) -> str:
    """Why the pod fits on none of these nodes.

    Args:
        pod: that fits nowhere.
        roomy: the nodes that have the CPU and the memory that it asks for.
    """
    if not roomy:
        return f"no node has {describe_host(pod.host)} free"
    acceptable = [view for view in roomy if view.gpus and _accepts(pod.models, view.gpus[0].product)]
    among = f"of the {len(roomy)} nodes with {describe_host(pod.host)} free"
    if len(roomy) == 1:
        among = f"the one node with {describe_host(pod.host)} free"
    if not acceptable:
        what = f"a GPU of the model {' or '.join(pod.models)}" if pod.models else "a GPU"
        return f"{among} has no GPU: {what} is asked for" if len(roomy) == 1 else f"{among} none has {what}"
    models = f" of the model {' or '.join(pod.models)}" if pod.models else ""
    has = f"{among} has" if len(roomy) == 1 else f"{among} none has"
    lacks = "not " if len(roomy) == 1 else ""
    if pod.gpus == 1:
        largest = max(view.pieces[-1] for view in acceptable)
        what = ("a whole GPU" if pod.gpu_milli == GPU_PARTS else f"{format_gpus(pod.gpu_milli)} of a GPU") + models
        return f"{has} {lacks}{what} free: the largest piece there is {format_gpus(largest)}"
    most = max(sum(piece >= pod.gpu_milli for piece in view.pieces) for view in acceptable)
    return f"{has} {lacks}{pod.gpus} whole GPUs{models} free: the most on one there are {most}"


def describe_host(host: HostAmount) -> str:
    """CPU and memory for a person."""
    cores = f"{host.cpu_milli / 1000:g}"
    parts = [f"{cores} {'CPU' if cores == '1' else 'CPUs'}"] if host.cpu_milli else []
    parts += [f"{format_mib(host.memory_mib)} of memory"] if host.memory_mib else []
    return " and ".join(parts) or "no CPU and no memory"


def format_gpus(milli: int) -> str:
    """Thousandths of GPUs as GPUs."""
    return f"{milli / GPU_PARTS:g}"


def _accepts(models: Sequence[str], product: str) -> bool:
    return not models or product in map(product_of, models)
