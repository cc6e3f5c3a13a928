"""`kubectl fracgpu top -w`: the picture again at every change, as the API server tells of them."""

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from cli.clusters import ClusterObjects, read_cluster
from cli.kubectl.cluster import Cluster, keep, whole
from cli.kubectl.flags import Output
from cli.kubectl.printing import now, plain, show_data, terminal
from cli.kubectl.session import Session, tell
from cli.kubectl.top import chosen, drawn
from extender.observing import reduced_host
from extender.picture import Picture
from fracgpu.errors import SettingError
from fracgpu.kube.reflector import Reflector
from fracgpu.kube.resources import GPUNODES, NODES, PODS

_SETTLE_SECONDS: Final = 0.5  # changes come in bursts: one picture for all of them
_LOOK_SECONDS: Final = 5.0  # between two looks at whether the watches still stand
_OPENING_SECONDS: Final = 3.0  # that they take to be opened


class _Followed:
    """The three collections, kept up to date; of pods those that the caller may list."""

    def __init__(self, session: Session, *, gaps: Sequence[str], has_hosts: bool) -> None:
        self.changed = asyncio.Event()
        within = PODS.in_namespace(session.namespace) if gaps else PODS
        self._pods = self._reflector(session, within, keep=keep)
        self._nodes = self._reflector(session, GPUNODES, keep=whole)
        self._hosts = self._reflector(session, NODES, keep=reduced_host)
        self.reflectors = [self._pods, self._nodes, *([self._hosts] if has_hosts else [])]

    def _reflector(self, session: Session, resource: Any, *, keep: Any) -> Reflector[Any]:
        return Reflector(
            session.client,
            resource,
            on_change=lambda _: self.changed.set(),
            keep=keep,
            on_progress=lambda _: None,
        )

    @property
    def is_current(self) -> bool:
        """Whether the API server tells us of changes."""
        return all(reflector.is_current for reflector in self.reflectors)

    @property
    def cluster(self) -> Cluster:
        """The cluster as far as we know it."""
        return Cluster.of(
            ClusterObjects(
                list(self._pods.objects.values()),
                list(self._nodes.objects.values()),
                list(self._hosts.objects.values()),
            )
        )


async def follow(session: Session, *, nodes: Sequence[str], output: Output) -> int:
    """Show the picture until interrupted: in place on a terminal, elsewhere anew at every change.

    Raises:
        SettingError: the output cannot be shown again and again.
        FracgpuError: the cluster cannot be read, or has no such node.
    """
    if output is Output.YAML:
        raise SettingError("-o yaml and --watch do not go together; use -o json, which prints one object per change")
    first = await read_cluster(
        session.client, keep_pod=keep, keep_node=whole, keep_host=reduced_host, else_namespace=session.namespace
    )  # says what is wrong, once, where a reflector would try for ever
    for gap in first.gaps:
        tell(f"warning: {gap}")
    chosen(Cluster.of(first), nodes=nodes)
    logging.getLogger("fracgpu").addHandler(logging.NullHandler())
    followed = _Followed(session, gaps=first.gaps, has_hosts=bool(first.hosts))
    tasks = [asyncio.create_task(reflector.run()) for reflector in followed.reflectors]
    try:
        for reflector in followed.reflectors:
            await reflector.synced.wait()
        await _show(followed, nodes=nodes, output=output, tasks=tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return 0


async def _show(
    followed: _Followed, *, nodes: Sequence[str], output: Output, tasks: Sequence[asyncio.Task[None]]
) -> None:
    console = terminal()
    shown: tuple[Picture, bool] | None = None
    begun = asyncio.get_running_loop().time()
    with contextlib.ExitStack() as stack:
        live = None
        if console.is_terminal and output is not Output.JSON:
            live = stack.enter_context(Live(console=console, auto_refresh=False, screen=True))
        while not any(task.done() for task in tasks):
            followed.changed.clear()
            cluster = followed.cluster
            picture = chosen(cluster, nodes=[name for name in nodes if name in cluster.index.nodes])
            is_late = asyncio.get_running_loop().time() - begun > _OPENING_SECONDS
            found = (picture, followed.is_current or not is_late)
            if found != shown:
                shown = found
                drawing = drawn(picture, console, output=output)
                if live is not None:
                    live.update(_with_footer(drawing, is_current=found[1]), refresh=True)
                elif output is Output.JSON:
                    show_data(picture, output=output)
                else:
                    print(plain(drawing), flush=True)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_SECONDS):
                    await followed.changed.wait()
                    await asyncio.sleep(_SETTLE_SECONDS)
    for task in tasks:
        if task.done():
            task.result()


def _with_footer(found: RenderableType, *, is_current: bool) -> RenderableType:
    when = f"{now():%H:%M:%S} UTC"
    if is_current:
        return Group(found, Text(f"{when}, Ctrl-C ends it", style="dim"))
    return Group(
        found, Text(f"{when}: the API server does not tell of changes at the moment; trying again", style="red")
    )
