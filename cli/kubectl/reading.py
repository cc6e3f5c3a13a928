"""Reads the cluster once, for the commands that show it."""

from cli.clusterobjects import ClusterObjects
from cli.clusters import read_cluster
from cli.kubectl.cluster import Cluster, keep, whole
from cli.kubectl.session import Session, tell
from extender.observing import reduced_host


async def read(session: Session) -> Cluster:
    """Read the cluster; what could not be read is told on standard error.

    Raises:
        FracgpuError: it cannot be read.
    """
    return Cluster.of(await read_objects(session))


async def read_objects(session: Session) -> ClusterObjects:
    """The same, as the API server lists it.

    Raises:
        FracgpuError: it cannot be read.
    """
    found = await read_cluster(
        session.client,
        keep_pod=keep,
        keep_node=whole,
        keep_host=reduced_host,
        else_namespace=session.namespace,
    )
    for gap in found.gaps:
        tell(f"warning: {gap}")
    return found
