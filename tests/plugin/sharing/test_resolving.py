"""Which of all that was said of a node's GPUs wins."""

import random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fracgpu.names import GpuUuid
from fracgpu.pods import ObjectMeta
from fracgpu.quantities import Mib
from fracgpu.sharing import GpuRule, LabelSelector, SharingPolicy, SharingSpec
from plugin.gpus.cards import Card, MigPlace
from plugin.sharing.resolving import resolve
from plugin.wishes import GpuWish, NodeWish

UNIT = Mib(512)
A100, T4, MIG = GpuUuid("GPU-a100"), GpuUuid("GPU-t4"), GpuUuid("MIG-1")
CARDS = (
    Card(A100, 0, "NVIDIA A100-SXM4-40GB", Mib(40960)),
    Card(T4, 1, "Tesla T4", Mib(15360)),
    Card(MIG, 2, "NVIDIA A100-SXM4-80GB MIG 1g.10gb", Mib(9728), mig=MigPlace(GpuUuid("GPU-parent"), 0, 7, 0)),
)
LABELS = {"pool": "a"}
POOL_A = {"matchLabels": {"pool": "a"}}


def policy(name: str, *, created: int = 1, **spec: Any) -> SharingPolicy:
    metadata = ObjectMeta(name=name, generation=3, creation_timestamp=f"2026-01-{created:02}T00:00:00Z")
    return SharingPolicy(metadata, msgspec.convert(spec, SharingSpec))


def rule(**spec: Any) -> SharingSpec:
    return msgspec.convert(spec, SharingSpec)


def resolved(*policies: SharingPolicy, **given: Any) -> NodeWish:
    said = {"labels": LABELS, "rules": (), "replicas": None, "reserved": None, "isolation": None, "unit": UNIT} | given
    return resolve(CARDS, policies=policies, **said)


def replicas(wish: NodeWish) -> dict[str, int]:
    return {uuid: gpu.replicas for uuid, gpu in wish.gpus.items()}


def test_without_a_word_the_defaults_hold() -> None:
    wish = resolved()

    assert wish == NodeWish({card.uuid: GpuWish(4, Mib(0)) for card in CARDS}, "auto")


PRECEDENCE: dict[str, tuple[dict[str, Any], int]] = {
    "the file over the default": ({"rules": [rule(replicas=2)]}, 2),
    "a flag over the file": ({"rules": [rule(gpus=[{"uuid": A100, "replicas": 2}])], "replicas": 3}, 3),
    "a policy over a flag": ({"policies": [policy("p", replicas=5)], "replicas": 3}, 5),
    "model over node": ({"policies": [policy("p", replicas=5, gpus=[{"model": "A100", "replicas": 6}])]}, 6),
    "UUID over model": (
        {"policies": [policy("p", gpus=[{"model": "A100", "replicas": 6}, {"uuid": A100, "replicas": 7}])]},
        7,
    ),
    "UUID without a selector over model with one": (
        {
            "policies": [
                policy("p", nodeSelector=POOL_A, gpus=[{"model": "A100", "replicas": 6}]),
                policy("q", created=2, gpus=[{"uuid": A100, "replicas": 7}]),
            ]
        },
        7,
    ),
    "a selector over none": (
        {"policies": [policy("p", replicas=5), policy("q", created=2, nodeSelector=POOL_A, replicas=6)]},
        6,
    ),
    "an empty selector selects nothing in particular": (
        {"policies": [policy("p", replicas=5), policy("q", created=2, nodeSelector={}, replicas=6)]},
        5,
    ),
    "a selector of other nodes says nothing": (
        {"policies": [policy("p", nodeSelector={"matchLabels": {"pool": "b"}}, replicas=5)]},
        4,
    ),
    "another field leaves this one open": ({"policies": [policy("p", reservedMiB=512)], "replicas": 3}, 3),
    "another GPU's UUID": ({"policies": [policy("p", gpus=[{"uuid": "GPU-elsewhere", "replicas": 6}])]}, 4),
    "an index, as NVIDIA's file has it": ({"rules": [SharingSpec(gpus=(GpuRule(uuid="0", replicas=6),))]}, 6),
}


@pytest.mark.parametrize("case", PRECEDENCE)
def test_the_more_specific_wins(case: str) -> None:
    said, want = PRECEDENCE[case]

    wish = resolved(*said.pop("policies", ()), **said)

    assert wish.gpus[A100].replicas == want


def test_a_rule_for_a_gpu_holds_for_its_instances_and_one_for_the_instance_wins() -> None:
    of_parent = policy("p", gpus=[{"model": "MIG", "replicas": 2}, {"uuid": "GPU-parent", "replicas": 3}])
    of_instance = policy("q", created=2, gpus=[{"uuid": MIG, "replicas": 5}])
    of_profile = policy("r", gpus=[{"model": "MIG 1g.10gb", "replicas": 6}])

    assert resolved(of_parent).gpus[MIG].replicas == 3
    assert resolved(of_parent, of_instance).gpus[MIG].replicas == 5
    assert resolved(of_profile).gpus[MIG].replicas == 6
    assert resolved(of_instance).gpus[A100].replicas == 4


