"""What a SharingPolicy's status says, from what the nodes say of it."""

import pytest

from extender.observing import reduced, reduced_node
from extender.sharingpolicies import own_part, statuses
from fracgpu.gpunodes import Gpu, GpuNode, GpuNodeSpec, GpuNodeStatus, IsolationStatus, PendingShares, SharingStatus
from fracgpu.names import GpuUuid, NodeName
from fracgpu.pods import Container, ObjectMeta, Pod, PodSpec, Resources
from fracgpu.quantities import Mib
from fracgpu.sharing import Condition, PolicyProblem, SharingPolicy, SharingPolicyStatus

NOW, BEFORE = "2026-11-21T10:00:00Z", "2026-11-20T10:00:00Z"


def policy(name: str = "a100", *, generation: int = 1, status: SharingPolicyStatus | None = None) -> SharingPolicy:
    return SharingPolicy(ObjectMeta(name=name, generation=generation), status=status)


def problem(reason: str, message: str, *, policy: str = "a100", generation: int = 1) -> PolicyProblem:
    return PolicyProblem(policy, generation, reason, message)  # type: ignore[arg-type]


def says(**nodes: SharingStatus | None) -> dict[NodeName, SharingStatus | None]:
    return {NodeName(name.replace("_", "-")): sharing for name, sharing in nodes.items()}


def status_of(
    nodes: dict[NodeName, SharingStatus | None], *, of: SharingPolicy | None = None, now: str = NOW
) -> SharingPolicyStatus:
    of = of or policy()
    return statuses([of], nodes, now=now)[of.metadata.name]


def condition(status: SharingPolicyStatus, kind: str) -> Condition:
    (found,) = [found for found in status.conditions if found.type == kind]
    return found


FOLLOWS = SharingStatus(("a100",))


def test_nodes_that_follow_are_counted_and_named_in_order() -> None:
    status = status_of(
        says(node_b=FOLLOWS, node_c=SharingStatus(("other", "a100")), node_a=FOLLOWS, node_d=SharingStatus(("other",)))
        | says(node_e=None)
    )
    assert (status.node_count, status.nodes) == (3, ("node-a", "node-b", "node-c"))
    accepted, in_force = condition(status, "Accepted"), condition(status, "InForce")
    assert (accepted.status, accepted.reason) == ("True", "Accepted")
    assert (in_force.status, in_force.message) == ("True", "3 nodes follow it")


def test_a_policy_that_nobody_follows_says_so() -> None:
    status = status_of(says(node_a=SharingStatus(("other",))))
    assert (status.node_count, status.nodes) == (0, ())
    in_force = condition(status, "InForce")
    assert (in_force.status, in_force.reason) == ("False", "NoNodeMatches")
    assert condition(status, "Accepted").status == "True"


def test_of_very_many_nodes_only_a_thousand_are_named() -> None:
    status = status_of({NodeName(f"node-{n:04}"): FOLLOWS for n in range(1500)})
    assert (status.node_count, len(status.nodes), status.nodes[-1]) == (1500, 1000, "node-0999")


@pytest.mark.parametrize(
    ("found", "want_reason", "want_message"),
    [
        pytest.param(
            says(node_a=SharingStatus(("a100",), (problem("Conflict", "b100 says 2 replicas, and wins"),))),
            "Conflict",
            "b100 says 2 replicas, and wins (on node-a)",
            id="one node",
        ),
        pytest.param(
            {
                NodeName(f"node-{n}"): SharingStatus(problems=(problem("UnitMismatch", "the unit is 512 MiB"),))
                for n in range(9)
            },
            "UnitMismatch",
            "the unit is 512 MiB (on node-0, node-1, node-2, node-3, node-4 and 4 more)",
            id="many nodes find the same",
        ),
        pytest.param(
            says(
                node_a=SharingStatus(problems=(problem("Conflict", "conflict"), problem("Invalid", "no such GPU"))),
                node_b=SharingStatus(problems=(problem("Conflict", "conflict"),)),
            ),
            "Invalid",
            "no such GPU (on node-a); conflict (on node-a, node-b)",
            id="the gravest first, though fewer find it",
        ),
        pytest.param(
            {
                NodeName(f"node-{n}"): SharingStatus(problems=(problem("Invalid", f"GPU-{n} is too small"),))
                for n in range(5)
            },
            "Invalid",
            "GPU-0 is too small (on node-0); GPU-1 is too small (on node-1); GPU-2 is too small (on node-2); "
            "and something else on 2 nodes",
            id="each finds something else",
        ),
    ],
)
def test_what_nodes_find_wrong_is_told_with_their_names(
    found: dict[NodeName, SharingStatus | None], want_reason: str, want_message: str
) -> None:
    accepted = condition(status_of(found), "Accepted")
    assert (accepted.status, accepted.reason, accepted.message) == ("False", want_reason, want_message)


