"""The kinds of objects that fracgpu reads and writes: where the API server keeps them, and the type they decode into.

Cheap to import: no network code.
"""

from dataclasses import dataclass, replace
from typing import Final, Generic, Protocol, Self, TypeVar
from urllib.parse import quote

from fracgpu.disruption import PodDisruptionBudget
from fracgpu.gpunodes import GpuNode
from fracgpu.names import GPUNODE_API_VERSION, GPUNODE_PLURAL, SHARINGPOLICY_PLURAL
from fracgpu.nodes import Node
from fracgpu.pods import ObjectMeta, Pod
from fracgpu.sharing import SharingPolicy


class KubeObject(Protocol):
    """What every Kubernetes object has."""

    @property
    def metadata(self) -> ObjectMeta:
        """The object's name, UID and resourceVersion."""
        ...


T = TypeVar("T", bound=KubeObject)


@dataclass(frozen=True, slots=True)
class Resource(Generic[T]):
    """A kind of object.

    Attributes:
        api_path: its API group and version, ``/api/v1`` or ``/apis/<group>/<version>``.
        plural: its name in URLs.
        namespaced: whether its objects live in namespaces.
        type: the msgspec struct that an object decodes into.
        within: the one namespace that lists and watches look into; empty for all of them.
    """

    api_path: str
    plural: str
    namespaced: bool
    type: type[T]
    within: str = ""

    def in_namespace(self, namespace: str) -> Self:
        """The same kind, listed and watched in one namespace only: all that a Role, unlike a ClusterRole, allows."""
        return replace(self, within=namespace)

    @property
    def collection_path(self) -> str:
        """The URL path of all objects that lists and watches see."""
        scope = f"namespaces/{quote(self.within, safe='')}/" if self.within else ""
        return f"{self.api_path}/{scope}{self.plural}"

    def object_path(self, name: str, *, namespace: str = "", subresource: str = "") -> str:
        """The URL path of one object or of one of its subresources.

        Raises:
            ValueError: `namespace` is given for a cluster-scoped kind, or missing for a namespaced one.
        """
        if self.namespaced != bool(namespace):
            raise ValueError(f"{self.plural} are {'' if self.namespaced else 'not '}namespaced: {namespace=}")
        scope = f"namespaces/{quote(namespace, safe='')}/" if namespace else ""
        tail = f"/{subresource}" if subresource else ""
        return f"{self.api_path}/{scope}{self.plural}/{quote(name, safe='')}{tail}"


NODES: Final = Resource("/api/v1", "nodes", namespaced=False, type=Node)
PODS: Final = Resource("/api/v1", "pods", namespaced=True, type=Pod)
GPUNODES: Final = Resource(f"/apis/{GPUNODE_API_VERSION}", GPUNODE_PLURAL, namespaced=False, type=GpuNode)
SHARINGPOLICIES: Final = Resource(
    f"/apis/{GPUNODE_API_VERSION}", SHARINGPOLICY_PLURAL, namespaced=False, type=SharingPolicy
)
PODDISRUPTIONBUDGETS: Final = Resource(
    "/apis/policy/v1", "poddisruptionbudgets", namespaced=True, type=PodDisruptionBudget
)
