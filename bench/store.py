"""What the stand-in API server keeps: objects as encoded bytes, and a history of changes for the watches. No I/O."""

from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec

from bench.cluster import Fill, make_cluster
from bench.objects import JsonObject, bound_pod, gpu_node, running_pod
from fracgpu.names import GPUNODE_API_VERSION

PODS: Final = "/api/v1/pods"
GPUNODES: Final = f"/apis/{GPUNODE_API_VERSION}/gpunodes"


class Refusal(Exception):
    """The request is not carried out: HTTP status, reason and message of the answer."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code, self.reason = code, reason


class Collection:
    """The objects of one kind, in the order in which they were made.

    Attributes:
        objects: key (``namespace/name``, or the name) -> JSON.
        watchers: called with each change: a line of a watch.
    """

    def __init__(self, api_version: str, kind: str) -> None:
        self.objects: dict[str, bytes] = {}
        self.watchers: set[Callable[[bytes], object]] = set()
        self._head = f'{{"kind":"{kind}List","apiVersion":"{api_version}","metadata":{{"resourceVersion":"'
        self._bookmark = f'{{"type":"BOOKMARK","object":{{"kind":"{kind}","apiVersion":"{api_version}","metadata":'
        self._changes: list[tuple[int, bytes]] = []  # resourceVersion, line

    def page(self, *, start: int, limit: int, resource_version: int) -> bytes:
        """A page of the list; `limit` 0 means everything from `start` on."""
        found = list(self.objects.values())
        end = min(start + limit, len(found)) if limit else len(found)
        rest = f'","continue":"{end}","remainingItemCount":{len(found) - end}}}' if end < len(found) else '"}'
        head = f'{self._head}{resource_version}{rest},"items":['.encode()
        return b"".join((head, b",".join(found[start:end]), b"]}"))

    def only(self, keys: list[str], *, resource_version: int) -> bytes:
        """A list of these objects, of those that exist."""
        found = b",".join(self.objects[key] for key in keys if key in self.objects)
        return b"".join((f'{self._head}{resource_version}"}},"items":['.encode(), found, b"]}"))

    def change(self, kind: str, key: str, value: bytes, *, resource_version: int) -> None:
        """Take over an object, new or changed, and tell the watches."""
        self.objects[key] = value
        line = b"".join((b'{"type":"', kind.encode(), b'","object":', value, b"}\n"))
        self._changes.append((resource_version, line))
        for tell in self.watchers:
            tell(line)

    def changes_after(self, resource_version: int) -> Iterator[bytes]:
        """The lines of a watch that begins there."""
        return (line for version, line in self._changes if version > resource_version)

    def bookmark(self, resource_version: int) -> bytes:
        """A line that says how far a watch has come."""
        return f'{self._bookmark}{{"resourceVersion":"{resource_version}","creationTimestamp":null}}}}}}\n'.encode()


class Store:
    """All collections; `version` is the resourceVersion of the last change."""

    def __init__(self, nodes: int, *, fill: Fill) -> None:
        self._pods = Collection("v1", "Pod")
        gpu_nodes = Collection(GPUNODE_API_VERSION, "GPUNode")
        self.collections: dict[str, Collection] = {  # URL path -> collection
            PODS: self._pods,
            GPUNODES: gpu_nodes,
            "/api/v1/nodes": Collection("v1", "Node"),
            "/apis/policy/v1/poddisruptionbudgets": Collection("policy/v1", "PodDisruptionBudget"),
        }
        self._waiting: dict[str, JsonObject] = {}  # namespace/name -> pod that is not bound
        self._uids: dict[str, str] = {}  # namespace/name -> UID, of pods that were created here
        self.version = 0
        for node in make_cluster(nodes, fill=fill):
            for pod in node.pods:
                encoded = running_pod(pod, node.name, resource_version=self._next())
                self._pods.objects[f"inference/{pod.name}"] = encoded
            gpu_nodes.objects[node.name] = gpu_node(node, resource_version=self._next(), observed_pods=self.version)

    def create_pod(self, body: bytes) -> bytes:
        """Create a waiting pod, under the UID that it comes with: the benchmark knows it beforehand."""
        pod = msgspec.json.decode(body)
        version = self._next()
        pod["metadata"]["resourceVersion"] = str(version)
        key = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
        if key in self._pods.objects:
            raise Refusal(409, "AlreadyExists", f"pod {key} exists")
        encoded = msgspec.json.encode(pod)
        self._waiting[key] = pod
        self._uids[key] = pod["metadata"]["uid"]
        self._pods.change("ADDED", key, encoded, resource_version=version)
        return encoded

    def pod(self, key: str) -> bytes:
        """Read a pod."""
        found = self._pods.objects.get(key)
        if found is None:
            raise Refusal(404, "NotFound", f"no pod {key}")
        return found

    def bind(self, key: str, body: bytes) -> None:
        """Bind a waiting pod as kube-apiserver does: with the UID as a precondition, once."""
        binding: Any = msgspec.json.decode(body)
        self.pod(key)
        uid = binding["metadata"].get("uid", "")
        if uid and uid != self._uids.get(key, ""):
            raise Refusal(409, "Conflict", f"the UID in the precondition ({uid}) is not that of pod {key}")
        waiting = self._waiting.pop(key, None)
        if waiting is None:
            raise Refusal(409, "Conflict", f"pod {key} is already assigned to a node")
        version = self._next()
        annotations = binding["metadata"].get("annotations") or {}
        encoded = bound_pod(waiting, binding["target"]["name"], annotations=annotations, resource_version=version)
        self._pods.change("MODIFIED", key, encoded, resource_version=version)

    def _next(self) -> int:
        self.version += 1
        return self.version
