"""Workloads and the kinds that are only kept: the playground's API server and a real one must agree about them."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from playground.api.schemas import FILE
from tests.playground.controlplanes import Api
from tests.playground.generate_schemas import fetch, pruned, text
from tests.realcluster import RealControlPlane

APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
SPEC = {"containers": [{"name": "c", "image": "x", "ports": [{"containerPort": 80}]}]}
TEMPLATE = {"metadata": {"labels": {"app": "w"}}, "spec": SPEC}
SELECTOR = {"matchLabels": {"app": "w"}}
WORKLOAD = {"selector": SELECTOR, "template": TEMPLATE}
ONCE = {"template": {"spec": {**SPEC, "restartPolicy": "Never"}}}


def rolling(**bounds: Any) -> dict[str, Any]:
    """A Deployment with such bounds on its updates."""
    return {"spec": {**WORKLOAD, "strategy": {"rollingUpdate": bounds}}}


BOUND = 'Deployment.apps "one" is invalid: spec.strategy.rollingUpdate'
NO_BOUND = 'Deployment in version "v1" cannot be handled as a Deployment: json: cannot unmarshal'
PERCENT_HINT = (
    "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for "
    "validation is '[0-9]+%')"
)
OWNER = 'ConfigMap "one" is invalid: metadata.ownerReferences'

CREATED: dict[str, tuple[str, dict[str, Any]]] = {
    "a Deployment": ("apis/apps/v1/{}/deployments", {"spec": WORKLOAD}),
    "a Deployment that is recreated": (
        "apis/apps/v1/{}/deployments",
        {"spec": {**WORKLOAD, "replicas": 0, "strategy": {"type": "Recreate"}}},
    ),
    "a Deployment with a surge": (
        "apis/apps/v1/{}/deployments",
        {"spec": {**WORKLOAD, "strategy": {"rollingUpdate": {"maxSurge": 2}}}},
    ),
    "a ReplicaSet": ("apis/apps/v1/{}/replicasets", {"spec": WORKLOAD}),
    "a StatefulSet": ("apis/apps/v1/{}/statefulsets", {"spec": {**WORKLOAD, "serviceName": "s"}}),
    "a Job": ("apis/batch/v1/{}/jobs", {"spec": ONCE}),
    "a Job with parallelism": ("apis/batch/v1/{}/jobs", {"spec": {**ONCE, "parallelism": 3}}),
    "a Service": ("api/v1/{}/services", {"spec": {"selector": {"a": "b"}, "ports": [{"port": 80}]}}),
    "a headless Service": ("api/v1/{}/services", {"spec": {"clusterIP": "None"}}),
    "a Secret": ("api/v1/{}/secrets", {"stringData": {"a": "b"}}),
    "a ConfigMap": ("api/v1/{}/configmaps", {"data": {"a": "b"}}),
    "a claim": (
        "api/v1/{}/persistentvolumeclaims",
        {"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}},
    ),
}
WANT: dict[str, dict[str, Any]] = {
    "a Deployment": {
        "replicas": 1,
        "revisionHistoryLimit": 10,
        "progressDeadlineSeconds": 600,
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}},
    },
    "a Deployment that is recreated": {"replicas": 0, "strategy": {"type": "Recreate"}},
    "a Deployment with a surge": {
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": 2}}
    },
    "a ReplicaSet": {"replicas": 1},
    "a StatefulSet": {
        "replicas": 1,
        "podManagementPolicy": "OrderedReady",
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
        "revisionHistoryLimit": 10,
        "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"},
    },
    "a Job": {"parallelism": 1, "completions": 1, "backoffLimit": 6, "completionMode": "NonIndexed", "suspend": False},
    "a Job with parallelism": {"parallelism": 3, "completions": None},
    "a Service": {
        "type": "ClusterIP",
        "ports": [{"protocol": "TCP", "port": 80, "targetPort": 80}],
        "sessionAffinity": "None",
        "ipFamilies": ["IPv4"],
        "ipFamilyPolicy": "SingleStack",
        "internalTrafficPolicy": "Cluster",
    },
    "a headless Service": {"clusterIP": "None", "clusterIPs": ["None"], "ports": None},
    "a claim": {"volumeMode": "Filesystem"},
}
STATUS: dict[str, dict[str, Any] | None] = {
    "a Deployment": {},
    "a Deployment that is recreated": {},
    "a Deployment with a surge": {},
    "a ReplicaSet": {"replicas": 0},
    "a StatefulSet": {"replicas": 0, "availableReplicas": 0},
    "a Job": {},
    "a Job with parallelism": {},
    "a Service": {"loadBalancer": {}},
    "a headless Service": {"loadBalancer": {}},
    "a Secret": None,
    "a ConfigMap": None,
    "a claim": {"phase": "Pending"},
}


def at(api: Api, path: str) -> str:
    return f"/{path.format(f'namespaces/{api.namespace}')}"


async def create(api: Api, path: str, body: dict[str, Any], *, name: str = "one") -> dict[str, Any]:
    code, created = await api.send("POST", at(api, path), {**body, "metadata": {"name": name}})
    assert code == 201, created
    return dict(created)


@pytest.mark.parametrize("case", CREATED)
async def test_a_new_object_has_the_same_defaults(api: Api, case: str) -> None:
    created = await create(api, *CREATED[case])
    spec = created.get("spec", {})
    assert {field: spec.get(field) for field in WANT.get(case, {})} == WANT.get(case, {})
    assert created.get("status") == STATUS[case]
    if "template" in spec and "Job" not in case:
        assert spec["template"]["spec"] == {
            "containers": [
                {
                    "name": "c",
                    "image": "x",
                    "ports": [{"containerPort": 80, "protocol": "TCP"}],
                    "resources": {},
                    "terminationMessagePath": "/dev/termination-log",
                    "terminationMessagePolicy": "File",
                    "imagePullPolicy": "Always",
                }
            ],
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": 30,
            "dnsPolicy": "ClusterFirst",
            "securityContext": {},
            "schedulerName": "default-scheduler",
        }


async def test_a_job_selects_its_pods_by_its_uid(api: Api) -> None:
    created = await create(api, *CREATED["a Job"])
    uid = created["metadata"]["uid"]
    names = {"batch.kubernetes.io/job-name": "one", "job-name": "one"}
    labels = {"batch.kubernetes.io/controller-uid": uid, "controller-uid": uid, **names}
    assert created["spec"]["template"]["metadata"]["labels"] == labels
    assert created["metadata"]["labels"] == labels
    assert created["spec"]["selector"] == {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}


async def test_a_secret_and_a_namespace_are_completed(api: Api) -> None:
    secret = await create(api, *CREATED["a Secret"])
    assert (secret["type"], secret["data"], "stringData" in secret) == ("Opaque", {"a": "Yg=="}, False)
    _, namespace = await api.send("GET", f"/api/v1/namespaces/{api.namespace}")
    assert namespace["metadata"]["labels"] == {"kubernetes.io/metadata.name": api.namespace}
    assert (namespace["spec"], namespace["status"]) == ({"finalizers": ["kubernetes"]}, {"phase": "Active"})


BAD_TEMPLATE = {"metadata": {"labels": {"app": "w"}}, "spec": {"restartPolicy": "Never", "containers": [{"name": "c"}]}}
REFUSED: dict[str, tuple[str, Any, int, str]] = {
    "a Deployment without anything": (
        "apis/apps/v1/{}/deployments",
        {"spec": {}},
        422,
        'Deployment.apps "one" is invalid: [spec.selector: Required value, spec.template.metadata.labels: Invalid '
        "value: null: `selector` does not match template `labels`, spec.template.spec.containers: Required value]",
    ),
    "a selector of other pods": (
        "apis/apps/v1/{}/deployments",
        {"spec": {**WORKLOAD, "selector": {"matchLabels": {"app": "z"}}}},
        422,
        'Deployment.apps "one" is invalid: spec.template.metadata.labels: Invalid value: {"app":"w"}: `selector` does '
        "not match template `labels`",
    ),
    "a bad template": (
        "apis/apps/v1/{}/deployments",
        {"spec": {"replicas": -1, "selector": SELECTOR, "template": BAD_TEMPLATE}},
        422,
        'Deployment.apps "one" is invalid: [spec.replicas: Invalid value: -1: must be greater than or equal to 0, '
        "spec.template.spec.containers[0].image: Required value, spec.template.spec.restartPolicy: Unsupported value: "
        '"Never": supported values: "Always"]',
    ),
    "text where a number belongs": (
        "apis/apps/v1/{}/deployments",
        {"spec": {**WORKLOAD, "replicas": "3"}},
        400,
        'Deployment in version "v1" cannot be handled as a Deployment: json: cannot unmarshal string into Go struct '
        "field DeploymentSpec.spec.replicas of type int32",
    ),
    "a surge in words": (
        "apis/apps/v1/{}/deployments",
        rolling(maxSurge="lots"),
        422,
        f'{BOUND}.maxSurge: Invalid value: "lots": {PERCENT_HINT}',
    ),
    "a number in quotes": (
        "apis/apps/v1/{}/deployments",
        rolling(maxSurge="3", maxUnavailable=0),
        422,
        f'{BOUND}.maxSurge: Invalid value: "3": {PERCENT_HINT}',
    ),
    "a surge below zero": (
        "apis/apps/v1/{}/deployments",
        rolling(maxSurge=-1),
        422,
        f"{BOUND}.maxSurge: Invalid value: -1: must be greater than or equal to 0",
    ),
    "more than all missing": (
        "apis/apps/v1/{}/deployments",
        rolling(maxUnavailable="101%"),
        422,
        f'{BOUND}.maxUnavailable: Invalid value: "101%": must not be greater than 100%',
    ),
    "an update that could never move": (
        "apis/apps/v1/{}/deployments",
        rolling(maxSurge="0%", maxUnavailable=0),
        422,
        f"{BOUND}.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0",
    ),
    "both bounds in words": (
        "apis/apps/v1/{}/deployments",
        rolling(maxSurge="lots", maxUnavailable="-5%"),
        422,
        'Deployment.apps "one" is invalid: [spec.strategy.rollingUpdate.maxUnavailable: Invalid value: "-5%": '
        f'{PERCENT_HINT}, spec.strategy.rollingUpdate.maxSurge: Invalid value: "lots": {PERCENT_HINT}, '
        'spec.strategy.rollingUpdate.maxUnavailable: Invalid value: "-5%": may not be 0 when `maxSurge` is 0]',
    ),
    "bounds where pods are recreated": (
        "apis/apps/v1/{}/deployments",
        {"spec": {**WORKLOAD, "strategy": {"type": "Recreate", "rollingUpdate": {}}}},
        422,
        f"{BOUND}: Forbidden: may not be specified when strategy `type` is 'Recreate'",
    ),
    "a surge that is true": (
        "apis/apps/v1/{}/deployments",
        rolling(maxSurge=True),
        400,
        f"{NO_BOUND} bool into Go struct field RollingUpdateDeployment.spec.strategy.rollingUpdate.maxSurge of type "
        "int32",
    ),
    "a part of a pod": (
        "apis/apps/v1/{}/deployments",
        rolling(maxUnavailable=1.5),
        400,
        f"{NO_BOUND} number 1.5 into Go struct field "
        "RollingUpdateDeployment.spec.strategy.rollingUpdate.maxUnavailable of type int32",
    ),
    "an owner without a UID": (
        "api/v1/{}/configmaps",
        {"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "n", "controller": True}]}},
        422,
        f'{OWNER}.uid: Invalid value: "": must not be empty',
    ),
    "an owner without anything": (
        "api/v1/{}/configmaps",
        {"metadata": {"ownerReferences": [{"apiVersion": "apps/"}]}},
        422,
        'ConfigMap "one" is invalid: [metadata.ownerReferences.apiVersion: Invalid value: "apps/": version must not be '
        'empty, metadata.ownerReferences.kind: Invalid value: "": must not be empty, metadata.ownerReferences.name: '
        'Invalid value: "": must not be empty, metadata.ownerReferences.uid: Invalid value: "": must not be empty]',
    ),
    "an owner whose UID is a list": (
        "api/v1/{}/configmaps",
        {"metadata": {"ownerReferences": [{"uid": ["u"]}]}},
        400,
        'ConfigMap in version "v1" cannot be handled as a ConfigMap: json: cannot unmarshal array into Go struct field '
        "OwnerReference.metadata.ownerReferences.uid of type types.UID",
    ),
    "a Job whose pods are restarted": (
        "apis/batch/v1/{}/jobs",
        {"spec": {"template": {"spec": {**SPEC, "restartPolicy": "Always"}}}},
        422,
        'Job.batch "one" is invalid: spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", '
        '"Never"',
    ),
    "a Job that does not say": (
        "apis/batch/v1/{}/jobs",
        {"spec": {"template": {"spec": SPEC}}},
        422,
        'Job.batch "one" is invalid: spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", '
        '"Never"',
    ),
    "a number in a ConfigMap": (
        "api/v1/{}/configmaps",
        {"data": {"a": 1}},
        400,
        'ConfigMap in version "v1" cannot be handled as a ConfigMap: json: cannot unmarshal number into Go struct '
        "field ConfigMap.data of type string",
    ),
    "a Service without ports": (
        "api/v1/{}/services",
        {"spec": {"selector": {"a": "b"}}},
        422,
        'Service "one" is invalid: spec.ports: Required value',
    ),
    "an unknown field": (
        "apis/apps/v1/{}/deployments?fieldValidation=Strict",
        {"spec": {**WORKLOAD, "replica": 3, "template": {**TEMPLATE, "spec": {**SPEC, "container": []}}}},
        400,
        'Deployment in version "v1" cannot be handled as a Deployment: strict decoding error: unknown field '
        '"spec.template.spec.container", unknown field "spec.replica"',
    ),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_what_is_refused(api: Api, case: str) -> None:
    path, body, want_code, want = REFUSED[case]
    code, answer = await api.send(
        "POST", at(api, path), {**body, "metadata": {**body.get("metadata", {}), "name": "one"}}
    )
    assert (code, answer["message"]) == (want_code, want)


async def test_an_unknown_field_may_be_warned_of(api: Api) -> None:
    path = at(api, "apis/apps/v1/{}/deployments?fieldValidation=Warn")
    body = {"metadata": {"name": "one"}, "spec": {**WORKLOAD, "replica": 3}}
    code, _, warnings = await api.send_and_hear("POST", path, body)
    assert (code, warnings) == (201, ['299 - "unknown field \\"spec.replica\\""'])


UPDATES: dict[str, tuple[str, Any, tuple[Any, ...], str]] = {
    "a Deployment's selector": (
        "a Deployment",
        {"app": "q"},
        ("spec", "selector", "matchLabels"),
        'Deployment.apps "one" is invalid: [spec.template.metadata.labels: Invalid value: {"app":"w"}: `selector` does '
        'not match template `labels`, spec.selector: Invalid value: {"matchLabels":{"app":"q"}}: field is immutable]',
    ),
    "a Deployment's surge": (
        "a Deployment",
        "lots",
        ("spec", "strategy", "rollingUpdate", "maxSurge"),
        f'{BOUND}.maxSurge: Invalid value: "lots": {PERCENT_HINT}',
    ),
    "a ConfigMap's owner": (
        "a ConfigMap",
        [{"apiVersion": "v1", "kind": "Node", "name": "n"}],
        ("metadata", "ownerReferences"),
        f'{OWNER}.uid: Invalid value: "": must not be empty',
    ),
    "a StatefulSet's Service": (
        "a StatefulSet",
        "other",
        ("spec", "serviceName"),
        'StatefulSet.apps "one" is invalid: spec: Forbidden: updates to statefulset spec for fields other than '
        "'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', "
        "'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
    ),
}


@pytest.mark.parametrize("case", UPDATES)
async def test_what_may_not_change(api: Api, case: str) -> None:
    which, value, path, want = UPDATES[case]
    created = await create(api, *CREATED[which])
    *steps, last = path
    target: Any = created
    for step in steps:
        target = target[step]
    target[last] = value
    code, answer = await api.send("PUT", f"{at(api, CREATED[which][0])}/one", created)
    assert (code, answer["message"]) == (422, want)


async def test_a_jobs_template_may_not_change(api: Api) -> None:
    created = await create(api, *CREATED["a Job"])
    created["spec"]["template"]["spec"]["containers"][0]["image"] = "y"
    code, answer = await api.send("PUT", f"{at(api, CREATED['a Job'][0])}/one", created)
    assert (code, answer["details"]["causes"][0]["field"]) == (422, "spec.template")
    assert answer["message"].endswith("field is immutable")


async def test_scale_reads_and_changes_the_replicas(api: Api) -> None:
    created = await create(api, *CREATED["a Deployment"])
    path = f"{at(api, CREATED['a Deployment'][0])}/one"
    _, scale = await api.send("GET", f"{path}/scale")
    assert scale == {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {
            field: created["metadata"][field]
            for field in ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
        },
        "spec": {"replicas": 1},
        "status": {"replicas": 0, "selector": "app=w"},
    }
    code, scaled = await api.send("PATCH", f"{path}/scale", {"spec": {"replicas": 4}}, kind=MERGE)
    assert (code, scaled["spec"]) == (200, {"replicas": 4})
    code, stale = await api.send("PUT", f"{path}/scale", {**scale, "spec": {"replicas": 5}})
    assert (code, stale["reason"]) == (409, "Conflict")
    code, scaled = await api.send("PUT", f"{path}/scale", {**scaled, "spec": {"replicas": 5}})
    assert (code, scaled["spec"]) == (200, {"replicas": 5})
    _, deployment = await api.send("GET", path)
    assert (deployment["spec"]["replicas"], deployment["metadata"]["generation"]) == (5, 3)


async def test_a_strategic_patch_merges_the_lists_of_a_template(api: Api) -> None:
    await create(api, *CREATED["a Deployment"])
    path = f"{at(api, CREATED['a Deployment'][0])}/one"
    spec = {
        "$setElementOrder/containers": [{"name": "d"}, {"name": "c"}],
        "containers": [{"name": "d", "image": "y"}, {"name": "c", "ports": [{"containerPort": 81}]}],
        "volumes": [{"name": "v", "emptyDir": {}}],
    }
    strategy = {"$retainKeys": ["type"], "type": "Recreate"}
    patch = {"spec": {"strategy": strategy, "template": {"spec": spec}}}
    code, patched = await api.send("PATCH", path, patch, kind=STRATEGIC)
    assert code == 200
    containers = patched["spec"]["template"]["spec"]["containers"]
    assert [container["name"] for container in containers] == ["d", "c"]
    assert {port["containerPort"] for port in containers[1]["ports"]} == {80, 81}
    assert patched["spec"]["strategy"] == {"type": "Recreate"}
    patch = {"spec": {"template": {"spec": {"volumes": [{"name": "v", "$patch": "delete"}]}}}}
    _, patched = await api.send("PATCH", path, patch, kind=STRATEGIC)
    assert not patched["spec"]["template"]["spec"].get("volumes")


async def test_a_patch_with_an_unknown_field_is_refused_where_that_is_asked_for(api: Api) -> None:
    await create(api, *CREATED["a Deployment"])
    path = f"{at(api, CREATED['a Deployment'][0])}/one?fieldValidation=Strict"
    code, answer = await api.send("PATCH", path, {"spec": {"bogus": 1}}, kind=STRATEGIC)
    assert (code, answer["reason"]) == (422, "Invalid")
    assert answer["message"].endswith('strict decoding error: unknown field "spec.bogus"')


async def test_server_side_apply_adds_and_removes_items_of_a_list(api: Api) -> None:
    path = f"{at(api, 'apis/apps/v1/{}/deployments')}/one?fieldManager=me"
    env = [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]
    config: dict[str, Any] = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "one"},
        "spec": copy.deepcopy(WORKLOAD),
    }
    config["spec"]["template"]["spec"]["containers"][0]["env"] = env
    code, _ = await api.send("PATCH", path, config, kind=APPLY)
    assert code == 201
    config["spec"]["template"]["spec"]["containers"][0]["env"] = env[1:]
    code, applied = await api.send("PATCH", path, config, kind=APPLY)
    assert code == 200
    assert applied["spec"]["template"]["spec"]["containers"][0]["env"] == env[1:]
    assert applied["spec"]["replicas"] == 1
    config["spec"]["bogus"] = 1
    code, answer = await api.send("PATCH", path, config, kind=APPLY)
    assert code == 500
    assert answer["message"].endswith(".spec.bogus: field not declared in schema")


SELECTED = {
    "run=a": {"a"},
    "run!=a": {"b", "c"},
    "run in (a, b)": {"a", "b"},
    "run notin (a,b)": {"c"},
    "run": {"a", "b"},
    "!run": {"c"},
    "run in (a,b),tier": {"b"},
}


@pytest.mark.parametrize("selector", SELECTED)
async def test_labels_select(api: Api, selector: str) -> None:
    for name, labels in {"a": {"run": "a"}, "b": {"run": "b", "tier": "x"}, "c": {}}.items():
        body = {"metadata": {"name": name, "labels": labels}, "data": {}}
        await api.send("POST", at(api, "api/v1/{}/configmaps"), body)
    _, found = await api.send("GET", at(api, "api/v1/{}/configmaps?labelSelector=" + selector.replace(" ", "%20")))
    names = {item["metadata"]["name"] for item in found["items"]} - {"kube-root-ca.crt"}
    assert names == SELECTED[selector]


async def test_a_selector_that_is_none_is_refused(api: Api) -> None:
    code, answer = await api.send("GET", f"{api.pods}?labelSelector=a%20in%20b")
    assert (code, answer["reason"]) == (400, "BadRequest")
    assert answer["message"].startswith("unable to parse requirement: ")


async def test_namespaces_that_stay_and_paths_that_lead_nowhere(api: Api) -> None:
    code, answer = await api.send("DELETE", "/api/v1/namespaces/default")
    assert (code, answer["reason"]) == (403, "Forbidden")
    assert answer["message"] == 'namespaces "default" is forbidden: this namespace may not be deleted'
    code, answer = await api.send("GET", f"/api/v1/namespaces/{api.namespace}/widgets")
    assert (code, answer["message"]) == (404, "the server could not find the requested resource")


async def test_who_am_i_and_may_i(api: Api) -> None:
    review = {"spec": {"resourceAttributes": {"verb": "create", "resource": "pods"}}}
    code, answer = await api.send("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review)
    assert (code, answer["kind"], answer["status"]["allowed"]) == (201, "SelfSubjectAccessReview", True)
    code, answer = await api.send("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", {})
    assert "system:masters" in answer["status"]["userInfo"]["groups"]


def test_the_schemas_are_those_of_the_real_server(real_control_plane: RealControlPlane) -> None:
    found = json.loads(text(pruned(fetch(real_control_plane))))
    assert json.loads(FILE.read_text()) == found, "write it anew: python -m tests.playground.generate_schemas"
