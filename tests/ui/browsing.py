"""A headless Chromium, and a user in it: what the page's tests and the screenshots share."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright
from playwright.sync_api import TimeoutError as PlaywrightTimeout

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
ZONE = "Europe/Paris"
PATIENCE = 90
"""Seconds for which something may not have come yet on a machine with much else to do."""


def chromium() -> str | None:
    """Return where Chromium is, or None."""
    return next((found for name in PROGRAMS if (found := shutil.which(name))), None)


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """Run a headless browser until the block ends."""
    path = chromium()
    assert path is not None
    # Chromium's own sandbox does not work for root
    words = ["--disable-dev-shm-usage", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=path, args=words)
        try:
            yield running
        finally:
            running.close()


class User:
    """Somebody in a browser of their own.

    ``faults`` are what pages did that they must not do; ``blocked`` what the sandbox around a job's HTML has stopped.
    """

    def __init__(self, running: Browser, url: str, **options: Any) -> None:
        options = {"viewport": {"width": 1280, "height": 900}, "timezone_id": ZONE, "locale": "en-GB", **options}
        self.url = url
        self.faults: list[str] = []
        self.blocked: list[str] = []
        self.context: BrowserContext = running.new_context(**options)
        self.context.set_default_timeout(PATIENCE * 1000)
        self.page = self.open()

    def open(self) -> Page:
        """Open another tab."""
        page = self.context.new_page()
        page.on("pageerror", lambda error: self.faults.append(f"script failed: {error}"))
        page.on("dialog", lambda dialog: (self.faults.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("console", lambda line: self._heard(line.type, line.text))
        return page

    def _heard(self, kind: str, text: str) -> None:
        # An answer that is an error is told by the page; what our own policy refused has got through to our page
        if kind == "error" and "/ui/shown/" in text:
            self.blocked.append(text)
        elif kind == "error" and "Failed to load resource" not in text:
            self.faults.append(f"console: {text}")

    def go(self, path: str = "/ui/") -> Page:
        """Open a page."""
        self.page.goto(self.url + path)
        return self.page

    def sign_in(self, name: str, password: str, path: str = "/ui/") -> Page:
        """Sign in by the form, from the page that one wants."""
        page = self.go(path)
        page.fill("#username", name)
        page.fill("#password", password)
        page.click("text=Sign in >> nth=-1")
        page.wait_for_selector("nav")
        return page

    def ask_for(self, notebook: str, **fields: str) -> Page:
        """Fill the form for a notebook and wait until the preview is about it."""
        page = self.page
        page.wait_for_selector("#f-location")
        page.fill("#f-location", notebook)
        for name, value in fields.items():
            page.fill(f"#f-{name}", value)
        return page

    def told(self) -> str:
        """Return where this user is, and what stands there."""
        return f"--- {self.page.url}\n{self.page.inner_text('body')}"

    def cancel(self) -> None:
        """End the session that is shown: the second click counts only soon after the first."""
        page = self.page
        ended = page.locator("#phases li", has_text="Cancelled")
        for _ in range(PATIENCE):
            with contextlib.suppress(PlaywrightTimeout):
                page.click("#cancel", timeout=4000)
            with contextlib.suppress(PlaywrightTimeout):
                ended.wait_for(timeout=1000)
                return
        raise AssertionError(f"not cancelled:\n{page.inner_text('main')}")

    def close(self) -> None:
        """Close the browser's windows."""
        self.context.close()


def until(page: Page, expression: str, seconds: float = PATIENCE) -> None:
    """Wait until a JavaScript expression holds on a page.

    Playwright's own way of waiting uses ``eval`` inside the page, which the page's policy forbids.
    """
    deadline = time.monotonic() + seconds
    while not page.evaluate(expression):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds} s: {expression}\n{page.inner_text('main')}")
        time.sleep(0.05)


def ended_well(page: Page) -> None:
    """Wait until the session that is shown has ended; it must have ended well."""
    until(page, "document.querySelector('#phases li.good, #phases li.bad') !== null", 4 * PATIENCE)
    assert page.locator("#phases li.good").count() == 1, page.inner_text("main")
