"""The end of a run: everything is put right, what fits must come to run, all is deleted, and nothing may be left.

What is left is told in words, one for each leak. The waits are for states of the world, under a deadline.
"""

import asyncio
import uuid
from collections.abc import Awaitable, Callable

from fracgpu.errors import UnavailableError
from fracgpu.names import NodeName
from playground.cluster import JsonObject
from tests.chaos.shapes import asks_of, scheduled_form
from tests.chaos.truth import SEATS
from tests.chaos.world import World

RIGHT_SECONDS = 60.0
"""For all processes to be up and ready again."""
QUIET_SECONDS = 45.0
"""For every pod that fits to run: holds and reservations pass, backoffs end."""
EMPTY_SECONDS = 45.0
"""For everything to be free after the last pod was deleted."""

_POLL_SECONDS = 0.2
_STABLE_POLLS = 5  # what is right must stay right for so long

_CLAIMS, _USED = "{fracgpu}:claims", "{fracgpu}:used"


async def end(world: World) -> list[str]:
    """End a run and return what is wrong then: processes that died, pods without a place, what was not given back."""
    died = [f"{process.name} died by itself; see {process.log}" for process in world.died()]
    try:
        async with asyncio.timeout(RIGHT_SECONDS):
            await world.put_right()
    except TimeoutError:
        unready = ", ".join(replica.name for replica in world.service.left_out()) or "a plugin"
        return [*died, f"{unready} was not ready again after {RIGHT_SECONDS:.0f} s"]
    problems = died + await _until_none(lambda: _restless(world), seconds=QUIET_SECONDS)
    problems += await _until_none(lambda: _disagreements(world), seconds=EMPTY_SECONDS)
    pods, _ = await world.api.cluster.list("pods")
    await world.delete([pod["metadata"]["name"] for pod in pods])
    return problems + await _until_none(lambda: leftovers(world), seconds=EMPTY_SECONDS)


async def _until_none(look: Callable[[], Awaitable[list[str]]], *, seconds: float) -> list[str]:
    """Look until nothing is found several times running; returns what was found last."""
    clock = asyncio.get_running_loop().time
    ends, clean, found = clock() + seconds, 0, [""]
    while clean < _STABLE_POLLS and clock() < ends:
        found = await look()
        clean = 0 if found else clean + 1
        await asyncio.sleep(_POLL_SECONDS)
    return found


async def _restless(world: World) -> list[str]:
    """Pods that should be running, or should be gone, and are not."""
    world.truth.check(when="all was put right")
    pods, _ = await world.api.cluster.list("pods")
    found = []
    for pod in pods:
        name, phase = pod["metadata"]["name"], pod["status"]["phase"]
        node = pod["spec"].get("nodeName")
        if pod["metadata"].get("deletionTimestamp"):
            found.append(f"pod {name} is still being deleted on {node}")
        elif phase == "Pending" and node:
            found.append(f"pod {name} does not start on {node}")
        elif phase == "Pending" and (roomy := world.truth.fits(asks_of(pod))):
            found.append(f"pod {name} waits though it fits on {roomy}: {_message(pod)}")
    return found


async def _disagreements(world: World) -> list[str]:
    """What ledger and GPUNodes say otherwise than the containers that live."""
    holders = {str(uid) for uid in world.truth.holders()}
    claims, _ = await _ledger(world)
    grants = await _grants(world)
    pods, _ = await world.api.cluster.list("pods")
    names = {pod["metadata"]["uid"]: pod["metadata"]["name"] for pod in pods}
    return [
        f"{names.get(uid, f'a pod that is gone ({uid})')} {what}"
        for what, uids in (
            ("holds a share that the ledger does not know", holders - claims.keys()),
            ("holds a share that no GPUNode lists", holders - grants),
            ("holds nothing, and has a claim in the ledger", claims.keys() - holders),
            ("holds nothing, and has a grant in a GPUNode", grants - holders),
        )
        for uid in sorted(uids)
    ]


async def leftovers(world: World) -> list[str]:
    """What is left after everything was deleted."""
    world.truth.check(when="everything was deleted")
    pods, _ = await world.api.cluster.list("pods")
    claims, used = await _ledger(world)
    found = [f"pod {pod['metadata']['name']} is still there" for pod in pods]
    found += [f"device IDs of pod {uid} are held on {node}" for uid, node in world.truth.holders().items()]
    found += [f"the ledger claims for pod {uid}: {claim}" for uid, claim in claims.items()]
    found += [f"the ledger says of {key} that {amount} are used" for key, amount in used.items()]
    found += [f"a GPUNode lists a grant of pod {uid}" for uid in await _grants(world)]
    return found or await _occupied(world)


async def _occupied(world: World) -> list[str]:
    """Nodes whose GPUs are not all free by the word of every extender."""
    by_count: dict[int, list[NodeName]] = {}
    for node in world.node_names:
        for count in range(1, world.gpu_count(node) + 1):
            by_count.setdefault(count, []).append(node)
    found = []
    for replica in world.replicas:
        for count, nodes in by_count.items():
            pod = scheduled_form("probe", uid=str(uuid.uuid4()), seats=SEATS, gpus=count)
            args: JsonObject = {"Pod": pod, "Nodes": None, "NodeNames": nodes}
            try:
                answer = await world.service.ask(replica, "filter", args)
            except UnavailableError as exc:
                found.append(str(exc))
                continue
            if set(answer["NodeNames"] or ()) != set(nodes):
                found.append(f"{replica.name} says that not all of {count} GPUs of {nodes} are free: {answer}")
    return found


async def _ledger(world: World) -> tuple[dict[str, str], dict[str, str]]:
    """Claims by pod UID, and used amounts by node and GPU, as Redis has them."""
    async with world.server.client() as redis:
        claims, used = await redis.hgetall(_CLAIMS), await redis.hgetall(_USED)
    return {str(k): str(v) for k, v in claims.items()}, {str(k): str(v) for k, v in used.items()}


async def _grants(world: World) -> set[str]:
    nodes, _ = await world.api.cluster.list("gpunodes")
    return {grant["podUID"] for node in nodes for grant in node.get("status", {}).get("grants", [])}


def _message(pod: JsonObject) -> str:
    """What the scheduler wrote onto a pod that waits."""
    conditions = pod["status"].get("conditions") or []
    return next((str(entry.get("message", "")) for entry in conditions if entry["type"] == "PodScheduled"), "")
