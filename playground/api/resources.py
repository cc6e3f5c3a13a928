"""The kinds of objects that the playground's API server serves: one table, read by every other part of it.

What differs between them in reality is kept as data: scope, generation, the fields a selector may name, and whether
the kind comes from a CustomResourceDefinition. Anything else that a cluster has (Services, ConfigMaps, Leases) is
left out: no part of fracgpu needs it here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from fracgpu.names import API_VERSION, DOMAIN, GPUNODE_KIND, SHARINGPOLICY_KIND, SHARINGPOLICY_PLURAL


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind of object.

    Attributes:
        plural: its name in URLs.
        group: API group, empty for core.
        has_generation: whether metadata.generation counts the changes of the specification.
        subresources: what may follow the name in a URL.
        custom: it comes from a CustomResourceDefinition, which is stricter about PUT and strategic merge patches.
        selectable: field selectors besides metadata.name and metadata.namespace: selector -> path of keys.
    """

    plural: str
    kind: str
    singular: str
    group: str = ""
    version: str = "v1"
    namespaced: bool = False
    has_generation: bool = False
    custom: bool = False
    subresources: tuple[str, ...] = ()
    short_names: tuple[str, ...] = ()
    selectable: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def api_version(self) -> str:
        """``apiVersion`` of its objects."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def qualified(self) -> str:
        """The plural with its group, as error messages write it."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def has_status(self) -> bool:
        """Whether status is written through its own endpoint only."""
        return "status" in self.subresources


PODS = Resource(
    "pods",
    "Pod",
    "pod",
    namespaced=True,
    has_generation=True,
    subresources=("status", "binding", "eviction"),
    short_names=("po",),
    selectable={
        "spec.nodeName": ("spec", "nodeName"),
        "spec.schedulerName": ("spec", "schedulerName"),
        "status.phase": ("status", "phase"),
    },
)
NODES = Resource(
    "nodes",
    "Node",
    "node",
    subresources=("status",),
    short_names=("no",),
    selectable={"spec.unschedulable": ("spec", "unschedulable")},
)
EVENTS = Resource(
    "events",
    "Event",
    "event",
    namespaced=True,
    short_names=("ev",),
    selectable={
        "involvedObject.kind": ("involvedObject", "kind"),
        "involvedObject.namespace": ("involvedObject", "namespace"),
        "involvedObject.name": ("involvedObject", "name"),
        "involvedObject.uid": ("involvedObject", "uid"),
        "reason": ("reason",),
        "type": ("type",),
    },
)
NAMESPACES = Resource("namespaces", "Namespace", "namespace", short_names=("ns",))
GPUNODES = Resource(
    "gpunodes",
    GPUNODE_KIND,
    "gpunode",
    group=DOMAIN,
    version=API_VERSION,
    has_generation=True,
    custom=True,
    subresources=("status",),
)
SHARINGPOLICIES = Resource(
    SHARINGPOLICY_PLURAL,
    SHARINGPOLICY_KIND,
    "sharingpolicy",
    group=DOMAIN,
    version=API_VERSION,
    has_generation=True,
    custom=True,
    subresources=("status",),
    short_names=("spol",),
)

PODDISRUPTIONBUDGETS = Resource(
    "poddisruptionbudgets",
    "PodDisruptionBudget",
    "poddisruptionbudget",
    group="policy",
    namespaced=True,
    has_generation=True,
    subresources=("status",),
    short_names=("pdb",),
)

RESOURCES = {
    resource.plural: resource
    for resource in (PODS, NODES, EVENTS, NAMESPACES, GPUNODES, SHARINGPOLICIES, PODDISRUPTIONBUDGETS)
}
"""Plural -> resource."""


class Key(NamedTuple):
    """Where one object lives; ``namespace`` is empty for a cluster-scoped one."""

    resource: str
    namespace: str
    name: str
