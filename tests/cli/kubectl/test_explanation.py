"""Why a pod waits, or where it is: the values, and exactly what a person reads."""

import msgspec
import pytest

from cli.kubectl.explainview import draw
from cli.kubectl.explanation import Explained, explain_pod
from cli.kubectl.printing import plain
from fracgpu.names import GpuUuid
from fracgpu.nodes import Node, NodeStatus
from fracgpu.plans import Plan, Share
from fracgpu.pods import ObjectMeta, Pod, PodStatus
from tests.cli.kubectl.clusters import UNIT, cluster, created, deleted, gpu, node, placed, waiting
from tests.extender.builders import pod

TWO_NODES = (
    node("node-1", gpu("GPU-1"), gpu("GPU-1b", index=1, problem="Xid 79"), held={"big": ("GPU-1", 60)}),
    node("node-2", gpu("GPU-2", units=30, product="NVIDIA L4"), held={"other": ("GPU-2", 4)}),
    placed("big", "node-1", "GPU-1", units=60),
    placed("other", "node-2", "GPU-2", units=4),
)


def told(*objects: object, about: Pod, every_node: bool = False) -> str:
    found = cluster(*objects, about)  # type: ignore[arg-type]
    return plain(draw(explain_pod(found, about), every_node=every_node))


def test_a_waiting_pod_is_explained_gpu_by_gpu() -> None:
    says = "0/2 nodes are available: 2 Insufficient fracgpu.io/memory."

    assert told(*TWO_NODES, about=waiting("chat", units=40, says=says)) == (
        "team-a/chat waits: needs 20 GiB on one GPU; the largest free piece is 13 GiB, on node-2\n"
        "\n"
        "NODE    GPU  MODEL                    FREE      OF        SEATS  WHY\n"
        "node-1  0    NVIDIA A100-SXM4-40GB  10 GiB  40 GiB  4 of 4 free  10 GiB free, 10 GiB too little\n"
        "        1    NVIDIA A100-SXM4-40GB  40 GiB  40 GiB  4 of 4 free  is not healthy: Xid 79\n"
        "node-2  0    NVIDIA L4              13 GiB  15 GiB  4 of 4 free  has 15 GiB in all\n"
        "\n"
        "The scheduler says: 0/2 nodes are available: 2 Insufficient fracgpu.io/memory.\n"
        "\n"
        "What would help, the nearest first:\n"
        "  1. asking 7 GiB less (13 GiB instead of 20 GiB) would fit now, on node-2\n"
        "  2. the end of team-a/big (30 GiB of GPU 0) on node-1 would make room; 10 GiB more would do\n"
        "  3. there would be room on node-1 if all its GPUs were healthy; not healthy: GPU 1 (Xid 79)\n"
        "  4. another node like node-1 (2 × NVIDIA A100-SXM4-40GB with 40 GiB) would have room\n"
    )


def test_a_pod_that_has_what_it_asked_for() -> None:
    objects = (
        node("node-1", gpu("GPU-1"), held={"chat": ("GPU-1", 40), "b": ("GPU-1", 8)}, used={"chat": 12345, "b": 0}),
        placed("b", "node-1", "GPU-1", units=8),
    )
    about = placed("chat", "node-1", "GPU-1", units=40)

    assert told(*objects, about=about) == (
        "team-a/chat has 20 GiB on GPU 0 (NVIDIA A100-SXM4-40GB) of node-1\n"
        "\n"
        "NODE    GPU  MODEL                  CONTAINERS  USED       GRANTED  SEATS  OF THE GPU\n"
        "node-1  0    NVIDIA A100-SXM4-40GB  main        12.06 GiB  20 GiB   -      24 GiB of 40 GiB granted in all\n"
        "\n"
        "- plan, limits and grant agree: it has what it asked for, where it was planned\n"
    )


def explained(*objects: object, about: Pod) -> Explained:
    return explain_pod(cluster(*objects, about), about)  # type: ignore[arg-type]


def test_room_on_a_gpu_leaves_the_word_to_the_scheduler() -> None:
    says = "0/1 nodes are available: 1 node(s) had untolerated taint {gpu: true}."

    found = explained(node("node-1", gpu("GPU-1")), about=waiting("chat", units=40, says=says))

    assert found.summary == "waits: needs 20 GiB on one GPU; there is room on node-1"
    assert found.scheduler_says == says
    assert found.remedies == []
    assert found.notes == [
        "GPUs on node-1 have room, so what the scheduler says is what keeps it away, or it is about to be tried"
    ]


