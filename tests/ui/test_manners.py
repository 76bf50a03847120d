"""The page for everybody: axe-core on every page, by keyboard, on a phone, light and dark, in the reader's zone."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.ui.browsing import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}


@pytest.fixture(scope="module")
def session(site, notebooks, request_of):
    """A session of the administrator's that ends."""
    with site.as_user("admin") as api:
        offers = api.post("/requests", json=request_of(f"{notebooks}/good.ipynb")).json()
        uuid = offers["offers"][0]["meta"]["uuid"]
        update = {"kind": "uri:enum-value-update", "path": "phase", "value": "ACCEPTED"}
        assert api.post(f"/sessions/{uuid}", json=update).status_code == 200
    return uuid


@pytest.fixture
def ended(site, session, notebooks, request_of):
    """Offers that are open, and a session that ends."""
    with site.as_user("admin") as api:
        offers = api.post("/requests", json=request_of(f"{notebooks}/good.ipynb", "open")).json()
    return offers["meta"]["uuid"], session


def pages(ended):
    """Each page, and what is there once it has its content."""
    offers, session = ended
    return {
        "/ui/": ".legend li",
        f"/ui/offers/{offers}": "#accept-1",
        "/ui/sessions": ".rowlink",
        f"/ui/sessions/{session}": "#phases li.good, #phases li.bad",
        "/ui/platforms": ".figures, #promises .empty",
        "/ui/operations": "#trail table",
        "/ui/nothing-here": "h1",
    }


def violations(page):
    """What axe-core finds, in words; its script comes in past the page's policy, as a reader's own tools do."""
    found = Axe().run(page, options=RULES).response["violations"]
    return [f"{one['id']}: {one['help']}: {[node['html'][:120] for node in one['nodes'][:3]]}" for one in found]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_core_finds_nothing_on_any_page(user, ended, scheme):
    nobody = user(None, color_scheme=scheme, bypass_csp=True)
    nobody.go("/ui/sign-in")
    found = {"/ui/sign-in": violations(nobody.page)}
    admin = user("admin", color_scheme=scheme, bypass_csp=True)
    for path, there in pages(ended).items():
        page = admin.go(path)
        page.wait_for_selector(there)
        if path == "/ui/":
            page.fill("#f-cores", "99")
            page.wait_for_selector("[aria-invalid=true]")
            page.click("text=As a table")
        found[path] = violations(page)
    assert not any(found.values()), {path: those for path, those in found.items() if those}


def test_nothing_is_wider_than_a_phone(user, ended):
    admin = user("admin", viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    for path, there in pages(ended).items():
        page = admin.go(path)
        page.wait_for_selector(there)
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= 360, f"{path} is {wide} wide"


def test_one_can_ask_accept_and_look_by_keyboard_alone(user, notebooks):
    ada = user()
    page = ada.page
    page.wait_for_selector("#f-location")
    page.wait_for_selector("#capacity:not(:empty)")  # from then on no field is laid anew

    def tab_to(selector):
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.evaluate(f"document.activeElement.matches({selector!r})"):
                return
        raise AssertionError(f"the key Tab never comes to {selector}")

    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    tab_to("#f-location")
    page.keyboard.type(f"{notebooks}/good.ipynb")
    tab_to("#when-soon")
    page.keyboard.press("ArrowRight")
    until(page, "document.querySelector('#when-any').checked")
    tab_to("#submit")
    page.keyboard.press("Enter")
    page.wait_for_url("**/ui/offers/*")
    page.wait_for_selector("#accept-1")
    tab_to("#accept-1")
    page.keyboard.press("Enter")
    page.wait_for_url("**/ui/sessions/*")


def test_the_calendar_is_moved_by_keys_and_told_as_a_table(user):
    page = user(path="/ui/platforms").page
    page.wait_for_selector(".legend", state="attached")
    until(page, "document.querySelector('canvas').ariaLabel.startsWith('Calendar of here')")
    before = page.get_attribute("canvas", "aria-label")
    page.focus("canvas")
    for key in ("ArrowRight", "+", "ArrowLeft"):
        page.keyboard.press(key)
    until(page, f"document.querySelector('canvas').ariaLabel !== {before!r}")
    page.click("text=As a table")
    page.wait_for_selector("table tbody tr >> nth=23", state="attached")
    assert "of 8, on average" in page.inner_text("table caption >> nth=0")


def test_times_are_the_readers_own(user, session):
    texts = set()
    for zone, locale in (("Europe/Paris", "en-GB"), ("America/New_York", "en-US"), ("Asia/Tokyo", "de-DE")):
        page = user("admin", f"/ui/sessions/{session}", timezone_id=zone, locale=locale).page
        page.wait_for_selector("#facts dd >> nth=5")
        assert zone in page.inner_text("#zone")
        texts.add(page.locator("#phases time").first.inner_text())
    assert len(texts) == 3


def test_the_layout_does_not_jump_when_content_comes(user):
    page = user().page
    page.evaluate(
        "window.moved = 0; new PerformanceObserver(list => { for (const e of list.getEntries())"
        " if (!e.hadRecentInput) window.moved += e.value }).observe({type: 'layout-shift', buffered: true})"
    )
    page.wait_for_selector(".legend li")
    page.wait_for_timeout(300)
    assert page.evaluate("window.moved") < 0.1
