"""The kinds of objects that the playground's API server serves: one table, read by every other part of it.

What differs between them in reality is kept as data: scope, generation, the fields a selector may name, and whether
the kind comes from a CustomResourceDefinition. Besides what fracgpu reads there is what people's manifests carry:
workloads, which ``playground.controllers`` runs where it is asked to, and kinds that are only kept (a Service routes
nothing, a claim is never bound). Everything else that a cluster has is unknown here.
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
        categories: under which names several kinds are asked for at once ("all").
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
    categories: tuple[str, ...] = ()
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
    subresources=("status", "binding", "eviction", "log", "exec", "attach", "portforward"),
    short_names=("po",),
    categories=("all",),
    selectable={
        "spec.nodeName": ("spec", "nodeName"),
        "spec.restartPolicy": ("spec", "restartPolicy"),
        "spec.schedulerName": ("spec", "schedulerName"),
        "spec.serviceAccountName": ("spec", "serviceAccountName"),
        "status.phase": ("status", "phase"),
        "status.podIP": ("status", "podIP"),
        "status.nominatedNodeName": ("status", "nominatedNodeName"),
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
        "involvedObject.apiVersion": ("involvedObject", "apiVersion"),
        "involvedObject.resourceVersion": ("involvedObject", "resourceVersion"),
        "involvedObject.fieldPath": ("involvedObject", "fieldPath"),
        "reason": ("reason",),
        "reportingComponent": ("reportingComponent",),
        "source": ("source", "component"),
        "type": ("type",),
    },
)
NAMESPACES = Resource(
    "namespaces",
    "Namespace",
    "namespace",
    short_names=("ns",),
    subresources=("status",),
    selectable={"status.phase": ("status", "phase")},
)
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

DEPLOYMENTS = Resource(
    "deployments",
    "Deployment",
    "deployment",
    group="apps",
    namespaced=True,
    has_generation=True,
    subresources=("status", "scale"),
    short_names=("deploy",),
    categories=("all",),
)
REPLICASETS = Resource(
    "replicasets",
    "ReplicaSet",
    "replicaset",
    group="apps",
    namespaced=True,
    has_generation=True,
    subresources=("status", "scale"),
    short_names=("rs",),
    categories=("all",),
    selectable={"status.replicas": ("status", "replicas")},
)
STATEFULSETS = Resource(
    "statefulsets",
    "StatefulSet",
    "statefulset",
    group="apps",
    namespaced=True,
    has_generation=True,
    subresources=("status", "scale"),
    short_names=("sts",),
    categories=("all",),
)
JOBS = Resource(
    "jobs",
    "Job",
    "job",
    group="batch",
    namespaced=True,
    has_generation=True,
    subresources=("status",),
    categories=("all",),
    selectable={"status.successful": ("status", "succeeded")},
)
SERVICES = Resource(
    "services",
    "Service",
    "service",
    namespaced=True,
    subresources=("status",),
    short_names=("svc",),
    categories=("all",),
    selectable={"spec.clusterIP": ("spec", "clusterIP"), "spec.type": ("spec", "type")},
)
CONFIGMAPS = Resource("configmaps", "ConfigMap", "configmap", namespaced=True, short_names=("cm",))
SECRETS = Resource("secrets", "Secret", "secret", namespaced=True, selectable={"type": ("type",)})
SERVICEACCOUNTS = Resource("serviceaccounts", "ServiceAccount", "serviceaccount", namespaced=True, short_names=("sa",))
PERSISTENTVOLUMECLAIMS = Resource(
    "persistentvolumeclaims",
    "PersistentVolumeClaim",
    "persistentvolumeclaim",
    namespaced=True,
    subresources=("status",),
    short_names=("pvc",),
)

RESOURCES = {
    resource.plural: resource
    for resource in (
        *(PODS, NODES, EVENTS, NAMESPACES, GPUNODES, SHARINGPOLICIES, PODDISRUPTIONBUDGETS),
        *(DEPLOYMENTS, REPLICASETS, STATEFULSETS, JOBS),
        *(SERVICES, CONFIGMAPS, SECRETS, SERVICEACCOUNTS, PERSISTENTVOLUMECLAIMS),
    )
}
"""Plural -> resource."""


def resource_of(kind: str) -> Resource | None:
    """The resource of a kind; None if there is none."""
    return next((resource for resource in RESOURCES.values() if resource.kind == kind), None)


class Key(NamedTuple):
    """Where one object lives; ``namespace`` is empty for a cluster-scoped one."""

    resource: str
    namespace: str
    name: str
