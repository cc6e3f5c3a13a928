"""Whose memory is whose."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from fracgpu.gpunodes import Grant
from fracgpu.names import GpuUuid, PodUid
from fracgpu.plans import Share
from fracgpu.pods import Pod
from plugin.usage.measuring import Excess, Owners, Usage, container_names, find_owners, measure
from tests.plugin.builders import A, B, make_gpu, make_spec

MIB = 2**20
UNIT_BYTES = 512 * MIB
ONE, TWO = PodUid("one"), PodUid("two")


def grant(uid: PodUid = ONE, **containers: tuple[Share, ...]) -> Grant:
    return Grant(uid, "team-a", f"pod-{uid}", containers)


def pod(uid: PodUid, *statuses: dict[str, Any], init: tuple[dict[str, Any], ...] = ()) -> Pod:
    return msgspec.convert(
        {
            "metadata": {"uid": uid},
            "status": {"containerStatuses": list(statuses), "initContainerStatuses": list(init)},
        },
        Pod,
    )


def status(name: str, container_id: str, state: str = "running") -> dict[str, Any]:
    return {"name": name, "containerID": container_id, "state": {state: {}}}


def table(usage: Usage) -> dict[tuple[str, str, str], tuple[int, int | None]]:
    """(pod, container, GPU) -> granted units, used MiB."""
    return {
        (one.uid, one.container, one.gpu): (
            one.granted_bytes // UNIT_BYTES,
            None if one.used_bytes is None else one.used_bytes // MIB,
        )
        for one in usage.containers
    }


def test_each_container_has_its_own_line() -> None:
    usage = measure(
        {A: [(10, 100 * MIB), (11, 20 * MIB), (12, 3 * MIB)], B: [(12, 7 * MIB)]},
        Owners({10: (ONE, "main"), 11: (ONE, "main"), 12: (ONE, "side")}),
        [grant(main=(Share(A, 2),), side=(Share(A, 1), Share(B, 4)))],
        spec=make_spec(),
    )
    assert table(usage) == {(ONE, "main", A): (2, 120), (ONE, "side", A): (1, 3), (ONE, "side", B): (4, 7)}
    assert (usage.unattributed, usage.excesses) == ({A: 0, B: 0}, {})
    assert {(one.namespace, one.pod) for one in usage.containers} == {("team-a", "pod-one")}


def test_other_programs_are_nobodys() -> None:
    usage = measure(
        {A: [(1, 300 * MIB), (2, 5 * MIB)], B: []},
        Owners({2: (TWO, "main")}),
        [grant(main=(Share(A, 2),))],
        spec=make_spec(),
    )
    assert table(usage) == {(ONE, "main", A): (2, 0)}
    assert usage.unattributed == {A: 305 * MIB, B: 0}, "also what a pod without a grant uses"


def test_a_container_that_is_not_known_by_name_still_counts_for_its_pod() -> None:
    usage = measure({A: [(10, 600 * MIB)]}, Owners({10: (ONE, "")}), [grant(main=(Share(A, 1),))], spec=make_spec())
    assert table(usage) == {(ONE, "main", A): (1, 0), (ONE, "", A): (0, 600)}
    assert usage.excesses == {ONE: (Excess(A, UNIT_BYTES, 600 * MIB),)}


@pytest.mark.parametrize(
    ("used", "want"),
    {
        "exactly what was granted": ({A: 512}, ()),
        "one MiB more": ({A: 513}, (A,)),
        "a GPU that was not granted at all": ({B: 1}, (B,)),
        "both": ({A: 600, B: 1}, (A, B)),
    }.values(),
)
def test_a_pod_is_above_its_grant(used: dict[GpuUuid, int], want: tuple[GpuUuid, ...]) -> None:
    processes = {gpu: [(10, used.get(gpu, 0) * MIB)] for gpu in (A, B)}
    usage = measure(processes, Owners({10: (ONE, "main")}), [grant(main=(Share(A, 1),))], spec=make_spec())
    assert tuple(excess.gpu for excess in usage.excesses.get(ONE, ())) == want


def test_what_one_container_leaves_another_may_use() -> None:
    usage = measure(
        {A: [(10, 900 * MIB)]},
        Owners({10: (ONE, "main")}),
        [grant(main=(Share(A, 1),), side=(Share(A, 1),))],
        spec=make_spec(),
    )
    assert usage.excesses == {}


def test_who_holds_a_whole_gpu_takes_from_nobody() -> None:
    spec = make_spec(make_gpu(A, units=44))  # of a GPU whose memory the unit does not divide
    owners, processes = Owners({10: (ONE, "main")}), {A: [(10, 44 * UNIT_BYTES + 400 * MIB)]}
    assert measure(processes, owners, [grant(main=(Share(A, 44),))], spec=spec).excesses == {}
    assert measure(processes, owners, [grant(main=(Share(A, 43),))], spec=spec).excesses.keys() == {ONE}


def test_what_nvml_does_not_tell_is_not_zero() -> None:
    usage = measure(
        {A: [(10, None), (11, 8 * MIB), (12, None)]},
        Owners({10: (ONE, "main"), 11: (ONE, "main")}),
        [grant(main=(Share(A, 1), Share(B, 1)))],
        spec=make_spec(),
    )
    assert table(usage) == {(ONE, "main", A): (1, None), (ONE, "main", B): (1, None)}
    assert usage.unattributed == {A: None, B: None}


def test_a_process_listed_twice_uses_its_memory_once() -> None:
    usage = measure(
        {A: [(10, 8 * MIB), (10, None), (10, 9 * MIB), (11, None), (11, 4 * MIB)]},
        Owners({10: (ONE, "main"), 11: (ONE, "main")}),
        [grant(main=(Share(A, 1),))],
        spec=make_spec(),
    )
    assert table(usage) == {(ONE, "main", A): (1, 13)}


def test_processes_that_cannot_be_seen_are_never_given_to_others() -> None:
    owners = find_owners(
        {ONE: {"": frozenset(), "a1": frozenset({0})}, TWO: {"b1": frozenset({20})}}, {}, {"b1": "main"}
    )
    assert owners.hidden == {ONE}
    usage = measure(
        {A: [(20, 8 * MIB), (10, 3000 * MIB)]},
        owners,
        [grant(main=(Share(A, 1),)), grant(TWO, main=(Share(A, 1),))],
        spec=make_spec(),
    )
    assert table(usage) == {(ONE, "main", A): (1, None), (TWO, "main", A): (1, 8)}
    assert (usage.unattributed[A], usage.excesses) == (None, {})


def test_a_running_container_without_any_process_is_one_that_cannot_be_seen() -> None:
    """With cgroup v1 the kernel leaves out processes of other PID namespaces."""
    found = {ONE: {"": frozenset[int](), "a1": frozenset[int]()}}
    assert find_owners(found, {ONE: pod(ONE, status("main", "containerd://a1"))}, {}).hidden == {ONE}
    assert find_owners(found, {ONE: pod(ONE, status("main", "docker://a1", "terminated"))}, {}).hidden == set()
    assert find_owners(found, {ONE: pod(ONE, status("main", "cri-o://a2"))}, {}).hidden == set(), "not started yet"


def test_owners_are_found_by_container_id() -> None:
    pods = {
        ONE: pod(
            ONE,
            status("main", "containerd://a1"),
            {"name": "waiting", "containerID": "", "state": {"waiting": {}}},
            init=(status("setup", "cri-o://a2", "terminated"),),
        ),
        TWO: pod(TWO, status("main", "docker://b1")),
    }
    names = container_names(pods.values())
    assert names == {"a1": "main", "a2": "setup", "b1": "main"}
    found = {
        ONE: {"": frozenset({9}), "a1": frozenset({10}), "a2": frozenset({11}), "a9": frozenset({12})},
        TWO: {"b1": frozenset({20, 21})},
    }
    assert find_owners(found, pods, names).pids == {
        9: (ONE, ""),
        10: (ONE, "main"),
        11: (ONE, "setup"),
        12: (ONE, ""),
        20: (TWO, "main"),
        21: (TWO, "main"),
    }
