"""The pod as admission sees it: what `fracgpu.pods` reads, and the names of the environment variables.

Only the webhook looks at the environment, so only the webhook pays for decoding it. Values are left out: no decision
depends on them.
"""

from typing import Literal

from msgspec import Struct

from fracgpu.errors import QuantityError
from fracgpu.pods import Container, Pod, PodSpec, Quantity
from fracgpu.quantities import parse_count

ContainerField = Literal["containers", "initContainers"]
"""The member of a pod's spec that lists a container, as on the wire."""


class EnvVar(Struct, frozen=True, gc=False):
    """core/v1 EnvVar, without its value."""

    name: str = ""


class AdmittedContainer(Container, frozen=True):
    """core/v1 Container with its environment."""

    env: tuple[EnvVar, ...] | None = None


class AdmittedPodSpec(PodSpec, frozen=True):
    """core/v1 PodSpec whose containers have their environment."""

    containers: tuple[AdmittedContainer, ...] | None = None
    init_containers: tuple[AdmittedContainer, ...] | None = None


class AdmittedPod(Pod, frozen=True):
    """core/v1 Pod whose containers have their environment."""

    spec: AdmittedPodSpec = AdmittedPodSpec()

    def listed(self) -> list[tuple[ContainerField, int, AdmittedContainer]]:
        """Every container with its place in the spec: the app containers, then the init containers."""
        return [
            *(("containers", index, container) for index, container in enumerate(self.spec.containers or ())),
            *(("initContainers", index, container) for index, container in enumerate(self.spec.init_containers or ())),
        ]


def limits_of(container: Container) -> dict[str, Quantity]:
    """The limits of a container; empty where it has none."""
    return (container.resources.limits if container.resources else None) or {}


def requests_of(container: Container) -> dict[str, Quantity]:
    """The requests of a container; empty where it has none."""
    return (container.resources.requests if container.resources else None) or {}


def count_of(value: Quantity) -> int | None:
    """The amount of an extended resource, however it is spelled; None if it is no whole number of at least 0."""
    try:
        return parse_count(value)
    except QuantityError:
        return None
