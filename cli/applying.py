"""What is applied to a simulated cluster: created as `kubectl apply` would, and remembered for the report."""

import contextlib
import json
import logging
from collections.abc import Iterable
from typing import Final

from fracgpu.names import PodUid
from playground.api.resources import resource_of
from playground.cluster import ApiStatusError, ClusterApi, JsonObject

_LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"

_logger = logging.getLogger(__name__)


class Applying:
    """Applies manifests.

    Args:
        cluster: the API server.
        serves_kubectl: people may apply the same manifests again, and namespaces have to be there.

    Attributes:
        refused: (``namespace/name``, what the user was told), of each that was not let in.
        pod_names: pod UID -> ``namespace/name``, of every pod that was created here.
    """

    def __init__(self, cluster: ClusterApi, *, serves_kubectl: bool) -> None:
        self._cluster = cluster
        self._serves_kubectl = serves_kubectl
        self.refused: list[tuple[str, str]] = []
        self.pod_names: dict[PodUid, str] = {}

    async def apply(self, manifests: Iterable[JsonObject]) -> None:
        """Create what manifests say; those that are refused are noted."""
        for manifest in manifests:
            name = _name_of(manifest)
            try:
                if self._serves_kubectl:
                    await self._ensure_namespace(manifest)
                created = await self._create(manifest)
            except ApiStatusError as exc:
                self.refused.append((name, exc.message))
            except Exception as exc:
                _logger.exception("%s not created", name)
                told = f"a defect of the playground's API server: {type(exc).__name__}: {exc}"
                self.refused.append((name, told))
            else:
                found = created["metadata"]
                if created["kind"] == "Pod":
                    self.pod_names[PodUid(found["uid"])] = f"{found['namespace']}/{found['name']}"

    async def _create(self, manifest: JsonObject) -> JsonObject:
        resource = resource_of(manifest["kind"])
        assert resource is not None  # noqa: S101 (what is loaded is of kinds that are served)
        if self._serves_kubectl:
            manifest = _as_applied(manifest, namespaced=resource.namespaced)
        try:
            return await self._cluster.create(resource.plural, manifest)
        except ApiStatusError as exc:
            if exc.reason == "AlreadyExists" and resource.kind == "Namespace":  # it was needed before
                return await self._cluster.get(resource.plural, manifest["metadata"]["name"])
            raise

    async def _ensure_namespace(self, manifest: JsonObject) -> None:
        """Create the namespace of a manifest where it is missing: nobody is here who could."""
        namespace = manifest["metadata"].get("namespace")
        if namespace:
            with contextlib.suppress(ApiStatusError):  # it is there, or its name is refused with the manifest
                body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
                await self._cluster.create("namespaces", body)


def _name_of(manifest: JsonObject) -> str:
    """``namespace/name`` of a manifest that may be anything."""
    metadata = manifest.get("metadata")
    if not isinstance(metadata, dict):
        return "a pod without metadata"
    return f"{metadata.get('namespace') or 'default'}/{metadata.get('name') or metadata.get('generateName')}"


def _as_applied(manifest: JsonObject, *, namespaced: bool) -> JsonObject:
    """A manifest as `kubectl apply` sends it: with itself as an annotation, so that it may be applied again."""
    metadata = {"annotations": {}, **manifest["metadata"]}
    if namespaced:
        metadata["namespace"] = metadata.get("namespace") or "default"
    annotations = metadata["annotations"]
    if not isinstance(annotations, dict):
        return manifest  # to be refused
    text = json.dumps({**manifest, "metadata": metadata}, sort_keys=True, separators=(",", ":"))
    return {**manifest, "metadata": {**metadata, "annotations": {**annotations, _LAST_APPLIED: f"{text}\n"}}}
