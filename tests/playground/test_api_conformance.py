"""The same questions to the playground's API server and to a real kube-apiserver: the answers must agree."""

from __future__ import annotations

from typing import Any

import pytest

from playground.api.apiserver import ApiServer
from tests.playground.controlplanes import Api, pod

MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"
GPUNODES = "/apis/fracgpu.io/v1alpha1/gpunodes"


def with_resources(name: str, **resources: Any) -> dict[str, Any]:
    return pod(name, containers=[{"name": "c", "image": "x", "resources": resources}])


async def test_not_found_and_already_exists_are_statuses(api: Api) -> None:
    code, body = await api.send("GET", f"{api.pods}/nope")
    assert (code, body) == (
        404,
        {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": 'pods "nope" not found',
            "reason": "NotFound",
            "details": {"name": "nope", "kind": "pods"},
            "code": 404,
        },
    )
    await api.create_pod("a")
    code, body = await api.send("POST", api.pods, pod("a"))
    assert (code, body["reason"], body["message"]) == (409, "AlreadyExists", 'pods "a" already exists')


async def test_a_new_pod_has_the_same_defaults(api: Api) -> None:
    created = await api.create_pod("a")
    assert created["status"] == {"phase": "Pending", "qosClass": "BestEffort"}
    assert created["metadata"]["generation"] == 1
    spec = created["spec"]
    assert spec["containers"] == [
        {
            "name": "c",
            "image": "x",
            "resources": {},
            "terminationMessagePath": "/dev/termination-log",
            "terminationMessagePolicy": "File",
            "imagePullPolicy": "Always",
        }
    ]
    assert (spec["schedulerName"], spec["priority"], len(spec["tolerations"])) == ("default-scheduler", 0, 2)
    assert sorted(spec) == [
        "containers",
        "dnsPolicy",
        "enableServiceLinks",
        "preemptionPolicy",
        "priority",
        "restartPolicy",
        "schedulerName",
        "securityContext",
        "terminationGracePeriodSeconds",
        "tolerations",
    ]


async def test_a_binding_copies_annotations_in_the_write_that_sets_the_node(api: Api) -> None:
    created = await api.create_pod("a")
    code, body = await api.bind("a", uid=created["metadata"]["uid"], annotations={"fracgpu.io/allocation": "{}"})
    assert (code, body["status"]) == (201, "Success")
    version = created["metadata"]["resourceVersion"]
    [event] = await api.watch(f"{api.pods}?resourceVersion={version}", count=1)
    bound = event["object"]
    assert event["type"] == "MODIFIED"
    assert bound["spec"]["nodeName"] == "n1"
    assert bound["metadata"]["annotations"] == {"fracgpu.io/allocation": "{}"}
    assert bound["metadata"]["generation"] == 1
    conditions = [(c["type"], c["status"]) for c in bound["status"]["conditions"]]
    assert conditions == [("PodScheduled", "True")]


async def test_bindings_that_conflict(api: Api) -> None:
    uid = (await api.create_pod("a"))["metadata"]["uid"]
    code, body = await api.bind("a", uid="00000000-0000-0000-0000-000000000000")
    assert (code, body["reason"], body["details"]) == (409, "Conflict", {"name": "a", "kind": "pods"})
    assert "Precondition failed: UID in precondition" in body["message"]
    assert (await api.bind("a", uid=uid))[0] == 201
    code, body = await api.bind("a", uid=uid)
    assert (code, body["reason"], body["details"]) == (409, "Conflict", {"name": "a", "kind": "pods/binding"})
    assert body["message"] == (
        'Operation cannot be fulfilled on pods/binding "a": pod a is already assigned to node "n1"'
    )
    await api.send("DELETE", f"{api.pods}/a", {})
    _, body = await api.bind("a", uid=uid)
    assert body["message"].endswith("pod a is being deleted, cannot be assigned to a host")
    assert (await api.bind("nope"))[0] == 404