def test_of_two_as_specific_the_older_wins_and_the_other_is_told() -> None:
    wish = resolved(policy("a-new", created=2, replicas=8), policy("b-old", created=1, replicas=2))

    assert replicas(wish) == dict.fromkeys((A100, T4, MIG), 2)
    (problem,) = wish.problems
    assert (problem.policy, problem.generation, problem.reason) == ("a-new", 3, "Conflict")
    assert problem.message.startswith(
        "replicas on GPU-a100, GPU-t4, MIG-1 is 8 here; SharingPolicy b-old says 2, is as specific and older, and wins"
    )
    assert wish.policies == ("b-old", "a-new")


def test_the_same_age_goes_by_name_and_the_same_value_is_no_conflict() -> None:
    assert resolved(policy("b", replicas=8), policy("a", replicas=2)).gpus[A100].replicas == 2
    assert resolved(policy("b", replicas=8), policy("a", replicas=8)).problems == ()


def test_two_rules_of_one_policy_may_disagree() -> None:
    wish = resolved(policy("p", gpus=[{"model": "A100", "replicas": 2}, {"model": "SXM4", "replicas": 3}]))

    assert wish.gpus[A100].replicas == 2
    assert "another rule of it says 2, is as specific and stands before it" in wish.problems[0].message


def test_in_the_file_the_first_rule_wins_with_a_sentence() -> None:
    wish = resolved(rules=[rule(isolation="mps"), rule(isolation="none")])

    assert (wish.isolation, wish.problems) == ("mps", ())
    assert wish.complaints[0].startswith(
        "sharing[1] of the file: isolation is none here; sharing[0] of the file says mps, is as specific and stands"
    )


def test_what_cannot_work_on_a_gpu_is_told_and_the_next_value_taken() -> None:
    wish = resolved(policy("p", replicas=64, reservedMiB=1024), replicas=6, rules=[rule(reservedMiB=99999)])

    assert wish.gpus == {
        A100: GpuWish(64, Mib(1024)),
        T4: GpuWish(6, Mib(1024)),
        MIG: GpuWish(6, Mib(1024)),
    }
    messages = sorted(problem.message for problem in wish.problems)
    assert {problem.reason for problem in wish.problems} == {"Invalid"}
    assert "replicas 64 cannot be on GPU-t4: it has 28 memory units, and each replica needs one" in messages[0]
    assert wish.complaints == ()


def test_more_reserved_than_there_is() -> None:
    wish = resolved(reserved=Mib(15000))

    assert {uuid: gpu.reserved for uuid, gpu in wish.gpus.items()} == {A100: 15000, T4: 0, MIG: 0}
    assert wish.complaints == (
        "flag or environment: reservedMiB 15000 cannot be on GPU-t4: of its 15360 MiB not one unit of 512 MiB would be "
        "left; what is less specific is taken there",
        "flag or environment: reservedMiB 15000 cannot be on MIG-1: of its 9728 MiB not one unit of 512 MiB would be "
        "left; what is less specific is taken there",
    )


def test_the_default_fits_itself_to_a_small_gpu_and_a_gpu_that_does_not_answer_is_no_mistake() -> None:
    cards = [Card(T4, 0, "Tesla T4", Mib(15360)), Card(A100, 1, "", Mib(0), problem="lost")]
    said: dict[str, Any] = {"labels": {}, "policies": (), "replicas": None, "reserved": None, "isolation": None}

    small = resolve(cards, rules=(), unit=Mib(8192), **said)
    asked = resolve(cards, rules=(rule(gpus=[{"uuid": A100, "replicas": 9, "reservedMiB": 9}]),), unit=UNIT, **said)

    assert small.gpus[T4].replicas == 1
    assert asked.gpus[A100] == GpuWish(9, Mib(9))
    assert asked.complaints == ()


def test_an_excluded_gpu_is_left_alone_and_nothing_else_is_said_of_it() -> None:
    excluding = policy("p", gpus=[{"model": "A100", "excluded": True, "replicas": 1000}])
    but_this = policy("q", gpus=[{"uuid": A100, "excluded": False}])

    assert [uuid for uuid, gpu in resolved(excluding).gpus.items() if gpu.excluded] == [A100, MIG]
    assert resolved(excluding).problems == ()
    assert not resolved(excluding, but_this).gpus[A100].excluded


def test_another_unit_is_told_and_the_rest_applies() -> None:
    wish = resolved(policy("p", memoryUnitMiB=1024, replicas=2), policy("q", created=2, memoryUnitMiB=512))

    assert wish.gpus[A100].replicas == 2
    assert [(problem.policy, problem.reason) for problem in wish.problems] == [("p", "UnitMismatch")]
    assert wish.policies == ("p", "q")


