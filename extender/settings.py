"""Settings of the extender process."""

from pathlib import Path

from pydantic import Field

from fracgpu.process.settings import ServiceSettings


class ExtenderSettings(ServiceSettings):
    """fracgpu scheduler extender: answers kube-scheduler's filter, prioritize and bind, and keeps the ledger."""

    host: str = "127.0.0.1"
    """The address to listen on; 0.0.0.0 in a cluster, where kube-scheduler calls from another machine."""

    port: int = Field(8080, ge=0, le=65535)
    """The port to listen on; 0 takes a free one."""

    kubeconfig: Path | None = None
    """How to reach the API server; none for the service account of the pod that we run in."""

    redis_url: str = ""
    """redis://, rediss:// or unix:// URL of the Redis (6.2 or newer) or Valkey that all replicas share; empty starts
    an embedded one, which is right for a single replica only."""

    redis_dir: Path = Path("/var/lib/fracgpu/redis")
    """Where the embedded Redis keeps its data."""

    binding_timeout_seconds: float = Field(2.0, gt=0, le=4)
    """How long a Binding may take at the API server. Below kube-scheduler's httpTimeout for the extender (5 s), which
    also covers two calls to Redis."""
