"""`kubectl fracgpu top` for a person: a line per GPU, under it who holds a part of it, and the sum. Pure."""

from collections.abc import Iterable

from rich.console import Group
from rich.table import Table
from rich.text import Text

from cli.kubectl.bars import WIDTH, bar
from cli.kubectl.printing import table
from cli.kubectl.wording import count, listed
from extender.picture import GpuPicture, NodePicture, Picture, SharePicture
from fracgpu.quantities import Mib, format_mib

_UNKNOWN = "-"
_STATES = {"granted": "", "bound": "bound, not given yet", "binding": "being bound", "held": "held", "ending": "ending"}
_NAMED = 3


def draw(picture: Picture, *, with_pods: bool, bar_width: int = WIDTH) -> Group:
    """The whole picture.

    Args:
        picture: the nodes to show.
        with_pods: whether to name who holds what.
        bar_width: of a GPU's bar, in characters.
    """
    if not picture.nodes:
        return Group(Text("No node has announced GPUs (kubectl get gpunodes)."))
    made = table("NODE", "GPU", "MODEL", "MEMORY", "USED", "GRANTED", "OF", "SEATS")
    for column in made.columns[4:8]:
        column.justify = "right"
    for node in picture.nodes:
        _add_node(made, node, with_pods=with_pods, bar_width=bar_width)
    notes = [Text(f"{node.name}: {node.problem}", style="yellow") for node in picture.nodes if node.problem]
    notes += [
        Text(f"{node.name}, GPU {gpu.index}: not healthy: {gpu.problem or 'no reason given'}", style="red")
        for node in picture.nodes
        for gpu in node.gpus
        if not gpu.healthy
    ]
    return Group(made, Text(), *notes, Text(summary(picture)))


def lines_of(picture: Picture, *, with_pods: bool) -> int:
    """How many lines that takes, where none is too long."""
    gpus = [gpu for node in picture.nodes for gpu in node.gpus]
    pods = sum(len(gpu.pods) for gpu in gpus) if with_pods else 0
    notes = sum(bool(node.problem) for node in picture.nodes) + sum(not gpu.healthy for gpu in gpus)
    empty = sum(not node.gpus for node in picture.nodes)
    return 3 + len(gpus) + empty + pods + notes


def summary(picture: Picture) -> str:
    """All of it in a line."""
    gpus = [gpu for node in picture.nodes for gpu in node.gpus]
    offered, taken = sum(gpu.offered for gpu in gpus), sum(gpu.taken for gpu in gpus)
    part = f" ({100 * taken / offered:.0f} %)" if offered else ""
    measured = [gpu.used for gpu in gpus if gpu.used is not None]
    used = f", {format_mib(sum(measured))} used" if measured else ""
    nodes = f"{count(len(picture.nodes), 'node')} with {count(len(gpus), 'GPU')}"
    sentence = f"{nodes}: {format_mib(taken)} of {format_mib(offered)} granted{part}{used}."
    if picture.waiting:
        names = listed([f"{pod.namespace}/{pod.name}" for pod in picture.waiting], most=_NAMED)
        verb = "waits" if len(picture.waiting) == 1 else "wait"
        sentence += f" {count(len(picture.waiting), 'pod')} {verb} for GPUs: {names}."
    return sentence


def _add_node(made: Table, node: NodePicture, *, with_pods: bool, bar_width: int) -> None:
    if not node.gpus:
        made.add_row(Text(node.name, style="bold"), "", Text("no GPU", style="dim"))
    for place, gpu in enumerate(node.gpus):
        _add_gpu(made, gpu, name=node.name if place == 0 else "", bar_width=bar_width)
        for share in gpu.pods if with_pods else ():
            _add_pod(made, share)


def _add_gpu(made: Table, gpu: GpuPicture, *, name: str, bar_width: int) -> None:
    made.add_row(
        Text(name, style="bold"),
        str(gpu.index),
        Text(gpu.product, style="" if gpu.healthy else "red"),
        bar(offered=gpu.offered, taken=gpu.taken, used=gpu.used, healthy=gpu.healthy, width=bar_width),
        _used(gpu.used, taken=gpu.taken),
        format_mib(gpu.taken),
        format_mib(gpu.offered),
        f"{gpu.seats_taken}/{gpu.seats}",
    )


def _add_pod(made: Table, share: SharePicture) -> None:
    state = _STATES.get(share.state, share.state)
    made.add_row(
        "",
        "",
        Text(f"  {share.namespace}/{share.name}", style="dim"),
        Text(f"  {state}", style="yellow") if state else "",
        _used(share.used, taken=share.taken),
        format_mib(share.taken),
        "",
        str(share.seats) if share.seats else "",
    )


def _used(used: Mib | None, *, taken: int) -> Text:
    if used is None:
        return Text(_UNKNOWN, style="dim")
    return Text(format_mib(used), style="red" if used > taken else "")


def only(picture: Picture, *, nodes: Iterable[str]) -> Picture:
    """The picture with only these nodes; all of them where none is named."""
    wanted = set(nodes)
    if not wanted:
        return picture
    return Picture(picture.memory_unit, [node for node in picture.nodes if node.name in wanted], picture.waiting)
