"""The pod as admission sees it: what `fracgpu.pods` reads, and what else the webhook judges or writes.

Only the webhook looks at these, so only the webhook pays for decoding them.
"""

from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from fracgpu.annotations import default_container
from fracgpu.errors import QuantityError
from fracgpu.names import RESOURCE_MEMORY, RESOURCE_REPLICA
from fracgpu.pods import Container, ObjectMeta, Pod, PodSpec, Quantity, Resources
from fracgpu.quantities import parse_count

DEFAULT_SCHEDULER: Final = "default-scheduler"
"""What kube-apiserver writes into a pod that names no scheduler."""

ContainerField = Literal["containers", "initContainers"]
"""The member of a pod's spec that lists a container, as on the wire."""


class EnvVar(Struct, frozen=True, gc=False):
    """core/v1 EnvVar; whether the value comes from elsewhere does not matter here."""

    name: str = ""
    value: str | None = None


class EnvFromSource(Struct, frozen=True, rename="camel"):
    """core/v1 EnvFromSource: all of a ConfigMap's or Secret's keys, each behind the prefix, as variables."""

    prefix: str | None = None
    config_map_ref: dict[str, Any] | None = None
    secret_ref: dict[str, Any] | None = None


class Toleration(Struct, frozen=True, omit_defaults=True, gc=False):
    """core/v1 Toleration, of NoSchedule and the like: without tolerationSeconds."""

    key: str = ""
    operator: str = ""
    value: str = ""
    effect: str = ""


class AdmittedContainer(Container, frozen=True):
    """core/v1 Container with its environment."""

    env: tuple[EnvVar, ...] | None = None
    env_from: tuple[EnvFromSource, ...] | None = None


class AdmittedPodSpec(PodSpec, frozen=True):
    """core/v1 PodSpec with what says where the pod may run."""

    containers: tuple[AdmittedContainer, ...] | None = None
    init_containers: tuple[AdmittedContainer, ...] | None = None
    runtime_class_name: str | None = None
    node_selector: dict[str, str] | None = None
    tolerations: tuple[Toleration, ...] | None = None


class AdmittedPod(Pod, frozen=True):
    """core/v1 Pod with what admission needs of it."""

    spec: AdmittedPodSpec = AdmittedPodSpec()

    def listed(self) -> list[tuple[ContainerField, int, AdmittedContainer]]:
        """Every container with its place in the spec: the app containers, then the init containers."""
        return [
            *(("containers", index, container) for index, container in enumerate(self.spec.containers or ())),
            *(("initContainers", index, container) for index, container in enumerate(self.spec.init_containers or ())),
        ]

    def default_holder(self) -> str:
        """The container that a size without a name is for, where no annotation names one; empty where there is none."""
        return default_container([container.name for container in self.containers], self.limited())

    def limited(self) -> list[str]:
        """The containers with a limit of ours above 0, sidecars first; amounts that cannot be read count."""
        return [
            container.name
            for container in (*self.init_containers, *self.containers)
            if any(count_of(limits_of(container).get(name, 0)) != 0 for name in (RESOURCE_MEMORY, RESOURCE_REPLICA))
        ]

    def with_annotations(self, annotations: dict[str, str]) -> "AdmittedPod":
        """The pod with these annotations and no others."""
        metadata: ObjectMeta = msgspec.structs.replace(self.metadata, annotations=annotations)
        return msgspec.structs.replace(self, metadata=metadata)

    def with_containers(self, changed: dict[str, AdmittedContainer]) -> "AdmittedPod":
        """The pod with other containers under the names of some of its own."""
        if not changed:
            return self

        def replaced(containers: tuple[AdmittedContainer, ...] | None) -> tuple[AdmittedContainer, ...] | None:
            return containers and tuple(changed.get(container.name, container) for container in containers)

        spec = msgspec.structs.replace(
            self.spec,
            containers=replaced(self.spec.containers),
            init_containers=replaced(self.spec.init_containers),
        )
        return msgspec.structs.replace(self, spec=spec)


def limits_of(container: Container) -> dict[str, Quantity]:
    """The limits of a container; empty where it has none."""
    return (container.resources.limits if container.resources else None) or {}


def requests_of(container: Container) -> dict[str, Quantity]:
    """The requests of a container; empty where it has none."""
    return (container.resources.requests if container.resources else None) or {}


def with_amounts(
    container: AdmittedContainer, *, limits: dict[str, Quantity], requests: dict[str, Quantity]
) -> AdmittedContainer:
    """The container with these limits and requests and no others; members that were absent and stay empty stay so."""
    if container.resources is None and not limits and not requests:
        return container
    had = container.resources or Resources()
    resources = Resources(
        limits=None if had.limits is None and not limits else limits,
        requests=None if had.requests is None and not requests else requests,
    )
    return msgspec.structs.replace(container, resources=resources)


def count_of(value: Quantity) -> int | None:
    """The amount of an extended resource, however it is spelled; None if it is no whole number of at least 0."""
    try:
        return parse_count(value)
    except QuantityError:
        return None
