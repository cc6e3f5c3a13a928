"""On a real kubelet: what changes under the plugin while pods run is what the Node offers, and never what pods hold."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import re
import shutil
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import pytest
import pytest_asyncio

from fracgpu.names import RESOURCE_MEMORY, RESOURCE_REPLICA, GpuUuid
from playground.cluster import JsonObject
from playground.node.nvml import read_state, write_state
from tests.conformance.lab import poll
from tests.deploy.conftest import Api
from tests.e2e.cluster import GPUNODES_PATH, Cluster, planned, pod
from tests.e2e.node import SEATS, UNITS, RealNode
from tests.e2e.test_node import assert_has_what_is_planned

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="package")]

POLICIES: Final = "/apis/fracgpu.io/v1alpha1/sharingpolicies"
ALL: Final = (str(2 * UNITS), str(2 * SEATS))


@pytest_asyncio.fixture(loop_scope="package", autouse=True)
async def _as_before(cluster: Cluster, node: RealNode) -> AsyncIterator[None]:
    """Leave the shared node well, and shared as its flags say."""
    yield
    make_ill(node)
    _, listing = await asyncio.to_thread(Api(cluster.plane).call, "GET", POLICIES)
    for found in listing["items"]:
        await asyncio.to_thread(Api(cluster.plane).call, "DELETE", f"{POLICIES}/{found['metadata']['name']}")
    await cluster.clean()
    await node.offers_gpus()


def make_ill(node: RealNode, *gpus: GpuUuid) -> None:
    """Have exactly these GPUs count memory errors."""
    changed = [dataclasses.replace(gpu, ecc_uncorrected=int(gpu.uuid in gpus)) for gpu in read_state(node.nvml_state)]
    write_state(node.nvml_state, changed)


@contextlib.asynccontextmanager
async def offers(cluster: Cluster, node: RealNode) -> AsyncIterator[dict[str, set[tuple[str, str]]]]:
    """All that the Node says of units and seats from now on: ``capacity`` and ``allocatable`` -> what was seen."""
    seen: dict[str, set[tuple[str, str]]] = {"capacity": set(), "allocatable": set()}
    selector = f"metadata.name={node.name}"
    (found,), version = await cluster.api.list("nodes", field_selector=selector)

    def note(status: JsonObject) -> None:
        for part, values in seen.items():
            values.add((status[part].get(RESOURCE_MEMORY, ""), status[part].get(RESOURCE_REPLICA, "")))

    async def follow() -> None:
        async for event in cluster.api.watch("nodes", resource_version=version, field_selector=selector):
            note(event.object["status"])

    note(found["status"])
    following = asyncio.create_task(follow())
    try:
        yield seen
    finally:
        assert not following.done(), "the watch ended early"
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def declare(cluster: Cluster, name: str, **spec: Any) -> None:
    head = {"apiVersion": "fracgpu.io/v1alpha1", "kind": "SharingPolicy", "metadata": {"name": name}}
    code, answer = await asyncio.to_thread(Api(cluster.plane).call, "POST", POLICIES, {**head, "spec": spec})
    assert code == 201, answer


async def policy(cluster: Cluster, name: str, holds: Callable[[JsonObject], bool]) -> JsonObject:
    """Wait until a SharingPolicy's status is as wanted; returns that."""
    seen: list[JsonObject] = []

    async def is_so() -> bool:
        _, found = await asyncio.to_thread(Api(cluster.plane).call, "GET", f"{POLICIES}/{name}")
        seen[:] = [found.get("status", {})]
        return holds(seen[0])

    try:
        await poll(is_so)
    except TimeoutError:
        raise AssertionError(f"SharingPolicy {name} did not become as wanted; last seen: {seen}") from None
    return seen[0]


