"""What `kubectl get` shows: the tables of the playground's API server are those of a real kube-apiserver."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.playground.controlplanes import Api

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
AGES = re.compile(r"(?<![\w-])\d+(y\d+d|[smhdy])(\d+[smhd])?(?![\w-])")
CONTAINERS = [{"name": "a", "image": "x"}, {"name": "b", "image": "y"}]
RUNNING = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
NONE = "<none>"


def status_of(name: str, state: dict[str, Any], *, ready: bool = False, **more: Any) -> dict[str, Any]:
    return {"name": name, "image": "x", "imageID": "", "ready": ready, "restartCount": 0, "state": state, **more}


def true(*kinds: str) -> list[dict[str, str]]:
    return [{"type": kind, "status": "True"} for kind in kinds]


PODS: dict[str, tuple[dict[str, Any], dict[str, Any], list[Any]]] = {
    "pending": ({}, {}, ["0/2", "Pending", "0", NONE]),
    "running, one of two ready": (
        {},
        {
            "phase": "Running",
            "containerStatuses": [status_of("a", RUNNING, ready=True), status_of("b", RUNNING)],
            "podIPs": [{"ip": "10.1.2.3"}],
            "podIP": "10.1.2.3",
        },
        ["1/2", "Running", "0", "10.1.2.3"],
    ),
    "restarted": (
        {},
        {
            "phase": "Running",
            "containerStatuses": [
                status_of(
                    "a",
                    RUNNING,
                    ready=True,
                    restartCount=3,
                    lastState={"terminated": {"exitCode": 1, "finishedAt": "2020-01-01T00:00:00Z"}},
                ),
                status_of("b", RUNNING, ready=True, restartCount=1),
            ],
        },
        ["2/2", "Running", "4 (AGE ago)", NONE],
    ),
    "crashing": (
        {},
        {
            "phase": "Running",
            "containerStatuses": [
                status_of("a", {"waiting": {"reason": "CrashLoopBackOff"}}, restartCount=2),
                status_of("b", RUNNING, ready=True),
            ],
        },
        ["1/2", "CrashLoopBackOff", "2", NONE],
    ),
    "completed": (
        {},
        {
            "phase": "Succeeded",
            "containerStatuses": [
                status_of(name, {"terminated": {"exitCode": 0, "reason": "Completed"}}) for name in "ab"
            ],
        },
        ["0/2", "Completed", "0", NONE],
    ),
    "one completed, the other runs": (
        {},
        {
            "phase": "Running",
            "conditions": true("Ready"),
            "containerStatuses": [
                status_of("a", {"terminated": {"exitCode": 0, "reason": "Completed"}}),
                status_of("b", RUNNING, ready=True),
            ],
        },
        ["1/2", "Running", "0", NONE],
    ),
    "ended without a reason": (
        {},
        {
            "phase": "Failed",
            "containerStatuses": [
                status_of("a", {"terminated": {"exitCode": 7}}),
                status_of("b", {"terminated": {"exitCode": 0, "signal": 9}}),
            ],
        },
        ["0/2", "ExitCode:7", "0", NONE],
    ),
    "rejected by its kubelet": (
        {},
        {"phase": "Failed", "reason": "UnexpectedAdmissionError", "message": "no"},
        ["0/2", "UnexpectedAdmissionError", "0", NONE],
    ),
    "gated": (
        {"schedulingGates": [{"name": "example.com/wait"}]},
        {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]},
        ["0/2", "SchedulingGated", "0", NONE],
    ),
    "in its second init container": (
        {"initContainers": [{"name": "i", "image": "x"}, {"name": "j", "image": "x"}]},
        {
            "initContainerStatuses": [
                status_of("i", {"terminated": {"exitCode": 0, "reason": "Completed"}}),
                status_of("j", RUNNING),
            ]
        },
        ["0/2", "Init:1/2", "0", NONE],
    ),
    "a failed init container": (
        {"initContainers": [{"name": "i", "image": "x"}]},
        {"initContainerStatuses": [status_of("i", {"terminated": {"exitCode": 2, "reason": "Error"}}, restartCount=1)]},
        ["0/2", "Init:Error", "1", NONE],
    ),
    "with a sidecar": (
        {"initContainers": [{"name": "s", "image": "x", "restartPolicy": "Always"}]},
        {
            "phase": "Running",
            "conditions": true("Initialized", "Ready"),
            "initContainerStatuses": [status_of("s", RUNNING, ready=True, started=True, restartCount=1)],
            "containerStatuses": [status_of("a", RUNNING, ready=True), status_of("b", RUNNING, ready=True)],
        },
        ["3/3", "Running", "1", NONE],
    ),
}


async def table_of(api: Api, path: str, *, include: str = "") -> dict[str, Any]:
    separator = "&" if "?" in path else "?"
    query = f"{separator}includeObject={include}" if include else ""
    code, table = await api.send("GET", path + query, accept=TABLE)
    assert (code, table["kind"], table["apiVersion"]) == (200, "Table", "meta.k8s.io/v1")
    return dict(table)


def without_ages(cells: list[Any]) -> list[Any]:
    return [AGES.sub("AGE", cell) if isinstance(cell, str) else cell for cell in cells]


async def create(api: Api, path: str, obj: dict[str, Any]) -> None:
    code, created = await api.send("POST", path, obj)
    assert code == 201, created
    if obj.get("status"):
        body = {**created, "status": obj["status"]}
        code, answer = await api.send("PUT", f"{path}/{obj['metadata']['name']}/status", body)
        assert code == 200, answer


@pytest.mark.parametrize("case", PODS)
async def test_the_row_of_a_pod(api: Api, case: str) -> None:
    spec, status, want = PODS[case]
    body = {"metadata": {"name": "p"}, "spec": {"containers": CONTAINERS, **spec}, "status": status}
    await create(api, api.pods, body)
    table = await table_of(api, f"{api.pods}/p", include="None")
    (row,) = table["rows"]
    ready, shown, restarts, ip = want
    assert row["object"] is None
    assert without_ages(row["cells"]) == ["p", ready, shown, restarts, "AGE", ip, NONE, NONE, NONE]


async def test_a_bound_pod_that_is_being_deleted(api: Api) -> None:
    await api.create_pod("a", nodeName="n1", readinessGates=[{"conditionType": "example.com/up"}])
    await api.send("DELETE", f"{api.pods}/a")
    table = await table_of(api, api.pods)
    (row,) = table["rows"]
    assert without_ages(row["cells"]) == ["a", "0/1", "Terminating", "0", "AGE", NONE, "n1", NONE, "0/1"]
    metadata = row["object"].pop("metadata")
    assert row["object"] == {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1"}
    assert (metadata["name"], metadata["namespace"]) == ("a", api.namespace)


async def test_a_watch_sends_tables_and_names_the_columns_once(api: Api) -> None:
    await api.create_pod("a")
    await api.create_pod("b")
    first, second = await api.watch(api.pods, count=2, accept=TABLE)
    assert [first["type"], second["type"]] == ["ADDED", "ADDED"]
    assert [column["name"] for column in first["object"]["columnDefinitions"]][:3] == ["Name", "Ready", "Status"]
    assert second["object"]["columnDefinitions"] is None
    assert second["object"]["rows"][0]["cells"][:3] == ["b", "0/1", "Pending"]


async def test_a_watch_says_where_the_present_state_ends(api: Api) -> None:
    await api.create_pod("a")
    query = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    added, bookmark = await api.watch(f"{api.pods}?{query}", count=2)
    assert (added["type"], bookmark["type"]) == ("ADDED", "BOOKMARK")
    assert bookmark["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


async def test_pages_of_a_table(api: Api) -> None:
    for name in "abc":
        await api.create_pod(name)
    table = await table_of(api, f"{api.pods}?limit=2")
    assert [row["cells"][0] for row in table["rows"]] == ["a", "b"]
    assert table["metadata"]["remainingItemCount"] == 1
    rest = await table_of(api, f"{api.pods}?limit=2&continue={table['metadata']['continue']}")
    assert [row["cells"][0] for row in rest["rows"]] == ["c"]


async def test_what_stands_in_a_row_may_be_chosen(api: Api) -> None:
    await api.create_pod("a")
    whole = await table_of(api, api.pods, include="Object")
    assert whole["rows"][0]["object"]["spec"]["containers"][0]["name"] == "c"
    code, body = await api.send("GET", f"{api.pods}?includeObject=All", accept=TABLE)
    assert (code, body["reason"]) == (400, "BadRequest")
    code, body = await api.send("GET", f"{api.pods}/nope", accept=TABLE)
    assert (code, body["kind"], body["reason"]) == (404, "Status", "NotFound")


SELECTOR = {"matchLabels": {"app": "w"}, "matchExpressions": [{"key": "t", "operator": "In", "values": ["y", "x"]}]}
TEMPLATE = {"metadata": {"labels": {"app": "w", "t": "x"}}, "spec": {"containers": CONTAINERS}}
SHOWN = ["a,b", "x,y"]
CORE = "/api/v1/namespaces/{namespace}"
APPS = "/apis/apps/v1/namespaces/{namespace}"
BATCH = "/apis/batch/v1/namespaces/{namespace}"
ONCE = {"containers": CONTAINERS, "restartPolicy": "Never"}
START = "2020-01-01T00:00:00Z"
ROWS: dict[str, tuple[str, dict[str, Any], list[Any]]] = {
    "a Deployment": (
        f"{APPS}/deployments",
        {
            "spec": {"replicas": 3, "selector": SELECTOR, "template": TEMPLATE},
            "status": {"replicas": 4, "updatedReplicas": 2, "readyReplicas": 1, "availableReplicas": 1},
        },
        ["1/3", 2, 1, "AGE", *SHOWN, "app=w,t in (x,y)"],
    ),
    "a ReplicaSet": (
        f"{APPS}/replicasets",
        {
            "spec": {"replicas": 3, "selector": SELECTOR, "template": TEMPLATE},
            "status": {"replicas": 2, "readyReplicas": 1},
        },
        [3, 2, 1, "AGE", *SHOWN, "app=w,t in (x,y)"],
    ),
    "a StatefulSet": (
        f"{APPS}/statefulsets",
        {
            "spec": {"serviceName": "s", "selector": SELECTOR, "template": TEMPLATE},
            "status": {"replicas": 1, "readyReplicas": 1},
        },
        ["1/1", "AGE", *SHOWN],
    ),
    "a Job without completions": (
        f"{BATCH}/jobs",
        {"spec": {"parallelism": 2, "template": {"spec": ONCE}}},
        ["Running", "0/1 of 2", "", "AGE", *SHOWN, "SELECTOR"],
    ),
    "a Job that is suspended": (
        f"{BATCH}/jobs",
        {
            "spec": {"completions": 3, "suspend": True, "template": {"spec": ONCE}},
            "status": {"conditions": true("Suspended")},
        },
        ["Suspended", "0/3", "", "AGE", *SHOWN, "SELECTOR"],
    ),
    "a Job that is running": (
        f"{BATCH}/jobs",
        {"spec": {"template": {"spec": ONCE}}, "status": {"startTime": START, "active": 1}},
        ["Running", "0/1", "AGE", "AGE", *SHOWN, "SELECTOR"],
    ),
    "a cluster's Service": (
        f"{CORE}/services",
        {"spec": {"clusterIP": "None", "selector": {"b": "c", "a": "b"}}},
        ["ClusterIP", "None", NONE, NONE, "AGE", "a=b,b=c"],
    ),
    "an external Service": (
        f"{CORE}/services",
        {"spec": {"type": "ExternalName", "externalName": "example.com"}},
        ["ExternalName", NONE, "example.com", NONE, "AGE", NONE],
    ),
    "a ConfigMap": (
        f"{CORE}/configmaps",
        {"data": {"a": "b", "c": "d"}, "binaryData": {"e": "Zg=="}},
        [3, "AGE"],
    ),
    "a Secret": (f"{CORE}/secrets", {"stringData": {"a": "b"}, "data": {"c": "ZA=="}}, ["Opaque", 2, "AGE"]),
    "a claim": (
        f"{CORE}/persistentvolumeclaims",
        {
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "storageClassName": "fast",
                "resources": {"requests": {"storage": "1Gi"}},
            }
        },
        ["Pending", "", "", "", "fast", "<unset>", "AGE", "Filesystem"],
    ),
    "a ServiceAccount": (f"{CORE}/serviceaccounts", {}, ["AGE"]),
    "a budget": (
        "/apis/policy/v1/namespaces/{namespace}/poddisruptionbudgets",
        {"spec": {"minAvailable": "50%", "selector": SELECTOR}},
        ["50%", "N/A", 0, "AGE"],
    ),
}


@pytest.mark.parametrize("case", ROWS)
async def test_rows_of_other_kinds(api: Api, case: str) -> None:
    path, body, want = ROWS[case]
    path = path.format(namespace=api.namespace)
    await create(api, path, {**body, "metadata": {"name": "one"}})
    table = await table_of(api, f"{path}/one")
    cells = without_ages(table["rows"][0]["cells"])
    if want[-1] == "SELECTOR":
        assert cells.pop().startswith("batch.kubernetes.io/controller-uid=")
        want = want[:-1]
    assert cells == ["one", *want]


EVENTS: dict[str, tuple[dict[str, Any], list[Any]]] = {
    "of a part of a pod": (
        {
            "involvedObject": {"kind": "Pod", "name": "p", "fieldPath": "spec.containers{a}"},
            "source": {"component": "kubelet", "host": "n1"},
            "firstTimestamp": START,
            "lastTimestamp": START,
            "count": 3,
        },
        ["AGE", "Normal", "Started", "pod/p", "spec.containers{a}", "kubelet, n1", "Hello", "AGE", 3],
    ),
    "without times": (
        {"involvedObject": {"kind": "Pod", "name": "p"}, "reportingComponent": "me", "reportingInstance": "here"},
        ["<unknown>", "Normal", "Started", "pod/p", "", "me, here", "Hello", "<unknown>", 1],
    ),
}


@pytest.mark.parametrize("case", EVENTS)
async def test_the_row_of_an_event(api: Api, case: str) -> None:
    body, want = EVENTS[case]
    about = {**body["involvedObject"], "namespace": api.namespace}
    common = {"reason": "Started", "message": " Hello\n", "type": "Normal", "metadata": {"name": "e"}}
    path = f"/api/v1/namespaces/{api.namespace}/events"
    await create(api, path, {**common, **body, "involvedObject": about})
    table = await table_of(api, f"{path}/e")
    assert without_ages(table["rows"][0]["cells"]) == [*want, "e"]


NODES: dict[str, tuple[dict[str, Any], list[Any]]] = {
    "ready": (
        {
            "metadata": {"labels": {"node-role.kubernetes.io/gpu": "", "node-role.kubernetes.io/a": "x"}},
            "status": {
                "conditions": true("Ready"),
                "addresses": [{"type": "InternalIP", "address": "10.1.0.1"}],
                "nodeInfo": {
                    **dict.fromkeys(("machineID", "systemUUID", "bootID", "kubeProxyVersion", "operatingSystem"), ""),
                    "architecture": "amd64",
                    "kubeletVersion": "v1.2.3",
                    "osImage": "Linux",
                    "kernelVersion": "6.1",
                    "containerRuntimeVersion": "cri://1",
                },
            },
        },
        ["Ready", "a,gpu", "AGE", "v1.2.3", "10.1.0.1", NONE, "Linux", "6.1 (amd64)", "cri://1"],
    ),
    "cordoned and unknown": (
        {"metadata": {}, "spec": {"unschedulable": True}},
        ["Unknown,SchedulingDisabled", NONE, "AGE", "", NONE, NONE, *["<unknown>"] * 3],
    ),
}


@pytest.mark.parametrize("case", NODES)
async def test_the_row_of_a_node(api: Api, case: str) -> None:
    body, want = NODES[case]
    name = api.namespace
    await create(api, "/api/v1/nodes", {**body, "metadata": {**body["metadata"], "name": name}})
    table = await table_of(api, f"/api/v1/nodes/{name}")
    assert without_ages(table["rows"][0]["cells"]) == [name, *want]


COLUMNS = (
    *("pods", "nodes", "namespaces", "events", "configmaps", "secrets", "services", "serviceaccounts"),
    *("persistentvolumeclaims", "apps/v1/deployments", "apps/v1/replicasets", "apps/v1/statefulsets", "batch/v1/jobs"),
    *("policy/v1/poddisruptionbudgets", "fracgpu.io/v1alpha1/gpunodes", "fracgpu.io/v1alpha1/sharingpolicies"),
)
WANT_COLUMNS = {
    "pods": "Name Ready Status Restarts Age IP/1 Node/1 Nominated Node/1 Readiness Gates/1",
    "nodes": (
        "Name Status Roles Age Version Internal-IP/1 External-IP/1 OS-Image/1 Kernel-Version/1 Container-Runtime/1"
    ),
    "namespaces": "Name Status Age",
    "events": "Last Seen Type Reason Object Subobject/1 Source/1 Message First Seen/1 Count/1 Name/1",
    "configmaps": "Name Data Age",
    "secrets": "Name Type Data Age",
    "services": "Name Type Cluster-IP External-IP Port(s) Age Selector/1",
    "serviceaccounts": "Name Age",
    "persistentvolumeclaims": (
        "Name Status Volume Capacity Access Modes StorageClass VolumeAttributesClass Age VolumeMode/1"
    ),
    "apps/v1/deployments": "Name Ready Up-to-date Available Age Containers/1 Images/1 Selector/1",
    "apps/v1/replicasets": "Name Desired:integer Current:integer Ready:integer Age Containers/1 Images/1 Selector/1",
    "apps/v1/statefulsets": "Name Ready Age Containers/1 Images/1",
    "batch/v1/jobs": "Name Status Completions Duration Age Containers/1 Images/1 Selector/1",
    "policy/v1/poddisruptionbudgets": "Name Min Available Max Unavailable Allowed Disruptions:integer Age",
    "fracgpu.io/v1alpha1/gpunodes": (
        "Name Product MiB:integer Units:integer Unit-MiB:integer Seats:integer Isolation Enforced:boolean Observed/1 "
        "Age:date"
    ),
    "fracgpu.io/v1alpha1/sharingpolicies": (
        "Name Selector Replicas:integer Reserved:integer Isolation Nodes:integer Accepted Age:date"
    ),
}


@pytest.mark.parametrize("kind", COLUMNS)
async def test_the_columns_of_a_kind(api: Api, kind: str) -> None:
    root = f"/apis/{kind}" if "/" in kind else f"/api/v1/{kind}"
    table = await table_of(api, f"{root}?limit=1")
    columns = table["columnDefinitions"]
    shown = [
        column["name"]
        + (f":{column['type']}" if column["type"] != "string" else "")
        + (f"/{column['priority']}" if column["priority"] else "")
        for column in columns
    ]
    assert " ".join(shown) == WANT_COLUMNS[kind]
    assert [column["name"] for column in columns if column["format"] == "name"] == ["Name"]


async def test_the_rows_of_our_custom_resources(api: Api) -> None:
    name, root = api.namespace, "/apis/fracgpu.io/v1alpha1"
    gpu = {"uuid": "GPU-1", "product": "NVIDIA L4", "memoryMiB": 23034, "units": 44, "replicas": 4}
    head = {"apiVersion": "fracgpu.io/v1alpha1", "metadata": {"name": name}}
    node = {**head, "kind": "GPUNode", "spec": {"memoryUnitMiB": 512, "gpus": [gpu]}}
    node["status"] = {"isolation": {"mechanism": "mps", "enforced": True}}
    await create(api, f"{root}/gpunodes", node)
    table = await table_of(api, f"{root}/gpunodes/{name}")
    cells = without_ages(table["rows"][0]["cells"])
    assert cells == [name, "NVIDIA L4", 23034, 44, 512, 4, "mps", True, None, "AGE"]

    policy = {**head, "kind": "SharingPolicy", "spec": {"nodeSelector": {"pool": "a"}, "reservedMiB": 100}}
    policy["status"] = {"nodeCount": 2, "conditions": [{"type": "Other"}, {"type": "Accepted", "status": "False"}]}
    await create(api, f"{root}/sharingpolicies", policy)
    table = await table_of(api, f"{root}/sharingpolicies/{name}")
    cells = without_ages(table["rows"][0]["cells"])
    assert cells == [name, '{"pool":"a"}', None, 100, None, 2, "False", "AGE"]
