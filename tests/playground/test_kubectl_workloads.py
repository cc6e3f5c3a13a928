"""kubectl and a playground cluster of one node: what workloads come to. No pod here asks for a GPU."""

from __future__ import annotations

import json
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fracgpu.names import NodeName
from playground.api.apiserver import ApiServer
from playground.controllers.manager import Controllers
from playground.node.kubelet import Kubelet
from playground.recording import EventRecorder
from playground.scheduling.scheduler import Scheduler
from tests.playground.kubectl import KUBECTL, MISSING, Kubectl, rows

pytestmark = pytest.mark.skipif(KUBECTL is None, reason=MISSING)

NOWHERE = "http://127.0.0.1:9"  # of an extender, which nobody asks about pods without GPUs
TEMPLATE = """
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: main, image: "web:1"}]}
"""
DEPLOYMENT = f"apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web}}\nspec:\n  replicas: 3{TEMPLATE}"
STATEFUL_SET = f"apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {{name: web}}\nspec:\n  replicas: 2{TEMPLATE}"
JOB = """
apiVersion: batch/v1
kind: Job
metadata: {name: once}
spec: {template: {spec: {restartPolicy: Never, containers: [{name: main, image: "job:1"}]}}}
"""
POD = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: main, image: x}]}"


class Cluster:
    """A cluster of one node, and kubectl for it."""

    def __init__(self, kubectl: Kubectl, kubelet: Kubelet) -> None:
        self.kubectl = kubectl
        self.kubelet = kubelet


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # pytest's own has too long a path for sockets
        server = ApiServer(checks_namespaces=True)
        await server.start()
        cgroup = Path(folder) / "cgroup"
        cgroup.mkdir()
        kubelet = Kubelet(
            cluster=server.cluster,
            node_name=NodeName("n1"),
            root=Path(folder),
            cgroup_root=cgroup,
            tells_events=True,
        )
        await kubelet.start()
        events = EventRecorder(server.cluster, component="default-scheduler")
        scheduler = Scheduler(server.cluster, extender_url=NOWHERE, events=events)
        controllers = Controllers(server.cluster)
        await scheduler.start()
        await controllers.start()
        yield Cluster(Kubectl(server.kubeconfig(), tmp_path), kubelet)
        await controllers.stop()
        await scheduler.stop()
        await kubelet.stop()
        await kubelet.runtime.close()
        await server.stop()


async def test_a_deployment_rolls_out_and_back(cluster: Cluster) -> None:
    kubectl = cluster.kubectl
    await kubectl("apply", "-f", "-", manifest=DEPLOYMENT)
    status = ("rollout", "status", "deploy/web", "--timeout=30s")
    assert "successfully rolled out" in await kubectl(*status)
    assert rows(await kubectl("get", "deploy", "web"))[0][:4] == ["web", "3/3", "3", "3"]
    assert [row[1:3] for row in rows(await kubectl("get", "pods"))] == [["1/1", "Running"]] * 3

    assert "configured" in await kubectl("apply", "-f", "-", manifest=DEPLOYMENT.replace("web:1", "web:2"))
    assert "successfully rolled out" in await kubectl(*status)
    images = await kubectl("get", "pods", "-o", "jsonpath={..spec.containers[*].image}")
    # Pods of before may still be ending.
    assert images.split().count("web:2") == 3
    history = await kubectl("rollout", "history", "deploy/web")
    assert [row[0] for row in rows(history) if row and row[0].isdigit()] == ["1", "2"]

    await kubectl("rollout", "undo", "deploy/web")
    assert "successfully rolled out" in await kubectl(*status)
    assert await kubectl("get", "deploy", "web", "-o", "jsonpath={..image}") == "web:1"
    described = await kubectl("describe", "deploy", "web")
    assert "3 desired | 3 updated | 3 total | 3 available | 0 unavailable" in described
    assert "ScalingReplicaSet" in described

    await kubectl("scale", "deploy", "web", "--replicas", "1")
    assert "successfully rolled out" in await kubectl(*status)
    await kubectl("wait", "--for=jsonpath={.status.replicas}=1", "deploy/web", "--timeout=30s")
    await kubectl("delete", "deploy", "web")
    await kubectl("wait", "--for=delete", "pod", "-l", "app=web", "--timeout=30s")
    assert (await kubectl("get", "all")).strip().endswith("No resources found in default namespace.")


