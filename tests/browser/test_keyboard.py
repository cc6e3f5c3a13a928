"""Everything by keyboard alone."""

from playwright.async_api import Page, expect

from extender.picture import Picture
from tests.browser.conftest import Serve, Visit
from tests.browser.pictures import gpu, node, picture, share


def cluster() -> Picture:
    """In a window of 1280 px the GPUs of a node stand in two columns: 0 1 above 2."""
    return picture(
        node(
            "node-1",
            gpu("GPU-a", share("chat", 16), share("train", 8)),
            gpu("GPU-b", share("vision", 30), index=1),
            gpu("GPU-c", share("asr", 4), share("tts", 30), index=2),
        ),
        node("node-2", gpu("GPU-d")),
    )


async def focused(page: Page, cell: str) -> None:
    """Which cell has the focus: its name in the page."""
    found = page.locator(":focus")
    await expect(found).to_have_attribute("data-cell", "node" if cell.startswith("node") else "gpu", timeout=3000)
    await expect(found).to_contain_text(cell)


async def on_pod(page: Page, name: str) -> None:
    await expect(page.locator(":focus .pod")).to_have_text(name)


async def to_nodes(page: Page) -> None:
    """From the top of the page to the first node, by Tab."""
    await page.get_by_label("Theme").focus()
    for _ in range(10):
        await page.keyboard.press("Tab")
        if await page.locator(":focus").get_attribute("data-cell"):
            return
    raise AssertionError("Tab does not come to the nodes")


async def test_tab_comes_to_each_filter_and_once_to_the_nodes(serve: Serve, visit: Visit) -> None:
    page = await visit((await serve(cluster())).url)
    stops = ["filter-node", "filter-model", "filter-namespace", "filter-problems", "theme", "legend", "node-1"]
    for stop in stops:
        await page.keyboard.press("Tab")
        found = page.locator(":focus").locator("xpath=ancestor-or-self::*[@id or @data-node][1]")
        assert stop in (await found.get_attribute("id"), await found.get_attribute("data-node"))
    assert await page.locator('#nodes [tabindex="0"]').count() == 1


async def test_arrows_walk_over_gpus_and_slices(serve: Serve, visit: Visit) -> None:
    page = await visit((await serve(cluster())).url)
    await to_nodes(page)
    await focused(page, "node-1")
    press = page.keyboard.press
    await press("ArrowDown")
    await focused(page, "0")
    await press("ArrowRight")
    await on_pod(page, "chat")
    await press("ArrowRight")
    await on_pod(page, "train")
    await press("ArrowDown")  # below it, in the same column, lies the wide slice of GPU 2
    await on_pod(page, "tts")
    await press("ArrowUp")
    await on_pod(page, "train")
    await press("ArrowRight")
    await focused(page, "1")
    await press("PageDown")
    await focused(page, "node-2")
    await press("ArrowLeft")
    await on_pod(page, "tts")
    await press("End")
    await focused(page, "node-2")
    await press("Home")
    await focused(page, "node-1")
    await press("ArrowUp")  # nothing is above the first
    await focused(page, "node-1")


async def test_enter_opens_details_and_escape_goes_back(serve: Serve, visit: Visit) -> None:
    page = await visit((await serve(cluster())).url)
    await to_nodes(page)
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("dialog", name="Node node-1")).to_be_visible()
    await page.keyboard.press("Escape")
    await focused(page, "node-1")
    await page.keyboard.press("ArrowDown")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("dialog", name="GPU 0 of node-1")).to_contain_text("NVIDIA A100-SXM4-40GB")
    await page.keyboard.press("Escape")
    await page.keyboard.press("ArrowRight")
    await page.keyboard.press("Space")
    await expect(page.get_by_role("dialog", name="team-a/chat")).to_be_visible()
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("button", name="Close details")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("dialog")).to_be_hidden()
    await on_pod(page, "chat")


async def test_a_slash_goes_to_the_filter(serve: Serve, visit: Visit) -> None:
    page = await visit((await serve(cluster())).url)
    await to_nodes(page)
    await page.keyboard.press("/")
    await page.keyboard.type("node-2")
    await expect(page.locator(".node .name")).to_have_text(["node-2"])
    await page.keyboard.type("/")  # within the field it is a letter
    await expect(page.get_by_label("Node", exact=True)).to_have_value("node-2/")


async def test_the_focus_can_be_seen(serve: Serve, visit: Visit) -> None:
    page = await visit((await serve(cluster())).url)
    await to_nodes(page)
    for key in ("ArrowDown", "ArrowRight"):
        await page.keyboard.press(key)
        outline = await page.evaluate("() => getComputedStyle(document.activeElement).outlineWidth")
        assert outline == "2px"


async def test_the_focus_survives_changes(serve: Serve, visit: Visit) -> None:
    server = await serve(cluster())
    page = await visit(server.url)
    await to_nodes(page)
    for key in ("ArrowDown", "ArrowRight", "ArrowRight"):
        await page.keyboard.press(key)
    await on_pod(page, "train")
    server.change(node("node-1", gpu("GPU-a", share("train", 8), share("zzz", 4))))  # chat is gone
    await expect(page.locator(".gpu .pod", has_text="zzz")).to_be_visible()
    await on_pod(page, "train")
    server.change(node("node-1", gpu("GPU-a", share("zzz", 4))))  # and now train itself
    await focused(page, "0")
    server.change(gone=["node-1"])
    await focused(page, "node-2")
