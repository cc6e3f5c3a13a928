"""Plugins and a kubelet: registration, device lists, what the Node and PodResources make of them.

One suite for the playground's kubelet and for a real one. What the real kubelet does is right; the stub follows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import grpc
import grpc.aio
import pytest

from fracgpu.kubelet import podresources_pb2 as podresources
from fracgpu.kubelet import podresources_pb2_grpc as podresources_grpc
from playground.cluster import JsonObject
from tests.conformance.lab import IDS, A, Lab

pytestmark = pytest.mark.asyncio(loop_scope="package")


async def test_a_plugin_is_asked_for_its_options_and_its_devices_become_allocatable(lab: Lab) -> None:
    plugin = await lab.plug()
    assert plugin.option_requests == 1
    plugin.set_health(**{IDS[0]: "Unhealthy"})
    status = await lab.until_allocatable(A, 7)
    assert status["capacity"][A] == "8"


async def test_another_version_of_the_interface_is_refused(lab: Lab) -> None:
    plugin = await lab.plug()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await plugin.register(version="v1")
    assert caught.value.code() is grpc.StatusCode.UNKNOWN
    assert caught.value.details() == (
        'requested API version "v1" is not supported by kubelet. Supported version is ["v1beta1"]'
    )


async def test_a_plugin_that_goes_leaves_capacity_without_allocatable(lab: Lab) -> None:
    plugin = await lab.plug()
    await plugin.stop()
    status = await lab.until_allocatable(A, 0)
    assert status["capacity"][A] == "8"  # for the 5 minutes of grace
    await lab.create("late", c={A: 1})
    message = await lab.rejection("late")
    assert message == (
        "Pod was rejected: Allocate failed due to no healthy devices present; "
        f"cannot allocate unhealthy devices {A}, which is unexpected"
    )


async def test_pod_resources_has_one_entry_per_device_and_refuses_more_than_a_burst_of_calls(lab: Lab) -> None:
    await lab.plug()
    await lab.run("p", c={A: 3})
    async with grpc.aio.insecure_channel(f"unix:{lab.node.pod_resources}") as channel:
        stub = podresources_grpc.PodResourcesListerStub(channel)
        calls = [stub.List(podresources.ListPodResourcesRequest()) for _ in range(100)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
    listings = [answer for answer in answers if isinstance(answer, podresources.ListPodResourcesResponse)]
    refusals = [answer for answer in answers if isinstance(answer, grpc.aio.AioRpcError)]
    assert len(listings) + len(refusals) == 100
    assert len(listings) >= 1
    assert {(error.code(), error.details()) for error in refusals} == {
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "rejected by rate limit")
    }
    ((container,),) = [pod.containers for pod in listings[0].pod_resources]
    assert [len(devices.device_ids) for devices in container.devices] == [1, 1, 1]


async def test_a_running_pods_status_names_its_devices_and_their_health(lab: Lab) -> None:
    plugin = await lab.plug()
    await lab.run("p", c={A: 1})
    ((device,),) = plugin.allocated()

    def shows(health: str) -> Callable[[JsonObject], bool]:
        want = [{"name": A, "resources": [{"resourceID": device, "health": health}]}]
        return lambda pod: pod["status"]["containerStatuses"][0].get("allocatedResourcesStatus") == want

    await lab.until_pod("p", shows("Healthy"))
    plugin.set_health(**{device: "Unhealthy"})
    await lab.until_pod("p", shows("Unhealthy"))


async def test_the_end_of_an_old_stream_disconnects_the_newer_registration_too(lab: Lab) -> None:
    old = await lab.plug(ids=IDS[:3], socket="old.sock")
    new = await lab.plug(socket="new.sock")
    await old.stop()
    await lab.until_allocatable(A, 0)
    await new.stream_ended.wait()
    await new.register()
    await lab.until_allocatable(A, 8)


async def test_a_device_list_above_4_mib_ends_the_stream(lab: Lab) -> None:
    many = [f"GPU-{i:040d}" for i in range(80_000)]
    plugin = lab.plugin("example.com/huge", many)
    await plugin.start()
    await plugin.stream_ended.wait()
    node_object = await lab.cluster.get("nodes", lab.node.node_name)
    assert node_object["status"]["allocatable"].get("example.com/huge", "0") == "0"