async def test_a_bound_pod_waits_for_its_kubelet_and_an_unbound_one_does_not(api: Api) -> None:
    await api.create_pod("bound")
    await api.bind("bound")
    await api.create_pod("unbound")
    version = await api.version()
    code, marked = await api.send("DELETE", f"{api.pods}/bound", {})
    assert (code, marked["metadata"]["deletionGracePeriodSeconds"]) == (200, 30)
    assert marked["metadata"]["generation"] == 2
    _, again = await api.send("DELETE", f"{api.pods}/bound", {"gracePeriodSeconds": 60})
    assert again["metadata"]["resourceVersion"] == marked["metadata"]["resourceVersion"]
    _, sooner = await api.send("DELETE", f"{api.pods}/bound", {"gracePeriodSeconds": 5})
    assert sooner["metadata"]["deletionGracePeriodSeconds"] == 5
    code, body = await api.send(
        "DELETE", f"{api.pods}/bound", {"gracePeriodSeconds": 0, "preconditions": {"uid": "other"}}
    )
    assert (code, body["reason"]) == (409, "Conflict")
    assert (await api.send("DELETE", f"{api.pods}/bound", {"gracePeriodSeconds": 0}))[0] == 200
    assert (await api.send("GET", f"{api.pods}/bound"))[0] == 404
    assert (await api.send("DELETE", f"{api.pods}/unbound", {}))[0] == 200
    assert await api.events(f"{api.pods}?resourceVersion={version}", count=6) == [
        ("MODIFIED", "bound"),
        ("MODIFIED", "bound"),
        ("MODIFIED", "bound"),
        ("DELETED", "bound"),
        ("MODIFIED", "unbound"),
        ("DELETED", "unbound"),
    ]


async def test_force_deletion_removes_a_bound_pod_at_once(api: Api) -> None:
    await api.create_pod("a")
    await api.bind("a")
    version = await api.version()
    await api.send("DELETE", f"{api.pods}/a", {"gracePeriodSeconds": 0})
    marked, removed = await api.watch(f"{api.pods}?resourceVersion={version}", count=2)
    assert (marked["type"], removed["type"]) == ("MODIFIED", "DELETED")
    assert removed["object"]["metadata"]["deletionGracePeriodSeconds"] == 0
    versions = [int(event["object"]["metadata"]["resourceVersion"]) for event in (marked, removed)]
    assert versions[0] < versions[1]


async def test_an_object_that_leaves_or_enters_a_selection_is_deleted_or_added(api: Api) -> None:
    await api.create_pod("a")
    version = await api.version()
    await api.bind("a", node="n7")
    pending = f"{api.pods}?fieldSelector=spec.nodeName%3D&resourceVersion={version}"
    on_node = f"/api/v1/pods?fieldSelector=spec.nodeName%3Dn7&resourceVersion={version}"
    assert await api.events(pending, count=1) == [("DELETED", "a")]
    assert await api.events(on_node, count=1) == [("ADDED", "a")]
    _, listed = await api.send("GET", f"{api.pods}?fieldSelector=spec.nodeName!%3Dn7")
    assert listed["items"] == []
    await api.send("DELETE", f"{api.pods}/a", {"gracePeriodSeconds": 0})


async def test_a_watch_from_before_the_log_gets_an_error_event_410(api: Api, server: ApiServer | None) -> None:
    # The real server's log of a custom resource begins when that was defined, long after version 1.
    if server is not None:
        server.compact()
    [event] = await api.watch(f"{GPUNODES}?resourceVersion=1", count=1)
    assert event["type"] == "ERROR"
    assert (event["object"]["code"], event["object"]["reason"]) == (410, "Expired")
    assert event["object"]["message"].startswith("too old resource version: 1 (")


async def test_status_has_its_own_endpoint(api: Api) -> None:
    await api.create_pod("a")
    _, patched = await api.send("PATCH", f"{api.pods}/a/status", {"status": {"phase": "Running"}}, kind=MERGE)
    assert patched["status"]["phase"] == "Running"
    _, same = await api.send("PATCH", f"{api.pods}/a", {"status": {"phase": "Failed"}}, kind=MERGE)
    assert same["status"]["phase"] == "Running"
    assert same["metadata"]["resourceVersion"] == patched["metadata"]["resourceVersion"]
    ready = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    scheduled = {"status": {"conditions": [{"type": "PodScheduled", "status": "False"}]}}
    await api.send("PATCH", f"{api.pods}/a/status", ready, kind=STRATEGIC)
    _, both = await api.send("PATCH", f"{api.pods}/a/status", scheduled, kind=STRATEGIC)
    assert sorted(c["type"] for c in both["status"]["conditions"]) == ["PodScheduled", "Ready"]


