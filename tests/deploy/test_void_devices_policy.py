"""deploy/kustomize/admission/void-visible-devices.yaml on a real kube-apiserver: containers without a GPU see none."""

import json
from typing import Any

import pytest

from fracgpu.names import ANNOTATION_GPU_MEMORY, RESOURCE_MEMORY
from tests.deploy.conftest import Api, documents

pytestmark = pytest.mark.e2e

HELD = "/api/v1/namespaces/team-a/pods"
FREE = "/api/v1/namespaces/team-b/pods"
DRY = "?dryRun=All"
STRATEGIC = "application/strategic-merge-patch+json"
VOID = {"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"}
ALL = {"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"}
OTHER = {"name": "A", "value": "b"}
FROM_FIELD = {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}


@pytest.fixture(scope="module")
def cluster(api: Api) -> Api:
    """The policies in force, for team-a and not for team-b, and no webhook."""
    opt_in(api)
    return api


def opt_in(api: Api) -> None:
    """Have the policies apply to team-a, and wait until they do."""
    labels = {"fracgpu.io/void-visible-devices": "enabled"}
    api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team-a", "labels": labels}})
    earlier = api.call("POST", HELD, pod(container(), name="earlier"))
    assert earlier[0] == 201, earlier
    for manifest in documents("admission/void-visible-devices.yaml"):
        api.apply(manifest)
    # Until both are in force the validating policy may refuse what the mutating one is yet to make right.
    api.wait_until(lambda: "void" in json.dumps(api.call("POST", HELD + DRY, pod(container()))[1].get("spec")))
    unread = pod(container(), annotations={"gpu-memory": "much"})
    api.wait_until(lambda: api.call("POST", HELD + DRY, unread)[0] == 403)


def container(name: str = "main", **fields: object) -> dict[str, Any]:
    return {"name": name, "image": "example.com/cuda:1", **fields}


def with_limit(resource: str, amount: str = "1", name: str = "main", **fields: object) -> dict[str, Any]:
    return container(name, resources={"limits": {resource: amount}}, **fields)


def pod(
    *containers: dict[str, Any], name: str = "p", annotations: dict[str, str] | None = None, **spec: object
) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "annotations": annotations},
        "spec": {"containers": list(containers), **spec},
    }


def env_of(api: Api, manifest: dict[str, Any], *, path: str = HELD) -> dict[str, Any]:
    """Container name to its environment, as the pod would be stored."""
    status, stored = api.call("POST", path + DRY, manifest)
    assert status == 201, stored
    listed = stored["spec"]["containers"] + stored["spec"].get("initContainers", [])
    return {made["name"]: made.get("env") for made in listed}


# --- pods without a GPU


@pytest.mark.parametrize(
    ("env", "want"),
    [
        (None, [VOID]),
        ([], [VOID]),
        ([OTHER], [OTHER, VOID]),
        ([ALL, OTHER], [VOID, OTHER]),
        ([{"name": "NVIDIA_VISIBLE_DEVICES"}], [VOID]),
        ([{"name": "NVIDIA_VISIBLE_DEVICES", "value": "none"}], [VOID]),
        ([OTHER, {"name": "NVIDIA_VISIBLE_DEVICES", "valueFrom": FROM_FIELD}], [OTHER, VOID]),
        ([ALL, OTHER, {"name": "NVIDIA_VISIBLE_DEVICES", "valueFrom": FROM_FIELD}], [VOID, OTHER, VOID]),
        ([VOID, ALL], [VOID, VOID]),
        ([OTHER, VOID], [OTHER, VOID]),
    ],
)
def test_a_container_without_a_gpu_sees_none(cluster: Api, env: Any, want: list[dict[str, str]]) -> None:
    fields = {} if env is None else {"env": env}
    manifest = pod(
        container(**fields),
        container("second"),
        initContainers=[container("init", **fields), container("side", restartPolicy="Always", **fields)],
    )

    assert env_of(cluster, manifest) == {"main": want, "second": [VOID], "init": want, "side": want}


def test_a_pod_that_was_changed_comes_out_unchanged(cluster: Api) -> None:
    _, first = cluster.call("POST", HELD + DRY, pod(container(env=[OTHER, ALL]), initContainers=[container("init")]))

    status, second = cluster.call("POST", HELD + DRY, pod(**first["spec"]) | {"spec": first["spec"]})

    assert status == 201, second
    assert second["spec"] == first["spec"]


