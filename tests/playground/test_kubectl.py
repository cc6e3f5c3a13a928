"""kubectl, unchanged, against the playground's API server."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from playground.api.apiserver import ApiServer
from tests.playground.kubectl import KUBECTL, MISSING, Kubectl, rows

pytestmark = pytest.mark.skipif(KUBECTL is None, reason=MISSING)

MANIFEST = """
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: shop}
data: {a: "1"}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: http}]}
---
apiVersion: v1
kind: Secret
metadata: {name: key, namespace: shop}
data: {a: YQ==}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data, namespace: shop}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {containers: [{name: main, image: "web:1"}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: api, namespace: shop}
spec:
  selector: {matchLabels: {app: api}}
  template:
    metadata: {labels: {app: api}}
    spec: {containers: [{name: main, image: "api:1", env: [{name: A, value: x}]}]}
---
apiVersion: batch/v1
kind: Job
metadata: {name: once, namespace: shop}
spec: {template: {spec: {restartPolicy: Never, containers: [{name: main, image: "job:1"}]}}}
---
apiVersion: fracgpu.io/v1alpha1
kind: GPUNode
metadata: {name: n1}
spec:
  memoryUnitMiB: 512
  gpus: [{uuid: GPU-1, index: 0, product: NVIDIA L4, memoryMiB: 23034, units: 44, replicas: 4}]
---
apiVersion: v1
kind: Node
metadata: {name: n1}
"""


@pytest.fixture
async def strict_server() -> AsyncIterator[ApiServer]:
    server = ApiServer(checks_namespaces=True)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
def kubectl(strict_server: ApiServer, tmp_path: Path) -> Kubectl:
    return Kubectl(strict_server.kubeconfig(), tmp_path)


async def test_a_pod_is_made_anew_where_it_cannot_be_changed(kubectl: Kubectl) -> None:
    spec = "{schedulerName: one, containers: [{name: c, image: i}]}"
    pod = f"{{apiVersion: v1, kind: Pod, metadata: {{name: a}}, spec: {spec}}}"
    await kubectl("apply", "-f", "-", manifest=pod)
    other = pod.replace("one", "two")
    assert "pod updates may not change fields" in await kubectl.refused("apply", "-f", "-", manifest=other)
    replaced = await kubectl("replace", "--force", "-f", "-", manifest=other)
    assert replaced.endswith("pod/a replaced\n")
    assert await kubectl("get", "pod", "a", "-o", "jsonpath={.spec.schedulerName}") == "two"


@pytest.mark.parametrize("way", ["--server-side=false", "--server-side=true"])
async def test_a_file_of_many_kinds_is_applied_again_and_changed_and_deleted(kubectl: Kubectl, way: str) -> None:
    first = (await kubectl("apply", way, "-f", "-", manifest=MANIFEST)).splitlines()
    assert len(first) == 10
    verb = "created" if way.endswith("false") else "serverside-applied"
    assert all(line.endswith(verb) for line in first)
    again = await kubectl("apply", way, "-f", "-", manifest=MANIFEST)
    assert again.count("unchanged") == (10 if way.endswith("false") else 0)

    changed = MANIFEST.replace("web:1", "web:2").replace(", env: [{name: A, value: x}]", "")
    output = (await kubectl("apply", way, "-f", "-", manifest=changed)).splitlines()
    if way.endswith("false"):
        assert {line for line in output if "unchanged" not in line} == {
            "pod/web configured",
            "deployment.apps/api configured",
        }
    image = await kubectl("get", "pods", "-n", "shop", "-l", "app=web", "-o", "jsonpath={..image}")
    assert image == "web:2"
    containers = json.loads(await kubectl("get", "deploy", "-n", "shop", "api", "-o", "json"))
    assert "env" not in containers["spec"]["template"]["spec"]["containers"][0]

    deleted = await kubectl("delete", "-f", "-", manifest=MANIFEST)
    assert deleted.count("deleted") == 10
    assert (await kubectl("get", "all,cm,secret,pvc,gpunodes,nodes", "-A")).strip() == "No resources found"


async def test_one_way_to_apply_may_follow_the_other(kubectl: Kubectl) -> None:
    await kubectl("apply", "-f", "-", manifest=MANIFEST)
    await kubectl("apply", "--server-side", "-f", "-", manifest=MANIFEST)
    without = MANIFEST.replace(", env: [{name: A, value: x}]", "")
    await kubectl("apply", "--server-side", "-f", "-", manifest=without)
    deployment = json.loads(await kubectl("get", "deploy", "-n", "shop", "api", "-o", "json"))
    assert "env" not in deployment["spec"]["template"]["spec"]["containers"][0]


async def test_lists_are_shown_in_all_forms(kubectl: Kubectl) -> None:
    await kubectl("apply", "-f", "-", manifest=MANIFEST)
    table = await kubectl("get", "pods", "-A")
    assert table.splitlines()[0].split() == ["NAMESPACE", "NAME", "READY", "STATUS", "RESTARTS", "AGE"]
    assert rows(table)[0][:5] == ["shop", "web", "0/1", "Pending", "0"]
    assert "app=web" in await kubectl("get", "pods", "-n", "shop", "--show-labels")
    wide = await kubectl("get", "deploy", "-n", "shop", "-o", "wide")
    assert rows(wide)[0][-3:] == ["main", "api:1", "app=api"]
    assert (await kubectl("get", "all", "-n", "shop", "-o", "name")).split() == [
        "pod/web",
        "service/web",
        "deployment.apps/api",
        "job.batch/once",
    ]
    columns = await kubectl("get", "gpunodes")
    assert columns.splitlines()[0].split()[:3] == ["NAME", "PRODUCT", "MIB"]
    assert rows(columns)[0][:5] == ["n1", "NVIDIA", "L4", "23034", "44"]
    chosen = "custom-columns=NAME:.metadata.name,IMAGE:.spec.containers[0].image"
    assert rows(await kubectl("get", "pods", "-n", "shop", "-o", chosen)) == [["web", "web:1"]]
    assert "kind: Pod" in await kubectl("get", "pod", "web", "-n", "shop", "-o", "yaml")
    assert rows(await kubectl("get", "pods", "-n", "shop", "--sort-by=.metadata.name"))[0][0] == "web"
    assert rows(await kubectl("get", "pods", "-A", "--field-selector", "status.phase=Pending"))[0][1] == "web"
    nothing = await kubectl("get", "pods", "-A", "-l", "app in (x, y), !gone")
    assert nothing.strip() == "No resources found"


async def test_single_fields_are_changed(kubectl: Kubectl) -> None:
    await kubectl("apply", "-f", "-", manifest=MANIFEST)
    await kubectl("label", "pod", "web", "-n", "shop", "tier=front", "app-")
    await kubectl("annotate", "deploy", "api", "-n", "shop", "note=hello")
    await kubectl("scale", "deploy", "api", "-n", "shop", "--replicas", "3")
    await kubectl("set", "image", "deploy/api", "main=api:2", "-n", "shop")
    await kubectl(
        "patch", "deploy", "api", "-n", "shop", "-p", '{"spec":{"strategy":{"$retainKeys":["type"],"type":"Recreate"}}}'
    )
    await kubectl("cordon", "n1")
    pod = json.loads(await kubectl("get", "pod", "web", "-n", "shop", "-o", "json"))
    assert pod["metadata"]["labels"] == {"tier": "front"}
    deployment = json.loads(await kubectl("get", "deploy", "api", "-n", "shop", "-o", "json"))
    assert deployment["metadata"]["annotations"]["note"] == "hello"
    assert deployment["spec"]["replicas"] == 3
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}
    assert deployment["spec"]["template"]["spec"]["containers"][0]["image"] == "api:2"
    assert rows(await kubectl("get", "nodes"))[0][1] == "Unknown,SchedulingDisabled"


async def test_what_it_asks_about_the_cluster(kubectl: Kubectl) -> None:
    assert "Server Version: v1.36.2+playground" in await kubectl("version")
    assert "is running at http://127.0.0.1" in await kubectl("cluster-info")
    assert {"deployments", "pods", "gpunodes", "sharingpolicies"} <= {
        line[0] for line in rows(await kubectl("api-resources"))
    }
    assert (await kubectl("auth", "can-i", "create", "pods")).strip() == "yes"
    assert "system:masters" in await kubectl("auth", "whoami")
    assert "maxSurge" in await kubectl("explain", "deploy.spec.strategy.rollingUpdate")
    assert "The size of a memory unit" in await kubectl("explain", "gpunodes.spec.memoryUnitMiB")
    assert rows(await kubectl("get", "namespaces"))[0][:2] == ["default", "Active"]


POD = "apiVersion: v1\nkind: Pod\nmetadata: {name: p%s}\nspec: {containers: [{name: m, image: x%s}]}"
REFUSED = {
    "a kind that is not there": (
        "apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {name: x}\nspec: {}",
        'no matches for kind "DaemonSet" in version "apps/v1"',
    ),
    "a mistyped field": (POD % ("", ", imagePulPolicy: x"), 'unknown field "spec.containers[0].imagePulPolicy"'),
    "a namespace that is not there": (POD % (", namespace: nowhere", ""), 'namespaces "nowhere" not found'),
    "a mistyped field of ours": (
        "apiVersion: fracgpu.io/v1alpha1\nkind: SharingPolicy\nmetadata: {name: x}\nspec: {replica: 3}",
        'unknown field "spec.replica"',
    ),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_what_is_refused_is_refused_in_the_servers_words(kubectl: Kubectl, case: str) -> None:
    manifest, want = REFUSED[case]
    assert want in await kubectl.refused("apply", "-f", "-", manifest=manifest)


async def test_what_nobody_can_do_here_is_said(kubectl: Kubectl) -> None:
    await kubectl("apply", "-f", "-", manifest=POD % ("", ""))
    assert 'pod "p" has no logs: the playground simulates containers' in await kubectl.refused("logs", "p")
    assert 'pod "p" cannot run a command' in await kubectl.refused("exec", "p", "--", "ls")
    assert "use kubectl apply -f" in await kubectl.refused("create", "deployment", "d", "--image=x")
    assert "this namespace may not be deleted" in await kubectl.refused("delete", "namespace", "default")
    assert 'pods "q" not found' in await kubectl.refused("get", "pod", "q")
    assert "doesn't have a resource type" in await kubectl.refused("get", "widgets")


async def test_simple_things_are_created_by_name(kubectl: Kubectl) -> None:
    await kubectl("create", "namespace", "shop")
    await kubectl("create", "configmap", "settings", "-n", "shop", "--from-literal=a=b", "--from-literal=c=ü")
    await kubectl("create", "secret", "generic", "key", "-n", "shop", "--from-literal=a=b")
    await kubectl("create", "serviceaccount", "robot", "-n", "shop")
    assert await kubectl("get", "cm", "settings", "-n", "shop", "-o", "jsonpath={.data}") == '{"a":"b","c":"ü"}'
    assert await kubectl("get", "secret", "key", "-n", "shop", "-o", "jsonpath={.type} {.data.a}") == "Opaque Yg=="
    assert rows(await kubectl("get", "sa", "-A"))[0][:2] == ["shop", "robot"]
    await kubectl("run", "p", "--image=x", "-n", "shop", "--labels=app=p")
    await kubectl("expose", "pod", "p", "-n", "shop", "--port=80")
    assert rows(await kubectl("get", "svc", "-n", "shop"))[0][1] == "ClusterIP"


async def test_a_dry_run_and_a_diff_leave_everything_as_it_is(kubectl: Kubectl) -> None:
    await kubectl("apply", "-f", "-", manifest=MANIFEST)
    before = await kubectl("get", "all", "-A", "-o", "json")
    changed = MANIFEST.replace("web:1", "web:2")
    assert "pod/web configured (server dry run)" in await kubectl(
        "apply", "--dry-run=server", "-f", "-", manifest=changed
    )
    code, difference = await kubectl.attempt("diff", "-f", "-", manifest=changed)
    assert code == 1
    assert "+  - image: web:2" in difference or "+    image: web:2" in difference
    assert await kubectl("get", "all", "-A", "-o", "json") == before