async def shown(cluster: Cluster, path: str) -> dict[str, str]:
    """One object as ``kubectl get`` shows it: column -> cell. By kubectl itself where the machine has one."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        _, table = await asyncio.to_thread(Api(cluster.plane).call_as_table, path)
        names = [column["name"].upper() for column in table["columnDefinitions"]]
        return dict(zip(names, map(str, table["rows"][0]["cells"]), strict=True))
    *_, plural, name = path.split("/")
    running = await asyncio.create_subprocess_exec(
        *(kubectl, "--kubeconfig", str(cluster.plane.kubeconfig()), "get", f"{plural}.fracgpu.io", name),
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await running.communicate()
    header, row = said.decode().splitlines()
    starts = [found.start() for found in re.finditer(r"\S+", header)]
    cells = [row[start:end].strip() for start, end in zip(starts, [*starts[1:], None], strict=True)]
    return dict(zip(header.split(), cells, strict=True))


async def test_an_ill_gpu_is_offered_no_more_until_it_is_well(cluster: Cluster, node: RealNode) -> None:
    """What pods hold of the ill GPU kube-scheduler still counts, so here they hold less than the other has free."""
    uid = await cluster.create(pod("stays", "2Gi"))
    (ill,) = planned(await cluster.running("stays"))
    (well,) = set(node.gpus) - {ill}
    async with offers(cluster, node) as seen:
        make_ill(node, ill)
        await node.offers_gpus(units=UNITS, seats=SEATS)
        found = await cluster.gpunode(node.name, lambda found: not all(gpu.healthy for gpu in found.spec.gpus))
        problems = {gpu.uuid: gpu.problem for gpu in found.spec.gpus}
        assert "(ECC)" in problems[ill]
        assert not problems[well]
        await cluster.create(pod("beside", "5Gi"))
        assert set(planned(await cluster.running("beside"))) == {well}
        await cluster.create(pod("waits", "6Gi"))
        await cluster.waiting("waits")
        assert node.container(uid).is_running
        make_ill(node)
        await node.offers_gpus()
        later = await cluster.running("waits")
        assert set(planned(later)) == {ill}
        assert_has_what_is_planned(node, later)
    assert seen == {"capacity": {ALL}, "allocatable": {ALL, (str(UNITS), str(SEATS))}}
    assert (await cluster.get("stays"))["status"]["phase"] == "Running"
    await cluster.grants(node.name, lambda names: names == {"stays", "beside", "waits"})


async def test_capacity_stays_while_the_plugin_is_exchanged(cluster: Cluster, node: RealNode) -> None:
    uid = await cluster.create(pod("stays", "6Gi"))
    await cluster.running("stays")
    async with offers(cluster, node) as seen:
        await node.plugin.stop()
        await node.offers_gpus(units=0, seats=0)
        await node.plugin.start()
        await node.offers_gpus()
    assert seen["capacity"] == {ALL}
    assert ("0", "0") in seen["allocatable"]
    assert node.container(uid).is_running
    await cluster.create(pod("later", "10Gi"))
    assert_has_what_is_planned(node, await cluster.running("later"))
    await cluster.grants(node.name, lambda names: names == {"stays", "later"})


async def test_other_replicas_wait_for_the_pods_that_hold_a_share(cluster: Cluster, node: RealNode) -> None:
    uid = await cluster.create(pod("stays", gpu_fraction="0.25"))
    (held,) = planned(await cluster.running("stays"))
    await declare(cluster, "two", replicas=2)
    await node.offers_gpus(seats=SEATS + 2)
    published = await cluster.gpunode(
        node.name, lambda found: found.status.sharing is not None and any(gpu.pending for gpu in found.spec.gpus)
    )
    seats = {gpu.uuid: (gpu.replicas, gpu.pending and gpu.pending.replicas) for gpu in published.spec.gpus}
    (other,) = set(node.gpus) - {held}
    assert seats == {held: (SEATS, 2), other: (2, None)}
    assert node.container(uid).is_running

    status = await policy(cluster, "two", lambda status: status.get("nodeCount") == 1)
    assert status["nodes"] == [node.name]
    conditions = {c["type"]: (c["status"], c["reason"]) for c in status["conditions"]}
    assert conditions == {"Accepted": ("True", "Accepted"), "InForce": ("True", "NodesFollow")}
    cells = await shown(cluster, f"{POLICIES}/two")
    assert {name: cells[name] for name in ("NAME", "REPLICAS", "NODES", "ACCEPTED")} == {
        "NAME": "two",
        "REPLICAS": "2",
        "NODES": "1",
        "ACCEPTED": "True",
    }

    await cluster.create(pod("half", gpu_fraction="0.5"))
    assert_has_what_is_planned(node, await cluster.running("half"))
    await cluster.delete("stays", "half")
    await node.offers_gpus(seats=4)
    seated = pod("seated")
    seated["spec"]["containers"][0]["resources"] = {"limits": {RESOURCE_REPLICA: "1"}}
    await cluster.create(seated)
    (share,) = planned(found := await cluster.running("seated")).values()
    assert (share.seats, share.units) == (1, UNITS // 2)
    assert_has_what_is_planned(node, found)


async def test_policies_that_contradict_each_other_are_told_so(cluster: Cluster, node: RealNode) -> None:
    await declare(cluster, "first", replicas=2)
    await node.offers_gpus(seats=4)
    await declare(cluster, "second", replicas=8)
    status = await policy(
        cluster, "second", lambda status: any(c["status"] == "False" for c in status.get("conditions", []))
    )
    accepted = next(c for c in status["conditions"] if c["type"] == "Accepted")
    assert (accepted["status"], accepted["reason"]) == ("False", "Conflict")
    assert "first" in accepted["message"]
    assert node.name in accepted["message"]
    assert (await shown(cluster, f"{POLICIES}/second"))["ACCEPTED"] == "False"
    assert (await node.offers_gpus(seats=4))["status"]["allocatable"][RESOURCE_REPLICA] == "4"


async def test_kubectl_shows_what_a_node_has_and_what_enforces_it(cluster: Cluster, node: RealNode) -> None:
    await cluster.gpunode(node.name, lambda found: found.status.isolation is not None)
    cells = await shown(cluster, f"{GPUNODES_PATH}/{node.name}")
    cells.pop("AGE")
    cells.pop("OBSERVED", None)  # only in the table
    assert cells == {
        "NAME": node.name,
        "PRODUCT": "Simulated GPU",
        "MIB": "10240",
        "UNITS": str(UNITS),
        "UNIT-MIB": "512",
        "SEATS": str(SEATS),
        "ISOLATION": "none",
        "ENFORCED": "false",
    }
