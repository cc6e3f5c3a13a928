"""The reviews that are sent: the one that a real kube-apiserver sent, and variants of it, no two of them alike.

Everything that names something (pod, namespace, UIDs, a key and values of annotations) is new in each. Pure.
"""

import json
import random
import uuid
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.boilerplate import ENV
from bench.cluster import SEED
from fracgpu.names import ANNOTATION_GPU_MEMORY, ANNOTATION_GPU_UUID

JsonObject = dict[str, Any]

UNIT_MIB: Final = 256
"""The memory unit of the recorded pod: 16 units are its 4 GiB."""

_RECORDED: Final = Path(__file__).parents[2] / "tests" / "wire" / "admission-create-pod.json"
_TOKEN: Final = "00000000-1111-2222-3333-444444444444"  # noqa: S105 (stands in a template for what is new in each review)
_LARGE_BYTES: Final = 26_000  # of a pod that gets one more container, which brings it to 30 KB


@dataclass(frozen=True, slots=True)
class Review:
    """A review to send.

    Attributes:
        kind: which variant it is.
        body: what is sent.
        proof: what an answer contains that is the right one.
    """

    kind: str
    body: bytes
    proof: bytes


class Template:
    """A variant of the recorded review.

    Args:
        kind: its name, kept as an attribute.
        proof: what every answer to it contains.
        change: makes the variant, of the recorded pod with names of its own.
    """

    def __init__(self, kind: str, *, proof: bytes, change: Callable[[JsonObject], None]) -> None:
        self.kind = kind
        self._proof = proof
        review = recorded()
        request = review["request"]
        request["uid"] = _TOKEN
        request["name"] = request["object"]["metadata"]["name"] = f"infer-{_TOKEN}"
        request["namespace"] = request["object"]["metadata"]["namespace"] = f"team-{_TOKEN}"
        request["object"]["metadata"]["annotations"][f"example.com/run-{_TOKEN}"] = _TOKEN
        change(request["object"])
        self._parts = json.dumps(review, separators=(",", ":")).encode().split(_TOKEN.encode())

    @property
    def size(self) -> int:
        """Bytes of each review."""
        return sum(map(len, self._parts)) + len(_TOKEN) * (len(self._parts) - 1)

    def fill(self, token: str) -> Review:
        """One review; `token` is a UUID that no other has."""
        return Review(self.kind, token.encode().join(self._parts), self._proof)


def recorded() -> JsonObject:
    """The AdmissionReview as it was recorded."""
    found: JsonObject = json.loads(_RECORDED.read_text())["request"]
    return found


def annotated_pod(name: str) -> JsonObject:
    """The recorded pod as its author wrote it: annotated, without limits."""
    pod: JsonObject = recorded()["request"]["object"]
    _annotate(pod)
    pod["metadata"] = {"name": name, "annotations": pod["metadata"]["annotations"]}
    return pod


def usual_mix() -> list[Template]:
    """Pods as they come: finished already, annotated, in another tool's language, mistaken, large."""
    return [
        Template("unchanged", proof=b'"allowed":true}', change=lambda pod: None),
        Template("annotated", proof=b'"patchType":"JSONPatch"', change=_annotate_gpu),
        Template("translated from HAMi", proof=b'"patchType":"JSONPatch"', change=_write_for_hami),
        Template("refused", proof=b'"allowed":false', change=_mistake),
        Template("annotated, 30 KB", proof=b'"patchType":"JSONPatch"', change=_large),
    ]


def largest(limit: int) -> list[Template]:
    """Annotated pods of exactly `limit` bytes: of many small things, and of one long text."""
    return [
        Template("of variables", proof=b'"allowed":true', change=lambda pod: _fill_env(pod, limit)),
        Template("of one annotation", proof=b'"allowed":true', change=lambda pod: _fill_annotation(pod, limit)),
    ]


def without_end(templates: list[Template], *, label: str) -> Iterator[Review]:
    """Reviews of all templates in turn, the same for the same label."""
    rng = random.Random(f"{SEED} {label}")  # noqa: S311 (not a secret)
    while True:
        for template in templates:
            yield template.fill(str(uuid.UUID(int=rng.getrandbits(128), version=4)))


def _annotate(pod: JsonObject) -> None:
    pod["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "2", "memory": "8Gi"}}


def _annotate_gpu(pod: JsonObject) -> None:
    _annotate(pod)
    pod["metadata"]["annotations"][ANNOTATION_GPU_UUID] = f"GPU-{_TOKEN}"


def _write_for_hami(pod: JsonObject) -> None:
    del pod["metadata"]["annotations"][ANNOTATION_GPU_MEMORY]
    pod["metadata"]["annotations"]["nvidia.com/use-gpuuuid"] = f"GPU-{_TOKEN}"
    amounts = {"nvidia.com/gpu": "1", "nvidia.com/gpumem": "4096"}
    pod["spec"]["containers"][0]["resources"] = {
        "limits": dict(amounts),
        "requests": {"cpu": "2", "memory": "8Gi", **amounts},
    }


def _mistake(pod: JsonObject) -> None:
    pod["metadata"]["annotations"][ANNOTATION_GPU_MEMORY] = _TOKEN


def _large(pod: JsonObject) -> None:
    _annotate_gpu(pod)
    containers = pod["spec"]["containers"]
    containers[0]["env"] = deepcopy(ENV)
    while _size(pod) < _LARGE_BYTES:
        containers.append({**deepcopy(containers[0]), "name": f"helper-{len(containers)}", "resources": {}})


def _fill_env(pod: JsonObject, limit: int) -> None:
    _annotate_gpu(pod)
    env = pod["spec"]["containers"][0]["env"] = []
    entry = {"name": "LLM_ROUTER_000000", "value": ENV[0]["value"]}
    each = len(json.dumps(entry, separators=(",", ":"))) + 1
    for number in range((limit - _size(pod) - 1000) // each):  # 1000: of the review around the pod, and to be filled
        env.append({**entry, "name": f"LLM_ROUTER_{number:06}"})
    _fill_annotation(pod, limit)


def _fill_annotation(pod: JsonObject, limit: int) -> None:
    """Fill up to the byte, with what is around the pod."""
    _annotate_gpu(pod)
    around = recorded()
    around["request"] |= {"name": f"infer-{_TOKEN}", "namespace": f"team-{_TOKEN}", "object": pod}
    pod["metadata"]["annotations"]["example.com/notes"] = ""
    pod["metadata"]["annotations"]["example.com/notes"] = "x" * (limit - _size(around))


def _size(thing: JsonObject) -> int:
    return len(json.dumps(thing, separators=(",", ":")))