async def test_what_may_not_be_changed(api: Api) -> None:
    await api.create_pod("a")
    code, body = await api.send("PATCH", f"{api.pods}/a", {"spec": {"nodeName": "n2"}}, kind=MERGE)
    assert (code, body["reason"]) == (422, "Invalid")
    assert body["message"].startswith('Pod "a" is invalid: spec: Forbidden: pod updates may not change fields')
    stale = {"metadata": {"resourceVersion": "1", "labels": {"a": "b"}}}
    code, body = await api.send("PATCH", f"{api.pods}/a", stale, kind=MERGE)
    assert (code, body["reason"]) == (409, "Conflict")
    assert "the object has been modified" in body["message"]


@pytest.mark.parametrize(
    ("resources", "want_message"),
    [
        (
            {"limits": {"fracgpu.io/memory": "4"}, "requests": {"fracgpu.io/memory": "2"}},
            'spec.containers[0].resources.requests: Invalid value: "2": must be equal to fracgpu.io/memory limit of 4',
        ),
        (
            {"requests": {"fracgpu.io/memory": "2"}},
            "spec.containers[0].resources.limits: Required value: Limit must be set for non overcommitable resources",
        ),
        (
            {"limits": {"fracgpu.io/memory": 1.5}},
            '[spec.containers[0].resources.limits[fracgpu.io/memory]: Invalid value: "1500m": must be an integer, '
            'spec.containers[0].resources.requests[fracgpu.io/memory]: Invalid value: "1500m": must be an integer]',
        ),
        (
            {"limits": {"cpu": "1"}, "requests": {"cpu": "2"}},
            'spec.containers[0].resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1',
        ),
    ],
)
async def test_resources_that_are_refused(api: Api, resources: Any, want_message: str) -> None:
    code, body = await api.send("POST", api.pods, with_resources("a", **resources))
    assert (code, body["reason"], body["message"]) == (422, "Invalid", f'Pod "a" is invalid: {want_message}')


async def test_requests_are_copied_from_limits(api: Api) -> None:
    _, created = await api.send("POST", api.pods, with_resources("a", limits={"fracgpu.io/memory": 4}))
    assert created["spec"]["containers"][0]["resources"] == {
        "limits": {"fracgpu.io/memory": "4"},
        "requests": {"fracgpu.io/memory": "4"},
    }


@pytest.mark.parametrize(
    ("manifest", "want_code", "want_message"),
    [
        (pod("a", containers=[]), 422, 'Pod "a" is invalid: spec.containers: Required value'),
        (
            pod("a", containers=[{"name": "c", "image": "x"}, {"name": "c", "image": "x"}]),
            422,
            'Pod "a" is invalid: spec.containers[1].name: Duplicate value: "c"',
        ),
        (pod("A_b"), 422, 'Pod "A_b" is invalid: metadata.name: Invalid value: "A_b": a lowercase RFC 1123'),
        (pod(""), 422, 'Pod "" is invalid: metadata.name: Required value: name or generateName is required'),
        (pod("a", containers="x"), 400, 'Pod in version "v1" cannot be handled as a Pod: '),
        (
            pod("a", tolerations=5),
            400,
            'Pod in version "v1" cannot be handled as a Pod: json: cannot unmarshal number into Go struct field '
            "PodSpec.spec.tolerations of type []v1.Toleration",
        ),
        (
            pod("a", containers=[{"name": "c", "image": "x", "env": [{"name": 1}]}]),
            400,
            'Pod in version "v1" cannot be handled as a Pod: json: cannot unmarshal number into Go struct field '
            "EnvVar.spec.containers.env.name of type string",
        ),
        (
            pod("a", containers=[5]),
            400,
            'Pod in version "v1" cannot be handled as a Pod: json: cannot unmarshal number',
        ),
        (pod("a", priority="high"), 400, 'Pod in version "v1" cannot be handled as a Pod: json: cannot unmarshal'),
        ({**pod("a"), "metadata": {"name": 5}}, 400, 'Pod in version "v1" cannot be handled as a Pod: json: '),
        (
            pod("a", containers=[{"name": "c", "image": "x", "env": [{"value": "b"}]}]),
            422,
            'Pod "a" is invalid: spec.containers[0].env[0].name: Required value',
        ),
        (
            pod("a", containers=[{"name": "c", "image": "x", "env": [{"name": "A=B"}]}]),
            422,
            'Pod "a" is invalid: spec.containers[0].env[0].name: Invalid value: "A=B": a valid environment variable',
        ),
        (
            pod("a", containers=[None]),
            422,
            'Pod "a" is invalid: [spec.containers[0].name: Required value, spec.containers[0].image: Required value]',
        ),
        (
            pod("a", tolerations=[None]),
            422,
            'Pod "a" is invalid: spec.tolerations[0].operator: Invalid value: "": operator must be Exists when',
        ),
        (
            pod("a", restartPolicy="Sometimes"),
            422,
            'Pod "a" is invalid: spec.restartPolicy: Unsupported value: "Sometimes": supported values: "Always", ',
        ),
        ([1], 400, "the object provided is unrecognized (must be of type Pod): "),
        (b"{nope", 400, "the object provided is unrecognized (must be of type Pod): "),
        (
            {**pod("a"), "metadata": {"name": "a", "namespace": "elsewhere"}},
            400,
            "the namespace of the provided object does not match the namespace sent on the request",
        ),
    ],
)
async def test_manifests_that_are_refused(api: Api, manifest: Any, want_code: int, want_message: str) -> None:
    code, body = await api.send("POST", api.pods, manifest)
    assert code == want_code
    assert body["message"].startswith(want_message)


