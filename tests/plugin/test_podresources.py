from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fracgpu.errors import UnavailableError
from fracgpu.kubelet import podresources_pb2 as pb
from fracgpu.names import RESOURCE_MEMORY
from playground.node.kubelet_grpc import LIST_BURST, PodResources
from plugin.granting.listing import ListedPod
from plugin.kubelet.podresources import PodResourcesClient


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="frac") as name:
        yield Path(name)


def answer() -> pb.ListPodResourcesResponse:
    response = pb.ListPodResourcesResponse()
    pod = response.pod_resources.add(name="one", namespace="team-a")
    main = pod.containers.add(name="main")
    for number in range(2):
        main.devices.add(resource_name=RESOURCE_MEMORY, device_ids=[f"GPU-a::m{number}"])
    main.devices.add(resource_name="example.com/nic", device_ids=["eth1"])
    pod.containers.add(name="idle")
    return response


async def test_what_is_listed_and_the_rate_limit_waited_out(folder: Path) -> None:
    server = PodResources(folder, answer)
    await server.start()
    client = PodResourcesClient(folder / "kubelet.sock")
    want = ListedPod("team-a/one", {"main": {RESOURCE_MEMORY: frozenset({"GPU-a::m0", "GPU-a::m1"})}, "idle": {}})
    answers = await asyncio.gather(*(client.list() for _ in range(LIST_BURST + 5)))
    assert set(map(len, answers)) == {1}
    assert answers[0] == (want,)
    await client.close()
    await server.stop()


async def test_a_kubelet_that_is_away_and_comes_back(folder: Path) -> None:
    client = PodResourcesClient(folder / "kubelet.sock")
    with pytest.raises(UnavailableError, match=r"PodResources at .* does not answer"):
        await client.list()
    server = PodResources(folder, answer)
    await server.start()
    assert len(await client.list()) == 1
    await client.close()
    await server.stop()
