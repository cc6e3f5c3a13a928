"""`kubectl fracgpu top -w`: the picture again at every change, as the API server tells of them."""

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from typing import Any, Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from cli.clusterobjects import ClusterObjects
from cli.kubectl.cluster import Cluster, keep, whole
from cli.kubectl.flags import Output
from cli.kubectl.printing import harmless, now, plain, show_data, terminal
from cli.kubectl.reading import read_objects
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


class _Troubles(logging.Handler):
    """What the watches log, of which the last that went wrong is for the user."""

    last = "it gives no reason"

    def emit(self, record: logging.LogRecord) -> None:
        subject = getattr(record, "subject", "")  # which only trouble has
        if subject and record.levelno >= logging.WARNING:
            self.last = f"{subject}: {getattr(record, 'error', record.getMessage())}"


class _Followed:
    """The collections that the caller may list, kept up to date.

    Args:
        session: the API server.
        first: what could be read of them.
    """

    def __init__(self, session: Session, *, first: ClusterObjects) -> None:
        self.changed = asyncio.Event()
        self._client = session.client
        self._pods = self._reflector(PODS.in_namespace(first.pods_within) if first.pods_within else PODS, keep=keep)
        self._nodes = self._reflector(GPUNODES, keep=whole)
        self._hosts = self._reflector(NODES, keep=reduced_host)
        self.reflectors = [
            *([] if first.pods_within is None else [self._pods]),
            self._nodes,
            *([] if first.hosts is None else [self._hosts]),
        ]

    def _reflector(self, resource: Any, *, keep: Any) -> Reflector[Any]:
        return Reflector(
            self._client,
            resource,
            on_change=lambda _: self.changed.set(),
            keep=keep,
            on_progress=lambda _: None,
        )

    @property
    def is_current(self) -> bool:
        """Whether the API server tells us of changes."""
        return all(reflector.is_current for reflector in self.reflectors)

    async def synced(self) -> None:
        """Wait until all is known."""
        for reflector in self.reflectors:
            await reflector.synced.wait()

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
    first = await read_objects(session)  # says what is wrong, once, where a reflector would try for ever
    chosen(Cluster.of(first), nodes=nodes)
    troubles = _Troubles()
    logging.getLogger("fracgpu").addHandler(troubles)
    followed = _Followed(session, first=first)
    tasks = [asyncio.create_task(reflector.run()) for reflector in followed.reflectors]
    try:
        await _synced(followed, tasks=tasks, troubles=troubles)
        await _show(followed, nodes=nodes, output=output, tasks=tasks, troubles=troubles)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return 0


async def _synced(followed: _Followed, *, tasks: Sequence[asyncio.Task[None]], troubles: _Troubles) -> None:
    """Wait until all is known; where that takes long, say why."""
    synced = asyncio.create_task(followed.synced())
    try:
        done, _ = await asyncio.wait({synced, *tasks}, timeout=_LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            tell(_stale(troubles))
            done, _ = await asyncio.wait({synced, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        synced.cancel()


async def _show(
    followed: _Followed,
    *,
    nodes: Sequence[str],
    output: Output,
    tasks: Sequence[asyncio.Task[None]],
    troubles: _Troubles,
) -> None:
    console = terminal()
    begun = asyncio.get_running_loop().time()
    with contextlib.ExitStack() as stack:
        live = None
        if console.is_terminal and output is not Output.JSON:
            live = stack.enter_context(Live(console=console, auto_refresh=False, screen=True))
        screen = _Screen(console, live, output=output)
        while not any(task.done() for task in tasks):
            followed.changed.clear()
            cluster = followed.cluster
            is_late = asyncio.get_running_loop().time() - begun > _OPENING_SECONDS
            screen.show(
                chosen(cluster, nodes=[name for name in nodes if name in cluster.index.nodes]),
                stale=_stale(troubles) if is_late and not followed.is_current else "",
            )
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_SECONDS):
                    await followed.changed.wait()
                    await asyncio.sleep(_SETTLE_SECONDS)
    for task in tasks:
        if task.done():
            task.result()


class _Screen:
    """What was shown last, and what is new of it."""

    def __init__(self, console: Console, live: Live | None, *, output: Output) -> None:
        self._console = console
        self._live = live
        self._output = output
        self._picture: Picture | None = None
        self._stale = ""

    def show(self, picture: Picture, *, stale: str) -> None:
        """Show what is new.

        Args:
            picture: the cluster.
            stale: why it may be out of date; empty where it is not.
        """
        is_new, is_other = picture != self._picture, stale != self._stale
        self._picture, self._stale = picture, stale
        if self._live is not None:
            if is_new or is_other:
                drawing = drawn(picture, self._console, output=self._output)
                self._live.update(harmless(_with_footer(drawing, stale=stale)), refresh=True)
            return
        if is_new and self._output is Output.JSON:
            show_data(picture, output=self._output)
        elif is_new:
            print(plain(drawn(picture, self._console, output=self._output)), flush=True)
        if is_other and stale:
            tell(stale)


def _stale(troubles: _Troubles) -> str:
    return f"warning: the API server does not tell of changes ({troubles.last}); trying again"


def _with_footer(found: RenderableType, *, stale: str) -> RenderableType:
    when = f"{now():%H:%M:%S} UTC"
    if not stale:
        return Group(found, Text(f"{when}, Ctrl-C ends it", style="dim"))
    return Group(found, Text(f"{when}: {stale}", style="red"))
