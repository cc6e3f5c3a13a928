"""Light and dark, contrast, small windows."""

import pytest
from playwright.async_api import Page, expect

from extender.picture import Picture
from tests.browser.conftest import Serve, Visit
from tests.browser.pictures import gpu, node, picture, share, waiting

# Every element with text of its own: its colour against the nearest opaque background, as WCAG 2 counts it. Colours are
# drawn on a canvas, since they may be given in any colour space.
CONTRASTS = """() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return canvas.getImageData(0, 0, 1, 1).data;
  };
  const luminance = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const poor = [];
  let seen = 0;
  for (const element of document.body.querySelectorAll("*")) {
    const hasText = [...element.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
    if (!hasText || !element.checkVisibility() || element.closest("noscript, option")) continue;
    let behind = element;
    while (behind && rgba(getComputedStyle(behind).backgroundColor)[3] < 255) behind = behind.parentElement;
    const text = rgba(getComputedStyle(element).color);
    const ground = rgba(getComputedStyle(behind).backgroundColor);
    const [low, high] = [luminance(text), luminance(ground)].sort((a, b) => a - b);
    const contrast = (high + 0.05) / (low + 0.05);
    seen += 1;
    if (contrast < 4.5) poor.push(`${element.className} "${element.textContent.slice(0, 30)}" ${contrast.toFixed(2)}`);
  }
  return { seen, poor };
}"""


def cluster() -> Picture:
    many = [share(f"pod-{number}", 5, namespace=f"team-{number}", used_gib=1) for number in range(8)]
    states = [share(state, 8, state=state) for state in ("held", "binding", "bound", "ending")]
    return picture(
        node("node-1", gpu("GPU-a", *many), gpu("GPU-b", *states, index=1)),
        node("node-2", gpu("GPU-c", share("over", 8, used_gib=9), problem="Xid 79"), problem="counts in another unit"),
        waits=[waiting("late", says="no", has_room=True)],
    )


async def background(page: Page) -> str:
    return str(await page.evaluate("() => getComputedStyle(document.body).backgroundColor"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_all_text_has_the_contrast_of_wcag_aa(serve: Serve, visit: Visit, scheme: str) -> None:
    server = await serve(cluster())
    page = await visit(server.url, color_scheme=scheme)
    await page.locator("#legend summary").click()
    found = await page.evaluate(CONTRASTS)
    assert found["seen"] > 60
    assert found["poor"] == []
    await page.locator("[data-pod]").first.click()
    assert (await page.evaluate(CONTRASTS))["poor"] == []
    await server.stop()
    await expect(page.get_by_role("alert")).to_be_visible()
    assert (await page.evaluate(CONTRASTS))["poor"] == []


async def test_it_follows_the_system_until_one_is_chosen_and_remembers_that(serve: Serve, visit: Visit) -> None:
    page = await visit((await serve(cluster())).url, color_scheme="dark")
    dark = await background(page)
    await page.emulate_media(color_scheme="light")
    light = await background(page)
    assert light != dark
    await page.get_by_label("Theme").select_option("dark")
    assert await background(page) == dark
    await page.reload()
    await expect(page.get_by_label("Theme")).to_have_value("dark")
    assert await background(page) == dark
    await page.get_by_label("Theme").select_option("as the system")
    assert await background(page) == light


@pytest.mark.parametrize("width", [320, 390, 768, 1024])
async def test_nothing_sticks_out_of_a_small_window(serve: Serve, visit: Visit, width: int) -> None:
    page = await visit((await serve(cluster())).url, viewport={"width": width, "height": 800})
    assert await page.evaluate("() => document.documentElement.scrollWidth") <= width
    await page.locator("[data-pod]").first.click()
    box = await page.get_by_role("dialog").bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= width


async def test_nodes_never_lie_over_each_other(serve: Serve, visit: Visit) -> None:
    """Where each node lies is computed, not measured: it has to be what the browser makes of it."""
    page = await visit((await serve(cluster())).url)
    for width, size in ((1280, "100%"), (390, "100%"), (1900, "100%"), (1280, "150%")):
        await page.set_viewport_size({"width": width, "height": 900})
        await page.evaluate("(size) => document.documentElement.style.setProperty('font-size', size)", size)
        await page.set_viewport_size({"width": width - 2, "height": 900})
        boxes = [await one.bounding_box() for one in await page.locator(".node").all()]
        assert len(boxes) == 2
        first, second = boxes
        assert first is not None
        assert second is not None
        gap = second["y"] - first["y"] - first["height"]
        assert 10 < gap < 40, (width, size, gap)
