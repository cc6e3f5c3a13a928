"""Pictures of clusters, as the extender would draw them."""

import random
from collections.abc import Sequence

from extender.picture import GpuPicture, NodePicture, Picture, SharePicture, WaitingPicture
from fracgpu.names import GpuUuid, NodeName, PodUid
from fracgpu.quantities import Mib

MODELS = (("NVIDIA H100 80GB HBM3", 81559), ("NVIDIA A100-SXM4-40GB", 40960), ("NVIDIA L4", 23034), ("Tesla T4", 15360))


def share(
    name: str,
    gib: float,
    *,
    namespace: str = "team-a",
    used_gib: float | None = None,
    state: str = "granted",
    seats: int = 0,
    containers: Sequence[str] = ("main",),
) -> SharePicture:
    used = None if used_gib is None else Mib(int(used_gib * 1024))
    return SharePicture(
        namespace, name, PodUid(f"uid-{namespace}-{name}"), list(containers), Mib(int(gib * 1024)), seats, used, state
    )


def gpu(
    uuid: str,
    *pods: SharePicture,
    index: int = 0,
    product: str = "NVIDIA A100-SXM4-40GB",
    memory: int = 40960,
    problem: str = "",
) -> GpuPicture:
    used = [pod.used for pod in pods]
    return GpuPicture(
        GpuUuid(uuid),
        index,
        product,
        Mib(memory),
        Mib(memory // 512 * 512),
        Mib(sum(pod.taken for pod in pods)),
        None if None in used else Mib(sum(value or 0 for value in used)),
        4,
        sum(pod.seats for pod in pods),
        not problem,
        problem,
        list(pods),
    )


def node(name: str, *gpus: GpuPicture, problem: str = "") -> NodePicture:
    return NodePicture(NodeName(name), list(gpus), problem)


def waiting(
    name: str, *, namespace: str = "team-a", reason: str = "no node has room", says: str = "", has_room: bool = False
) -> WaitingPicture:
    uid = PodUid(f"uid-{namespace}-{name}")
    return WaitingPicture(namespace, name, uid, "4 GiB on one GPU", reason, has_room, "2026-01-05T10:00:00Z", says)


def picture(*nodes: NodePicture, waits: Sequence[WaitingPicture] = ()) -> Picture:
    return Picture(Mib(512), list(nodes), list(waits))


def large(nodes: int, *, gpus: int = 8, pods: int = 20_000, seed: int = 1) -> Picture:
    """A cluster of machines of four models, with pods of many sizes spread over it; the same for the same seed."""
    chance = random.Random(seed)
    shares: list[list[list[SharePicture]]] = [[[] for _ in range(gpus)] for _ in range(nodes)]
    left = [[MODELS[place % 4][1] // 512 * 512 for _ in range(gpus)] for place in range(nodes)]
    for number in range(pods):
        place, on = chance.randrange(nodes), chance.randrange(gpus)
        size = chance.choice((1, 2, 4, 4, 8, 8, 16, 24)) * 1024
        if size > left[place][on]:
            continue
        left[place][on] -= size
        team, kind = f"team-{chance.randrange(40):02}", chance.choice(("chat", "embed", "train", "vision", "asr"))
        name = f"{kind}-{number:05}"
        state = chance.choices(("granted", "bound", "ending"), (97, 2, 1))[0]
        used = size / 1024 * chance.uniform(0.2, 1.0) if state == "granted" else None
        shares[place][on].append(share(name, size / 1024, namespace=team, used_gib=used, state=state))
    drawn = []
    for place in range(nodes):
        product, memory = MODELS[place % 4]
        cards = [
            gpu(
                f"GPU-{place:08x}-0000-4000-8000-{on:012d}",
                *shares[place][on],
                index=on,
                product=product,
                memory=memory,
                problem="Xid 79: the GPU has fallen off the bus" if chance.random() < 0.0005 else "",
            )
            for on in range(gpus)
        ]
        drawn.append(node(f"gpu-{place:04}", *cards))
    waits = [waiting(f"job-{number}", namespace=f"team-{number % 40:02}") for number in range(120)]
    return picture(*drawn, waits=waits)