def test_a_pod_that_no_scheduler_has_tried_asks_whether_there_is_one() -> None:
    about = waiting("chat", units=40)
    about = msgspec.structs.replace(about, spec=msgspec.structs.replace(about.spec, scheduler_name="fracgpu-scheduler"))

    (note,) = explained(node("node-1", gpu("GPU-1")), about=about).notes

    assert note == (
        "no scheduler has tried it yet; it is for 'fracgpu-scheduler': is that running (kubectl fracgpu doctor)?"
    )


def test_a_gpu_with_room_on_a_node_without_cpu_does_not_help() -> None:
    host = Node(ObjectMeta(name="node-1"), NodeStatus(allocatable={"cpu": "2", "memory": "8Gi"}))
    about = waiting("chat", units=40, says="1 Insufficient cpu")
    limits = about.spec.containers[0].resources if about.spec.containers else None
    assert limits is not None
    asking = msgspec.structs.replace(limits, requests={"cpu": "3"})
    container = msgspec.structs.replace(about.spec.containers[0], resources=asking)  # type: ignore[index]
    about = msgspec.structs.replace(about, spec=msgspec.structs.replace(about.spec, containers=(container,)))

    found = explained(node("node-1", gpu("GPU-1")), host, about=about)

    assert found.summary == ("waits: needs 20 GiB on one GPU; there is room on node-1, but not with 3 CPUs free there")


def test_a_node_that_is_not_used_says_why() -> None:
    objects = (node("node-1", gpu("GPU-1", units=10)), node("node-2", gpu("GPU-2"), unit=256))

    found = told(*objects, about=waiting("chat", units=40))

    assert found.splitlines()[4:8] == [
        "NODE    GPU  MODEL                    FREE      OF        SEATS  WHY",
        "node-1  0    NVIDIA A100-SXM4-40GB   5 GiB   5 GiB  4 of 4 free  has 5 GiB in all",
        "node-2  0    NVIDIA A100-SXM4-40GB  20 GiB  20 GiB  4 of 4 free  the node is not used",
        "node-2 is not used: counts memory in units of 256 MiB, and the cluster in units of 512; "
        "give its device plugin the same --memory-unit-mib",
    ]


def test_a_plan_that_the_kubelet_did_not_keep_to_is_told() -> None:
    objects = (node("node-1", gpu("GPU-1"), gpu("GPU-2", index=1), held={"chat": ("GPU-2", 40)}),)

    found = explained(*objects, about=placed("chat", "node-1", "GPU-1", units=40))

    assert found.state == "granted"
    assert found.notes == [
        "it was to get 20 GiB on GPU 0 (NVIDIA A100-SXM4-40GB) of node-1, and the kubelet gave 20 GiB on "
        "GPU 1 (NVIDIA A100-SXM4-40GB) of node-1"
    ]


@pytest.mark.parametrize(
    ("about", "want_state", "want"),
    [
        (
            placed("chat", "node-1", "GPU-1", units=40, phase="Pending"),
            "bound",
            "is bound, for 20 GiB on GPU 0 (NVIDIA A100-SXM4-40GB) of node-1; the kubelet has not given it that yet",
        ),
        (
            deleted(placed("chat", "node-1", "GPU-1", units=40)),
            "ending",
            "is ending on node-1; what it holds is free when its processes have ended",
        ),
        (placed("chat", "node-1", "GPU-1", units=40, phase="Succeeded"), "ended", "has ended on node-1"),
        (created(pod("chat")), "no-gpu", "asks for no GPU"),
        (
            created(pod("chat", annotations={"fracgpu.io/gpu-memory": "4Gi"})),
            "unread",
            "waits, and would get no GPU: it asks by annotation, and nobody has turned that into limits",
        ),
        (placed("chat", "node-9", "GPU-1", units=40), "bound", "is on node-9, which has no GPUs known to fracgpu"),
        (
            created(pod("chat", units=8, annotations={"fracgpu.io/gpu-count": "3"})),
            "waiting",
            "container 'main' has the limit fracgpu.io/memory: 8, which cannot be split evenly over 3 GPUs",
        ),
    ],
)
def test_each_state_has_its_sentence(about: Pod, want_state: str, want: str) -> None:
    found = explained(node("node-1", gpu("GPU-1")), about=about)

    assert (found.state, found.summary[: len(want)]) == (want_state, want)