def test_problems_of_another_generation_or_policy_do_not_count() -> None:
    nodes = says(
        node_a=SharingStatus(("a100",), (problem("Invalid", "old", generation=1),)),
        node_b=SharingStatus(("a100",), (problem("Invalid", "of another", policy="other", generation=2),)),
    )
    status = status_of(nodes, of=policy(generation=2))
    assert condition(status, "Accepted").status == "True"
    assert status.observed_generation == 2
    assert {found.observed_generation for found in status.conditions} == {2}


def test_a_status_that_is_right_is_left_as_it_is() -> None:
    first = status_of(says(node_a=FOLLOWS), now=BEFORE)
    assert status_of(says(node_a=FOLLOWS), of=policy(status=first)) == first


def test_a_condition_keeps_its_time_until_it_turns() -> None:
    first = status_of(says(node_a=FOLLOWS), now=BEFORE)
    bad = SharingStatus(("a100",), (problem("Invalid", "no such GPU"),))
    second = status_of(says(node_a=FOLLOWS, node_b=bad), of=policy(status=first))
    assert condition(second, "InForce").last_transition_time == BEFORE  # another message, the same status
    assert condition(second, "InForce").message == "2 nodes follow it"
    assert condition(second, "Accepted").last_transition_time == NOW


def test_conditions_of_others_do_not_make_it_another_status() -> None:
    first = status_of(says(node_a=FOLLOWS), now=BEFORE)
    foreign = Condition("Reviewed", "True", "ByHuman", "", 1, BEFORE)
    stored = SharingPolicyStatus(1, (foreign, *reversed(first.conditions)), first.node_count, first.nodes)
    assert own_part(stored) == first
    assert status_of(says(node_a=FOLLOWS), of=policy(status=stored)) == first
    assert own_part(None) == SharingPolicyStatus()


def announced(number: int) -> GpuNode:
    """A node as its plugin writes it, with no text that is shared with another's."""
    message = "".join(["the GPU ", "is too small ", "x" * 400])
    gpu = Gpu(
        GpuUuid(f"GPU-{number}"),
        0,
        "Test",
        Mib(1024),
        2,
        4,
        problem="".join(["Xid ", "79"]),
        pending=PendingShares(1, 1),
    )
    sharing = SharingStatus(("".join(["a", "100"]),), (PolicyProblem("a100", 1, "Invalid", message),))
    isolation = IsolationStatus("none", False, "".join(["advisory ", "only"]))
    return GpuNode(
        ObjectMeta(name=f"node-{number}"),
        GpuNodeSpec(gpus=(gpu,)),
        GpuNodeStatus("7", isolation=isolation, sharing=sharing),
    )


def test_what_thousands_of_nodes_say_alike_is_kept_once() -> None:
    first, second = reduced_node(announced(1)), reduced_node(announced(2))
    assert first.status.sharing is second.status.sharing
    assert first.status.sharing is not None
    assert len(first.status.sharing.problems[0].message) == 300
    assert (first.status.isolation, first.spec.gpus[0].pending) == (None, None)
    assert first.spec.gpus[0].problem is second.spec.gpus[0].problem
    assert (first.status.observed_pods, first.spec.gpus[0].uuid) == ("7", "GPU-1")
    assert reduced_node(GpuNode(ObjectMeta(name="node-1"))).status.sharing is None


def test_the_containers_of_a_workload_are_kept_once() -> None:
    def replica(name: str, units: str) -> Pod:
        limits: dict[str, str | int | float] = {"fracgpu.io/memory": units, "cpu": "1", "ephemeral-storage": "1Gi"}
        return Pod(ObjectMeta(name=name), PodSpec(containers=(Container("main", Resources(limits=limits)),)))

    first, second, third = (reduced(replica(name, units)) for name, units in (("a", "8"), ("b", "8"), ("c", "9")))
    assert first is not None
    assert second is not None
    assert third is not None
    assert first.containers[0] is second.containers[0]
    assert [pod.containers[0].limit("fracgpu.io/memory") for pod in (first, third)] == ["8", "9"]
    assert [first.containers[0].limit(name) for name in ("cpu", "ephemeral-storage")] == ["1", 0]
