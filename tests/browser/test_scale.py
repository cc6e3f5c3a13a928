"""5,000 nodes with 8 GPUs each, and 20,000 pods."""

import re

import pytest
from playwright.async_api import Page, expect

from extender.picture import Picture
from tests.browser.conftest import Serve, Visit
from tests.browser.pictures import gpu, large, node, share

ROWS = 30  # nodes in the document at most: the window's and a margin, not 5,000


@pytest.fixture(scope="module")
def shown() -> Picture:
    return large(5000)


async def rows(page: Page) -> list[str]:
    found = await page.locator(".node .name").all_text_contents()
    assert 0 < len(found) <= ROWS
    return found


async def test_only_what_is_in_sight_is_in_the_document(serve: Serve, visit: Visit, shown: Picture) -> None:
    page = await visit((await serve(shown)).url)
    assert (await rows(page))[0] == "gpu-0000"
    await expect(page.locator(".tile-gpus .value")).to_have_text("40,000")
    assert await page.locator(".node").first.get_attribute("aria-setsize") == "5000"
    await page.evaluate("() => scrollTo(0, document.documentElement.scrollHeight)")
    await expect(page.locator(".node .name", has_text="gpu-4999")).to_be_in_viewport()
    assert "gpu-0000" not in await rows(page)
    await page.evaluate("() => scrollTo(0, 0)")
    await expect(page.locator(".node .name", has_text="gpu-0000")).to_be_in_viewport()
    await rows(page)


async def test_filters_find_what_is_there(serve: Serve, visit: Visit, shown: Picture) -> None:
    page = await visit((await serve(shown)).url)
    await page.get_by_label("Namespace").select_option("team-07")
    pods = [(n, g, p) for n in shown.nodes for g in n.gpus for p in g.pods if p.namespace == "team-07"]
    nodes = {n.name for n, _, _ in pods}
    await expect(page.get_by_role("heading", name=f"Nodes: {len(nodes):,} of 5,000")).to_be_visible()
    await expect(page.locator(".tile-gpus .value")).to_have_text(f"{len({g.uuid for _, g, _ in pods}):,}")
    await rows(page)
    await page.get_by_label("Node", exact=True).fill("gpu-49")
    left = sorted(name for name in nodes if name.startswith("gpu-49"))
    await expect(page.get_by_role("heading", name=f"Nodes: {len(left)} of 5,000")).to_be_visible()
    assert await rows(page) == left[: len(await rows(page))]


async def test_the_keyboard_reaches_the_last_node(serve: Serve, visit: Visit, shown: Picture) -> None:
    page = await visit((await serve(shown)).url)
    await page.locator(".node .name").first.focus()
    await page.keyboard.press("End")
    await expect(page.locator(":focus")).to_have_text("gpu-4999")
    await expect(page.locator(":focus")).to_be_in_viewport()
    await page.keyboard.press("PageUp")
    await expect(page.locator(":focus")).to_have_text("gpu-4998")
    await rows(page)


async def test_the_focus_stays_while_one_scrolls_away(serve: Serve, visit: Visit, shown: Picture) -> None:
    page = await visit((await serve(shown)).url)
    await page.locator(".node .name").first.focus()
    await page.evaluate("() => scrollTo(0, 300000)")
    await expect(page.locator(".node .name", has_text=re.compile("gpu-09")).first).to_be_visible()
    await rows(page)
    await page.keyboard.press("ArrowDown")
    await expect(page.locator(":focus")).to_have_accessible_name(re.compile("^GPU 0 of gpu-0000,"))
    await expect(page.locator(":focus")).to_be_in_viewport()


async def test_what_is_looked_at_stays_where_it_is(serve: Serve, visit: Visit, shown: Picture) -> None:
    server = await serve(shown)
    page = await visit(server.url)
    seen = await page.evaluate(
        """async () => {
          scrollTo(0, 300000);
          for (let i = 0; i < 2; i++) await new Promise(requestAnimationFrame);
          return [...document.querySelectorAll(".node")].find((n) => n.getBoundingClientRect().top > 60).dataset.node;
        }"""
    )
    looked_at = page.locator(f'[data-node="{seen}"]')
    before = await looked_at.bounding_box()
    many = [gpu(f"GPU-new-{i}", share(f"new-{i}", 4), index=i) for i in range(8)]
    server.change(*[node(f"gpu-0000-{number}", *many) for number in range(20)], gone=["gpu-0001"])
    await expect(page.get_by_role("heading", name="Nodes: 5,019")).to_be_visible()
    after = await looked_at.bounding_box()
    assert before is not None
    assert after is not None
    assert abs(after["y"] - before["y"]) < 2
    await rows(page)
