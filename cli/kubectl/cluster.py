"""The cluster as the commands look at it, at one moment: an index like the extender's, and a picture. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass

from cli.clusterobjects import ClusterObjects
from extender.index import Index
from extender.observing import asks_gpu, reduced
from extender.picture import Picture, picture_of
from extender.placement.policies import Policies
from fracgpu.annotations import split_key
from fracgpu.gpunodes import GpuNode
from fracgpu.names import DOMAIN, SIZE_ANNOTATIONS, PodUid
from fracgpu.pods import Pod


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster at one moment.

    Attributes:
        index: as the extender has it.
        pods: UID -> pod, of those that ask for GPUs or hold a part of one.
        unread: pods that ask by annotation, and whose annotation nobody has read.
    """

    index: Index
    pods: dict[PodUid, Pod]
    unread: list[Pod]

    @classmethod
    def of(cls, found: ClusterObjects) -> "Cluster":
        """Take over what the API server lists."""
        index = found.snapshot.index(Policies())
        asking = {pod.uid: pod for pod in found.pods if asks_gpu(pod)}
        for pod in asking.values():
            if pod.metadata.deletion_timestamp is not None or pod.is_terminal:
                index.set_ending(pod.uid, ending=True)
        return cls(index, asking, [pod for pod in found.pods if is_unread(pod)])

    @property
    def picture(self) -> Picture:
        """The whole cluster."""
        return picture_of(self.index, pods=self.pods.values())

    def pod(self, namespace: str, name: str) -> Pod | None:
        """A pod that asks for GPUs, or wanted to."""
        every: Iterable[Pod] = (*self.pods.values(), *self.unread)
        return next((pod for pod in every if pod.metadata.namespace == namespace and pod.metadata.name == name), None)


def keep(pod: Pod) -> Pod | None:
    """All of a pod that asks for GPUs; of others what they take of their nodes."""
    return pod if asks_gpu(pod) or is_unread(pod) else reduced(pod)


def whole(node: GpuNode) -> GpuNode:
    """All of a GPUNode."""
    return node


def is_unread(pod: Pod) -> bool:
    """Whether a pod asks by annotation and has no limit of ours: it was created while no webhook was asked."""
    return not asks_gpu(pod) and any(
        key.startswith(f"{DOMAIN}/") and split_key(key)[0] in SIZE_ANNOTATIONS for key in pod.annotations
    )