def test_isolation_goes_by_node() -> None:
    assert resolved(isolation="mps", rules=[rule(isolation="none")]).isolation == "mps"
    assert resolved(policy("p", isolation="auto"), isolation="mps").isolation == "auto"


def test_only_policies_that_say_something_here_are_followed_the_most_specific_first() -> None:
    wish = resolved(
        policy("whole", replicas=4),
        policy("pool", nodeSelector=POOL_A, replicas=4),
        policy("model", gpus=[{"model": "T4", "replicas": 4}]),
        policy("uuid", gpus=[{"uuid": T4, "replicas": 4}]),
        policy("elsewhere", gpus=[{"uuid": "GPU-x", "replicas": 4}]),
        policy("empty"),
        policy("other-pool", nodeSelector={"matchLabels": {"pool": "b"}}, replicas=4),
    )

    assert wish.policies == ("uuid", "model", "pool", "whole")


def test_what_is_told_is_bounded() -> None:
    policies = [policy(f"{place:03}" + "x" * 250, replicas=1 + place, isolation="mps") for place in range(300)]
    many = [rule(gpus=[{"model": "T4", "replicas": 100 + place} for place in range(64)])]

    wish = resolved(*policies, rules=many)
    by_file = resolved(rules=many)

    assert (len(wish.problems), len(wish.policies), len(by_file.complaints)) == (64, 256, 64)
    assert all(len(problem.message) <= 1024 for problem in wish.problems)


# --- properties

SELECTORS = st.sampled_from([None, {}, POOL_A, {"matchLabels": {"pool": "b"}}])
REPLICAS = st.sampled_from([None, 1, 2, 8, 40])
RESERVED = st.sampled_from([None, 0, 1024, 12000])
RULES = st.builds(
    lambda name, **values: dict([name]) | values,
    st.sampled_from([("model", "A100"), ("model", "T4"), ("uuid", A100), ("uuid", "GPU-parent"), ("uuid", MIG)]),
    replicas=REPLICAS,
    reservedMiB=RESERVED,
    excluded=st.sampled_from([None, True, False]),
)
SPECS = st.fixed_dictionaries(
    {
        "nodeSelector": SELECTORS,
        "replicas": REPLICAS,
        "reservedMiB": RESERVED,
        "isolation": st.sampled_from([None, "mps", "none"]),
        "memoryUnitMiB": st.sampled_from([None, 512, 1024]),
        "gpus": st.lists(RULES, max_size=3),
    }
)
POLICIES = st.lists(st.tuples(st.integers(1, 3), SPECS), max_size=5).map(
    lambda made: [policy(f"p{place}", created=created, **spec) for place, (created, spec) in enumerate(made)]
)
FILES = st.lists(SPECS.map(lambda spec: rule(**spec)), max_size=3)


@given(POLICIES, FILES, REPLICAS, st.randoms(use_true_random=False))
def test_the_order_of_policies_and_gpus_does_not_matter(
    policies: list[SharingPolicy], rules: list[SharingSpec], flag: int | None, chance: random.Random
) -> None:
    said: dict[str, Any] = {"labels": LABELS, "rules": rules, "replicas": flag, "reserved": None, "isolation": None}
    shuffled, cards = list(policies), list(CARDS)
    chance.shuffle(shuffled)
    chance.shuffle(cards)

    assert resolve(CARDS, policies=policies, unit=UNIT, **said) == resolve(cards, policies=shuffled, unit=UNIT, **said)


@given(POLICIES, FILES, REPLICAS)
def test_the_uuid_in_a_selecting_policy_always_wins(
    policies: list[SharingPolicy], rules: list[SharingSpec], flag: int | None
) -> None:
    """Its age is older than all: nothing is as specific and before it."""
    rule = {"uuid": T4, "replicas": 3, "reservedMiB": 256, "excluded": False}
    closest = policy("0", created=1, nodeSelector=POOL_A, gpus=[rule])

    wish = resolved(*policies, closest, rules=rules, replicas=flag)

    assert wish.gpus[T4] == GpuWish(3, Mib(256))
    assert "0" in wish.policies
    assert all(problem.policy != "0" for problem in wish.problems)


@given(POLICIES, FILES, REPLICAS)
def test_every_wish_can_be_followed_and_every_value_was_said(
    policies: list[SharingPolicy], rules: list[SharingSpec], flag: int | None
) -> None:
    wish = resolved(*policies, rules=rules, replicas=flag)

    for card in CARDS:
        gpu = wish.gpus[card.uuid]
        assert 1 <= gpu.replicas <= (card.memory - gpu.reserved) // UNIT
        assert gpu.replicas in {4, flag, *(value for value in (1, 2, 8, 40))}
    assert {problem.policy for problem in wish.problems} <= {known.metadata.name for known in policies}
    applies = {known.metadata.name for known in policies if selects(known.spec.node_selector)}
    assert {*wish.policies, *(problem.policy for problem in wish.problems)} <= applies


def selects(selector: LabelSelector | None) -> bool:
    return selector is None or selector.matches(LABELS)
