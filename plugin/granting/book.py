"""The grant book: what the kubelet has given away of this node's GPUs, by pod UID.

Pure state. PodResources names pods without their UID, so what it lists is matched to a pod by the IDs that `Allocate`
recorded, then by the pod that has that name now: a StatefulSet's next pod has the name of the last one, whose
processes may live on.

Invariant: an entry leaves the book only when its pod has ended, the last listing does not show its devices, and its
cgroup has no process. The order of these three does not matter; what is unknown counts as "not yet".
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from fracgpu.gpunodes import Gpu, Grant
from fracgpu.names import GpuUuid, PodUid
from fracgpu.plans import Share, sum_shares
from fracgpu.pods import Pod
from plugin.gpus.layout import shares_of
from plugin.granting.listing import ListedPod, Listing

_logger = logging.getLogger(__name__)


DeviceIds = Mapping[PodUid, Mapping[str, tuple[str, ...]]]
"""Pod UID -> container name -> the device IDs that it holds, where they are known."""


@dataclass(frozen=True, slots=True)
class Held:
    """What one container holds; `ids` is None where only the shares are known, from a status published earlier."""

    shares: tuple[Share, ...]
    ids: frozenset[str] | None


@dataclass(slots=True)
class Holder:
    """A pod that holds something. `has_ended` tells, as of the last look, that it was deleted or is terminal."""

    uid: PodUid
    namespace: str
    name: str
    containers: dict[str, Held] = field(default_factory=dict)  # container name -> what it holds
    has_ended: bool = False

    @property
    def key(self) -> str:
        """``namespace/name``."""
        return f"{self.namespace}/{self.name}"

    @property
    def grant(self) -> Grant:
        """What is published of it."""
        return Grant(self.uid, self.namespace, self.name, {name: held.shares for name, held in self.containers.items()})

    @property
    def ids(self) -> frozenset[str]:
        """All device IDs that are known to be held."""
        return frozenset().union(*(held.ids or () for held in self.containers.values()))


class GrantBook:
    """Who holds what. `gpus` maps UUID -> GPU, for the units that seats take."""

    def __init__(self, gpus: Mapping[GpuUuid, Gpu]) -> None:
        self._gpus = gpus
        self._holders: dict[PodUid, Holder] = {}  # pod UID -> its entry; the latest `record` last
        self._strangers: dict[str, tuple[Share, ...]] = {}  # pod key -> what is listed for a pod that we never saw

    def restore(self, grants: Iterable[Grant], *, ids: DeviceIds = MappingProxyType({})) -> None:
        """Begin with what this plugin knew before it was restarted; for a pod that is known already, the new wins."""
        for grant in grants:
            known = ids.get(grant.pod_uid, {})
            containers = {
                name: Held(shares, ids=frozenset(known[name]) if name in known else None)
                for name, shares in grant.containers.items()
            }
            self._holders[grant.pod_uid] = Holder(grant.pod_uid, grant.namespace, grant.name, containers)

    def record(self, pod: Pod, container: str, resource: str, ids: frozenset[str]) -> Callable[[], None]:
        """Note what `Allocate` is giving to a container, before the kubelet knows that it may.

        Returns:
            What takes it back; of use until the book changes again.
        """
        before = self._holders.copy()
        known = self._holders.pop(pod.uid, None)
        holder = _holder_of(pod)
        holder.containers |= known.containers if known else {}
        holder.containers[container] = Held(shares_of(ids, resource, self._gpus), ids)
        self._holders[pod.uid] = holder

        def take_back() -> None:
            self._holders = before

        return take_back

    def reconcile(
        self, listing: Listing | None, pods: Mapping[PodUid, Pod], *, has_processes: Callable[[PodUid], bool]
    ) -> bool:
        """Compare the book with the kubelet.

        Args:
            listing: an answer of PodResources that was asked for after the last `record`; None where it gave none.
            pods: UID -> pod: the pods of this node that have not ended.
            has_processes: whether a pod's cgroup has any; True where that cannot be told.

        Returns:
            Whether `grants` changed.
        """
        before = self.grants()
        listed = None if listing is None else self._take(listing, pods)
        for uid, holder in list(self._holders.items()):
            holder.has_ended = uid not in pods
            if not holder.has_ended or listed is None or uid in listed or has_processes(uid):
                continue
            del self._holders[uid]
            _logger.info("grant ended", extra={"pod": holder.key, "uid": uid})
        return self.grants() != before

    def is_granted(self, uid: PodUid, container: str) -> bool:
        """Whether a container of a pod holds something."""
        return uid in self._holders and container in self._holders[uid].containers

    @property
    def has_ending(self) -> bool:
        """Whether a pod that has ended still holds something."""
        return bool(self._strangers) or any(holder.has_ended for holder in self._holders.values())

    def grants(self) -> tuple[Grant, ...]:
        """The book as it is published, ordered by pod UID."""
        return tuple(holder.grant for _, holder in sorted(self._holders.items()))

    def ended_grants(self) -> tuple[Grant, ...]:
        """Those of them whose pods have ended."""
        return tuple(holder.grant for _, holder in sorted(self._holders.items()) if holder.has_ended)

    def device_ids(self) -> dict[PodUid, dict[str, tuple[str, ...]]]:
        """The IDs behind `grants`, in order."""
        return {
            uid: {name: tuple(sorted(held.ids)) for name, held in holder.containers.items() if held.ids is not None}
            for uid, holder in sorted(self._holders.items())
        }

    def used(self, gpu: GpuUuid, *, besides: tuple[PodUid, str] | None = None) -> Share:
        """Units and seats of a GPU that are held, also by pods that have ended; `besides` leaves out one container."""
        return sum_shares([Share(gpu, units=0), *(share for share in self._shares(besides) if share.gpu == gpu)])[gpu]

    def ended_holders(self, gpu: GpuUuid) -> list[str]:
        """The pods, as ``namespace/name``, that have ended and still hold a part of a GPU."""
        keys = [
            holder.key
            for holder in self._holders.values()
            if holder.has_ended
            and any(share.gpu == gpu for held in holder.containers.values() for share in held.shares)
        ]
        return keys + [key for key, shares in self._strangers.items() if any(share.gpu == gpu for share in shares)]

    def gpus(self) -> set[GpuUuid]:
        """The GPUs of which anybody holds a part."""
        return {share.gpu for share in self._shares(None)}

    def containers_on(self, gpu: GpuUuid, *, besides: tuple[PodUid, str]) -> int:
        """How many containers hold a part of a GPU, leaving one out."""
        return sum(
            any(share.gpu == gpu for share in held.shares)
            for uid, holder in self._holders.items()
            for name, held in holder.containers.items()
            if (uid, name) != besides
        )

    def held_ids(self, *, besides: PodUid | None) -> frozenset[str]:
        """The device IDs that pods hold, ended ones too, as far as they are known; `besides` leaves one pod out."""
        return frozenset().union(*(holder.ids for uid, holder in self._holders.items() if uid != besides))

    def _shares(self, besides: tuple[PodUid, str] | None) -> Iterable[Share]:
        for uid, holder in self._holders.items():
            for name, held in holder.containers.items():
                if (uid, name) != besides:
                    yield from held.shares
        for shares in self._strangers.values():
            yield from shares

    def _take(self, listing: Listing, pods: Mapping[PodUid, Pod]) -> set[PodUid]:
        """Learn what is listed; returns the UIDs of the holders that the kubelet still lists."""
        names = {pod.key: pod for pod in pods.values()}
        strangers: dict[str, tuple[Share, ...]] = {}
        listed: set[PodUid] = set()
        for entry in listing:
            if not entry.has_devices:
                continue
            found = {
                name: self._held(resources) for name, resources in entry.containers.items() if any(resources.values())
            }
            holder = self._owner(entry, found, names.get(entry.key))
            if holder is None:
                strangers[entry.key] = tuple(share for held in found.values() for share in held.shares)
            else:
                listed.add(holder.uid)
                holder.containers |= found
        for key in strangers.keys() - self._strangers.keys():
            _logger.warning("the kubelet lists devices of a pod that the API server does not know", extra={"pod": key})
        self._strangers = strangers
        return listed

    def _held(self, resources: Mapping[str, frozenset[str]]) -> Held:
        shares = (share for resource, ids in resources.items() for share in shares_of(ids, resource, self._gpus))
        return Held(tuple(sum_shares(shares).values()), frozenset().union(*resources.values()))

    def _owner(self, entry: ListedPod, found: Mapping[str, Held], pod: Pod | None) -> Holder | None:
        """Whose devices are listed under this name."""
        ids = frozenset().union(*(held.ids or () for held in found.values()))
        namesakes = [holder for holder in self._holders.values() if holder.key == entry.key]
        for holder in reversed(namesakes):
            if ids <= holder.ids:
                return holder
        if pod is not None:
            return self._holders.setdefault(pod.uid, _holder_of(pod))
        for holder in namesakes:
            if {name: held.shares for name, held in holder.containers.items()} == {
                name: held.shares for name, held in found.items()
            }:
                return holder
        return None


def _holder_of(pod: Pod) -> Holder:
    return Holder(pod.uid, pod.metadata.namespace, pod.metadata.name)