def test_a_pod_that_the_kubelet_refused_says_by_what_sentence() -> None:
    refused = placed("chat", "node-1", "GPU-1", units=40)
    status = PodStatus("Failed", reason="UnexpectedAdmissionError", message="Allocate failed: GPU 0 has 2 GiB free")

    found = explained(node("node-1", gpu("GPU-1")), about=msgspec.structs.replace(refused, status=status))

    assert (found.state, found.summary) == (
        "failed",
        "failed, and is not tried again: Allocate failed: GPU 0 has 2 GiB free",
    )
    assert "the kubelet refused it" in found.notes[0]


def test_more_in_use_than_granted_and_an_overdrawn_gpu_are_told() -> None:
    held = {"chat": ("GPU-1", 40), "b": ("GPU-1", 60)}
    objects = (
        node("node-1", gpu("GPU-1"), held=held, used={"chat": 21504}),
        placed("b", "node-1", "GPU-1", units=60),
    )

    found = explained(*objects, about=placed("chat", "node-1", "GPU-1", units=40))

    assert found.notes[1:] == [
        "it uses 1 GiB more of GPU 0 than it was granted; others there may run out of memory",
        "GPU 0 is overdrawn by 10 GiB: more is given away of it than it offers",
    ]


def test_a_pod_with_several_gpus_has_a_line_for_each() -> None:
    shares = (Share(GpuUuid("GPU-1"), 40), Share(GpuUuid("GPU-2"), 40))
    plan = Plan(UNIT, {"main": shares})
    annotations = {"fracgpu.io/gpu-count": "2"}
    about = created(pod("chat", units=80, node="node-1", plan=plan, annotations=annotations, phase="Pending"))

    found = explained(node("node-1", gpu("GPU-1"), gpu("GPU-2", index=1)), about=about)

    assert found.needs == "20 GiB on each of 2 GPUs"
    assert [(place.index, place.taken) for place in found.places] == [(0, 20480), (1, 20480)]


def test_of_many_nodes_the_nearest_are_shown() -> None:
    nodes = [node(f"node-{n:02}", gpu(f"GPU-{n}", units=10 + n)) for n in range(15)]
    about = waiting("chat", units=40)

    lines = told(*nodes, about=about).splitlines()

    assert sum(line.startswith("node-") for line in lines) == 10
    assert next(line for line in lines if line.startswith("node-")).startswith("node-14")
    assert "… and 5 more nodes; -o wide shows them all" in lines
    assert sum(line.startswith("node-") for line in told(*nodes, about=about, every_node=True).splitlines()) == 15


def test_programs_get_it_in_json() -> None:
    found = msgspec.to_builtins(explained(*TWO_NODES, about=waiting("chat", units=40)))

    assert found["state"] == "waiting"
    assert found["nodes"][0]["gpus"][0] == {
        "index": 0,
        "uuid": "GPU-1",
        "product": "NVIDIA A100-SXM4-40GB",
        "freeMiB": 10240,
        "offeredMiB": 40960,
        "freeSeats": 4,
        "seats": 4,
        "roomFor": [],
        "missingMiB": 10240,
        "problem": "10 GiB free, 10 GiB too little",
    }
    assert found["remedies"][1]["pods"] == ["team-a/big"]


@pytest.mark.parametrize(
    ("says", "what"),
    [
        (
            'Post "https://fracgpu-extender.fracgpu-system.svc:8080/filter": dial tcp 10.0.0.9:8080: refused',
            "the extender does not answer",
        ),
        (
            'binding rejected: Post "https://fracgpu-extender:8080/bind": context deadline exceeded',
            "the extender does not answer",
        ),
        ("Redis does not answer (Error 111 connecting to redis:6379)", "Redis does not answer"),
        (
            "failed filter with extender at URL https://fracgpu-extender:8080/filter, code 403",
            "the extender answers the scheduler with an error",
        ),
    ],
)
@pytest.mark.parametrize("units", [40, 70])
def test_an_outage_that_the_scheduler_tells_of_comes_first(says: str, what: str, units: int) -> None:
    """Whether there would be room or not."""
    objects = (
        node("node-1", gpu("GPU-1"), held={"big": ("GPU-1", 20)}),
        placed("big", "node-1", "GPU-1", units=20),
    )

    first, *others = explained(*objects, about=waiting("chat", units=units, says=says)).remedies

    assert first.sentence == f"{what}: kubectl fracgpu doctor says what is wrong"
    assert bool(others) == (units == 70)
