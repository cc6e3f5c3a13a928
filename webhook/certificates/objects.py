"""The API server's objects that this package reads and writes: the Secret, and the two kinds of registrations.

Of each only what matters here; field names are Kubernetes'. Bytes are base64, as Go encodes them.
"""

from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from msgspec import Struct

from fracgpu.kube.resources import Resource
from fracgpu.pods import ObjectMeta

CONFIGURATION: Final = "fracgpu"
"""The name of our MutatingWebhookConfiguration and of our ValidatingWebhookConfiguration, as in deploy/."""

FIELD_MANAGER: Final = "fracgpu-webhook"


class Secret(Struct, frozen=True):
    """core/v1 Secret. Never logged, as its values are keys; so it has no useful repr."""

    metadata: ObjectMeta
    data: dict[str, str] | None = None

    def __repr__(self) -> str:
        return f"Secret({self.metadata.name!r})"

    @property
    def content(self) -> dict[str, bytes]:
        """Key -> value."""
        return {key: b64decode(value) for key, value in (self.data or {}).items()}


class ServiceReference(Struct, frozen=True):
    """admissionregistration/v1 ServiceReference."""

    namespace: str = ""
    name: str = ""


class ClientConfig(Struct, frozen=True, rename={"ca_bundle": "caBundle"}):
    """admissionregistration/v1 WebhookClientConfig."""

    ca_bundle: str | None = None
    service: ServiceReference | None = None
    url: str | None = None

    @property
    def pem(self) -> bytes:
        """The CAs by which kube-apiserver verifies the webhook."""
        return b64decode(self.ca_bundle or "")

    @property
    def server_name(self) -> str:
        """The name for which kube-apiserver wants the webhook's certificate to be; empty where it cannot be told."""
        if self.service is not None:
            return f"{self.service.name}.{self.service.namespace}.svc"
        try:
            return urlsplit(self.url or "").hostname or ""
        except ValueError:
            return ""


class Webhook(Struct, frozen=True, rename="camel"):
    """admissionregistration/v1 MutatingWebhook or ValidatingWebhook."""

    name: str = ""
    client_config: ClientConfig = ClientConfig()


class Configuration(Struct, frozen=True):
    """admissionregistration/v1 MutatingWebhookConfiguration or ValidatingWebhookConfiguration."""

    metadata: ObjectMeta
    webhooks: list[Webhook] | None = None


SECRETS: Final = Resource("/api/v1", "secrets", namespaced=True, type=Secret)
_REGISTRATION: Final = "admissionregistration.k8s.io/v1"
CONFIGURATIONS: Final = {
    kind: Resource(f"/apis/{_REGISTRATION}", f"{kind.lower()}s", namespaced=False, type=Configuration)
    for kind in ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration")
}
"""Kind -> where its objects are."""


def secret_body(found: Secret, content: Mapping[str, bytes]) -> dict[str, Any]:
    """What to apply, so that the Secret holds this, and only if nobody wrote it since it was found."""
    meta = found.metadata
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": meta.name,
            "namespace": meta.namespace,
            "uid": meta.uid,
            "resourceVersion": meta.resource_version,
        },
        "data": {key: b64encode(value).decode() for key, value in content.items()},
    }


def configuration_body(kind: str, found: Configuration, bundles: Mapping[str, bytes]) -> dict[str, Any]:
    """What to apply, so that webhooks have these caBundles, and only if nobody wrote the object since it was found.

    Server-side apply takes from it no more than it says: all other fields stay whose they are.

    Args:
        kind: the object's.
        found: the object.
        bundles: name of a webhook -> PEM.
    """
    meta = found.metadata
    return {
        "apiVersion": _REGISTRATION,
        "kind": kind,
        "metadata": {"name": meta.name, "uid": meta.uid, "resourceVersion": meta.resource_version},
        "webhooks": [
            {"name": name, "clientConfig": {"caBundle": b64encode(pem).decode()}} for name, pem in bundles.items()
        ],
    }
