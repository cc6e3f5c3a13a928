"""What the page says when it hears nothing, and how it comes back."""

import re

from playwright.async_api import Page, expect

from tests.browser.conftest import Serve, Visit
from tests.browser.pictures import gpu, node, picture, share
from tests.browser.standin import StandIn

BEFORE = picture(node("node-1", gpu("GPU-a", share("chat", 16))))
AFTER = picture(node("node-1", gpu("GPU-a", share("chat", 16), share("new", 4))), node("node-2", gpu("GPU-b")))


async def lost(page: Page) -> None:
    await expect(page.locator("body")).to_have_attribute("data-state", "lost")


async def live(page: Page) -> None:
    await expect(page.locator("body")).to_have_attribute("data-state", "live", timeout=20_000)


async def test_a_lost_extender_is_told_with_the_time_and_found_again(serve: Serve, visit: Visit) -> None:
    server = await serve(BEFORE)
    page = await visit(server.url)
    await server.stop()
    await lost(page)
    alert = page.get_by_role("alert")
    await expect(alert).to_contain_text(
        re.compile(r"Not connected since \d\d:\d\d:\d\d: .* What you see is the cluster as it was then")
    )
    await expect(page.get_by_role("status")).to_contain_text(re.compile(r"stale since \d\d:\d\d:\d\d"))
    await expect(page).to_have_title("fracgpu (not connected)")
    await expect(page.locator("[data-pod]")).to_have_count(1)  # the last picture stays
    server.picture = AFTER
    await server.start()
    await live(page)
    await expect(page.get_by_role("alert")).to_be_hidden()
    await expect(page.locator("[data-pod]")).to_have_count(2)
    await expect(page.locator(".node")).to_have_count(2)


async def test_what_is_gone_when_it_comes_back_is_gone_from_the_page(serve: Serve, visit: Visit) -> None:
    server = await serve(AFTER)
    page = await visit(server.url)
    server.picture = BEFORE
    server.hang_up()
    await expect(page.locator(".node")).to_have_count(1)
    await expect(page.locator("[data-pod]")).to_have_count(1)


async def test_a_refusal_is_told_in_the_extenders_words(serve: Serve, visit: Visit) -> None:
    server = await serve(BEFORE)
    server.refusal = "32 readers follow the changes already"
    page = await visit(server.url, is_live=False)
    await lost(page)
    await expect(page.get_by_role("alert")).to_contain_text(
        "No picture of the cluster yet: the extender answered 503: 32 readers follow the changes already."
    )
    server.refusal = ""
    await page.get_by_role("button", name="Try now").click()
    await live(page)
    await expect(page.locator(".node")).to_have_count(1)


async def with_clock(serve: Serve, visit: Visit) -> tuple[StandIn, Page]:
    """A live page whose time the test moves."""
    server = await serve(BEFORE)
    page = await visit(server.url)
    await page.clock.install()
    await page.reload()
    await live(page)
    return server, page


async def test_a_connection_that_falls_silent_is_given_up(serve: Serve, visit: Visit) -> None:
    """The extender writes every 15 s; a peer that vanished without a word would leave the page waiting for ever."""
    server, page = await with_clock(serve, visit)
    server.picture = AFTER
    await page.clock.run_for(30_000)
    await expect(page.locator(".node")).to_have_count(1)  # not yet: two signs of life may be late
    await page.clock.run_for(20_000)
    await expect(page.locator(".node")).to_have_count(2)


async def test_a_hidden_page_lets_go_of_its_connection(serve: Serve, visit: Visit) -> None:
    """The extender has room for 32 readers, and a forgotten tab is none."""
    server, page = await with_clock(serve, visit)
    await hide(page, is_hidden=True)
    await page.clock.run_for(50_000)
    await live(page)
    await page.clock.run_for(15_000)
    await lost(page)
    server.picture = AFTER
    await page.clock.run_for(60_000)
    await lost(page)  # it does not come back while nobody looks
    await hide(page, is_hidden=False)
    await live(page)
    await expect(page.locator(".node")).to_have_count(2)


async def test_a_hidden_page_does_not_look_for_a_lost_extender(serve: Serve, visit: Visit) -> None:
    server, page = await with_clock(serve, visit)
    await hide(page, is_hidden=True)
    await server.stop()
    await page.clock.run_for(65_000)
    await lost(page)
    await server.start()
    await page.clock.run_for(60_000)
    await lost(page)
    await hide(page, is_hidden=False)
    await live(page)


async def test_it_works_below_a_path(serve: Serve, visit: Visit) -> None:
    """As `kubectl proxy` and an Ingress show it."""
    server = await serve(BEFORE)
    await server.stop()
    server.path = "/api/v1/namespaces/fracgpu/services/https:fracgpu-extender:pages/proxy/"
    await server.start()
    page = await visit(server.url)
    await expect(page.locator("[data-pod]")).to_have_count(1)
    await page.get_by_label("Node", exact=True).fill("node-1")
    await expect(page).to_have_url(f"{server.url}?node=node-1")


async def hide(page: Page, *, is_hidden: bool) -> None:
    """A headless browser has no window to cover."""
    await page.evaluate(
        """(isHidden) => {
          Object.defineProperty(document, "hidden", { value: isHidden, configurable: true });
          document.dispatchEvent(new Event("visibilitychange"));
        }""",
        is_hidden,
    )
