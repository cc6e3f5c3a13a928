"""Shares of GPUs in words, as users read them in events."""

from collections.abc import Iterable, Mapping

from fracgpu.gpunodes import Gpu
from fracgpu.plans import Share
from fracgpu.quantities import Mib, format_mib


def shares_in_words(containers: Mapping[str, tuple[Share, ...]], *, unit: Mib, node: str, gpus: Iterable[Gpu]) -> str:
    """What a pod has: ``8 GiB on GPU 1 (NVIDIA A100-SXM4-40GB) of node-2``.

    Args:
        containers: container name -> its shares.
        unit: in which they count memory.
        node: where they are.
        gpus: what is known of that node's GPUs.
    """
    known = {gpu.uuid: gpu for gpu in gpus}
    parts = []
    for container, shares in containers.items():
        owner = f"for {container} " if len(containers) > 1 else ""
        parts += [f"{owner}{_share(share, unit, known.get(share.gpu))}" for share in shares]
    return f"{', '.join(parts)} of {node}"


def _share(share: Share, unit: Mib, gpu: Gpu | None) -> str:
    size = format_mib(share.units * unit)
    if share.seats:
        of = f" of {gpu.replicas}" if gpu else ""
        size = f"{share.seats}{of} {'seat' if share.seats == 1 and not gpu else 'seats'} ({size})"
    return f"{size} on {f'GPU {gpu.index} ({gpu.product})' if gpu else share.gpu}"
