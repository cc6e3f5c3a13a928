"""The page as the real extender serves it, of a simulated cluster with the real services."""

import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import expect

from cli.simulation import SimulatedNode
from tests.browser.conftest import Visit
from tests.system.cluster import Cluster, pod


@pytest.fixture
async def one_gpu() -> AsyncIterator[Cluster]:
    """One node with one GPU of 10 GiB."""
    directory = Path(tempfile.mkdtemp(prefix="fg-"))  # tmp_path is too long for Unix sockets
    cluster = Cluster(directory, nodes=(SimulatedNode("node-1", "Test GPU", 10240, 1),))
    await cluster.start()
    try:
        yield cluster
    finally:
        await cluster.stop()
        shutil.rmtree(directory)


async def test_pods_come_wait_and_go(visit: Visit, one_gpu: Cluster) -> None:
    page = await visit(f"{one_gpu.pages_url}/")
    await expect(page.locator(".node .name")).to_have_text(["node-1"])
    await expect(page.locator(".tile-memory")).to_contain_text("0 of 10 GiB")
    await expect(page.get_by_text("No pod waits.")).to_be_visible()

    await one_gpu.create(pod("chat", "6Gi"))
    await expect(page.get_by_role("button", name="team-a/chat, 6 GiB granted")).to_be_visible(timeout=30_000)
    await expect(page.locator("[data-pod].is-granted")).to_have_count(1, timeout=30_000)

    await one_gpu.create(pod("late", "5Gi"))
    late = page.locator("#waiting li")
    await expect(late).to_contain_text("team-a/late", timeout=30_000)
    await expect(late).to_contain_text("asks for 5 GiB on one GPU")
    await expect(late).to_contain_text("the largest free piece is 4 GiB")

    await one_gpu.delete("chat")
    await expect(page.get_by_role("button", name="team-a/late, 5 GiB granted")).to_be_visible(timeout=30_000)
    await expect(page.get_by_text("No pod waits.")).to_be_visible(timeout=30_000)
    await expect(page.get_by_role("button", name="team-a/chat")).to_have_count(0, timeout=30_000)


async def test_an_extender_that_ends_is_told_and_found_again(visit: Visit, one_gpu: Cluster) -> None:
    page = await visit(f"{one_gpu.pages_url}/")
    await one_gpu.extender.stop()
    await expect(page.get_by_role("alert")).to_contain_text("Not connected since", timeout=30_000)
    await one_gpu.extender.start()
    await one_gpu.extender.ready()
    await one_gpu.create(pod("chat", "6Gi"))
    await expect(page.get_by_role("button", name="team-a/chat, 6 GiB granted")).to_be_visible(timeout=60_000)
    await expect(page.get_by_role("alert")).to_be_hidden()
