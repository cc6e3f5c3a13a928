"""What people are shown of the cluster."""

import msgspec
import pytest

from extender.index import Index
from extender.ledger.claims import Claim, Entry
from extender.picture import NodePicture, Picture, node_picture, picture_of
from fracgpu.gpunodes import GpuNode, UsedMemory
from fracgpu.names import GpuUuid, NodeName, PodUid
from fracgpu.pods import PodCondition, PodStatus
from fracgpu.quantities import Mib
from tests.extender.builders import claim, gpu_node, grant, pod


def used(node: GpuNode, *amounts: tuple[str, str, int]) -> GpuNode:
    """The node with what its plugin measured: UID, GPU, MiB."""
    usage = tuple(UsedMemory(PodUid(uid), "main", GpuUuid(gpu), Mib(size)) for uid, gpu, size in amounts)
    return msgspec.structs.replace(node, status=msgspec.structs.replace(node.status, usage=usage))


def index_of(*nodes: GpuNode, claims: tuple[Claim, ...] = ()) -> Index:
    index = Index()
    for node in nodes:
        index.put_node(node)
    index.replace_claims({claim.uid: Entry(claim, 0) for claim in claims})
    return index


def drawn(index: Index, name: str = "node-1") -> NodePicture:
    return node_picture(index, index.nodes[NodeName(name)])


def test_a_gpu_shows_what_is_offered_taken_and_used_and_by_whom() -> None:
    node = used(gpu_node("node-1", "GPU-a", "GPU-b", grants=(grant("x", "GPU-a", units=8),)), ("x", "GPU-a", 1000))
    index = index_of(node, claims=(claim("x"), claim("y", gpu="GPU-b", units=10, state="binding")))

    first, second = drawn(index).gpus

    assert (first.offered, first.taken, first.used) == (80 * 512, 8 * 512, 1000)
    (share,) = first.pods
    assert (share.name, share.containers, share.taken, share.used, share.state) == (
        "x",
        ["main"],
        4096,
        1000,
        "granted",
    )
    assert (second.taken, second.used, second.pods[0].used, second.pods[0].state) == (5120, None, None, "binding")


def test_what_was_never_measured_is_unknown_rather_than_nothing() -> None:
    index = index_of(gpu_node("node-1", "GPU-a", "GPU-b"), claims=(claim("x"),))
    assert [gpu.used for gpu in drawn(index).gpus] == [None, None]
    measured = used(gpu_node("node-1", "GPU-a", "GPU-b"))
    assert [gpu.used for gpu in drawn(index_of(measured, claims=(claim("x"),))).gpus] == [None, 0]


def test_a_pod_that_is_being_deleted_still_shows_what_it_holds() -> None:
    index = index_of(gpu_node("node-1", "GPU-a", grants=(grant("x", "GPU-a", units=8),)), claims=(claim("x"),))
    index.set_ending(PodUid("x"), ending=True)
    gpu = drawn(index).gpus[0]
    assert (gpu.taken, gpu.pods[0].state) == (4096, "ending")


def test_a_grant_of_which_the_ledger_has_not_heard_counts() -> None:
    node = gpu_node("node-1", "GPU-a", grants=(grant("x", "GPU-a", units=8),))
    index = Index()
    index.put_node(node, granted={PodUid("x"): claim("x")})
    gpu = drawn(index).gpus[0]
    assert (gpu.taken, [share.name for share in gpu.pods]) == (4096, ["x"])


@pytest.mark.parametrize(
    ("node", "problem"),
    [
        (gpu_node("node-1", "GPU-a"), ""),
        (gpu_node("node-1", "GPU-a", unit=256), "counts memory in units of 256 MiB, and the cluster in units of 512"),
        (gpu_node("node-1", "GPU-a", observed=""), "has not said yet what is granted"),
    ],
)
def test_a_node_that_gets_no_pods_says_why(node: GpuNode, problem: str) -> None:
    found = drawn(index_of(node)).problem
    assert problem in found
    assert bool(problem) == bool(found)


def test_waiting_pods_have_their_reasons_and_those_on_their_way_do_not_wait() -> None:
    index = index_of(
        gpu_node("node-1", "GPU-a"), claims=(claim("binding", state="binding"), claim("held", state="held"))
    )
    said = PodStatus("Pending", conditions=(PodCondition("PodScheduled", "False", "Unschedulable", "0/1 nodes"),))
    large = msgspec.structs.replace(pod("large", units=79), status=said)
    pods = [large, pod("binding", units=8), pod("held", units=8), pod("placed", units=8, node="node-1"), pod("odd")]

    waiting = {found.name: found for found in picture_of(index, pods=pods).waiting}

    assert set(waiting) == {"large", "held", "odd"}
    assert waiting["large"].needs == "39.5 GiB on one GPU"
    assert "the largest free piece is 32 GiB" in waiting["large"].reason
    assert (waiting["large"].has_room, waiting["large"].scheduler_says) == (False, "0/1 nodes")
    assert (waiting["held"].has_room, waiting["held"].scheduler_says) == (True, "")
    assert waiting["odd"].reason == "asks for no GPU"


def test_a_place_in_a_large_cluster_is_told_by_some_names() -> None:
    index = index_of(*(gpu_node(f"node-{number:04}", f"GPU-{number}") for number in range(1000)))
    (waiting,) = picture_of(index, pods=[pod("x", units=8)]).waiting
    assert waiting.reason.endswith("node-0003, node-0004 and 995 other nodes")


def test_the_picture_reads_back_from_its_json() -> None:
    node = used(gpu_node("node-1", "GPU-a", grants=(grant("x", "GPU-a", units=8),)), ("x", "GPU-a", 1000))
    picture = picture_of(index_of(node, claims=(claim("x"),)), pods=[pod("large", units=79)])
    text = msgspec.json.encode(picture)
    assert msgspec.json.decode(text, type=Picture) == picture
    assert b'"memoryUnitMiB":512' in text
    assert b'"usedMiB":1000' in text


def test_the_index_tells_which_nodes_look_different() -> None:
    node = gpu_node("node-1", "GPU-a", grants=(grant("x", "GPU-a", units=8),))
    index = index_of(node, gpu_node("node-2", "GPU-b"))
    index.touched.clear()

    index.put_node(msgspec.structs.replace(node, status=msgspec.structs.replace(node.status, observed_pods="2")))
    assert index.touched == set(), "how far a plugin has come is not shown"

    index.put_node(used(node, ("x", "GPU-a", 7)), granted={PodUid("x"): claim("x")})
    assert index.touched == {"node-1"}
    index.touched.clear()

    index.change_claim(PodUid("y"), Entry(claim("y", node="node-2", gpu="GPU-b", state="held"), 0))
    index.change_claim(PodUid("y"), Entry(claim("y", node="node-2", gpu="GPU-b", state="bound"), 0))
    assert index.touched == {"node-2"}
    index.touched.clear()

    index.set_ending(PodUid("y"), ending=True)
    assert index.touched == {"node-2"}
