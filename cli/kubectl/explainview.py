"""`kubectl fracgpu explain` for a person. Pure."""

from typing import Final

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from cli.kubectl.explanation import Explained, GpuExplained, NodeExplained
from cli.kubectl.printing import table
from fracgpu.quantities import format_mib

SHOWN_NODES: Final = 10
_STYLES: Final = {"waiting": "yellow", "failed": "red", "unread": "red", "granted": "green"}


def draw(found: Explained, *, every_node: bool) -> Group:
    """The explanation; of many nodes the nearest, unless every one is asked for."""
    head = Text(f"{found.namespace}/{found.name} ", style="bold")
    parts: list[RenderableType] = [head.append(found.summary, style=_STYLES.get(found.state, ""))]
    if found.places:
        parts += [Text(), _places(found)]
    if found.notes:
        parts += [Text(), *(Text(f"- {note}") for note in found.notes)]
    if found.nodes:
        parts += [Text(), _nodes(found.nodes if every_node else found.nodes[:SHOWN_NODES])]
        parts += [Text(f"{node.name} is not used: {node.problem}") for node in found.nodes if not node.used]
        if not every_node and len(found.nodes) > SHOWN_NODES:
            parts.append(
                Text(f"… and {len(found.nodes) - SHOWN_NODES} more nodes; -o wide shows them all", style="dim")
            )
    if found.scheduler_says:
        parts += [Text(), Text(f"{found.scheduler or 'The scheduler'} says: {found.scheduler_says}")]
    if found.remedies:
        parts += [Text(), Text("What would help, the nearest first:", style="bold")]
        for number, remedy in enumerate(found.remedies, start=1):
            parts.append(Padding(Text(f"{number}. {remedy.sentence}"), (0, 0, 0, 2), expand=False))
    return Group(*parts)


def _places(found: Explained) -> Table:
    made = table("NODE", "GPU", "MODEL", "CONTAINERS", "USED", "GRANTED", "SEATS", "OF THE GPU")
    for place in found.places:
        made.add_row(
            found.node,
            str(place.index),
            place.product,
            ", ".join(place.containers),
            "-" if place.used is None else format_mib(place.used),
            format_mib(place.taken),
            str(place.seats) if place.seats else "-",
            f"{format_mib(place.gpu_taken)} of {format_mib(place.gpu_offered)} granted in all",
        )
    return made


def _nodes(nodes: list[NodeExplained]) -> Table:
    made = table("NODE", "GPU", "MODEL", "FREE", "OF", "SEATS", "WHY")
    made.columns[3].justify = made.columns[4].justify = made.columns[5].justify = "right"
    made.columns[6].no_wrap = False
    for node in nodes:
        if not node.gpus:
            made.add_row(Text(node.name, style="bold"), "", "", "", "", "", node.problem)
        for place, gpu in enumerate(node.gpus):
            made.add_row(
                Text(node.name if place == 0 else "", style="bold"),
                str(gpu.index),
                gpu.product,
                format_mib(gpu.free),
                format_mib(gpu.offered),
                f"{gpu.free_seats} of {gpu.seats} free",
                _why(gpu, node),
            )
    return made


def _why(gpu: GpuExplained, node: NodeExplained) -> Text:
    if gpu.problem:
        return Text(gpu.problem)
    if not node.problem:
        return Text("room", style="green")
    # The GPU alone would do; what the node says is about all of them together.
    return Text(f"room, but the node {node.problem.partition('; ')[2] or node.problem}", style="yellow")
