"""filter and prioritize on an index: who fits, who is told why not, and when the scheduler shall simply ask again."""

import pytest

from extender.filtering import explain_pod, filter_nodes, prioritize_nodes
from extender.index import Index
from extender.ledger.claims import Claim, Entry
from fracgpu.errors import ConflictError, UnavailableError
from fracgpu.names import NodeName, PodUid
from tests.extender.builders import claim, gpu_node, pod

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
    assert [priority.score for priority in prioritize_nodes(make_index(), pod("p"), NAMES)] == [0, 0, 0]


def test_nothing_fits_is_not_said_while_a_node_that_offers_the_resource_is_unknown() -> None:
    with pytest.raises(UnavailableError, match="stranger has no GPUs known to fracgpu"):
        filter_nodes(make_index(), pod("p", units=81), NAMES)
    assert filter_nodes(make_index(), pod("p", units=81), NAMES[:2]).fitting == []


def test_a_contradictory_request_fails_everywhere_with_its_reason() -> None:
    found = filter_nodes(make_index(), pod("p", units=8, seats=1), NAMES[:2])
    assert found.fitting == []
    assert "both fracgpu.io/memory and fracgpu.io/replica" in found.unresolvable[NAMES[0]]


def test_every_candidate_is_scored_even_a_stranger() -> None:
    scores = {p.host: p.score for p in prioritize_nodes(make_index(), pod("p", units=8), NAMES)}
    assert scores == {"node-1": scores[NodeName("node-1")], "node-2": 10, "stranger": 0}
    assert 0 < scores[NodeName("node-1")] < 10


def test_a_pod_that_is_being_bound_goes_on_there_and_nowhere_else() -> None:
    index = make_index(claim("p", units=8, state="binding"))
    assert filter_nodes(index, pod("p", units=8), NAMES[:2]).fitting == ["node-1"]
    with pytest.raises(ConflictError, match="earlier binding"):
        filter_nodes(index, pod("p", units=8), NAMES[1:])


@pytest.mark.parametrize("why", ["binding", "ended"])
def test_where_only_passing_claims_stand_in_the_way_the_scheduler_shall_ask_again(why: str) -> None:
    index = make_index(claim("old", units=80, state="binding" if why == "binding" else "bound"))
    if why == "ended":
        assert filter_nodes(index, pod("p", units=80), NAMES[:2]).failed  # so far it is just full
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
