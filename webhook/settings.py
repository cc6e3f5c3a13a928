"""Settings of the webhook process."""

from pathlib import Path

from pydantic import Field

from fracgpu.process.settings import ServiceSettings
from fracgpu.quantities import DEFAULT_MEMORY_UNIT, DEFAULT_REPLICAS, MAX_MEMORY_UNIT, Mib
from fracgpu.requests import MAX_SEATS
from webhook.policy import Policy


class WebhookSettings(ServiceSettings):
    """The fracgpu admission webhook: turns the GPU annotations of pods into limits, and refuses mistakes."""

    host: str = "127.0.0.1"
    """The address to listen on; 0.0.0.0 in a cluster, where kube-apiserver calls from another machine."""

    port: int = Field(8443, ge=0, le=65535)
    """The port to listen on; 0 takes a free one."""

    tls_cert: Path
    """PEM file with the certificate chain, for the name that kube-apiserver calls; it calls over TLS only."""

    tls_key: Path
    """PEM file with the certificate's private key."""

    memory_unit_mib: int = Field(DEFAULT_MEMORY_UNIT, ge=1, le=MAX_MEMORY_UNIT)
    """The memory unit in MiB; the same in the whole cluster, so give every device plugin the same number."""

    replicas: int = Field(DEFAULT_REPLICAS, ge=1, le=MAX_SEATS)
    """The seats of a GPU (R) by which fracgpu.io/gpu-fraction is counted; give the device plugins the same number."""

    @property
    def policy(self) -> Policy:
        """What the decisions depend on."""
        return Policy(unit=Mib(self.memory_unit_mib), replicas=self.replicas)
