"""`kubectl fracgpu pods`: who asks for GPU memory, who has it, who waits."""

from collections.abc import Sequence

from cli.kubectl.flags import Output, Where
from cli.kubectl.podrows import PodList, draw, rows_of
from cli.kubectl.printing import now, show, show_data
from cli.kubectl.reading import read
from cli.kubectl.session import connected, tell
from fracgpu.errors import UnavailableError


async def pods(where: Where, *, names: Sequence[str], every_namespace: bool, output: Output) -> int:
    """Show the pods.

    Args:
        where: which cluster and namespace.
        names: of those to show; none for all.
        every_namespace: show those of all namespaces.
        output: how to print them.

    Raises:
        FracgpuError: the cluster cannot be read, or one of the names is that of no such pod.
    """
    async with connected(where) as session:
        namespace = "" if every_namespace else session.namespace
        rows = rows_of(await read(session), namespace=namespace, names=names)
    missing = sorted(set(names) - {row.name for row in rows})
    if missing:
        place = f"in namespace {namespace}" if namespace else "in any namespace"
        raise UnavailableError(f"no pod {', '.join(missing)} asks for GPUs {place}; explain says more of one")
    if output in (Output.JSON, Output.YAML):
        show_data(PodList(rows), output=output)
    elif rows:
        show(draw(rows, now=now(), is_wide=output is Output.WIDE, with_namespace=every_namespace))
    else:
        tell(f"No pod asks for GPUs in namespace {namespace}; -A shows all." if namespace else "No pod asks for GPUs.")
    return 0
