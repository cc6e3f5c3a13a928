"""What the kubelet's PodResources says each pod holds, as plain data. It names pods, but carries no UID."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ListedPod:
    """One pod that the kubelet runs or is admitting.

    Attributes:
        key: ``namespace/name``.
        containers: container name -> resource -> device IDs; only fracgpu's resources, but every container that
            PodResources lists (app containers and sidecars).
    """

    key: str
    containers: Mapping[str, Mapping[str, frozenset[str]]]

    def ids(self, container: str, resource: str) -> frozenset[str]:
        """The IDs that a container has of a resource; empty where it has none."""
        return self.containers.get(container, {}).get(resource, frozenset())

    @property
    def has_devices(self) -> bool:
        """Whether any of its containers holds a share of a GPU."""
        return any(ids for held in self.containers.values() for ids in held.values())


Listing = tuple[ListedPod, ...]
"""One answer of PodResources."""
