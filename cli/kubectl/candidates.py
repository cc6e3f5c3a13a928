"""Names that exist in the cluster, for completion: namespaces, nodes with GPUs, pods that ask for them, contexts."""

import asyncio

from cli.kubectl.flags import Where
from cli.kubectl.kubeconfig import read_kubeconfigs
from cli.kubectl.objects import NAMESPACES
from cli.kubectl.session import Session, connected
from extender.observing import asks_gpu
from fracgpu.kube.resources import GPUNODES, PODS


async def names_of(kind: str, where: Where, *, seconds: float) -> list[str]:
    """The names, sorted.

    Args:
        kind: contexts, namespaces, nodes or pods.
        where: what was typed before.
        seconds: how long it may take.

    Raises:
        FracgpuError: the cluster cannot be read.
        TimeoutError: it took too long.
    """
    if kind == "contexts":
        found = read_kubeconfigs(where.kubeconfig)
        return sorted(found.contexts) if found is not None else []
    async with asyncio.timeout(seconds), connected(where) as session:
        return sorted(await _names(kind, session))


async def _names(kind: str, session: Session) -> list[str]:
    if kind == "namespaces":
        return [found.metadata.name for found in (await session.client.list(NAMESPACES)).items]
    if kind == "nodes":
        return [found.node for found in (await session.client.list(GPUNODES)).items]
    pods = await session.client.list(
        PODS.in_namespace(session.namespace), keep=lambda pod: pod if asks_gpu(pod) else None
    )
    return [pod.metadata.name for pod in pods.items]
