"""A real browser for tests of the web page; skipped where the machine has none."""

import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from playwright.async_api import Browser, ConsoleMessage, Page, async_playwright, expect

from extender.picture import Picture
from tests.browser.standin import StandIn

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
expect.set_options(
    timeout=20_000
)  # a machine that is busy with other tests draws late, and nothing here is about speed

Visit = Callable[..., Awaitable[Page]]
Serve = Callable[[Picture], Awaitable[StandIn]]


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    if _found is None:
        pytest.skip(f"no browser on PATH (one of {', '.join(BROWSERS)})")
    # Chromium refuses to run its sandbox as root.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    async with async_playwright() as playwright:
        found = await playwright.chromium.launch(executable_path=_found, args=arguments)
        yield found
        await found.close()


@pytest.fixture
async def visit(browser: Browser) -> AsyncIterator[Visit]:
    """Open a page and wait until it is live; at the end no page may have complained of anything.

    A lost connection is written to the console by the browser itself, and is no complaint.
    """
    complaints: list[str] = []

    def note(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not message.text.startswith("Failed to load resource"):
            complaints.append(message.text)

    async def open_page(url: str, *, is_live: bool = True, **options: object) -> Page:
        context = await browser.new_context(**options)  # type: ignore[arg-type]
        page = await context.new_page()
        page.on("console", note)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        await page.goto(url)
        if is_live:
            await expect(page.locator("body")).to_have_attribute("data-state", "live")
        return page

    yield open_page
    assert complaints == []


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Start a stand-in for the extender with a picture."""
    started: list[StandIn] = []

    async def start(picture: Picture) -> StandIn:
        server = StandIn(picture)
        started.append(server)
        await server.start()
        return server

    yield start
    for server in started:
        await server.stop()
