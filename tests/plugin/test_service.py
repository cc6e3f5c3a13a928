"""The gRPC face over a real Unix socket, called with what a kubelet sends and with what it never should."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest
from grpc import aio

from fracgpu.errors import SettingError
from fracgpu.kubelet import deviceplugin_pb2 as pb
from fracgpu.kubelet.deviceplugin_pb2_grpc import DevicePluginStub
from fracgpu.names import RESOURCE_MEMORY
from fracgpu.plans import Share
from fracgpu.quantities import Mib
from plugin.granting.listing import Listing
from plugin.handout import DeviceNode, Edits, Mount
from plugin.kubelet.service import DevicePluginService, PluginServer
from plugin.metrics import Metrics
from plugin.wishes import GpuWish
from tests.plugin.builders import A, B, listed, make_gpu, make_pod, make_spec, units
from tests.plugin.test_desk import World

if TYPE_CHECKING:  # it is in the stubs only
    from fracgpu.kubelet.deviceplugin_pb2_grpc import DevicePluginAsyncStub


@dataclass
class Served:
    world: World
    server: PluginServer
    stub: DevicePluginAsyncStub


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    """One pod waits for 8 units of B."""
    world = World(pods=[make_pod("one", {"main": [Share(B, 8)]})], listing=[listed("one", {"main": []})])
    service = DevicePluginService(RESOURCE_MEMORY, metrics=Metrics())
    service.attach(world.desk, world.inventory)
    with tempfile.TemporaryDirectory(prefix="frac") as folder:
        server = PluginServer(service, Path(folder) / "fracgpu-memory.sock")
        await server.start()
        async with aio.insecure_channel(f"unix:{server.socket}") as channel:
            yield Served(world, server, DevicePluginStub(channel))
        await server.stop()


def preference(*asked: tuple[list[str], int]) -> pb.PreferredAllocationRequest:
    return pb.PreferredAllocationRequest(
        container_requests=[
            pb.ContainerPreferredAllocationRequest(available_deviceIDs=ids, allocation_size=size) for ids, size in asked
        ]
    )


def allocation(*asked: list[str]) -> pb.AllocateRequest:
    return pb.AllocateRequest(container_requests=[pb.ContainerAllocateRequest(devices_ids=ids) for ids in asked])


async def test_the_kubelets_conversation(served: Served) -> None:
    options = await served.stub.GetDevicePluginOptions(pb.Empty())
    assert (options.get_preferred_allocation_available, options.pre_start_required) == (True, False)
    stream = served.stub.ListAndWatch(pb.Empty())
    first = await stream.read()
    assert isinstance(first, pb.ListAndWatchResponse)
    assert len(first.devices) == 160
    assert served.server.service.watchers == 1
    preferred = await served.stub.GetPreferredAllocation(preference((units(A, 80) + units(B, 80), 8)))
    ids = list(preferred.container_responses[0].deviceIDs)
    answer = (await served.stub.Allocate(allocation(ids))).container_responses[0]
    assert dict(answer.envs) == {"SHARES": f"{B}=4096"}
    stream.cancel()


async def test_the_list_is_sent_again_when_it_changes_and_only_then(served: Served) -> None:
    stream = served.stub.ListAndWatch(pb.Empty())
    await stream.read()
    inventory = served.world.inventory
    inventory.wish({A: GpuWish(2, Mib(0)), B: GpuWish(4, Mib(0))})
    inventory.settle(held=[])  # other seats: of no interest to who counts in units
    inventory.report({A: "lost"})
    changed = await stream.read()
    assert isinstance(changed, pb.ListAndWatchResponse)
    assert [device.ID for device in changed.devices] == units(A, 80) + units(B, 80), "unhealthy instead of removed"
    assert [device.health for device in changed.devices] == ["Unhealthy"] * 80 + ["Healthy"] * 80
    stream.cancel()


async def test_everything_that_is_to_be_changed_of_a_container_is_answered(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    edits = Edits(
        {"A": "1"}, (Mount("/h", "/c", read_only=False),), (DeviceNode("/dev/h", "/dev/c"),), {"k": "v"}, ("x.y/z=1",)
    )
    monkeypatch.setattr(served.world, "edits", lambda *_, **__: edits)
    answer = (await served.stub.Allocate(allocation(units(B, 8)))).container_responses[0]
    assert answer == pb.ContainerAllocateResponse(
        envs={"A": "1"},
        mounts=[pb.Mount(host_path="/h", container_path="/c", read_only=False)],
        devices=[pb.DeviceSpec(host_path="/dev/h", container_path="/dev/c", permissions="rw")],
        annotations={"k": "v"},
        cdi_devices=[pb.CDIDevice(name="x.y/z=1")],
    )


async def test_refusals_are_sentences(served: Served) -> None:
    with pytest.raises(aio.AioRpcError) as caught:
        await served.stub.Allocate(allocation(units(A, 8)))
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert (caught.value.details() or "").startswith("fracgpu: container 'main' of pod team-a/one is planned with")


@pytest.mark.parametrize("ids", [[], [""], ["GPU-b"], ["GPU-b::m1"] * 8, ["GPU-b::m-1"], ["nvidia.com/gpu=0"]], ids=str)
async def test_odd_devices_are_answered(served: Served, ids: list[str]) -> None:
    with pytest.raises(aio.AioRpcError) as caught:
        await served.stub.Allocate(allocation(ids))
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert served.world.book.grants() == ()


async def test_several_containers_at_once_are_refused(served: Served) -> None:
    for call in (
        served.stub.Allocate(allocation(units(A, 1), units(B, 1))),
        served.stub.Allocate(allocation()),
        served.stub.GetPreferredAllocation(preference()),
    ):
        with pytest.raises(aio.AioRpcError) as caught:
            await call
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("size", [0, -1])
async def test_a_preference_of_no_devices_is_refused(served: Served, size: int) -> None:
    with pytest.raises(aio.AioRpcError) as caught:
        await served.stub.GetPreferredAllocation(preference((units(B, 80), size)))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details() == f"fracgpu: {size} devices cannot be chosen"


async def test_a_defect_is_an_answer_too(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served.world, "alive", lambda: 1 / 0)
    with pytest.raises(aio.AioRpcError) as caught:
        await served.stub.Allocate(allocation(units(B, 8)))
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert "a defect of the device plugin" in (caught.value.details() or "")


async def test_a_server_knows_whether_its_socket_is_still_its_own(served: Served) -> None:
    assert served.server.is_reachable
    served.server.socket.unlink()
    assert not served.server.is_reachable
    served.server.socket.touch()
    assert not served.server.is_reachable


async def test_a_folder_that_is_not_there_is_a_setting_error(served: Served) -> None:
    server = PluginServer(served.server.service, Path("/nowhere/fracgpu-memory.sock"))
    with pytest.raises(SettingError, match="--kubelet-socket"):
        await server.start()
    await server.stop()


async def test_between_two_desks_questions_wait_and_the_list_stays(served: Served) -> None:
    service = served.server.service
    stream = served.stub.ListAndWatch(pb.Empty())
    await stream.read()
    await service.detach()
    asked = asyncio.ensure_future(served.stub.Allocate(allocation(units(B, 8))))
    following = World(pods=served.world.pods, listing=served.world.listing, spec=make_spec(make_gpu(B, units=40)))
    service.attach(following.desk, following.inventory)
    assert (await asked).container_responses[0].envs["SHARES"] == f"{B}=4096"
    assert (len(following.book.grants()), served.world.book.grants()) == (1, ())
    changed = await stream.read()
    assert isinstance(changed, pb.ListAndWatchResponse)
    assert len(changed.devices) == 40
    stream.cancel()


async def test_a_desk_is_left_only_when_it_has_answered(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, may_answer = asyncio.Event(), asyncio.Event()
    listing = served.world.list

    async def slow() -> Listing:
        asked.set()
        await may_answer.wait()
        return await listing()

    monkeypatch.setattr(served.world, "list", slow)
    answer = asyncio.ensure_future(served.stub.Allocate(allocation(units(B, 8))))
    await asked.wait()
    leaving = asyncio.ensure_future(served.server.service.detach())
    done, _ = await asyncio.wait([leaving], timeout=0.1)
    assert not done
    may_answer.set()
    await leaving
    assert (await answer).container_responses[0].envs["SHARES"] == f"{B}=4096"
    assert len(served.world.book.grants()) == 1
