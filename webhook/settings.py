"""Settings of the webhook process."""

import re
from ipaddress import ip_address
from pathlib import Path
from typing import Final, Literal, Self

from pydantic import Field, field_validator, model_validator

from fracgpu.process.settings import ServiceSettings
from fracgpu.quantities import DEFAULT_MEMORY_UNIT, DEFAULT_REPLICAS, MAX_MEMORY_UNIT
from fracgpu.requests import MAX_SEATS
from webhook.policy import DIALECTS
from webhook.rules import RuleSettings

_DNS_NAME_OR_NOTHING: Final = r"^([a-z0-9]([a-z0-9.-]*[a-z0-9])?)?$"
_KEY: Final = r"(?:[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?/)?[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"
_VALUE: Final = r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?"
_LABEL: Final = re.compile(f"{_KEY}={_VALUE}")
TAINT: Final = re.compile(
    f"(?P<key>{_KEY})(?:=(?P<value>{_VALUE}))?(?::(?P<effect>NoSchedule|PreferNoSchedule|NoExecute))?"
)
"""A taint as kubectl writes it; without a value any will do, without an effect all."""
_DNS_NAME: Final = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)(\.(?!-)[a-z0-9-]{1,63}(?<!-))*")


class WebhookSettings(RuleSettings, ServiceSettings):
    """The fracgpu admission webhook: turns the GPU annotations of pods into limits, and refuses mistakes."""

    config_file: Path | None = None
    """A YAML file with any of these settings, in camelCase, and `namespaces` with what holds in some namespaces
    instead. Read at the start."""

    host: str = "127.0.0.1"
    """The address to listen on; 0.0.0.0 in a cluster, where kube-apiserver calls from another machine."""

    port: int = Field(8443, ge=0, le=65535)
    """The port to listen on; 0 takes a free one."""

    metrics: bool = True
    """Whether /metrics is served, on a port of its own; --no-metrics closes it."""

    metrics_host: str = "127.0.0.1"
    """The address on which /metrics is served, over TLS with the same certificate unless only this machine reaches
    it; 0.0.0.0 in a cluster."""

    metrics_port: int = Field(8083, ge=0, le=65535)
    """The port of /metrics; 0 takes a free one."""

    kubeconfig: Path | None = None
    """How to reach the API server, to keep certificates and to know the cluster's GPUs; none for the service account of
    the pod that we run in."""

    tls_cert: Path | None = None
    """PEM file with the certificate chain, for the name that kube-apiserver calls; it calls over TLS only. The three
    files are read again when they change, without a restart."""

    tls_key: Path | None = None
    """PEM file with the certificate's private key, not encrypted."""

    tls_ca: Path | None = None
    """PEM file with the CA of that certificate. Where it is given, caBundle of the webhook configurations named fracgpu
    is kept to hold it; leave it out where somebody else does that, such as cert-manager's CA injector."""

    tls_secret: str = Field("", pattern=r"^([a-z0-9.-]+/[a-z0-9.-]+)?$")
    """NAMESPACE/NAME of a Secret in which the webhook keeps a certificate of its own making, with caBundle; instead of
    the files."""

    tls_names: tuple[str, ...] = ("fracgpu-webhook.fracgpu-system.svc",)
    """The names, or IP addresses, that this certificate is for: what kube-apiserver calls, NAME.NAMESPACE.svc of our
    Service."""

    memory_unit_mib: int = Field(DEFAULT_MEMORY_UNIT, ge=1, le=MAX_MEMORY_UNIT)
    """The memory unit in MiB; the same in the whole cluster, so give every device plugin the same number."""

    replicas: int = Field(DEFAULT_REPLICAS, ge=1, le=MAX_SEATS)
    """The seats of a GPU (R) by which fracgpu.io/gpu-fraction is counted; give the device plugins the same number."""

    dialects: tuple[Literal["gpushare", "hami", "kai", "kai-gpu-fractioning", "gpu-manager", "none"], ...] = DIALECTS
    """Other tools in whose language pods may ask for GPUs; leave out one that still runs in the cluster itself, and say
    none for none. What nvidia.com/gpu means is a setting of its own."""

    compute_shares: Literal["seats", "ignore"] = "seats"
    """A part of a GPU's computing power, as other tools' manifests ask for it (nvidia.com/gpucores): seats grants it as
    a fraction of the GPU, which takes the memory with it, and refuses what is no whole number of seats; ignore leaves
    it out with a warning."""

    steering_env: Literal["refuse", "remove"] = "refuse"
    """What becomes of variables of GPU pods that would choose other GPUs or lift limits, such as
    NVIDIA_VISIBLE_DEVICES and LD_PRELOAD."""

    env_from: Literal["refuse", "allow"] = "refuse"
    """Whether containers of GPU pods may take all variables of a ConfigMap or Secret without a prefix, which may hold
    such variables and cannot be seen at admission."""

    scheduler_name: str = Field("", pattern=_DNS_NAME_OR_NOTHING, max_length=253)
    """The scheduler of GPU pods that name none."""

    runtime_class_name: str = Field("", pattern=_DNS_NAME_OR_NOTHING, max_length=253)
    """The RuntimeClass of GPU pods that name none."""

    node_selector: tuple[str, ...] = ()
    """Labels, KEY=VALUE, that GPU pods select in addition; what a pod says about a key itself stands."""

    tolerations: tuple[str, ...] = ()
    """Taints that GPU pods tolerate in addition, as kubectl taint writes them: KEY[=VALUE][:EFFECT]."""

    nodes_may_be_added: bool = True
    """Whether a pod that no GPU of the cluster could hold is let in with a warning, to wait for a node; false refuses
    it."""

    @field_validator("dialects")
    @classmethod
    def _check_dialects(cls, dialects: tuple[str, ...]) -> tuple[str, ...]:
        if "none" in dialects and len(dialects) > 1:
            raise ValueError("none stands alone")
        return dialects

    @field_validator("node_selector")
    @classmethod
    def _check_labels(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        for label in labels:
            if not _LABEL.fullmatch(label):
                raise ValueError(
                    f"it has {label[:80]!r}; a label is KEY=VALUE, for example nvidia.com/gpu.present=true"
                )
        return labels

    @field_validator("tolerations")
    @classmethod
    def _check_taints(cls, taints: tuple[str, ...]) -> tuple[str, ...]:
        for taint in taints:
            if not TAINT.fullmatch(taint):
                raise ValueError(
                    f"it has {taint[:80]!r}; a taint is KEY[=VALUE][:EFFECT] with the effect NoSchedule, "
                    "PreferNoSchedule or NoExecute, for example nvidia.com/gpu:NoSchedule"
                )
        return taints

    @field_validator("tls_names")
    @classmethod
    def _check_names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if not names:
            raise ValueError("it must have at least one, for example fracgpu-webhook.fracgpu-system.svc")
        return tuple(map(_written_name, names))

    @model_validator(mode="after")
    def _check_certificate(self) -> Self:
        has_files = (self.tls_cert, self.tls_key) != (None, None)
        if has_files and (self.tls_cert is None or self.tls_key is None):
            raise ValueError("--tls-cert and --tls-key belong together, and only one of them is set")
        if has_files == bool(self.tls_secret):
            raise ValueError(
                f"{'both' if has_files else 'neither'} --tls-cert with --tls-key {'and' if has_files else 'nor'} "
                "--tls-secret are set; kube-apiserver calls over TLS only, so give one of them: the files of a "
                "certificate, or --tls-secret NAMESPACE/NAME for one that the webhook makes itself"
            )
        if self.tls_ca is not None and not has_files:
            raise ValueError("--tls-ca goes with --tls-cert; with --tls-secret the CA is kept in the Secret")
        return self

    @property
    def certificate_needs_kube(self) -> bool:
        """Whether serving needs the API server: for the Secret, or to keep caBundle."""
        return bool(self.tls_secret) or self.tls_ca is not None


def _written_name(name: str) -> str:
    """A name as certificates have it: an address in its one spelling, or a DNS name in lower case."""
    try:
        return str(ip_address(name))
    except ValueError:
        if not _DNS_NAME.fullmatch(name.lower()) or len(name) > 253:
            raise ValueError(
                f"{name[:64]!r} is neither a DNS name nor an IP address; for example fracgpu-webhook.fracgpu-system.svc"
            ) from None
        return name.lower()