def test_other_namespaces_are_left_alone(cluster: Api) -> None:
    assert env_of(cluster, pod(container(env=[ALL]), container("second")), path=FREE) == {"main": [ALL], "second": None}


# --- pods with a GPU


@pytest.mark.parametrize(
    "resource",
    [
        RESOURCE_MEMORY,
        "fracgpu.io/replica",
        "nvidia.com/gpu",
        "nvidia.com/gpumem",
        "nvidia.com/mig-1g.5gb",
        "aliyun.com/gpu-mem",
        "tencent.com/vcuda-memory",
    ],
)
def test_a_container_with_a_gpu_is_left_alone_and_the_others_see_none(cluster: Api, resource: str) -> None:
    manifest = pod(with_limit(resource), container("second", env=[ALL]), initContainers=[container("init")])

    assert env_of(cluster, manifest) == {"main": None, "second": [VOID], "init": [VOID]}


def test_a_sidecar_may_hold_the_gpu(cluster: Api) -> None:
    sidecar = with_limit(RESOURCE_MEMORY, name="side", restartPolicy="Always", env=[OTHER])

    assert env_of(cluster, pod(container(), initContainers=[sidecar])) == {"main": [VOID], "side": [OTHER]}


@pytest.mark.parametrize("amount", ["0", "0Gi", "0.0"])
def test_asking_for_nothing_is_holding_nothing(cluster: Api, amount: str) -> None:
    assert env_of(cluster, pod(with_limit("nvidia.com/gpu", amount))) == {"main": [VOID]}


def test_annotations_beside_written_limits_have_nothing_left_to_say(cluster: Api) -> None:
    manifest = pod(with_limit(RESOURCE_MEMORY), container("second"), annotations={"fracgpu.io/gpu-model": "A100"})

    assert env_of(cluster, manifest) == {"main": None, "second": [VOID]}


@pytest.mark.parametrize(
    "annotation", [ANNOTATION_GPU_MEMORY, "gpu-memory", "gpu-fraction", "nvidia.com/container.main.gpu-memory.limit"]
)
def test_an_annotation_that_nobody_translates_shows_no_gpu(cluster: Api, annotation: str) -> None:
    annotations = {annotation: "1"}

    status, answer = cluster.call("POST", HELD + DRY, pod(container(), annotations=annotations))

    assert status == 403
    assert "container main holds no GPU and could see all of the node" in answer["message"]
    assert f"annotation {annotation} asks for a GPU that nothing has given the pod; remove the" in answer["message"]
    assert env_of(cluster, pod(container(env=[VOID]), annotations=annotations)) == {"main": [VOID]}
    assert env_of(cluster, pod(container(), annotations=annotations), path=FREE) == {"main": None}


def test_a_pod_that_passes_the_scheduler_by_asks_for_no_gpu(cluster: Api) -> None:
    """Its kubelet would start it with a resource that the node does not have, and so with every GPU in sight."""
    status, answer = cluster.call("POST", HELD + DRY, pod(with_limit("nvidia.com/none"), nodeName="node-1"))

    assert status == 403
    assert "container main asks for a GPU and spec.nodeName is node-1, " in answer["message"]
    assert env_of(cluster, pod(container(), nodeName="node-1")) == {"main": [VOID]}


# --- ephemeral containers


def test_an_ephemeral_container_sees_none_and_what_was_there_stays(cluster: Api) -> None:
    """The pod is from before the namespace opted in; its containers cannot change any more."""
    path = f"{HELD}/earlier/ephemeralcontainers"
    for name, env in (("first", [ALL]), ("second", [OTHER])):
        added = {"spec": {"ephemeralContainers": [container(name, env=env)]}}
        status, answer = cluster.call("PATCH", path, added, content_type=STRATEGIC)
        assert status == 200, answer

    _, stored = cluster.call("GET", f"{HELD}/earlier")

    assert "env" not in stored["spec"]["containers"][0]
    assert {made["name"]: made["env"] for made in stored["spec"]["ephemeralContainers"]} == {
        "first": [VOID],
        "second": [OTHER, VOID],
    }