async def test_null_is_an_absent_field(api: Api) -> None:
    container = {"name": "c", "image": "x", "env": None, "ports": None, "resources": {"limits": None}}
    manifest = pod("a", initContainers=None, tolerations=None, nodeSelector=None, volumes=None, containers=[container])
    manifest["metadata"] |= {"labels": {"a": None}, "annotations": None, "managedFields": None}
    code, created = await api.send("POST", f"{api.pods}?dryRun=All", manifest)
    assert code == 201, created
    assert created["metadata"]["labels"] == {"a": ""}
    assert "annotations" not in created["metadata"]
    assert {"initContainers", "nodeSelector", "volumes"}.isdisjoint(created["spec"])
    assert created["spec"]["containers"][0]["resources"] == {}


async def test_generate_name_and_dry_run(api: Api) -> None:
    manifest = {**pod(""), "metadata": {"generateName": "job-"}}
    code, created = await api.send("POST", f"{api.pods}?dryRun=All", manifest)
    assert code == 201
    assert len(created["metadata"]["name"]) == len("job-") + 5
    _, listed = await api.send("GET", api.pods)
    assert listed["items"] == []


async def test_paging_shows_one_state(api: Api) -> None:
    for name in "abc":
        await api.create_pod(name)
    _, first = await api.send("GET", f"{api.pods}?limit=2")
    await api.send("DELETE", f"{api.pods}/c", {"gracePeriodSeconds": 0})
    await api.create_pod("d")
    _, second = await api.send("GET", f"{api.pods}?limit=2&continue={first['metadata']['continue']}")
    names = [item["metadata"]["name"] for item in first["items"] + second["items"]]
    assert names == ["a", "b", "c"]
    assert first["metadata"]["remainingItemCount"] == 1
    assert second["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    assert "kind" not in first["items"][0]
    code, body = await api.send("GET", f"{api.pods}?limit=2&continue=abc")
    assert (code, body["reason"]) == (400, "BadRequest")


async def test_a_gpunode_keeps_its_status_apart(api: Api) -> None:
    name = api.namespace
    manifest = {"apiVersion": "fracgpu.io/v1alpha1", "kind": "GPUNode", "metadata": {"name": name}}
    code, created = await api.send("POST", GPUNODES, {**manifest, "spec": {"a": 1}, "status": {"b": 1}})
    assert (code, created["metadata"]["generation"], "status" in created) == (201, 1, False)
    both = {"spec": {"a": 2}, "status": {"b": 2}}
    _, patched = await api.send("PATCH", f"{GPUNODES}/{name}/status", both, kind=MERGE)
    assert (patched["spec"], patched["status"]) == ({"a": 1}, {"b": 2})
    assert patched["metadata"]["generation"] == 1
    _, patched = await api.send("PATCH", f"{GPUNODES}/{name}", {"spec": {"a": 3}, "status": {"b": 3}}, kind=MERGE)
    assert (patched["spec"], patched["status"]) == ({"a": 3}, {"b": 2})
    assert patched["metadata"]["generation"] == 2
    code, body = await api.send("PUT", f"{GPUNODES}/{name}", {**manifest, "spec": {}})
    assert (code, body["reason"]) == (422, "Invalid")
    stale = {**manifest, "metadata": {"name": name, "resourceVersion": "999"}}
    assert (await api.send("PUT", f"{GPUNODES}/{name}", stale))[0] == 409
    assert (await api.send("PATCH", f"{GPUNODES}/{name}", {}, kind=STRATEGIC))[0] == 415
    code, body = await api.send("DELETE", f"{GPUNODES}/{name}")
    assert (code, body["status"], body["details"]["group"]) == (200, "Success", "fracgpu.io")


async def test_a_disruption_budget_starts_with_a_status_that_allows_nothing(api: Api) -> None:
    """Nobody computes it here: what it allows is written by whoever plays the controller."""
    everywhere = "/apis/policy/v1/poddisruptionbudgets"
    path = f"/apis/policy/v1/namespaces/{api.namespace}/poddisruptionbudgets"
    spec = {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "a"}}}
    manifest = {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "a"}, "spec": spec}
    nothing = {"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0}
    code, created = await api.send("POST", path, {**manifest, "status": {"disruptionsAllowed": 7}})
    assert (code, created["spec"], created["status"], created["metadata"]["generation"]) == (201, spec, nothing, 1)
    both = {"spec": {"maxUnavailable": 2}, "status": {"disruptionsAllowed": 2, "disruptedPods": None}}
    code, patched = await api.send("PATCH", f"{path}/a/status", both, kind=MERGE)
    assert (code, patched["spec"], patched["status"]) == (200, spec, {**nothing, "disruptionsAllowed": 2})
    _, listed = await api.send("GET", everywhere)
    assert [item["status"] for item in listed["items"] if item["metadata"]["uid"] == created["metadata"]["uid"]] == [
        {**nothing, "disruptionsAllowed": 2}
    ]
    version = created["metadata"]["resourceVersion"]
    assert await api.events(f"{everywhere}?resourceVersion={version}", count=1) == [("MODIFIED", "a")]


async def test_server_side_apply_creates_merges_and_removes_what_is_no_longer_named(api: Api) -> None:
    path = f"{GPUNODES}/{api.namespace}"
    manifest = {"apiVersion": "fracgpu.io/v1alpha1", "kind": "GPUNode", "metadata": {"name": api.namespace}}
    code, _ = await api.send(
        "PATCH", f"{path}?fieldManager=plugin", {**manifest, "spec": {"x": 1, "y": {"z": 2}}}, kind=APPLY
    )
    assert code == 201
    await api.send("PATCH", path, {"spec": {"other": 1}}, kind=MERGE)
    code, applied = await api.send("PATCH", f"{path}?fieldManager=plugin", {**manifest, "spec": {"x": 5}}, kind=APPLY)
    assert (code, applied["spec"]) == (200, {"x": 5, "other": 1})
    status = {**manifest, "status": {"grants": {"a": 1, "b": 2}}}
    await api.send("PATCH", f"{path}/status?fieldManager=plugin", status, kind=APPLY)
    status = {**manifest, "status": {"grants": {"b": 2}}}
    _, applied = await api.send("PATCH", f"{path}/status?fieldManager=plugin", status, kind=APPLY)
    assert (applied["spec"], applied["status"]) == ({"x": 5, "other": 1}, {"grants": {"b": 2}})
    code, body = await api.send("PATCH", path, manifest, kind=APPLY)
    assert (code, body["reason"]) == (422, "Invalid")
    await api.send("DELETE", path)


async def test_selectors_and_paths_that_do_not_exist(api: Api) -> None:
    code, body = await api.send("GET", f"{api.pods}?fieldSelector=spec.foo%3D1")
    assert (code, body["message"]) == (400, "field label not supported: spec.foo")
    await api.send("POST", api.pods, {**pod("a"), "metadata": {"name": "a", "labels": {"app": "x"}}})
    await api.create_pod("b")
    for selector, want in [("app%3Dx", ["a"]), ("app!%3Dx", ["b"]), ("app%3D%3Dy", [])]:
        _, listed = await api.send("GET", f"{api.pods}?labelSelector={selector}")
        assert [item["metadata"]["name"] for item in listed["items"]] == want
    assert (await api.send("PUT", api.pods, {}))[0] == 405
