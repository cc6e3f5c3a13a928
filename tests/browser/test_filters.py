"""Filters, and the address that keeps them."""

import re

from playwright.async_api import Page, expect

from extender.picture import Picture
from tests.browser.conftest import Serve, Visit
from tests.browser.pictures import gpu, node, picture, share, waiting

L4 = "NVIDIA L4"
A100 = "NVIDIA A100-SXM4-40GB"


def cluster() -> Picture:
    return picture(
        node("east-1", gpu("GPU-a", share("chat", 16)), gpu("GPU-b", share("train", 8, namespace="research"), index=1)),
        node("east-2", gpu("GPU-c", product=L4, memory=23034), gpu("GPU-d", share("asr", 4), index=1)),
        node("west-1", gpu("GPU-e", product=L4, memory=23034, problem="Xid 79: the GPU has fallen off the bus")),
        node("west-2", problem="its device plugin has not said yet what is granted there"),
        waits=[waiting("late"), waiting("later", namespace="research")],
    )


async def names(page: Page, *expected: str) -> None:
    await expect(page.locator(".node .name")).to_have_text(list(expected))


async def gpus(page: Page, *expected: str) -> None:
    await expect(page.locator("[data-gpu]")).to_have_count(len(expected))
    found = [await one.get_attribute("data-gpu") for one in await page.locator("[data-gpu]").all()]
    assert found == list(expected)


async def test_by_node_with_words_in_any_order_and_case(serve: Serve, visit: Visit) -> None:
    page = await visit((await serve(cluster())).url)
    await page.get_by_label("Node", exact=True).fill("EAST")
    await names(page, "east-1", "east-2")
    await expect(page.get_by_role("heading", name="Nodes: 2 of 4")).to_be_visible()
    await page.get_by_label("Node", exact=True).fill("2 east")
    await names(page, "east-2")
    await expect(page.locator(".tile-gpus")).to_contain_text("2on 1 node shown")
    await page.get_by_label("Node", exact=True).fill("north")
    await expect(page.get_by_text("No node is as the filters want it.")).to_be_visible()


async def test_by_model_leaves_only_its_gpus(serve: Serve, visit: Visit) -> None:
    page = await visit((await serve(cluster())).url)
    await expect(page.get_by_label("Model").locator("option")).to_have_text(["all", A100, L4])
    await page.get_by_label("Model").select_option(L4)
    await names(page, "east-2", "west-1")
    await gpus(page, "GPU-c", "GPU-e")


async def test_by_namespace_dims_others_and_filters_who_waits(serve: Serve, visit: Visit) -> None:
    page = await visit((await serve(cluster())).url)
    await page.get_by_label("Namespace").select_option("research")
    await gpus(page, "GPU-b")
    await expect(page.locator("#waiting li")).to_have_count(1)
    await expect(page.locator("#waiting li")).to_contain_text("research/later")
    await expect(page.locator(".tile-memory")).to_contain_text("8 GiB by research")


async def test_by_problems(serve: Serve, visit: Visit) -> None:
    page = await visit((await serve(cluster())).url)
    await page.get_by_label("problems only").check()
    await names(page, "west-1", "west-2")


async def test_the_address_keeps_them_for_others(serve: Serve, visit: Visit) -> None:
    server = await serve(cluster())
    page = await visit(server.url)
    await page.get_by_label("Node", exact=True).fill("east")
    await page.get_by_label("Model").select_option(A100)
    await page.get_by_label("Namespace").select_option("team-a")
    await expect(page).to_have_url(f"{server.url}?node=east&model=NVIDIA+A100-SXM4-40GB&namespace=team-a")
    other = await visit(page.url)
    await gpus(other, "GPU-a", "GPU-d")
    await expect(other.get_by_label("Namespace")).to_have_value("team-a")
    await other.get_by_role("button", name="Clear").click()
    await names(other, "east-1", "east-2", "west-1", "west-2")
    await expect(other).to_have_url(server.url)
    await expect(other.get_by_label("Node", exact=True)).to_be_focused()


async def test_a_link_to_what_is_gone_says_so(serve: Serve, visit: Visit) -> None:
    page = await visit((await serve(cluster())).url + "?model=Voodoo")
    await expect(page.get_by_label("Model")).to_have_value("Voodoo")
    await expect(page.get_by_label("Model").locator("option", has_text=re.compile("none"))).to_have_count(1)
    await names(page)


async def test_they_hold_for_what_changes(serve: Serve, visit: Visit) -> None:
    server = await serve(cluster())
    page = await visit(server.url + "?namespace=research")
    await gpus(page, "GPU-b")
    server.change(node("east-2", gpu("GPU-c", share("new", 4, namespace="research"), product=L4, memory=23034)))
    await gpus(page, "GPU-b", "GPU-c")
    server.change(node("east-1", gpu("GPU-a"), gpu("GPU-b", index=1)))
    await gpus(page, "GPU-c")
