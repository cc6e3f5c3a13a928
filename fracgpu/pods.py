"""The parts of a Kubernetes Pod that fracgpu reads, as slim typed structs (core/v1, field names as on the wire).

Decoding into these costs a hundredth of the generated client's models and skips every other field. `null` is
accepted wherever Go writes it for an empty map or list.
"""

import msgspec
from msgspec import Struct

from fracgpu.names import ANNOTATION_ALLOCATION, NodeName, PodUid

Quantity = str | int | float
"""A quantity as JSON carries it: the API server writes strings, people also write numbers."""


class _K8s(Struct, frozen=True, rename="camel", gc=False):
    """Kubernetes' JSON spelling for Python's field names."""


class ObjectMeta(_K8s, frozen=True):
    """metav1.ObjectMeta."""

    name: str = ""
    generate_name: str = ""
    namespace: str = ""
    uid: PodUid = PodUid("")
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    annotations: dict[str, str] | None = None
    labels: dict[str, str] | None = None


class Resources(_K8s, frozen=True):
    """core/v1 ResourceRequirements."""

    limits: dict[str, Quantity] | None = None
    requests: dict[str, Quantity] | None = None


class Container(_K8s, frozen=True):
    """core/v1 Container; `restart_policy` is set on sidecars (restartable init containers) only."""

    name: str = ""
    resources: Resources | None = None
    restart_policy: str | None = None

    @property
    def is_sidecar(self) -> bool:
        """Whether this init container keeps running beside the app containers."""
        return self.restart_policy == "Always"

    def limit(self, resource: str) -> Quantity:
        """The container's limit of a resource, or else its request; 0 where it names neither."""
        if self.resources is None:
            return 0
        for amounts in (self.resources.limits, self.resources.requests):
            if amounts and resource in amounts:
                return amounts[resource]
        return 0


class PodSpec(_K8s, frozen=True):
    """core/v1 PodSpec."""

    node_name: NodeName = NodeName("")
    scheduler_name: str = ""
    priority: int | None = None
    containers: tuple[Container, ...] | None = None
    init_containers: tuple[Container, ...] | None = None
    resources: Resources | None = None
    overhead: dict[str, Quantity] | None = None


class ContainerState(_K8s, frozen=True):
    """core/v1 ContainerState; exactly one member is set."""

    waiting: dict[str, object] | None = None
    running: dict[str, object] | None = None
    terminated: dict[str, object] | None = None


class ContainerStatus(_K8s, frozen=True):
    """core/v1 ContainerStatus."""

    name: str = ""
    state: ContainerState | None = None
    container_id: str = msgspec.field(name="containerID", default="")


class PodCondition(_K8s, frozen=True):
    """core/v1 PodCondition."""

    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""


class PodStatus(_K8s, frozen=True):
    """core/v1 PodStatus."""

    phase: str = ""
    reason: str = ""
    message: str = ""
    nominated_node_name: NodeName = NodeName("")
    conditions: tuple[PodCondition, ...] | None = None
    container_statuses: tuple[ContainerStatus, ...] | None = None
    init_container_statuses: tuple[ContainerStatus, ...] | None = None


class Pod(_K8s, frozen=True):
    """core/v1 Pod."""

    metadata: ObjectMeta = ObjectMeta()
    spec: PodSpec = PodSpec()
    status: PodStatus | None = None

    @property
    def uid(self) -> PodUid:
        """The pod's UID; empty at admission, when it has none yet."""
        return self.metadata.uid

    @property
    def key(self) -> str:
        """``namespace/name``, for people."""
        return f"{self.metadata.namespace}/{self.metadata.name}"

    @property
    def priority(self) -> int:
        """The pod's priority; 0 where none was resolved."""
        return self.spec.priority or 0

    @property
    def annotations(self) -> dict[str, str]:
        """The annotations; empty where there are none."""
        return self.metadata.annotations or {}

    @property
    def scheduler_says(self) -> str:
        """What kube-scheduler wrote last on why the pod is on no node; empty before its first try, and afterwards."""
        conditions = self.status.conditions or () if self.status is not None else ()
        return next((one.message for one in conditions if one.type == "PodScheduled" and one.status != "True"), "")

    @property
    def allocation(self) -> str | None:
        """The text of the plan that the Binding wrote, if the pod was bound by fracgpu."""
        return self.annotations.get(ANNOTATION_ALLOCATION)

    @property
    def containers(self) -> tuple[Container, ...]:
        """The app containers."""
        return self.spec.containers or ()

    @property
    def init_containers(self) -> tuple[Container, ...]:
        """The init containers, sidecars among them."""
        return self.spec.init_containers or ()

    @property
    def is_terminal(self) -> bool:
        """Whether the pod's phase says that it ended. The phase alone proves nothing: see `all_terminated`."""
        return self.status is not None and self.status.phase in ("Succeeded", "Failed")

    @property
    def all_terminated(self) -> bool:
        """Whether the kubelet reports no container, sidecars too, as running any more."""
        if self.status is None:
            return False
        statuses = (self.status.container_statuses or ()) + (self.status.init_container_statuses or ())
        return all(status.state is None or status.state.running is None for status in statuses)
