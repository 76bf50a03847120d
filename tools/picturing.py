"""What ``make screenshots`` takes: each page of two brokers, in three ways."""

from __future__ import annotations

import contextlib
import functools
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "docs" / "users" / "pictures"
WAYS: dict[str, dict[str, Any]] = {
    "light": {"viewport": {"width": 1280, "height": 860}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1280, "height": 860}, "color_scheme": "dark"},
    "phone": {
        "viewport": {"width": 390, "height": 780},
        "color_scheme": "light",
        "is_mobile": True,
        "has_touch": True,
    },
}


def main() -> None:
    """Take all of them."""
    from bench.page import PASSWORD, USER
    from bench.serving import free_port, process, wait_for
    from tests.broker import ADMIN, local_platform, running_broker
    from tests.broker import PASSWORD as ADMINS
    from tests.ui.browsing import User, browser
    from tools.demonstration import files_served

    PICTURES.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ebhpc-pictures-")))
        files = stack.enter_context(files_served(ROOT / "examples"))
        (folder / "here").mkdir()
        here = stack.enter_context(
            running_broker(folder / "here", {"offers": {"lifetime": "30m"}, "platforms": [local_platform()]})
        )
        (folder / "wide").mkdir()
        port = free_port()
        log = folder / "wide.log"
        command = [sys.executable, "-m", "bench.page", "serve", str(folder / "wide"), str(port)]
        running = stack.enter_context(process(command, log))
        wait_for(f"http://127.0.0.1:{port}/health/live", running, log, 200)
        chrome = stack.enter_context(browser())
        session = None
        for way, options in WAYS.items():
            user = User(chrome, f"http://127.0.0.1:{port}", **options)
            shoot = functools.partial(take, user, way)
            shoot("sign-in", "/ui/sign-in", "#username")
            user.sign_in(USER, PASSWORD)
            shoot("ask", "/ui/", "#verdict.yes", before=describe)
            user.page.click("#submit")
            user.page.wait_for_selector("#accept-1")
            shoot("offers", user.page.url.removeprefix(user.url), ".legend li")
            shoot("platforms", "/ui/platforms", ".legend li")
            user.close()

            user = User(chrome, here.url, **options)
            shoot = functools.partial(take, user, way)
            user.sign_in(ADMIN, ADMINS)
            if session is None:
                for name in ("first light", "another night"):
                    user.ask_for(f"{files}/hello.ipynb")
                    user.page.click("summary")
                    user.page.fill("#f-name", name)
                    user.page.click("#submit")
                    user.page.click("#accept-1")
                    user.page.wait_for_selector("#phases li.good", timeout=120_000)
                    session = user.page.url.removeprefix(user.url)
                    user.go()
            shoot("session", session, ".files li >> nth=3", before=show_notebook)
            shoot("sessions", "/ui/sessions", ".rowlink")
            shoot("operations", "/ui/operations", "#trail table")
            user.close()
    for file in sorted(PICTURES.glob("*.png")):
        print(f"{file.relative_to(ROOT)}  {file.stat().st_size / 1000:.0f} kB")


def take(user: Any, way: str, name: str, path: str, there: str, *, before: Callable[[Any], None] | None = None) -> None:
    """Take one picture once ``there`` is there."""
    page = user.go(path)
    if before is not None and name == "ask":
        before(page)
    page.wait_for_selector(there, timeout=60_000)
    if before is not None and name != "ask":
        before(page)
    page.wait_for_timeout(700)
    page.evaluate("scrollTo(0, 0)")
    page.screenshot(path=PICTURES / f"{name}-{way}.png")


def describe(page: Any) -> None:
    """Ask for something that is worth a look."""
    page.wait_for_selector("#f-location")
    page.fill("#f-location", "https://example.org/spectra.ipynb")
    page.fill("#f-cores", "32")
    page.fill("#f-memory", "128")
    page.fill("#f-amount", "4")


def show_notebook(page: Any) -> None:
    """Show what the notebook has drawn."""
    page.locator(".files li", has_text="hello.html").get_by_role("button", name="Show").click()
    page.wait_for_timeout(500)
    page.evaluate("scrollTo(0, 0)")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
