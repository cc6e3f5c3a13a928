"""`fracgpu replay --from-cluster --manifests DIR`: would these pods fit; what the question needs is read here.

Nothing is written to the cluster.
"""

import asyncio
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from cli.clusters import read_cluster
from cli.interrupts import Interrupts
from extender.index import Index
from extender.placement.policies import Policies
from fracgpu.annotations import PlacementPolicy
from fracgpu.errors import SettingError
from fracgpu.kube.client import KubeClient
from playground.manifests import load
from replay.manifests import Wanted, wanted_pods
from replay.parallel import Stopped
from replay.snapshots import Snapshot
from replay.whatif import Answer, Answers, answer
from webhook.policy import Policy

_KUBECONFIG: Final = "KUBECONFIG"


def ask_cluster(
    *,
    policy: PlacementPolicy,
    as_json: bool,
    from_cluster: bool,
    kubeconfig: Path | None,
    manifests: Path | None,
    replicas: int | None,
    add_nodes: int,
    like: str,
    interrupts: Interrupts,
) -> int:
    """Say of each pod of the manifests where it would go, or why it would wait.

    Args:
        policy: for pods that name none.
        as_json: print the answers as JSON.
        from_cluster: whether the flag is there.
        kubeconfig: of the cluster; None for kubectl's.
        manifests: a directory.
        replicas: seats that every GPU gets first; None leaves them.
        add_nodes: how many nodes are added first.
        like: which node they equal; empty for the largest.
        interrupts: entered by the caller.

    Raises:
        SettingError: something cannot be read, or the flags do not go together.
        KubeError: the cluster cannot be read.
        Stopped: a signal came.
    """
    if manifests is None:
        raise SettingError("--from-cluster needs a question: name a directory of manifests with --manifests DIR")
    if not from_cluster:
        raise SettingError(
            "--manifests asks whether pods would fit into a real cluster, so it goes with --from-cluster; a trace, "
            "whose GPUs have no sizes, cannot answer that"
        )
    if like and not add_nodes:
        raise SettingError("--like says which node the added ones equal; say with --add-nodes how many are added")
    try:
        found = load(manifests)
    except OSError as exc:
        raise SettingError(f"--manifests {manifests} cannot be read ({exc.strerror}); name a directory") from exc
    snapshot = asyncio.run(_read(kubeconfig or _usual_kubeconfig(), interrupts))
    if not snapshot.nodes:
        raise SettingError(
            "the cluster has no GPUs known to fracgpu (no GPUNode objects: are the device plugins running?)"
        )
    known = {node.node for node in snapshot.nodes}
    if replicas is not None:
        snapshot = snapshot.with_replicas(replicas)
    if add_nodes:
        snapshot = snapshot.with_nodes(add_nodes, like=like)
    seats = snapshot.replicas
    wanted = wanted_pods(found, policy=Policy(unit=snapshot.unit, replicas=seats))
    answers = _ask(snapshot.index(Policies(policy)), wanted, interrupts)
    asking = [given for given in answers if given.fits is not None]
    result = Answers(
        nodes=len(snapshot.nodes),
        gpus=sum(len(node.spec.gpus) for node in snapshot.nodes),
        added_nodes=[node.node for node in snapshot.nodes if node.node not in known],
        replicas=seats,
        asking=len(asking),
        fitting=sum(given.fits is True for given in asking),
        pods=answers,
        waiting_already=snapshot.waiting,
    )
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(result)).decode())
    else:
        Console().print(_render(result, is_what_if=replicas is not None or bool(add_nodes)))
    return 0


def _ask(index: Index, wanted: Iterable[Wanted], interrupts: Interrupts) -> list[Answer]:
    answers = []
    for each in wanted:
        if interrupts.number:
            raise Stopped
        answers.append(answer(index, each))
    return answers


def _usual_kubeconfig() -> Path | None:
    """The file that kubectl would take; None where there is none, for the service account of our pod."""
    named = [Path(part) for part in os.environ.get(_KUBECONFIG, "").split(os.pathsep) if part]
    return next((file for file in (*named, Path.home() / ".kube" / "config") if file.is_file()), None)


async def _read(kubeconfig: Path | None, interrupts: Interrupts) -> Snapshot:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    interrupts.tell(lambda: loop.is_closed() or loop.call_soon_threadsafe(stop.set))
    reading = asyncio.create_task(_list_all(kubeconfig))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({reading, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not reading.done():
        reading.cancel()
        await asyncio.wait({reading})
        raise Stopped
    return reading.result()


async def _list_all(kubeconfig: Path | None) -> Snapshot:
    client = await KubeClient.connect(kubeconfig=kubeconfig)
    try:
        found = await read_cluster(client)
    finally:
        await client.close()
    for gap in found.gaps:
        print(f"warning: {gap}", file=sys.stderr)
    return found.snapshot


def _render(found: Answers, *, is_what_if: bool) -> RenderableType:
    table = Table.grid(padding=(0, 2, 0, 0))
    signs = {True: Text("yes", style="green"), False: Text("no", style="yellow"), None: Text("-", style="dim")}
    for given in found.pods:
        table.add_row(signs[given.fits], Text(given.pod, style="bold"), escape(given.sentence))
    parts: list[RenderableType] = [table] if found.pods else []
    with_added = f", {len(found.added_nodes)} of them added" if found.added_nodes else ""
    cluster = f"{found.nodes} nodes with {found.gpus} GPUs{with_added}"
    changed = "would have" if is_what_if else "has"
    pods = "pod that asks" if found.asking == 1 else "pods that ask"
    parts.append(Text(f"{found.fitting} of {found.asking} {pods} for GPUs would fit; the cluster {changed} {cluster}."))
    if found.waiting_already:
        count = len(found.waiting_already)
        first = ", ".join(found.waiting_already[:3]) + (", …" if count > 3 else "")
        parts.append(Text(f"Beside them {count} of the cluster's own wait for GPUs already ({first})."))
    return Group(*parts)
