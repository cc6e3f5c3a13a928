"""filter and prioritize on an index: who fits, who is told why not, and when the scheduler shall simply ask again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extender.filtering import BehindError, explain_pod, filter_nodes, hold_for, prioritize_nodes
from extender.index import Index, Nomination
from extender.ledger.claims import Claim, ClaimState, Entry
from fracgpu.errors import ConflictError
from fracgpu.names import GpuUuid, NodeName, PodUid
from fracgpu.plans import Plan, Share
from fracgpu.pods import Pod
from tests.extender.builders import UNIT, claim, gpu_node, pod, request

GPU_A = GpuUuid("GPU-a")
NAMES = [NodeName("node-1"), NodeName("node-2"), NodeName("stranger")]


def make_index(*claims: Claim) -> Index:
    index = Index()
    index.put_node(gpu_node("node-1", "GPU-a"))
    index.put_node(gpu_node("node-2", "GPU-b", units=40))
    index.replace_claims({found.uid: Entry(found, 0) for found in claims})
    return index


def test_candidates_are_sorted_out_with_numbers() -> None:
    found = filter_nodes(make_index(claim("old", units=60)), pod("p", units=30), NAMES)
    assert found.fitting == ["node-2"]
    assert found.failed == {"node-1": "needs 15 GiB on one GPU; the largest free piece is 10 GiB"}
    assert list(found.unresolvable) == ["stranger"]


def test_a_node_too_small_for_good_is_no_candidate_for_preemption() -> None:
    found = filter_nodes(make_index(), pod("p", units=60), NAMES)
    assert found.fitting == ["node-1"]
    assert "largest free piece is 20 GiB" in found.unresolvable[NodeName("node-2")]


def test_pods_without_gpu_pass_and_score_nothing() -> None:
    assert filter_nodes(make_index(), pod("p"), NAMES).fitting == NAMES
    assert [priority.score for priority in prioritize_nodes(make_index(), pod("p"), NAMES).scores] == [0, 0, 0]


def test_nothing_fits_is_not_said_while_a_node_that_offers_the_resource_is_unknown() -> None:
    wide = pod("p", units=70)
    with pytest.raises(BehindError, match="stranger has no GPUs known to fracgpu"):
        filter_nodes(make_index(claim("old", units=10, gpu="GPU-x")), wide, NAMES[2:])
    assert list(filter_nodes(make_index(), wide, NAMES[2:], may_be_behind=False).unresolvable) == ["stranger"]
    assert filter_nodes(make_index(), pod("p", units=81), NAMES[:2]).fitting == []


def test_a_contradictory_request_fails_everywhere_with_its_reason() -> None:
    found = filter_nodes(make_index(), pod("p", units=8, seats=1), NAMES[:2])
    assert found.fitting == []
    assert "both fracgpu.io/memory and fracgpu.io/replica" in found.unresolvable[NAMES[0]]


def test_every_candidate_is_scored_even_a_stranger() -> None:
    scores = {p.host: p.score for p in prioritize_nodes(make_index(), pod("p", units=8), NAMES).scores}
    assert scores == {"node-1": scores[NodeName("node-1")], "node-2": 10, "stranger": 0}
    assert 0 < scores[NodeName("node-1")] < 10


def test_a_pod_that_is_being_bound_goes_on_there_and_nowhere_else() -> None:
    index = make_index(claim("p", units=8, state="binding"))
    assert filter_nodes(index, pod("p", units=8), NAMES[:2]).fitting == ["node-1"]
    with pytest.raises(ConflictError, match="earlier binding"):
        filter_nodes(index, pod("p", units=8), NAMES[1:])


@pytest.mark.parametrize("why", ["held", "binding", "ended"])
def test_where_only_passing_claims_stand_in_the_way_the_scheduler_shall_ask_again(why: str) -> None:
    index = make_index(claim("old", units=80, state="bound" if why == "ended" else why))
    if why == "ended":
        with pytest.raises(BehindError):  # full by all we know: kube-scheduler would not send it
            filter_nodes(index, pod("p", units=80), NAMES[:2])
        assert filter_nodes(index, pod("p", units=80), NAMES[:2], may_be_behind=False).failed
        index.set_ending(PodUid("old"), ending=True)
    with pytest.raises(ConflictError, match="team-a/old"):
        filter_nodes(index, pod("p", units=80), NAMES)
    assert filter_nodes(index, pod("p", units=40), NAMES).fitting == ["node-2"]


def test_claims_of_a_node_that_went_away_and_came_back_still_count() -> None:
    index = make_index(claim("old", units=80))
    index.remove_node(NodeName("node-1"))
    assert index.view(NodeName("node-1")) is None
    index.put_node(gpu_node("node-1", "GPU-a"))
    view = index.view(NodeName("node-1"))
    assert view is not None
    assert view.pieces == (0,)


def test_an_explanation_names_place_or_reason() -> None:
    index = make_index(claim("old", units=60))
    assert explain_pod(index, pod("old", units=60)).reason == "bound to node-1"
    assert "largest free piece is 20 GiB, on node-2" in explain_pod(index, pod("p", units=50)).reason
    assert explain_pod(index, pod("p")).reason == "asks for no GPU"
    assert explain_pod(index, pod("p", units=40)).room_on == ("node-2",)


def test_a_gpunode_made_anew_offers_nothing_before_its_plugin_has_said_what_is_granted() -> None:
    index = Index()
    index.put_node(gpu_node("node-1", "GPU-a", observed=""))
    assert filter_nodes(index, pod("p", units=8), NAMES[:1]).fitting == []
    index.put_node(gpu_node("node-1", "GPU-a"))
    assert filter_nodes(index, pod("p", units=8), NAMES[:1]).fitting == ["node-1"]


def test_the_best_node_is_held_and_its_own_hold_is_not_in_a_pods_way() -> None:
    index = make_index(claim("old", units=72))
    best = prioritize_nodes(index, pod("p", units=8), NAMES).best
    assert best == "node-1"
    held = hold_for(index, pod("p", units=8), best)
    assert held == claim("p", units=8, state="held")
    index.change_claim(held.uid, Entry(held, 99))

    assert filter_nodes(index, pod("p", units=8), NAMES[:2]).fitting == ["node-1", "node-2"]
    assert prioritize_nodes(index, pod("p", units=8), NAMES).best == "node-1"
    assert filter_nodes(index, pod("q", units=8), NAMES[:2]).fitting == ["node-2"]
    assert prioritize_nodes(index, pod("q", units=8), NAMES).best == "node-2"


def test_nothing_is_held_where_a_pod_has_no_place_or_more_than_a_hold() -> None:
    index = make_index(claim("old", units=80), claim("p", gpu="GPU-b", node="node-2", state="binding"))
    assert hold_for(index, pod("q", units=8), NodeName("node-1")) is None
    assert hold_for(index, pod("p", units=8), NodeName("node-2")) is None
    assert hold_for(index, pod("q"), NodeName("node-2")) is None
    assert hold_for(index, pod("q", units=8), NodeName("stranger")) is None


def test_what_evicted_pods_free_is_for_the_pod_they_were_evicted_for() -> None:
    index = make_index(claim("victim", units=80))
    index.set_ending(PodUid("victim"), ending=True)
    index.set_nominated(PodUid("vip"), Nomination(NodeName("node-1"), 100, request(60)))
    low, high = pod("low", units=30), pod("higher", units=30, priority=101)

    index.change_claim(PodUid("victim"), None)  # its process has ended
    assert filter_nodes(index, pod("vip", units=60, priority=100), NAMES[:1]).fitting == ["node-1"]
    assert filter_nodes(index, low, NAMES[:1]).fitting == []
    assert filter_nodes(index, pod("small", units=20), NAMES[:1]).fitting == ["node-1"]
    assert prioritize_nodes(index, low, NAMES[:1]).best is None
    assert filter_nodes(index, high, NAMES[:1]).fitting == ["node-1"]

    index.set_nominated(PodUid("vip"), None)
    assert filter_nodes(index, low, NAMES[:1]).fitting == ["node-1"]


def test_before_the_evicted_have_ended_nobody_is_told_to_come_back_for_the_nominated_share() -> None:
    index = make_index(claim("victim", units=80))
    index.set_ending(PodUid("victim"), ending=True)
    index.set_nominated(PodUid("vip"), Nomination(NodeName("node-1"), 100, request(60)))
    assert filter_nodes(index, pod("low", units=30), NAMES[:1]).fitting == []  # no error: it is not coming free for it
    with pytest.raises(ConflictError, match="team-a/victim"):
        filter_nodes(index, pod("vip", units=60, priority=100), NAMES[:1])


def test_a_candidate_whose_sum_cannot_do_by_what_we_know_shows_that_the_scheduler_knows_more() -> None:
    """It has seen a pod end of which we are yet to hear: the pod would wait for an event that has been already."""
    index = make_index(claim("a", units=41), claim("b", node="node-2", gpu="GPU-b", units=5))
    with pytest.raises(BehindError, match="room on node-1"):
        filter_nodes(index, pod("p", units=40), NAMES[:2])
    assert filter_nodes(index, pod("p", units=39), NAMES[:2]).fitting == ["node-1"]
    # Shares of seats take units that kube-scheduler does not count: such a node is no news.
    seats = Claim(PodUid("s"), "team-a", "s", NAMES[0], ClaimState.BOUND, Plan(UNIT, {"m": (Share(GPU_A, 39, 2),)}))
    index.change_claim(PodUid("s"), Entry(seats, 0))
    assert filter_nodes(index, pod("p", units=39), NAMES[:1]).failed
    with pytest.raises(BehindError):
        filter_nodes(index, pod("p", seats=3), NAMES[:1])


def test_a_node_that_counts_in_another_unit_is_not_used() -> None:
    index = make_index()
    index.put_node(gpu_node("node-1", "GPU-a", unit=256))
    found = filter_nodes(index, pod("p", units=8), NAMES[:2])
    assert found.fitting == ["node-2"]
    assert "units of 256 MiB, while this cluster counts in 512 MiB" in found.unresolvable[NodeName("node-1")]
    assert [p.score for p in prioritize_nodes(index, pod("p", units=8), NAMES[:2]).scores] == [0, 10]


@given(data=st.data())
def test_kept_verdicts_are_those_of_a_fresh_index(data: st.DataObject) -> None:
    """Whatever changes, and whatever was asked before: an answer from what was kept is the answer."""
    kinds = [pod(f"kind-{n}", units=n) for n in (1, 8, 40)] + [pod("seats", seats=2)]
    index = make_index()
    for step in range(data.draw(st.integers(1, 12))):
        uid = PodUid(f"c{data.draw(st.integers(0, 3))}")
        if data.draw(st.booleans()):
            node = data.draw(st.sampled_from(["node-1", "node-2"]))
            state = data.draw(st.sampled_from(["held", "bound"]))
            units = data.draw(st.integers(1, 60))
            found = claim(uid, node=node, gpu="GPU-a" if node == "node-1" else "GPU-b", units=units, state=state)
            index.change_claim(uid, Entry(found, step))
        else:
            index.change_claim(uid, None)
        if data.draw(st.booleans()):
            index.put_node(gpu_node("node-2", "GPU-b", units=data.draw(st.integers(30, 50))))
        fresh = Index()
        for known in index.nodes.values():
            fresh.put_node(known)
        fresh.replace_claims(index.entries)
        for kind in kinds:
            assert prioritize_nodes(index, kind, NAMES) == prioritize_nodes(fresh, kind, NAMES)
            assert outcome(index, kind) == outcome(fresh, kind)


def outcome(index: Index, found: Pod) -> object:
    try:
        return filter_nodes(index, found, NAMES[:2])
    except ConflictError as exc:
        return str(exc)
