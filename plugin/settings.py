"""What an administrator can tell the device plugin."""

from pathlib import Path

from pydantic import Field

from fracgpu.process.settings import ServiceSettings
from fracgpu.quantities import DEFAULT_MEMORY_UNIT, DEFAULT_REPLICAS, MAX_MEMORY_UNIT
from fracgpu.requests import MAX_SEATS


class PluginSettings(ServiceSettings):
    """The device plugin of fracgpu: offers shares of this node's GPUs to the kubelet."""

    node_name: str = Field(min_length=1)
    """The name of this node in Kubernetes; in a pod from spec.nodeName, by the downward API."""

    kubeconfig: Path | None = None
    """How to reach the API server; none for the service account of this pod."""

    device_plugin_dir: Path = Path("/var/lib/kubelet/device-plugins")
    """The kubelet's folder for device plugins; it looks nowhere else. The journal of grants lies there too."""

    pod_resources_socket: Path = Path("/var/lib/kubelet/pod-resources/kubelet.sock")
    """The socket of the kubelet's PodResources."""

    cgroup_root: Path = Path("/sys/fs/cgroup")
    """The host's cgroup filesystem: tells when the processes of a deleted pod have ended."""

    memory_unit_mib: int = Field(default=DEFAULT_MEMORY_UNIT, ge=1, le=MAX_MEMORY_UNIT)
    """Size of a memory unit in MiB; the same in the whole cluster."""

    replicas: int = Field(default=DEFAULT_REPLICAS, ge=1, le=MAX_SEATS)
    """Seats of each GPU: time slices, 1/REPLICAS of a GPU each; 1 gives GPUs out whole."""

    reserved_mib: int = Field(default=0, ge=0)
    """Memory of each GPU, in MiB, that is never given away: for the driver and for other programs on the node."""
