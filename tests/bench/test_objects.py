"""The cluster that is measured on is one that could exist, and its objects are what Kubernetes would keep and send."""

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bench.cluster import SEATS, UNITS, Fill, Shape, make_cluster, node_name
from bench.objects import bound_pod, extender_args, gpu_node, running_pod, waiting_pod
from bench.questions import Questions, name_lists
from extender.observing import bound_claim, granted_claims
from fracgpu.gpunodes import GpuNode
from fracgpu.names import RESOURCE_MEMORY, RESOURCE_REPLICA, GpuUuid, PodUid
from fracgpu.pods import Pod

WIRE = Path(__file__).parents[1] / "wire"


@pytest.mark.parametrize("fill", Fill)
def test_no_gpu_is_promised_twice(fill: Fill) -> None:
    units, seats = Counter[GpuUuid](), Counter[GpuUuid]()
    for node in make_cluster(100, fill=fill):
        for grant in msgspec.json.decode(
            gpu_node(node, resource_version=1, observed_pods=1), type=GpuNode
        ).status.grants:
            for share in grant.containers["server"]:
                units[share.gpu] += share.units
                seats[share.gpu] += share.seats
    assert 0 < max(units.values()) <= UNITS
    assert max(seats.values()) <= SEATS


def test_the_extender_believes_plans_and_grants_and_they_agree() -> None:
    for node in make_cluster(50, fill=Fill.USUAL):
        found = msgspec.json.decode(gpu_node(node, resource_version=1, observed_pods=1), type=GpuNode)
        granted = {claim.uid: claim for claim in granted_claims(found, pods={})}
        for pod in node.pods:
            decoded = msgspec.json.decode(running_pod(pod, node.name, resource_version=1), type=Pod)
            assert bound_claim(decoded) == granted.pop(decoded.uid)
        assert not granted


def test_a_running_pod_lists_the_devices_it_asked_for_and_is_of_realistic_size() -> None:
    sizes = []
    for node in make_cluster(200, fill=Fill.USUAL):
        for pod in node.pods:
            encoded = running_pod(pod, node.name, resource_version=1)
            found = json.loads(encoded)
            sizes.append(len(encoded))
            limits = found["spec"]["containers"][0]["resources"]["limits"]
            (listed,) = found["status"]["containerStatuses"][0]["allocatedResourcesStatus"]
            assert len(listed["resources"]) == int(limits[listed["name"]])
            assert {RESOURCE_MEMORY, RESOURCE_REPLICA} & limits.keys() == {listed["name"]}
    assert 6_500 < sorted(sizes)[len(sizes) // 2] < 8_000


def test_most_nodes_have_room_and_some_have_none() -> None:
    """Else filter would have nothing to decide."""
    largest = [max(node.free_units()) for node in make_cluster(500, fill=Fill.USUAL)]
    assert 0.15 < sum(free < 8 for free in largest) / len(largest) < 0.3
    assert 0.6 < sum(free >= 40 for free in largest) / len(largest) < 0.8


def test_the_same_cluster_every_time() -> None:
    assert make_cluster(20, fill=Fill.USUAL) == make_cluster(20, fill=Fill.USUAL)


@pytest.mark.parametrize("verb", ["filter", "prioritize"])
def test_a_question_has_what_a_real_kube_scheduler_sends(verb: str) -> None:
    recorded = json.loads((WIRE / f"extender-{verb}.json").read_text())["request"]
    del recorded["Pod"]["spec"]["initContainers"]  # of that pod, not of every pod
    body = next(Questions(["n1", "n2"], sent=2, label="test").about([Shape(units=8, gpus=2)]))
    asked = json.loads(body)
    assert list(asked) == list(recorded)
    assert sorted(asked["NodeNames"]) == ["n1", "n2"]
    assert missing(recorded["Pod"], asked["Pod"]) == {"metadata.annotations.fracgpu.io/gpu-memory"}  # as users write it
    assert asked["Pod"].keys() == {"metadata", "spec", "status"}
    assert "managedFields" not in asked["Pod"]["metadata"]
    assert 6_400 < len(body) < 7_000


def test_every_question_is_about_another_pod() -> None:
    questions = Questions([node_name(number) for number in range(40)], sent=40, label="test")
    shapes = [Shape(units=4), Shape(seats=1)]
    pods = [json.loads(body)["Pod"]["metadata"] for body, _ in zip(questions.about(shapes), range(6), strict=False)]
    assert len({pod["uid"] for pod in pods}) == len({pod["name"] for pod in pods}) == 6


def test_candidates_come_in_changing_order_each_once() -> None:
    names = [f"n{number}" for number in range(1000)]
    whole = name_lists(names, sent=1000, rng=random.Random(1))
    assert all(sorted(listed) == sorted(names) for listed in whole)
    assert len({tuple(listed) for listed in whole}) == len(whole)
    part = name_lists(names, sent=300, rng=random.Random(1))
    assert all(len(set(listed)) == 300 for listed in part)
    assert set(part[0]) != set(part[1])


def test_a_bound_pod_is_the_waiting_one_with_node_and_plan() -> None:
    waiting = waiting_pod("a", PodUid("u"), Shape(units=8))
    bound = json.loads(bound_pod(waiting, "n1", annotations={"fracgpu.io/allocation": "{}"}, resource_version=7))
    assert bound["spec"] == {**waiting["spec"], "nodeName": "n1"}
    assert bound["metadata"]["annotations"]["fracgpu.io/allocation"] == "{}"
    assert "fracgpu.io/allocation" not in waiting["metadata"]["annotations"]
    assert json.loads(extender_args(bound, ["n1"]))["NodeNames"] == ["n1"]


def missing(want: Any, got: Any, path: str = "") -> set[str]:
    """The fields of `want` that `got` lacks."""
    if isinstance(want, list) and isinstance(got, list):
        return set().union(*(min((missing(item, other, path) for other in got), key=len) for item in want))
    if not (isinstance(want, dict) and isinstance(got, dict)):
        return set()
    return set().union(
        *(
            missing(value, got[key], f"{path}.{key}") if key in got else {f"{path}.{key}".lstrip(".")}
            for key, value in want.items()
        )
    )
