"""What an administrator can tell the device plugin."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from fracgpu.process.serving import require_protection
from fracgpu.process.settings import ServiceSettings
from fracgpu.quantities import DEFAULT_MEMORY_UNIT, MAX_MEMORY_UNIT
from fracgpu.requests import MAX_SEATS
from fracgpu.sharing import IsolationChoice

DeviceListStrategy = Literal["envvar", "volume-mounts", "cdi-annotations", "cdi-cri"]
HealthCheck = Literal["all", "xids", "ecc", "row-remap"]


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError("it must be an absolute path, one that begins with /")
    return path


HostPath = Annotated[Path, AfterValidator(_absolute)]
"""A path on the host."""


class PluginSettings(ServiceSettings):
    """The device plugin of fracgpu: offers shares of this node's GPUs to the kubelet."""

    node_name: str = Field(min_length=1)
    """The name of this node in Kubernetes; in a pod from spec.nodeName, by the downward API."""

    config_file: Path | None = None
    """A YAML file with any of these settings and with rules of sharing (docs/plugin.md), or in the form of NVIDIA's
    device plugin (version: v1). Read again when it changes."""

    host: str = "127.0.0.1"
    """The address on which /metrics, /healthz and /readyz are served; 0.0.0.0 in a pod. Beyond 127.0.0.1 that takes
    TLS."""

    port: int = Field(default=8082, ge=0, le=65535)
    """The port of those; 0 takes a free one."""

    tls_cert: Path | None = None
    """PEM file with the certificate chain of that port. Both TLS files are read again when they change."""

    tls_key: Path | None = None
    """PEM file with that certificate's private key, not encrypted."""

    insecure: bool = False
    """Whether to listen beyond 127.0.0.1 in plain text."""

    kubeconfig: Path | None = None
    """How to reach the API server; none for the service account of this pod."""

    kubelet_socket: Path = Path("/var/lib/kubelet/device-plugins/kubelet.sock")
    """The socket at which plugins register. In its folder lie our own sockets and the journal of grants."""

    pod_resources_socket: Path = Path("/var/lib/kubelet/pod-resources/kubelet.sock")
    """The socket of the kubelet's PodResources."""

    cgroup_root: Path = Path("/sys/fs/cgroup")
    """The host's cgroup filesystem: tells when the processes of a deleted pod have ended, and whose a process is."""

    memory_unit_mib: int = Field(default=DEFAULT_MEMORY_UNIT, ge=1, le=MAX_MEMORY_UNIT)
    """Size of a memory unit in MiB; the same in the whole cluster."""

    replicas: int | None = Field(default=None, ge=1, le=MAX_SEATS)
    """Seats of each GPU: time slices, 1/REPLICAS of a GPU each; 1 gives GPUs out whole. Not given, it is left to the
    file's rules, and without one it is 4. A SharingPolicy that names this node wins over all of them."""

    reserved_mib: int | None = Field(default=None, ge=0)
    """Memory of each GPU, in MiB, that is never given away: for the driver and for other programs on the node.
    Not given, it is left to the file's rules, and without one it is 0."""

    isolation: IsolationChoice | None = None
    """How containers are kept within their shares: driver-limit (the driver's memory limits), mps, preload (a library
    of your own), none (not at all: use is only measured), or auto (the strongest of those that this node has). Not
    given, it is left to the file's rules, and without one it is auto."""

    mps_root: HostPath | None = None
    """A folder of the host, mounted here under the same path, for the pipes and shared memory of an MPS daemon that
    this plugin starts where isolation is mps; without one there is no MPS."""

    preload_library: HostPath | None = None
    """A library on the host that containers load before all others, and that keeps them within their shares."""

    preload_env: tuple[str, ...] = ()
    """Variables for that library, NAME=TEMPLATE each, with the placeholders that docs/isolation.md lists."""

    preload_mounts: tuple[str, ...] = ()
    """What that library needs of the host besides, HOST_PATH:CONTAINER_PATH[:rw] each, with the same placeholders."""

    fail_on_init_error: bool = True
    """Whether to end when NVML does not answer at the start, or else to wait until it does."""

    mig_strategy: Literal["none", "single", "mixed"] = "none"
    """Of GPUs in MIG mode: treat them as whole GPUs (none), share their instances, all of one profile (single), or of
    any (mixed)."""

    pass_device_specs: bool = False
    """Whether to hand out the device nodes too, for nodes whose runtime needs them (a static CPU manager policy)."""

    device_list_strategy: tuple[DeviceListStrategy, ...] = Field(default=("envvar",), min_length=1)
    """How the runtime is told which GPUs a container may see; several at once are possible."""

    device_id_strategy: Literal["uuid", "index"] = "uuid"
    """What GPUs are called there."""

    nvidia_driver_root: HostPath = Path("/")
    """Where the driver's files lie on the host: / or, with the driver container, /run/nvidia/driver."""

    host_root: Path = Path("/")
    """Where this process sees the host's root folder, to look for the driver's files; in a pod a mount of it."""

    cdi_spec_dir: Path = Path("/var/run/cdi")
    """Where a CDI specification is written if a strategy needs one and nobody else provides it."""

    nvidia_cdi_hook_path: HostPath = Path("/usr/bin/nvidia-cdi-hook")
    """The NVIDIA container toolkit's hook on the host, as that specification names it."""

    numa_hints: bool = False
    """Whether to tell the kubelet the GPUs' NUMA nodes. With a topology manager policy it then chooses among GPUs by
    itself, and the extender places pods where it would."""

    disable_health_checks: tuple[HealthCheck, ...] = ()
    """Health checks to leave out."""

    ignored_xids: tuple[int, ...] = (13, 31, 43, 45, 68, 109)
    """Xid errors that applications cause, and that say nothing of the GPU."""

    usage_seconds: float = Field(default=10.0, ge=1, le=3600)
    """Between two measurements of what containers use."""

    evict_overuse: bool = False
    """Whether to evict a pod that goes on using more GPU memory than it was granted."""

    allow_nvidia_device_plugin: bool = False
    """Whether to start on a node that advertises nvidia.com/gpu too. Only where that offers other GPUs than this
    plugin: the same memory would be promised twice."""

    @model_validator(mode="after")
    def _check_protection(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("--tls-cert and --tls-key belong together, and only one of them is set")
        require_protection(host=self.host, flag="--host", has_tls=self.tls_cert is not None, insecure=self.insecure)
        return self
