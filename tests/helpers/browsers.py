"""A real browser for the tests of pages. conftest.py makes its fixture known to all tests."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page

ARGUMENTS = (
    "--no-sandbox",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
)
TIMEOUT_MS = 20_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Start Chromium for the tests of a module, or skip them where it is not installed.

    The scope is not the session's: as long as Playwright runs, no other test of this process can
    run an event loop of its own.
    """
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("there is no chromium")
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=TIMEOUT_MS)
    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield started
        started.close()


@contextmanager
def browsing(browser: Browser, address: str, **context: Any) -> Iterator[Page]:
    """Open a page that must neither complain nor ask any other server.

    Args:
        browser: The browser.
        address: The address of the page.
        context: Settings of the browser's context, such as the viewport and headers of requests.
    """
    opened = browser.new_context(**context)
    page = opened.new_page()
    page.set_default_timeout(TIMEOUT_MS)
    asked: list[str] = []
    complaints: list[str] = []

    def note(message: ConsoleMessage) -> None:
        # The browser reports refused requests, which the page reports itself, and slow readbacks
        # of a canvas, which only the tests do.
        refused = "/v1/" in message.location["url"] and "status of" in message.text
        if message.type in ("error", "warning") and not refused and "readback" not in message.text:
            complaints.append(message.text)

    page.on("console", note)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    # A file chooser that opens while nobody listens stays open, and blocks the next one.
    page.on("filechooser", lambda chooser: None)
    page.goto(address)
    yield page
    opened.close()
    assert not complaints
    assert not [url for url in asked if not url.startswith((address, f"blob:{address}", "data:"))]
