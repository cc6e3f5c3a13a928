"""The API server's objects that only this plugin reads; of each no more than it asks about (names as on the wire)."""

from base64 import b64decode
from collections.abc import Iterator
from typing import Any, Final

import msgspec
from msgspec import Struct

from fracgpu.kube.resources import Resource
from fracgpu.pods import ObjectMeta
from webhook.certificates.objects import ClientConfig


class _Object(Struct, frozen=True, rename="camel"):
    """Kubernetes' JSON spelling for Python's field names."""


class Involved(_Object, frozen=True):
    """core/v1 ObjectReference, of an event."""

    kind: str = ""
    name: str = ""


class Told(_Object, frozen=True):
    """core/v1 Event, about anything."""

    metadata: ObjectMeta
    involved_object: Involved = Involved()
    message: str = ""


class Named(_Object, frozen=True):
    """Anything, by its name."""

    metadata: ObjectMeta


class Variable(_Object, frozen=True):
    """core/v1 EnvVar; one whose value comes from elsewhere has none here."""

    name: str = ""
    value: str = ""


class Port(_Object, frozen=True):
    """core/v1 ContainerPort."""

    name: str = ""
    container_port: int = 0


class Program(_Object, frozen=True):
    """core/v1 Container: what it runs."""

    name: str = ""
    command: tuple[str, ...] | None = None
    args: tuple[str, ...] | None = None
    env: tuple[Variable, ...] | None = None
    ports: tuple[Port, ...] | None = None


class SecretVolume(_Object, frozen=True):
    """core/v1 SecretVolumeSource."""

    secret_name: str = ""


class Volume(_Object, frozen=True):
    """core/v1 Volume."""

    name: str = ""
    secret: SecretVolume | None = None


class ProgramSpec(_Object, frozen=True):
    """core/v1 PodSpec: what runs, and on which nodes."""

    containers: tuple[Program, ...] = ()
    volumes: tuple[Volume, ...] | None = None
    node_selector: dict[str, str] | None = None
    runtime_class_name: str = ""


class Template(_Object, frozen=True):
    """core/v1 PodTemplateSpec."""

    spec: ProgramSpec = ProgramSpec()


class WorkloadSpec(_Object, frozen=True):
    """What Deployments, StatefulSets and DaemonSets have in common."""

    replicas: int = 1
    template: Template = Template()


class WorkloadStatus(_Object, frozen=True):
    """How many pods are ready, of a DaemonSet in its last two fields."""

    ready_replicas: int = 0
    desired_number_scheduled: int = 0
    number_ready: int = 0


class Workload(_Object, frozen=True):
    """apps/v1 Deployment, StatefulSet or DaemonSet."""

    metadata: ObjectMeta
    spec: WorkloadSpec = WorkloadSpec()
    status: WorkloadStatus = WorkloadStatus()

    def setting(self, flag: str) -> str | None:
        """What the command line of one of its containers, or else its environment, says; None where neither does.

        Args:
            flag: without the dashes, ``memory-unit-mib``.
        """
        variable = f"FRACGPU_{flag.replace('-', '_').upper()}"
        for container in self.spec.template.spec.containers:
            for value in _values(container, flag):
                return value
            for found in container.env or ():
                if found.name == variable:
                    return found.value
        return None

    def secret_of(self, volume: str) -> str:
        """The name of the Secret that it mounts as that volume; empty where it mounts none."""
        volumes = self.spec.template.spec.volumes or ()
        return next((found.secret.secret_name for found in volumes if found.name == volume and found.secret), "")


def _values(container: Program, flag: str) -> Iterator[str]:
    words = [*(container.command or ()), *(container.args or ())]
    for place, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name == f"--{flag}":
            yield value if equals else next(iter(words[place + 1 :]), "")


class ProgramPodStatus(_Object, frozen=True):
    """core/v1 PodStatus."""

    phase: str = ""


class ProgramPod(_Object, frozen=True):
    """core/v1 Pod of a kube-scheduler, or of a part of fracgpu."""

    metadata: ObjectMeta
    spec: ProgramSpec = ProgramSpec()
    status: ProgramPodStatus = ProgramPodStatus()

    def port(self, name: str) -> int:
        """The number of a port that one of its containers names; 0 where none does."""
        ports = (port for container in self.spec.containers for port in container.ports or ())
        return next((port.container_port for port in ports if port.name == name), 0)


