"""The kubelet's recorded calls, replayed at the plugin over gRPC, and what it then asked of the container runtime.

The recorded plugin named its devices ``GPU-b/m/17``; here they are fracgpu's own names of the same devices. The
recorded pods bypassed the extender, as these do.
"""

import json
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio

from fracgpu.kubelet import deviceplugin_pb2 as pb
from fracgpu.kubelet.deviceplugin_pb2_grpc import DevicePluginStub
from fracgpu.names import RESOURCE_MEMORY
from fracgpu.plans import Share
from plugin.kubelet.service import DevicePluginService, PluginServer
from plugin.metrics import Metrics
from tests.plugin.builders import B, listed, make_gpu, make_pod, make_spec, units
from tests.plugin.test_desk import World
from tests.plugin.test_service import allocation, preference

WIRE = Path(__file__).parents[1] / "wire"
CALLS = [json.loads(line) for line in (WIRE / "kubelet-device-plugin-calls.jsonl").read_text().splitlines()]
SPEC = make_spec(make_gpu(B, units=640))


@asynccontextmanager
async def plugin_for(world: World) -> AsyncIterator[Any]:
    service = DevicePluginService(RESOURCE_MEMORY, metrics=Metrics())
    service.attach(world.desk, world.inventory)
    with tempfile.TemporaryDirectory(prefix="frac") as folder:
        server = PluginServer(service, Path(folder) / "fracgpu-memory.sock")
        await server.start()
        async with aio.insecure_channel(f"unix:{server.socket}") as channel:
            yield DevicePluginStub(channel)
        await server.stop()


def recorded_ids(call: dict[str, Any]) -> list[str]:
    """The device IDs of a recorded Allocate; a long list was shortened when it was recorded."""
    (ids,) = call["ids"]
    if ids[-1].startswith("..."):
        return units(B, int(ids[-1].split()[1]))
    return [f"{B}::m{text.rpartition('/')[2]}" for text in ids]


async def test_the_recorded_pod_of_300_units_is_given_what_it_prefers() -> None:
    preferred, allocated = CALLS[:2]
    world = World(
        spec=SPEC,
        pods=[make_pod("big", {"c": [Share(B, preferred["size"])]}, has_plan=False)],
        listing=[listed("big", {"c": []})],
    )
    async with plugin_for(world) as stub:
        asked = preference((units(B, preferred["available"]), preferred["size"]))
        answer = (await stub.GetPreferredAllocation(asked)).container_responses[0]
        assert len(answer.deviceIDs) == preferred["size"] == len(recorded_ids(allocated))
        given = (await stub.Allocate(allocation(list(answer.deviceIDs)))).container_responses[0]

    assert given.envs["SHARES"] == f"{B}={preferred['size'] * 512}"


async def test_the_recorded_reuse_of_an_init_containers_devices_is_refused() -> None:
    """The kubelet hands 4, then 2, of the init container's 8 on, without asking for a preference."""
    _, first, *reused = CALLS[2:6]
    pod = make_pod("job", {"c": [Share(B, 4)], "d": [Share(B, 2)]}, has_plan=False)
    world = World(spec=SPEC, pods=[pod], listing=[listed("job", {"c": [], "d": []})])
    async with plugin_for(world) as stub:
        with pytest.raises(aio.AioRpcError) as caught:
            await stub.Allocate(allocation(recorded_ids(first)))
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        # Such a pod is refused at admission; were it let in, each share still lies on one GPU.
        main, side = [recorded_ids(call) for call in reused]
        (answer,) = (await stub.Allocate(allocation(main))).container_responses
        assert answer.envs["SHARES"] == f"{B}=2048"
        world.listing = [listed("job", {"c": main, "d": []})]
        (answer,) = (await stub.Allocate(allocation(side))).container_responses
        assert answer.envs["SHARES"] == f"{B}=1024"


async def test_the_recorded_prestart_is_never_asked_for() -> None:
    assert [call["call"] for call in CALLS[6:]] == ["PreStartContainer"] * 4
    world = World(spec=SPEC, pods=[], listing=[])
    async with plugin_for(world) as stub:
        options = await stub.GetDevicePluginOptions(pb.Empty())
        assert not options.pre_start_required
