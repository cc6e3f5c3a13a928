"""Settings of the extender process."""

from pathlib import Path

from pydantic import Field

from extender.placement.policies import DEFAULT_POLICY
from fracgpu.annotations import PlacementPolicy
from fracgpu.process.settings import ServiceSettings
from fracgpu.quantities import DEFAULT_MEMORY_UNIT, MAX_MEMORY_UNIT


class ExtenderSettings(ServiceSettings):
    """fracgpu scheduler extender: answers kube-scheduler's filter, prioritize and bind, and keeps the ledger."""

    host: str = "127.0.0.1"
    """The address to listen on; 0.0.0.0 in a cluster, where kube-scheduler calls from another machine."""

    port: int = Field(8080, ge=0, le=65535)
    """The port to listen on; 0 takes a free one."""

    kubeconfig: Path | None = None
    """How to reach the API server; none for the service account of the pod that we run in."""

    redis_url: str = ""
    """The Redis (6.2 or newer) or Valkey that all replicas share: redis://[USER[:PASSWORD]@]HOST[:PORT][/DB],
    redis+sentinel://HOST,HOST/MASTER, redis+cluster://HOST,HOST, the same with rediss for TLS (?ssl_ca_certs=FILE,
    &ssl_certfile=FILE&ssl_keyfile=FILE), or unix:///PATH. Give one with a password by its variable, because flags show
    in the list of processes. Empty starts an embedded one, which is right for a single replica only."""

    redis_dir: Path = Path("/var/lib/fracgpu/redis")
    """Where the embedded Redis keeps its data."""

    binding_timeout_seconds: float = Field(2.0, gt=0, le=4)
    """How long a Binding may take at the API server. Below kube-scheduler's httpTimeout for the extender (5 s), which
    also covers two calls to Redis."""

    hold_seconds: float = Field(5.0, ge=0, le=60)
    """For how long the best node's GPUs are held for a pod between prioritize and bind, so that the next pod is not
    sent to the same last slice; 0 holds nothing."""

    policy: PlacementPolicy = DEFAULT_POLICY
    """How pods that name no policy choose among the places that fit: fragmentation where they spoil the least of what
    others will ask for, binpack the fullest GPU, spread the emptiest."""

    memory_unit_mib: int = Field(DEFAULT_MEMORY_UNIT, ge=1, le=MAX_MEMORY_UNIT)
    """The unit in which GPU memory is counted, in MiB; the same for webhook, extender and every device plugin. A node
    that counts in another is not used."""
