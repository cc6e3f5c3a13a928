"""Settings of the extender process."""

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from extender.placement.policies import DEFAULT_POLICY
from fracgpu.annotations import PlacementPolicy
from fracgpu.process.serving import is_loopback, require_protection
from fracgpu.process.settings import ServiceSettings
from fracgpu.quantities import DEFAULT_MEMORY_UNIT, MAX_MEMORY_UNIT


class ExtenderSettings(ServiceSettings):
    """fracgpu scheduler extender: answers kube-scheduler's filter, prioritize and bind, and keeps the ledger."""

    host: str = "127.0.0.1"
    """The address at which kube-scheduler calls; 0.0.0.0 in a cluster, where it calls from another machine. Beyond
    127.0.0.1 that takes TLS, and a client certificate or a token."""

    port: int = Field(8080, ge=0, le=65535)
    """The port of that; 0 takes a free one."""

    pages: bool = True
    """Whether the web page, /v1 and /metrics are served; without them that port answers probes alone."""

    pages_host: str = "127.0.0.1"
    """The address at which the web page, /v1, /metrics and probes are served; 0.0.0.0 in a pod. Beyond 127.0.0.1 that
    takes TLS; there is no login, and who may connect is for a NetworkPolicy to say."""

    pages_port: int = Field(8081, ge=0, le=65535)
    """The port of those; 0 takes a free one."""

    tls_cert: Path | None = None
    """PEM file with the certificate chain of both ports. All TLS files and the token's are read again when they
    change."""

    tls_key: Path | None = None
    """PEM file with that certificate's private key, not encrypted."""

    tls_client_ca: Path | None = None
    """PEM file with the CA of kube-scheduler's client certificate (tlsConfig in its configuration): whoever calls a
    verb has to show one."""

    tls_client_names: tuple[str, ...] = ()
    """Common names, or DNS names, of which that certificate has to carry one; not given, any certificate of that CA
    will do. Give one where the CA signs others too, as a cluster's own CA does for every kubelet."""

    token_file: Path | None = None
    """A file with a token that will do instead of a client certificate: Authorization: Bearer TOKEN, or urlPrefix
    https://kube-scheduler:TOKEN@HOST:PORT in kube-scheduler's configuration."""

    insecure: bool = False
    """Whether to listen beyond 127.0.0.1 in plain text, and to let anybody call the verbs who can connect."""

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

    @model_validator(mode="after")
    def _check_protection(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("--tls-cert and --tls-key belong together, and only one of them is set")
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise ValueError("--tls-client-ca needs TLS: give --tls-cert and --tls-key too")
        if self.tls_client_names and self.tls_client_ca is None:
            raise ValueError("--tls-client-names says whose certificates will do; give their CA with --tls-client-ca")
        for flag, host in (("--host", self.host), ("--pages-host", self.pages_host)):
            require_protection(host=host, flag=flag, has_tls=self.tls_cert is not None, insecure=self.insecure)
        if not (self.insecure or is_loopback(self.host)) and self.tls_client_ca is None and self.token_file is None:
            raise ValueError(
                f"--host is {self.host}, which other machines reach, and whoever does could bind pods; give "
                "--tls-client-ca or --token-file, or let anybody call with --insecure"
            )
        return self