class ConfigMap(_Object, frozen=True):
    """core/v1 ConfigMap."""

    metadata: ObjectMeta
    data: dict[str, str] | None = None


class Secret(_Object, frozen=True):
    """core/v1 Secret; its values are keys, so it has no useful repr."""

    metadata: ObjectMeta
    data: dict[str, str] | None = None

    def __repr__(self) -> str:
        return f"Secret({self.metadata.name!r})"

    def content(self, key: str) -> bytes:
        """A value; empty where there is none."""
        return b64decode((self.data or {}).get(key, ""))


class Hook(_Object, frozen=True):
    """admissionregistration/v1 MutatingWebhook or ValidatingWebhook."""

    name: str = ""
    client_config: ClientConfig = ClientConfig()
    failure_policy: str = ""
    match_conditions: tuple[dict[str, str], ...] | None = None


class Registration(_Object, frozen=True):
    """admissionregistration/v1 MutatingWebhookConfiguration or ValidatingWebhookConfiguration."""

    metadata: ObjectMeta
    webhooks: tuple[Hook, ...] | None = None


class DefinedVersion(Struct, frozen=True):
    """apiextensions/v1 CustomResourceDefinitionVersion; the schema is JSON schema."""

    name: str = ""
    served: bool = False
    schema: dict[str, Any] | None = None


class DefinitionSpec(_Object, frozen=True):
    """apiextensions/v1 CustomResourceDefinitionSpec."""

    versions: tuple[DefinedVersion, ...] = ()


class Definition(_Object, frozen=True):
    """apiextensions/v1 CustomResourceDefinition."""

    metadata: ObjectMeta
    spec: DefinitionSpec = DefinitionSpec()


class PolicyBindingSpec(_Object, frozen=True):
    """admissionregistration/v1 ValidatingAdmissionPolicyBindingSpec."""

    policy_name: str = ""
    validation_actions: tuple[str, ...] | None = None


class PolicyBinding(_Object, frozen=True):
    """admissionregistration/v1 ValidatingAdmissionPolicyBinding."""

    metadata: ObjectMeta
    spec: PolicyBindingSpec = PolicyBindingSpec()


_CORE, _APPS, _ADMISSION = "/api/v1", "/apis/apps/v1", "/apis/admissionregistration.k8s.io/v1"
EVENTS: Final = Resource(_CORE, "events", namespaced=True, type=Told)
NAMESPACES: Final = Resource(_CORE, "namespaces", namespaced=False, type=Named)
CONFIGMAPS: Final = Resource(_CORE, "configmaps", namespaced=True, type=ConfigMap)
SECRETS: Final = Resource(_CORE, "secrets", namespaced=True, type=Secret)
PROGRAM_PODS: Final = Resource(_CORE, "pods", namespaced=True, type=ProgramPod)
DEPLOYMENTS: Final = Resource(_APPS, "deployments", namespaced=True, type=Workload)
STATEFULSETS: Final = Resource(_APPS, "statefulsets", namespaced=True, type=Workload)
DAEMONSETS: Final = Resource(_APPS, "daemonsets", namespaced=True, type=Workload)
MUTATING: Final = Resource(_ADMISSION, "mutatingwebhookconfigurations", namespaced=False, type=Registration)
VALIDATING: Final = Resource(_ADMISSION, "validatingwebhookconfigurations", namespaced=False, type=Registration)
POLICIES: Final = Resource(_ADMISSION, "validatingadmissionpolicies", namespaced=False, type=Named)
POLICY_BINDINGS: Final = Resource(_ADMISSION, "validatingadmissionpolicybindings", namespaced=False, type=PolicyBinding)
RUNTIME_CLASSES: Final = Resource("/apis/node.k8s.io/v1", "runtimeclasses", namespaced=False, type=Named)
DEFINITIONS: Final = Resource(
    "/apis/apiextensions.k8s.io/v1", "customresourcedefinitions", namespaced=False, type=Definition
)


def wire_names(kind: type[Struct]) -> set[str]:
    """The names that a struct's fields have on the wire."""
    return {found.encode_name for found in msgspec.structs.fields(kind)}
