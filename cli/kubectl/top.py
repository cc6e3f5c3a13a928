"""`kubectl fracgpu top`: the nodes and their GPUs, once, or again at every change."""

from collections.abc import Sequence
from typing import Final

from rich.console import Console, Group

from cli.kubectl.bars import WIDTH
from cli.kubectl.cluster import Cluster
from cli.kubectl.flags import Output, Where
from cli.kubectl.printing import least_width, show, show_data, terminal
from cli.kubectl.reading import read
from cli.kubectl.session import connected
from cli.kubectl.topview import draw, lines_of, only
from extender.picture import Picture
from fracgpu.errors import UnavailableError

_NARROW: Final = 100  # characters, below which there is less room for bars


async def top(where: Where, *, nodes: Sequence[str], output: Output, watch: bool) -> int:
    """Show the nodes.

    Args:
        where: which cluster.
        nodes: the names of those to show; none for all.
        output: how to print them.
        watch: go on at every change until interrupted.

    Raises:
        FracgpuError: the cluster cannot be read, or has no such node.
    """
    async with connected(where) as session:
        if watch:
            from cli.kubectl.watching import follow

            return await follow(session, nodes=nodes, output=output)
        picture = chosen(await read(session), nodes=nodes)
    if output in (Output.JSON, Output.YAML):
        show_data(picture, output=output)
        return 0
    show(drawn(picture, terminal(), output=output))
    return 0


def chosen(cluster: Cluster, *, nodes: Sequence[str]) -> Picture:
    """The picture of the named nodes.

    Raises:
        UnavailableError: there is no such node.
    """
    known = cluster.index.nodes.keys()
    for name in nodes:
        if name not in known:
            some = ", ".join(sorted(known)[:10]) + (", …" if len(known) > 10 else "") if known else "none"
            raise UnavailableError(f"no node {name!r} has announced GPUs; those that have are {some}")
    return only(cluster.picture, nodes=nodes)


def drawn(picture: Picture, console: Console, *, output: Output) -> Group:
    """The picture for a person, with the pods where they were asked for, or all of it fits on the terminal."""
    bar_width = WIDTH // 2 if console.is_terminal and console.width < _NARROW else WIDTH
    may_fit = console.is_terminal and lines_of(picture, with_pods=True) < console.height
    if may_fit or output is Output.WIDE:
        wide = draw(picture, with_pods=True, bar_width=bar_width)
        if output is Output.WIDE or max(map(least_width, wide.renderables)) <= console.width:
            return wide
    return draw(picture, with_pods=False, bar_width=bar_width)
