"""What becomes of claims when the cluster changes under the ledger: each kind of drift has one outcome, counted."""

import asyncio
import functools
import re
from collections.abc import Callable

import pytest

from extender.ledger.claims import ClaimState, Entry
from extender.ledger.connecting import connect
from extender.ledger.embedded import EmbeddedRedis
from fracgpu.gpunodes import Gpu, Grant
from fracgpu.names import GpuUuid, PodUid
from fracgpu.plans import Share
from playground.api.apiserver import ApiServer
from tests.extender.builders import claim, gpu_node, grant
from tests.extender.replica import JsonObject, Replica, announce, create_pod

Replicas = tuple[Replica, Replica]


async def until(replica: Replica, wanted: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not wanted():
            await replica.ledger.catch_up()


def gpu_of(replica: Replica) -> Gpu:
    return replica.index.nodes[gpu_node("node-1").node].spec.gpus[0]


def gpus_of(replica: Replica, uid: PodUid) -> set[str]:
    entry = replica.index.entries.get(uid)
    return set(entry.claim.per_gpu()) if entry else set()


def units_of(replica: Replica, uid: PodUid) -> int:
    entry = replica.index.entries.get(uid)
    return sum(share.units for share in entry.claim.per_gpu().values()) if entry else 0


def is_healthy(replica: Replica, want: bool) -> bool:
    return gpu_of(replica).healthy is want


async def free_units(replica: Replica) -> int:
    await replica.ledger.catch_up()
    view = replica.index.view(gpu_node("node-1").node)
    return view.gpus[0].free_units if view else -1


async def drift(*replicas: Replica) -> dict[str, int]:
    """What all replicas together have counted, by kind."""
    found: dict[str, int] = {}
    for replica in replicas:
        _, text = await replica.get("/metrics")
        for kind, count in re.findall(r'^fracgpu_extender_drift_total\{kind="(\w+)"\} (\d+)', text, re.MULTILINE):
            found[kind] = found.get(kind, 0) + int(count)
    return {kind: count for kind, count in found.items() if count}


async def answer(replica: Replica, pod: JsonObject) -> JsonObject:
    found: JsonObject = await replica.post("filter", {"Pod": pod, "NodeNames": ["node-1"]})
    return found


async def bound(api: ApiServer, replica: Replica, name: str, *, units: int) -> JsonObject:
    pod = await create_pod(api, name, units=units)
    assert await replica.bind(pod, "node-1") == ""
    return pod


async def set_status(api: ApiServer, name: str, status: JsonObject) -> None:
    await api.cluster.patch("pods", name, {"status": status}, namespace="team-a", subresource="status")


@pytest.fixture
async def node(api: ApiServer, replicas: Replicas) -> None:
    await announce(api, gpu_node("node-1", "GPU-a"))
    for replica in replicas:
        await replica.knows("node-1")


@pytest.mark.usefixtures("node")
async def test_pods_that_bypassed_the_extender_count_and_an_overdrawn_gpu_takes_nothing(
    api: ApiServer, replicas: Replicas
) -> None:
    await bound(api, replicas[0], "planned", units=60)
    bypass = await create_pod(api, "bypass", units=30)
    granted = grant(bypass["metadata"]["uid"], "GPU-a", units=30)
    await announce(api, gpu_node("node-1", "GPU-a", grants=(granted,)))
    await until(replicas[0], lambda: PodUid(bypass["metadata"]["uid"]) in replicas[0].index.entries)

    assert await free_units(replicas[0]) == -10
    assert (await drift(*replicas))["unknown_pod"] == 1
    late = await create_pod(api, "late", units=1)
    assert "free piece is 0 MiB" in await replicas[1].bind(late, "node-1")
    async with asyncio.timeout(20):
        while "fracgpu_extender_overdrawn_gpus 1.0" not in (await replicas[0].get("/metrics"))[1]:
            pass


@pytest.mark.usefixtures("node")
async def test_what_the_kubelet_really_gave_replaces_what_was_planned(api: ApiServer, replicas: Replicas) -> None:
    await announce(api, gpu_node("node-1", "GPU-a", "GPU-b"))
    pod = await bound(api, replicas[0], "p", units=60)
    given = grant(pod["metadata"]["uid"], "GPU-b", units=60)
    await announce(api, gpu_node("node-1", "GPU-a", "GPU-b", grants=(given,)))
    uid = PodUid(pod["metadata"]["uid"])
    await until(replicas[1], lambda: gpus_of(replicas[1], uid) == {"GPU-b"})
    assert (await drift(*replicas))["off_plan"] == 1


@pytest.mark.usefixtures("node")
async def test_a_node_that_vanished_frees_its_gpus_with_the_pods_it_had(api: ApiServer, replicas: Replicas) -> None:
    pod = await bound(api, replicas[0], "p", units=60)
    await api.cluster.delete("gpunodes", "node-1")
    await until(replicas[0], lambda: "node-1" not in replicas[0].index.nodes)
    assert PodUid(pod["metadata"]["uid"]) in replicas[0].index.entries  # the pod may still run there
    await api.cluster.delete("pods", "p", namespace="team-a", grace_seconds=0)
    await until(replicas[0], lambda: not replicas[0].index.entries)
    assert (await drift(*replicas))["released"] == 1


@pytest.mark.usefixtures("node")
async def test_a_gpu_that_fails_takes_nothing_new_and_keeps_what_it_has(api: ApiServer, replicas: Replicas) -> None:
    await bound(api, replicas[0], "p", units=60)
    for healthy in (False, True):
        api_node = await api.cluster.get("gpunodes", "node-1")
        gpus = [gpu | {"healthy": healthy} for gpu in api_node["spec"]["gpus"]]
        await api.cluster.patch("gpunodes", "node-1", {"spec": {"gpus": gpus}})
        await until(replicas[0], functools.partial(is_healthy, replicas[0], healthy))
        assert await free_units(replicas[0]) == 20
        found = await answer(replicas[0], await create_pod(api, f"late-{int(healthy)}", units=8))
        if healthy:
            assert found["NodeNames"] == ["node-1"]
        else:
            assert found["NodeNames"] in ([], None)


@pytest.mark.usefixtures("node")
async def test_a_card_that_was_swapped_keeps_its_pods_claims_and_the_new_card_is_used(
    api: ApiServer, replicas: Replicas
) -> None:
    pod = await bound(api, replicas[0], "p", units=60)
    swapped = gpu_node("node-1", "GPU-new")
    await api.cluster.delete("gpunodes", "node-1")
    await announce(api, swapped)
    await until(
        replicas[0],
        lambda: (
            swapped.node in replicas[0].index.nodes
            and replicas[0].index.nodes[swapped.node].spec.gpus == swapped.spec.gpus
            and replicas[0].index.nodes[swapped.node].status.observed_pods != ""
        ),
    )
    assert await free_units(replicas[0]) == 80
    assert PodUid(pod["metadata"]["uid"]) in replicas[0].index.entries
    await bound(api, replicas[0], "q", units=80)


@pytest.mark.usefixtures("node")
async def test_a_plan_in_another_unit_than_its_node_is_recorded_in_the_nodes(
    api: ApiServer, replicas: Replicas
) -> None:
    pod = await bound(api, replicas[0], "p", units=60)
    await api.cluster.delete("gpunodes", "node-1")
    await announce(api, gpu_node("node-1", "GPU-a", unit=1024, units=40))
    uid = PodUid(pod["metadata"]["uid"])
    await until(replicas[0], lambda: units_of(replicas[0], uid) == 30)
    assert replicas[0].index.entries[uid].claim.plan.unit == 1024
    assert (await drift(*replicas))["foreign_unit"] == 1
    found = await answer(replicas[0], await create_pod(api, "q", units=8))
    assert "units of 1024 MiB, while this cluster counts in 512 MiB" in found["FailedAndUnresolvableNodes"]["node-1"]


RUNNING: JsonObject = {"state": {"running": {"startedAt": "2026-11-21T00:00:00Z"}}}
CRASHED: JsonObject = {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "restartCount": 7}
ENDED: JsonObject = {"state": {"terminated": {"exitCode": 0}}}
STATUS = {"name": "main", "image": "x", "imageID": "", "ready": False, "restartCount": 0}


@pytest.mark.usefixtures("node")
@pytest.mark.parametrize(
    ("phase", "state", "want_ended"),
    [
        pytest.param("Failed", RUNNING, False, id="marked Failed from outside while its container runs"),
        pytest.param("Running", CRASHED, False, id="CrashLoopBackOff"),
        pytest.param("Unknown", RUNNING, False, id="its node is partitioned"),
        pytest.param("Succeeded", ENDED, True, id="ended"),
    ],
)
async def test_only_ended_containers_free_a_share(
    api: ApiServer, replicas: Replicas, phase: str, state: JsonObject, want_ended: bool
) -> None:
    pod = await bound(api, replicas[0], "p", units=50)
    witness = await bound(api, replicas[0], "witness", units=1)  # released by the same news: then that was read
    await set_status(api, "p", {"phase": phase, "containerStatuses": [STATUS | state]})
    await api.cluster.delete("pods", "witness", namespace="team-a", grace_seconds=0)
    _, version = await api.cluster.list("pods")
    await announce(api, gpu_node("node-1", "GPU-a", observed=version))  # nothing granted, all seen
    # Which of two shares is released first is not settled: the pod's own is waited for where it has to come.
    waited_for = [witness, pod] if want_ended else [witness]
    uids = {each["metadata"]["uid"] for each in waited_for}
    await until(replicas[0], lambda: uids.isdisjoint(replicas[0].index.entries))
    await replicas[0].ledger.catch_up()
    assert (pod["metadata"]["uid"] not in replicas[0].index.entries) == want_ended
    assert await free_units(replicas[0]) == (80 if want_ended else 30)


@pytest.mark.usefixtures("node")
async def test_a_pod_of_the_old_name_is_another_pod(api: ApiServer, replicas: Replicas) -> None:
    """A StatefulSet's pod, force-deleted and made anew: the old one's processes may live on."""
    old = await bound(api, replicas[0], "db-0", units=60)
    await api.cluster.delete("pods", "db-0", namespace="team-a", grace_seconds=0)
    new = await create_pod(api, "db-0", units=60)
    assert "as soon as the shares of team-a/db-0" in (await answer(replicas[0], new))["Error"]
    _, version = await api.cluster.list("pods")
    await announce(api, gpu_node("node-1", "GPU-a", observed=version))
    await until(replicas[0], lambda: not replicas[0].index.entries)
    assert await replicas[0].bind(new, "node-1") == ""
    assert set(replicas[0].index.entries) == {new["metadata"]["uid"]} != {old["metadata"]["uid"]}


@pytest.mark.usefixtures("node")
async def test_a_grant_is_believed_before_the_word_that_all_was_seen(api: ApiServer, replicas: Replicas) -> None:
    """The plugin keeps a grant until the pod's processes are gone, however long ago the pod was deleted."""
    pod = await bound(api, replicas[0], "p", units=60)
    await api.cluster.delete("pods", "p", namespace="team-a", grace_seconds=0)
    lingering = grant(pod["metadata"]["uid"], "GPU-a", units=60, name="p")
    await announce(api, gpu_node("node-1", "GPU-a", observed="999999", grants=(lingering,)))
    other = await create_pod(api, "other", units=60)
    assert "as soon as the shares of team-a/p" in (await answer(replicas[0], other))["Error"]
    await announce(api, gpu_node("node-1", "GPU-a", observed="999999"))
    await until(replicas[1], lambda: not replicas[1].index.entries)


async def test_a_claim_of_a_pod_nobody_knows_is_found_out(api: ApiServer, replicas: Replicas) -> None:
    """Its pod was deleted while no extender watched."""
    await announce(api, gpu_node("node-1", "GPU-a", observed="999999"))
    await replicas[0].ledger.correct(None, claim("ghost", units=60))
    assert replicas[0].index.entries[PodUid("ghost")] == Entry(claim("ghost", units=60), 0)
    await until(replicas[1], lambda: not replicas[1].index.entries)
    assert claim("ghost").state is ClaimState.BOUND


@pytest.mark.usefixtures("node")
async def test_a_grant_that_came_back_with_its_gpunode_counts_before_the_ledger_has_it(
    api: ApiServer, replicas: Replicas
) -> None:
    """The Node object was made anew; the container lived on, and its pod is gone from the API server."""
    pod = await bound(api, replicas[0], "p", units=60)
    await api.cluster.delete("gpunodes", "node-1")
    await api.cluster.delete("pods", "p", namespace="team-a", grace_seconds=0)
    await until(replicas[0], lambda: not replicas[0].index.entries and not replicas[0].index.nodes)
    lingering = grant(pod["metadata"]["uid"], "GPU-a", units=60)
    late = await create_pod(api, "late", units=60)
    coming = asyncio.create_task(announce(api, gpu_node("node-1", "GPU-a", grants=(lingering,), observed="999999")))
    async with asyncio.timeout(20):
        while await replicas[0].bind(late, "node-1") != "" and not lingering_counts(replicas[0], pod):
            pass
    await coming
    assert await free_units(replicas[0]) == 20


def lingering_counts(replica: Replica, pod: JsonObject) -> bool:
    return PodUid(pod["metadata"]["uid"]) in replica.index.entries


@pytest.mark.usefixtures("node")
async def test_one_impossible_grant_stops_no_rebuild(api: ApiServer, replicas: Replicas, redis: EmbeddedRedis) -> None:
    huge = tuple(Share(GpuUuid("GPU-a"), 2**24) for _ in range(130))
    bad = Grant(PodUid("bad"), "team-a", "bad", {"main": huge})
    good = await bound(api, replicas[0], "good", units=8)
    await announce(api, gpu_node("node-1", "GPU-a", grants=(bad,)))
    admin = connect(redis.url)
    await admin.flushall()
    await admin.aclose()
    async with asyncio.timeout(30):
        while (await replicas[0].get("/readyz"))[0] != 200 or not replicas[0].index.entries:
            pass
    assert set(replicas[0].index.entries) == {good["metadata"]["uid"]}


@pytest.mark.usefixtures("node")
async def test_a_pod_that_lives_on_after_all_is_not_about_to_free_anything(api: ApiServer, replicas: Replicas) -> None:
    await bound(api, replicas[0], "p", units=60)
    await set_status(api, "p", {"phase": "Failed", "containerStatuses": [STATUS | RUNNING]})
    await until(replicas[0], lambda: "node-1" in replicas[0].index.passing)
    await set_status(api, "p", {"phase": "Running"})
    await until(replicas[0], lambda: "node-1" not in replicas[0].index.passing)


@pytest.mark.usefixtures("node")
async def test_a_pod_gone_after_a_bind_of_unknown_outcome_may_have_run(api: ApiServer, replicas: Replicas) -> None:
    """Bound, the answer lost, force-deleted: its container may live until the node's plugin says that it does not."""
    pod = await create_pod(api, "p", units=60)
    api.bindings.lose_answer()
    assert "not known whether" in await replicas[0].bind(pod, "node-1")
    await api.cluster.delete("pods", "p", namespace="team-a", grace_seconds=0)
    uid = PodUid(pod["metadata"]["uid"])
    await until(replicas[1], lambda: state_of(replicas[1], uid) is ClaimState.BOUND)  # settled, and kept
    _, version = await api.cluster.list("pods")
    await announce(api, gpu_node("node-1", "GPU-a", observed=version))
    await until(replicas[1], lambda: uid not in replicas[1].index.entries)


def state_of(replica: Replica, uid: PodUid) -> ClaimState | None:
    entry = replica.index.entries.get(uid)
    return entry.claim.state if entry else None
