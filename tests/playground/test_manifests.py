"""Manifests to pods: what the controllers would make, and what is refused with which words."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from textwrap import dedent

import pytest

from playground.manifests import Manifests, expand, load, load_objects

TEMPLATE = """
  template:
    metadata: {labels: {app: web}, annotations: {fracgpu.io/gpu-memory: 4Gi}}
    spec: {containers: [{name: main, image: web}]}
"""


def read(text: str) -> Manifests:
    return expand([("file.yaml", dedent(text))])


def workload(kind: str, api_version: str, spec: str) -> str:
    head = f"apiVersion: {api_version}\nkind: {kind}\nmetadata: {{name: web, namespace: team-a}}\n"
    return f"{head}spec:\n  {spec}{TEMPLATE}"


def names(manifests: Manifests) -> list[str]:
    assert manifests.refused == ()
    return [pod["metadata"]["name"] for pod in manifests.pods]


def test_a_deployment_becomes_pods_named_as_its_controller_would() -> None:
    text = workload("Deployment", "apps/v1", "replicas: 3")
    found = read(text)
    hashes = {name.rsplit("-", 1)[0] for name in names(found)}
    assert len(names(found)) == len(set(names(found))) == 3
    [base] = hashes
    assert base.startswith("web-")
    assert len(base) == len("web-") + 10
    assert names(read(text)) == names(found), "the same every time"
    metadata = found.pods[0]["metadata"]
    assert metadata["namespace"] == "team-a"
    assert metadata["annotations"] == {"fracgpu.io/gpu-memory": "4Gi"}
    assert metadata["labels"] == {"app": "web", "pod-template-hash": base.removeprefix("web-")}


@pytest.mark.parametrize(
    ("kind", "api_version", "spec", "want_count", "want_length"),
    [
        ("ReplicaSet", "apps/v1", "replicas: 2", 2, len("web-12345")),
        ("Job", "batch/v1", "{}", 1, len("web-12345")),
        ("Job", "batch/v1", "completions: 5\n  parallelism: 3", 3, len("web-12345")),
        ("Job", "batch/v1", "completions: 2\n  parallelism: 3", 2, len("web-12345")),
        ("Job", "batch/v1", "parallelism: 4", 4, len("web-12345")),
        ("Deployment", "apps/v1", "replicas: 0", 0, 0),
    ],
)
def test_how_many_pods(kind: str, api_version: str, spec: str, want_count: int, want_length: int) -> None:
    text = workload(kind, api_version, spec).replace("{}", "backoffLimit: 1")
    found = names(read(text))
    assert len(found) == want_count
    assert {len(name) for name in found} <= {want_length}


def test_a_stateful_set_counts_its_pods() -> None:
    assert names(read(workload("StatefulSet", "apps/v1", "replicas: 3"))) == ["web-0", "web-1", "web-2"]


def test_pods_lists_and_empty_documents() -> None:
    found = read(
        """
        apiVersion: v1
        kind: Pod
        metadata: {name: a}
        ---
        ---
        apiVersion: v1
        kind: List
        items:
        - {apiVersion: v1, kind: Pod, metadata: {name: b}}
        - {apiVersion: v1, kind: Pod, metadata: {generateName: c-}}
        """
    )
    assert [pod["metadata"] for pod in found.pods] == [{"name": "a"}, {"name": "b"}, {"generateName": "c-"}]
    assert found.refused == ()


def test_values_are_read_as_kubernetes_reads_them() -> None:
    found = read("{apiVersion: v1, kind: Pod, metadata: {name: a, labels: {day: 2026-11-21, 2: x, true: y}}}")
    assert found.pods[0]["metadata"]["labels"] == {"day": "2026-11-21", "2": "x", "true": "y"}


REFUSALS: dict[str, tuple[str, str, str]] = {
    "broken YAML": ("a: [1", "file.yaml", "file.yaml is not valid YAML: "),
    "a tag": ("!!python/object:os.system {}", "file.yaml", "is not valid YAML"),
    "a list": ("[1, 2]", "file.yaml", "a manifest is an object with apiVersion, kind and metadata, not a list"),
    "a number": ("7", "file.yaml", "not a int"),
    "no kind": ("{a: 1}", "file.yaml", "a manifest without kind is not supported"),
    "an unknown kind": (
        "{apiVersion: v1, kind: Service, metadata: {name: svc}}",
        "svc",
        "kind Service is not supported; the playground runs Pod, Deployment, ReplicaSet, StatefulSet, Job and List",
    ),
    "a kind that is no text": ("{kind: [Pod]}", "file.yaml", "is not supported"),
    "a daemon set": ("{apiVersion: apps/v1, kind: DaemonSet, metadata: {name: d}}", "d", "kind DaemonSet"),
    "an old version": (
        "{apiVersion: extensions/v1beta1, kind: Deployment, metadata: {name: d}}",
        "d",
        "Deployment must have apiVersion: apps/v1",
    ),
    "no name": ("{apiVersion: v1, kind: Pod, metadata: {}}", "file.yaml", "metadata.name is missing"),
    "no metadata": ("{apiVersion: v1, kind: Pod}", "file.yaml", "metadata must be an object"),
    "a name that is no text": ("{apiVersion: v1, kind: Pod, metadata: {name: 5}}", "file.yaml", "metadata must be"),
    "no template": (
        "{apiVersion: apps/v1, kind: Deployment, metadata: {name: d}, spec: {}}",
        "d",
        "spec.template.spec is missing",
    ),
    "no spec": ("{apiVersion: batch/v1, kind: Job, metadata: {name: j}}", "j", "spec is missing"),
    "labels of the wrong shape": (
        "{apiVersion: batch/v1, kind: Job, metadata: {name: j}, spec: {template: {metadata: {labels: [a]}, spec: {}}}}",
        "j",
        "spec.template.metadata.labels must be an object",
    ),
    "too many": (
        workload("Deployment", "apps/v1", "replicas: 1000000000"),
        "web",
        "spec.replicas must be a whole number from 0 to 5000, not 1000000000",
    ),
    "half a pod": (workload("Deployment", "apps/v1", "replicas: 0.5"), "web", "spec.replicas must be a whole"),
    "a list without items": ("{apiVersion: v1, kind: List}", "file.yaml", "items of a List"),
    "not a number": (
        "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {x: .nan}}",
        "file.yaml",
        "nan is not a number that JSON can write",
    ),
    "bytes": ("{kind: !!binary aGVsbG8=}", "file.yaml", "a manifest cannot hold a bytes"),
    "a loop": ("&a [*a]", "file.yaml", "file.yaml is nested too deeply"),
    "an abyss": ("[" * 5000, "file.yaml", "file.yaml"),
    "a key that is no text": ("{null: 1}", "file.yaml", "a key must be text"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals_name_the_file_and_say_what_is_wrong(case: str) -> None:
    text, want_name, want_message = REFUSALS[case]
    found = read(text)
    assert found.pods == ()
    [refused] = found.refused
    assert refused.name == want_name
    assert "file.yaml" in refused.message
    assert want_message in refused.message
    assert "\n" not in refused.message


def test_what_is_good_in_a_file_is_kept() -> None:
    found = read("{apiVersion: v1, kind: Pod, metadata: {name: a}}\n---\n7\n---\na: [1")
    assert [pod["metadata"]["name"] for pod in found.pods] == ["a"]
    assert len(found.refused) == 2


def test_a_directory_is_read_in_the_order_of_its_names(tmp_path: Path) -> None:
    for file, name in [("20.yml", "b"), ("10.yaml", "a"), ("30.json", "c")]:
        (tmp_path / file).write_text(json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}}))
    (tmp_path / "README.md").write_text("not a manifest")
    (tmp_path / "40.yaml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "below.yaml").mkdir()
    found = load(tmp_path)
    assert [pod["metadata"]["name"] for pod in found.pods] == ["a", "b", "c"]
    assert [refused.name for refused in found.refused] == ["40.yaml"]


@pytest.mark.parametrize(
    "level",
    [
        "{0}: &{0} [*{1},*{1},*{1},*{1},*{1},*{1},*{1},*{1},*{1}]",
        "{0}: &{0} {{<<: [*{1},*{1},*{1},*{1},*{1},*{1},*{1}]}}",
    ],
)
def test_a_file_that_aliases_blow_up_is_refused(level: str) -> None:
    letters = "abcdefghijkl"
    levels = [level.format(name, before) for before, name in pairwise(letters)]
    [refused] = read("\n".join(["a: &a {x: 1, y: 2}", *levels])).refused
    assert refused.message == "file.yaml: its aliases stand for more than 100000 values"


def test_a_large_file_without_aliases_is_not_refused() -> None:
    text = "kind: Pod\napiVersion: v1\nmetadata: {name: a}\nspec: {x: [" + "0," * 110_000 + "]}\n"
    assert names(read(text)) == ["a"]


@pytest.mark.parametrize("value", ["1" + "0" * 30, '"\\ud800"'])
def test_what_json_cannot_carry_is_refused(value: str) -> None:
    [refused] = read(f"x: {value}").refused
    assert refused.message.startswith("file.yaml: ")


def test_for_a_cluster_with_controllers_objects_stay_as_they_are_written(tmp_path: Path) -> None:
    deployment = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec: {replicas: 3}\n"
    service = "apiVersion: v1\nkind: Service\nmetadata: {name: s}\n"
    (tmp_path / "a.yaml").write_text(f"{deployment}---\n{service}")
    (tmp_path / "b.yaml").write_text(
        "apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {name: x}\n---\n"
        "apiVersion: v1\nkind: Deployment\nmetadata: {name: y}\n---\n"
        "apiVersion: v1\nkind: Service\n"
    )
    found = load_objects(tmp_path)
    assert [obj["kind"] for obj in found.objects] == ["Deployment", "Service"]
    assert found.objects[0]["spec"] == {"replicas": 3}
    unknown, misversioned, nameless = found.refused
    assert unknown.name == "x"
    assert unknown.message.startswith("b.yaml: kind DaemonSet is not known to the playground; it has ConfigMap, ")
    assert misversioned.message == "b.yaml: Deployment must have apiVersion: apps/v1, not 'v1'"
    assert nameless.message == "b.yaml: metadata must be an object with a name"