async def test_a_stateful_set_rolls_out_and_its_pod_comes_back(cluster: Cluster) -> None:
    kubectl = cluster.kubectl
    await kubectl("apply", "-f", "-", manifest=STATEFUL_SET)
    await kubectl("rollout", "status", "sts/web", "--timeout=30s")
    assert rows(await kubectl("get", "pods"))[0][0] == "web-0"
    assert rows(await kubectl("get", "sts"))[0][:2] == ["web", "2/2"]
    before = await kubectl("get", "pod", "web-1", "-o", "jsonpath={.metadata.uid}")
    await kubectl("delete", "pod", "web-1", "--force", "--grace-period=0")
    await kubectl("wait", "--for=create", "pod/web-1", "--timeout=30s")
    await kubectl("wait", "--for=condition=Ready", "pod/web-1", "--timeout=30s")
    assert await kubectl("get", "pod", "web-1", "-o", "jsonpath={.metadata.uid}") != before
    await kubectl("apply", "-f", "-", manifest=STATEFUL_SET.replace("web:1", "web:2"))
    await kubectl("rollout", "status", "sts/web", "--timeout=30s")
    assert await kubectl("get", "pods", "-o", "jsonpath={..spec.containers[*].image}") == "web:2 web:2"


async def test_a_job_is_complete_when_its_container_has_ended(cluster: Cluster) -> None:
    kubectl = cluster.kubectl
    await kubectl("apply", "-f", "-", manifest=JOB)
    await kubectl("wait", "--for=jsonpath={.status.ready}=1", "job/once", "--timeout=30s")
    assert rows(await kubectl("get", "jobs"))[0][:3] == ["once", "Running", "0/1"]
    pod = json.loads(await kubectl("get", "pods", "-l", "job-name=once", "-o", "json"))["items"][0]
    cluster.kubelet.finish(pod["metadata"]["uid"], "main", 0)
    await kubectl("wait", "--for=condition=complete", "job/once", "--timeout=30s")
    assert rows(await kubectl("get", "jobs"))[0][:3] == ["once", "Complete", "1/1"]
    assert rows(await kubectl("get", "pods"))[0][1:3] == ["0/1", "Completed"]


async def test_a_pods_life_is_told_in_events(cluster: Cluster) -> None:
    kubectl = cluster.kubectl
    await kubectl("apply", "-f", "-", manifest=POD)
    await kubectl("wait", "--for=condition=Ready", "pod/p", "--timeout=30s")
    told = [line.split()[1] for line in (await kubectl("describe", "pod", "p")).splitlines() if "  Normal  " in line]
    assert set(told) == {"Scheduled", "Pulled", "Created", "Started"}
    listed = rows(await kubectl("get", "events", "--field-selector", "reason=Scheduled"))
    assert listed[0][1:4] == ["Normal", "Scheduled", "pod/p"]
    node = await kubectl("describe", "node", "n1")
    assert "KubeletReady" in node
    assert "Non-terminated Pods:          (1 in total)" in node


async def test_a_pod_without_a_place_says_why(cluster: Cluster) -> None:
    kubectl = cluster.kubectl
    await kubectl("apply", "-f", "-", manifest=POD.replace("spec: {", "spec: {nodeSelector: {pool: gpu}, "))
    await kubectl("wait", "--for=condition=PodScheduled=false", "pod/p", "--timeout=30s")
    described = await kubectl("describe", "pod", "p")
    assert "FailedScheduling" in described
    assert "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector" in described


async def test_watching_shows_each_change_as_a_row(cluster: Cluster) -> None:
    kubectl = cluster.kubectl
    await kubectl("apply", "-f", "-", manifest=POD.replace("spec: {", "spec: {nodeSelector: {pool: gpu}, "))
    async with kubectl.following("get", "pods", "-w") as next_line:
        assert (await next_line()).split() == ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]
        assert (await next_line()).split()[:3] == ["p", "0/1", "Pending"]
        await kubectl("label", "node", "n1", "pool=gpu")
        while (line := await next_line()).split()[2] == "Pending":
            pass
        assert line.split()[:3] == ["p", "1/1", "Running"]


async def test_a_node_is_drained_and_used_again(cluster: Cluster) -> None:
    kubectl = cluster.kubectl
    await kubectl("apply", "-f", "-", manifest=DEPLOYMENT)
    await kubectl("rollout", "status", "deploy/web", "--timeout=30s")
    assert "node/n1 drained" in await kubectl("drain", "n1", "--timeout=30s")
    pods = rows(await kubectl("get", "pods"))
    assert [row[1:3] for row in pods] == [["0/1", "Pending"]] * 3
    assert rows(await kubectl("get", "nodes"))[0][1] == "Ready,SchedulingDisabled"
    await kubectl("uncordon", "n1")
    await kubectl("rollout", "status", "deploy/web", "--timeout=30s")


async def test_a_namespace_is_deleted_with_what_is_in_it(cluster: Cluster) -> None:
    kubectl = cluster.kubectl
    await kubectl("apply", "-f", "-", manifest="apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}")
    await kubectl("apply", "-n", "shop", "-f", "-", manifest=DEPLOYMENT)
    await kubectl("rollout", "status", "-n", "shop", "deploy/web", "--timeout=30s")
    await kubectl("delete", "namespace", "shop")
    await kubectl("wait", "--for=delete", "pod", "-n", "shop", "--all", "--timeout=30s")
    assert (await kubectl("get", "all", "-A")).strip() == "No resources found"
