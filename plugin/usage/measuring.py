"""Whose GPU memory is whose: processes that NVML lists, seen against pods and what they were granted. Pure.

Invariant: memory is counted to a pod only if its process is in the pod's cgroup, and to a container only if the process
is in that container's. What cannot be told is None, never 0.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from fracgpu.gpunodes import GpuNodeSpec, Grant
from fracgpu.names import GpuUuid, PodUid
from fracgpu.pods import Pod
from fracgpu.quantities import MIB_BYTES
from plugin.kubelet.cgroups import ContainerPids

Processes = Mapping[GpuUuid, Sequence[tuple[int, int | None]]]
"""GPU -> the processes that use it: PID in the host's namespace, and bytes of video memory, None where NVML does not
say. A GPU that NVML could not be asked about has no entry."""


@dataclass(frozen=True, slots=True)
class Owners:
    """To whom processes belong.

    Attributes:
        pids: PID -> pod and container; an empty container where only the pod is known.
        hidden: pods with processes that we cannot see, because the plugin is not in the host's PID namespace.
    """

    pids: Mapping[int, tuple[PodUid, str]]
    hidden: frozenset[PodUid] = frozenset()


@dataclass(frozen=True, slots=True)
class ContainerUsage:
    """What one container was granted of a GPU's memory and uses of it, in bytes; `container` may be empty."""

    uid: PodUid
    namespace: str
    pod: str
    container: str
    gpu: GpuUuid
    granted_bytes: int
    used_bytes: int | None


@dataclass(frozen=True, slots=True)
class Excess:
    """What a pod uses of a GPU, in bytes, where that is more than it was granted."""

    gpu: GpuUuid
    granted_bytes: int
    used_bytes: int


@dataclass(frozen=True, slots=True)
class Usage:
    """One measurement.

    Attributes:
        containers: by pod UID, container and GPU; those with a grant, and those that use a GPU without.
        unattributed: GPU -> bytes that belong to no pod with a grant; None where that cannot be told.
        excesses: pod UID -> the GPUs of which it uses more than its containers together were granted. Not of a pod
            that holds a whole GPU: what is left of that is nobody else's.
        hidden: pods that could not be measured.
    """

    containers: tuple[ContainerUsage, ...]
    unattributed: Mapping[GpuUuid, int | None]
    excesses: Mapping[PodUid, tuple[Excess, ...]]
    hidden: frozenset[PodUid]


def find_owners(found: Mapping[PodUid, ContainerPids], pods: Mapping[PodUid, Pod], names: Mapping[str, str]) -> Owners:
    """Say to whom the processes in pods' cgroups belong.

    Args:
        found: what the cgroups of the pods with a grant hold.
        pods: UID -> pod, as far as they live.
        names: container ID -> container name.
    """
    pids: dict[int, tuple[PodUid, str]] = {}
    hidden: set[PodUid] = set()
    for uid, containers in found.items():
        for identity, members in containers.items():
            pids |= dict.fromkeys(members - {0}, (uid, names.get(identity, "")))
        running = _running(pods[uid]) if uid in pods else frozenset()
        # A 0 is cgroup v2's way; v1 leaves such processes out, so that a running container looks empty.
        if any(0 in members for members in containers.values()) or any(
            identity in containers and not containers[identity] for identity in running
        ):
            hidden.add(uid)
    return Owners(pids, frozenset(hidden))


def container_names(pods: Iterable[Pod]) -> dict[str, str]:
    """Container ID -> container name, as the pods' status says; ``containerd://<id>`` is the ID's form there."""
    return {
        _identity(status.container_id): status.name
        for pod in pods
        if pod.status is not None
        for status in (pod.status.container_statuses or ()) + (pod.status.init_container_statuses or ())
        if status.container_id
    }


def measure(processes: Processes, owners: Owners, grants: Iterable[Grant], *, spec: GpuNodeSpec) -> Usage:
    """Compare what is used with what was granted.

    Args:
        processes: what NVML lists.
        owners: to whom the processes belong; looked up after `processes`, so that none is missing that still runs.
        grants: who holds what; of the same time or later.
        spec: the GPUs, and the unit of the grants.
    """
    by_uid = {grant.pod_uid: grant for grant in grants}
    units: dict[tuple[PodUid, str, GpuUuid], int] = {}
    for uid, grant in by_uid.items():
        for container, shares in grant.containers.items():
            for share in shares:
                key = (uid, container, share.gpu)
                units[key] = units.get(key, 0) + share.units

    used: dict[tuple[PodUid, str, GpuUuid], int | None] = {}
    unattributed: dict[GpuUuid, int | None] = {gpu.uuid: None for gpu in spec.gpus}
    for gpu, listed in processes.items():
        unattributed[gpu] = None if owners.hidden else 0
        for pid, size in _largest(listed).items():
            uid, container = owners.pids.get(pid, (PodUid(""), ""))
            if uid in by_uid:
                key = (uid, container, gpu)
                used[key] = _plus(used.get(key, 0), size)
            else:
                unattributed[gpu] = _plus(unattributed[gpu], size)

    unit_bytes = spec.memory_unit * MIB_BYTES
    containers: list[ContainerUsage] = []
    for uid, container, gpu in sorted(units.keys() | used.keys()):
        is_known = gpu in processes and uid not in owners.hidden
        grant = by_uid[uid]
        key = (uid, container, gpu)
        containers.append(
            ContainerUsage(
                uid,
                grant.namespace,
                grant.name,
                container,
                gpu,
                granted_bytes=units.get(key, 0) * unit_bytes,
                used_bytes=used.get(key, 0) if is_known else None,
            )
        )
    whole = {gpu.uuid: gpu.units * unit_bytes for gpu in spec.gpus}
    return Usage(tuple(containers), unattributed, _excesses(containers, whole), owners.hidden)


def _excesses(containers: Iterable[ContainerUsage], whole: Mapping[GpuUuid, int]) -> dict[PodUid, tuple[Excess, ...]]:
    sums: dict[tuple[PodUid, GpuUuid], Excess] = {}
    for one in containers:
        before = sums.get((one.uid, one.gpu), Excess(one.gpu, 0, 0))
        sums[one.uid, one.gpu] = Excess(
            one.gpu, before.granted_bytes + one.granted_bytes, before.used_bytes + (one.used_bytes or 0)
        )
    found: dict[PodUid, tuple[Excess, ...]] = {}
    for (uid, gpu), excess in sums.items():
        has_whole = 0 < whole.get(gpu, 0) <= excess.granted_bytes
        if excess.used_bytes > excess.granted_bytes and not has_whole:
            found[uid] = (*found.get(uid, ()), excess)
    return found


def _largest(listed: Sequence[tuple[int, int | None]]) -> dict[int, int | None]:
    """PID -> bytes; a process that NVML lists twice (it computes and draws) uses its memory once."""
    sizes: dict[int, int | None] = {}
    for pid, size in listed:
        known = sizes.get(pid)
        sizes[pid] = size if known is None else max(known, size or 0)
    return sizes


def _plus(total: int | None, size: int | None) -> int | None:
    return None if total is None or size is None else total + size


def _identity(container_id: str) -> str:
    return container_id.rpartition("://")[2]


def _running(pod: Pod) -> frozenset[str]:
    if pod.status is None:
        return frozenset()
    return frozenset(
        _identity(status.container_id)
        for status in (pod.status.container_statuses or ()) + (pod.status.init_container_statuses or ())
        if status.container_id and status.state is not None and status.state.running is not None
    )
