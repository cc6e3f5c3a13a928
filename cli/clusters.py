"""A real cluster, read once from its API server with the caller's own rights. Nothing is written to it."""

from collections.abc import Callable

from cli.clusterobjects import ClusterObjects
from extender.observing import reduced, reduced_host, reduced_node
from fracgpu.errors import UnavailableError
from fracgpu.gpunodes import GpuNode
from fracgpu.kube.client import KubeClient, Listing
from fracgpu.kube.errors import KubeError
from fracgpu.kube.resources import GPUNODES, NODES, PODS
from fracgpu.nodes import Node
from fracgpu.pods import Pod

_FORBIDDEN = 403
_NOT_FOUND = 404


async def read_cluster(
    client: KubeClient,
    *,
    keep_pod: Callable[[Pod], Pod | None] = reduced,
    keep_node: Callable[[GpuNode], GpuNode] = reduced_node,
    keep_host: Callable[[Node], Node] = reduced_host,
    else_namespace: str = "",
) -> ClusterObjects:
    """List pods, GPUNodes and Nodes.

    Args:
        client: the API server.
        keep_pod: what to keep of a pod; None leaves it out.
        keep_node: what to keep of a GPUNode.
        keep_host: what to keep of a Node.
        else_namespace: whose pods to list for a caller who may not list those of all namespaces, and who then need
            not know the Nodes either; empty makes that an error.

    Raises:
        UnavailableError: the cluster does not know GPUNodes, or the caller may not list them.
        KubeError: the cluster cannot be read.
    """
    # Pods first: what is bound in between counts by its grant, and is not lost.
    pods, within = await _pods(client, keep_pod, else_namespace=else_namespace)
    nodes = await _gpu_nodes(client, keep_node)
    hosts = await _hosts(client, keep_host, is_needed=not else_namespace)
    found = ClusterObjects(pods.items, nodes.items, hosts.items if hosts is not None else None, within)
    if within is None:
        found.gaps.append("you may not list pods, so only those that hold GPU memory are known, by their grants")
    elif within:
        found.gaps.append(
            f"you may list pods in {within} only; those of other namespaces are known by their grants, and not those "
            "that wait"
        )
    for what, listing in (("pods", pods), ("GPUNodes", nodes), ("Nodes", hosts)):
        if listing is None:
            continue
        for uid, problem in listing.unreadable.items():
            found.gaps.append(f"one of the {what} ({uid}) cannot be read and is left out: {problem}")
    return found


async def _pods(
    client: KubeClient, keep: Callable[[Pod], Pod | None], *, else_namespace: str
) -> tuple[Listing[Pod], str | None]:
    """The pods that may be listed, and within which namespace; empty for all, None for none."""
    try:
        return await client.list(PODS, keep=keep), ""
    except KubeError as exc:
        if exc.status != _FORBIDDEN or not else_namespace:
            raise
    try:
        return await client.list(PODS.in_namespace(else_namespace), keep=keep), else_namespace
    except KubeError as exc:
        if exc.status != _FORBIDDEN:
            raise
    return Listing([], "", {}), None


async def _gpu_nodes(client: KubeClient, keep: Callable[[GpuNode], GpuNode]) -> Listing[GpuNode]:
    try:
        return await client.list(GPUNODES, keep=keep)
    except KubeError as exc:
        if exc.status == _NOT_FOUND:
            raise UnavailableError(
                "this cluster knows no GPUNodes (gpunodes.fracgpu.io), so fracgpu is not installed there"
            ) from exc
        if exc.status == _FORBIDDEN:
            raise UnavailableError(
                "you may not list GPUNodes (gpunodes.fracgpu.io) in this cluster; ask its administrator for the "
                "ClusterRole fracgpu-view"
            ) from exc
        raise


async def _hosts(client: KubeClient, keep: Callable[[Node], Node], *, is_needed: bool) -> Listing[Node] | None:
    try:
        return await client.list(NODES, keep=keep)
    except KubeError as exc:
        if exc.status != _FORBIDDEN or is_needed:
            raise
        return None
