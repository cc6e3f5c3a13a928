"""The extender writes a SharingPolicy's status with its own rights, on a real kube-apiserver and the CRD of deploy/."""

import asyncio
import json
from typing import Any

import pytest

from extender.policyreporter import PolicyReporter
from fracgpu.gpunodes import GpuNode, GpuNodeStatus, SharingStatus
from fracgpu.kube.client import KubeClient
from fracgpu.names import NodeName
from fracgpu.pods import ObjectMeta
from fracgpu.sharing import PolicyProblem
from tests.deploy.conftest import EXTENDER, Api, documents
from tests.realcluster import READY_SECONDS, RealControlPlane

pytestmark = pytest.mark.e2e
CRD = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/sharingpolicies.fracgpu.io"
POLICIES = "/apis/fracgpu.io/v1alpha1/sharingpolicies"


def create_policy(api: Api, name: str) -> None:
    status, answer = api.call(
        "POST",
        POLICIES,
        {
            "apiVersion": "fracgpu.io/v1alpha1",
            "kind": "SharingPolicy",
            "metadata": {"name": name},
            "spec": {"replicas": 4},
        },
    )
    assert status == 201, answer


async def test_a_policy_shows_who_follows_it(plane: RealControlPlane, api: Api) -> None:
    (crd,) = documents("crds/sharingpolicies.fracgpu.io.yaml")
    api.apply(crd)
    api.wait_until(lambda: '"Established", "status": "True"' in json.dumps(api.call("GET", CRD)[1]))
    create_policy(api, "a100")
    problem = PolicyProblem("a100", 1, "Conflict", "b100 says 2 replicas, and wins")
    nodes = {
        NodeName(name): GpuNode(ObjectMeta(name=name), status=GpuNodeStatus("1", sharing=sharing))
        for name, sharing in {
            "node-1": SharingStatus(("a100",)),
            "node-2": SharingStatus(("a100",), (problem,)),
        }.items()
    }
    known = asyncio.Event()
    known.set()
    kube = await KubeClient.connect(kubeconfig=plane.kubeconfig(EXTENDER))
    reporter = PolicyReporter(kube=kube, nodes=nodes, nodes_known=known, interval_seconds=0.01)
    task = asyncio.create_task(reporter.run())
    try:
        status = await _status(api, "a100", want=2)
        accepted, in_force = status["conditions"]
        assert (accepted["status"], accepted["reason"]) == ("False", "Conflict")
        assert accepted["message"] == "b100 says 2 replicas, and wins (on node-2)"
        assert (in_force["status"], in_force["reason"], in_force["observedGeneration"]) == ("True", "NodesFollow", 1)
        assert (status["nodes"], status["observedGeneration"]) == (["node-1", "node-2"], 1)

        del nodes[NodeName("node-2")]
        reporter.wake()
        later = await _status(api, "a100", want=1)
        assert [found["status"] for found in later["conditions"]] == ["True", "True"]
        assert later["conditions"][1]["lastTransitionTime"] == in_force["lastTransitionTime"]
        _, table = api.call_as_table(f"{POLICIES}/a100")
        columns = [column["name"] for column in table["columnDefinitions"]]
        cells = dict(zip(columns, table["rows"][0]["cells"], strict=True))
        assert (cells["Nodes"], cells["Accepted"]) == (1, "True")
    finally:
        task.cancel()
        await kube.close()
    managers = {entry["manager"] for entry in api.call("GET", f"{POLICIES}/a100")[1]["metadata"]["managedFields"]}
    assert "fracgpu-extender" in managers
    change = {"spec": {"replicas": 8}}
    refused, _ = api.as_user(EXTENDER).call(
        "PATCH", f"{POLICIES}/a100", change, content_type="application/merge-patch+json"
    )
    assert refused == 403


async def _status(api: Api, name: str, *, want: int) -> dict[str, Any]:
    """The policy's status, once so many nodes follow it."""
    async with asyncio.timeout(READY_SECONDS):
        while True:
            _, found = await asyncio.to_thread(api.call, "GET", f"{POLICIES}/{name}")
            status: dict[str, Any] = found.get("status") or {}
            if status.get("nodeCount") == want:
                return status
            await asyncio.sleep(0.02)
