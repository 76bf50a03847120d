"""A page that changes while somebody types, clicks, tabs or selects: nothing is taken from under their hands."""

from __future__ import annotations

import contextlib
import time

import pytest
from playwright.sync_api import Error as PlaywrightError

from tests.ui.browsing import until
from tests.ui.test_operations import long_block

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

LOOK = "document.dispatchEvent(new Event('visibilitychange'))"
"""Has a page look again at all that it watches."""

PRESSED = 2.0
"""Seconds between press and release of somebody slow; a page lets less wait for the release than that only once."""


def changing(page, address, change):
    """Have all answers to a page's looks at an address changed by ``change``; the browser never hears "unchanged"."""

    def answer(route):
        if route.request.method != "GET":
            route.fallback()
            return
        headers = {name: value for name, value in route.request.headers.items() if name != "if-none-match"}
        with contextlib.suppress(PlaywrightError):  # the page that asked may have been left
            found = route.fetch(headers=headers)
            document = found.json()
            change(document)
            route.fulfill(response=found, json=document)

    page.route(address, answer)


@contextlib.contextmanager
def pressed(page, what):
    """Press the mouse button on something, and release it there in the end."""
    what.scroll_into_view_if_needed()
    place = what.bounding_box()
    page.mouse.move(place["x"] + place["width"] / 2, place["y"] + place["height"] / 2)
    page.mouse.down()
    yield
    page.mouse.up()


def held(page, selector):
    """Remember an element, which must be there."""
    assert page.evaluate("selector => Boolean(window.held = document.querySelector(selector))", selector), selector


def same(page, selector):
    """Whether it is still the one that was remembered."""
    return page.evaluate("selector => document.querySelector(selector) === window.held", selector)


def test_limits_that_change_leave_what_one_types_and_clicks(user):
    page = user().page
    page.wait_for_selector("form.ready")
    more = []

    def change(document):
        for platform in document["platforms"]:
            platform["most_cores"] += 1000 + len(more)
        more.append(1)

    def look_again():
        said = page.inner_text("#f-cores-help")
        page.evaluate(LOOK)
        until(page, f"document.querySelector('#f-cores-help').textContent !== {said!r}")

    changing(page, "**/ui/data/platforms", change)
    page.fill("#f-cores", "123")
    page.evaluate("const cores = document.querySelector('#f-cores'); cores.focus(); cores.setSelectionRange(1, 1)")
    look_again()
    page.keyboard.type("9")
    assert page.input_value("#f-cores") == "1923", "the caret has moved"

    for text, came in ("Reserved time", "#f-idle"), ("Between", "#f-from"):
        label = page.locator(".segments label", has_text=text)
        with pressed(page, label):
            look_again()
        page.wait_for_selector(came)
        assert label.locator("input").is_checked()
    assert page.input_value("#f-cores") == "1923"
    assert len(more) == 3


def test_an_offer_is_accepted_by_a_click_during_which_the_offers_have_changed(user, site, notebooks, request_of):
    with site.as_user("ada") as api:
        offers = api.post("/requests", json=request_of(f"{notebooks}/good.ipynb")).json()
    page = user(path=f"/ui/offers/{offers['meta']['uuid']}").page
    page.wait_for_selector("#accept-2")
    told = []

    def change(document):
        told.append(1)
        for offer in document["offers"]:
            offer["duration"] += len(told)
            offer["messages"] = [{"kind": "", "level": "WARN", "text": f"Look {len(told)}", "path": None}]

    changing(page, "**/ui/data/offersets/*", change)
    held(page, "#reject-1")
    page.focus("#reject-1")
    page.evaluate(LOOK)
    page.wait_for_selector("#card-1:has-text('Look')")
    assert same(page, "#reject-1")
    assert page.evaluate("document.activeElement.id") == "reject-1"
    page.keyboard.press("Enter")
    page.wait_for_selector("#card-1:has-text('Declined')")
    assert page.evaluate("document.activeElement.id") == "card-1", "the keyboard has lost its place"

    before = len(told)
    with pressed(page, page.locator("#accept-2")):
        page.evaluate(LOOK)
        until(page, f"Number(document.querySelector('#card-2').textContent.match(/Look (\\d+)/)[1]) > {before}")
    page.wait_for_url("**/ui/sessions/*")


def test_a_session_that_changes_leaves_what_one_clicks_tabs_to_and_selects(user, site, notebooks, request_of):
    uuid = site.accepted("ada", request_of(f"{notebooks}/slow.ipynb", "long one"))
    ada = user(path=f"/ui/sessions/{uuid}")
    page = ada.page
    page.wait_for_selector("#phases li.now:has-text('Running')")
    looks = []

    def change(document):
        looks.append(1)
        document["node"] = f"node {len(looks)}"
        document["messages"].append({"kind": "", "level": "INFO", "text": f"Look {len(looks)}", "time": None})
        document["connectors"] = [
            {"status": "ACTIVE", "location": f"https://example.org/{n}", "commands": [f"connect {n}"]}
            for n in range(len(looks), -1, -1)
        ]

    def look_again():
        before = len(looks)
        page.evaluate(LOOK)
        until(page, f"Number(document.querySelector('#messages').textContent.match(/Look (\\d+)/)?.[1]) > {before}")

    changing(page, f"**/ui/data/sessions/{uuid}", change)
    look_again()
    for selector in ("#again", "#cancel", "#reach [data-key='https://example.org/0'] button"):
        held(page, selector)
        page.focus(selector)
        look_again()
        assert same(page, selector), selector
        assert page.evaluate("document.activeElement === window.held"), selector

    chosen = (
        "getSelection().selectAllChildren([...document.querySelectorAll('#facts dd')].at(-1)); String(getSelection())"
    )
    assert page.evaluate(chosen) == uuid
    look_again()
    assert page.evaluate("String(getSelection())") == uuid
    # The lead tells each second for how long it has run
    begun = "getSelection().selectAllChildren(document.querySelector('#lead')); String(getSelection())"
    text = page.evaluate(begun)
    until(page, f"document.querySelector('#lead').textContent !== {text!r}")
    assert page.evaluate("String(getSelection())").startswith("It has been running for ")
    assert page.evaluate("String(getSelection()) === document.querySelector('#lead').textContent")

    with pressed(page, page.locator("#cancel")):
        look_again()
    page.wait_for_selector("#cancel:has-text('Really?')")
    with pressed(page, page.locator("#cancel")):
        look_again()
    page.wait_for_selector("#phases li:has-text('Cancelled')")


def test_files_that_come_leave_the_button_of_one_that_is_there(user, site, notebooks, request_of):
    uuid = site.accepted("ada", request_of(f"{notebooks}/good.ipynb"))
    page = user(path=f"/ui/sessions/{uuid}").page
    page.wait_for_selector("#phases li.good")
    page.wait_for_selector(".files li:has-text('table.txt')")
    more = []

    def change(document):
        more.append(1)
        document["outputs"].insert(0, {"name": f"{len(more)}.txt", "size": 1, "media_type": "text/plain", "url": ""})

    def run_again(document):
        # As if it ran: its files are looked at again and again
        document.update(phase="RUNNING", started=time.time() - 10, ended=None)

    changing(page, f"**/ui/data/sessions/{uuid}", run_again)
    changing(page, f"**/ui/data/sessions/{uuid}/files", change)
    page.reload()
    show = ".files li:has-text('table.txt') button"
    page.wait_for_selector(show)
    held(page, ".files [data-key$='table.txt'] button")
    page.focus(show)
    before = len(more)
    with pressed(page, page.locator(show)):
        until(page, f"[...document.querySelectorAll('.files li')].some(one => parseInt(one.dataset.key) > {before})")
        assert same(page, ".files [data-key$='table.txt'] button")
        assert page.evaluate("document.activeElement === window.held")
    until(page, "document.querySelector('#shown pre')?.textContent === '1 2 3'")


def test_a_session_that_comes_on_top_moves_no_row_from_under_a_click_and_keeps_the_focus(
    user, site, notebooks, request_of
):
    mine = site.accepted("ada", request_of(f"{notebooks}/good.ipynb", "the one"))
    page = user(path="/ui/sessions").page
    row = f".rowlink[href$='{mine}']"
    page.wait_for_selector(row)
    held(page, row)
    page.focus(row)
    other = site.accepted("ada", request_of(f"{notebooks}/good.ipynb", "newer"))
    page.evaluate(LOOK)
    page.wait_for_selector(f".rowlink[href$='{other}']")
    assert same(page, row)
    assert page.evaluate("document.activeElement === window.held")

    with pressed(page, page.locator(row)):
        third = site.accepted("ada", request_of(f"{notebooks}/good.ipynb", "newest"))
        with page.expect_response("**/ui/data/sessions?*"):
            page.evaluate(LOOK)
        time.sleep(PRESSED / 4)
        assert page.locator(f".rowlink[href$='{third}']").count() == 0, "the rows have moved under the pointer"
    page.wait_for_url(f"**/ui/sessions/{mine}")


def test_approvals_that_come_and_go_leave_the_one_that_an_operator_is_about_to_decide(user, site):
    uuids = [site.accepted("ada", long_block(f"block {number}")) for number in range(2)]
    page = user("admin", "/ui/operations").page
    for number in range(2):
        page.wait_for_selector(f".approval:has-text('block {number}')")
    wanted = page.locator(".approval", has_text="block 1")
    held(page, f"#reason-{uuids[1]}")
    wanted.get_by_placeholder("Reason").fill("fr the survey")
    page.evaluate("window.held.setSelectionRange(1, 1)")
    uuids.append(site.accepted("ada", long_block("block 2")))
    page.evaluate(LOOK)
    page.wait_for_selector(".approval:has-text('block 2')")
    page.keyboard.type("o")
    assert wanted.get_by_placeholder("Reason").input_value() == "for the survey"
    assert same(page, f"#reason-{uuids[1]}")

    button = wanted.get_by_role("button", name="Approve")
    with pressed(page, button):
        # Somebody else decides the one above it meanwhile
        with site.as_user("admin") as api:
            assert api.post(f"/admin/approvals/{uuids[0]}", json={"decision": "refuse"}).status_code == 200
        page.evaluate(LOOK)
        page.wait_for_selector(".approval:has-text('block 0') >> text=This has been decided")
    page.wait_for_selector(".approval:has-text('block 1') >> text=Approved.")
    # Nothing has come to where the pointer is
    assert wanted.get_by_role("button", name="Approve").is_disabled()
    page.mouse.move(0, 0)
    for number in range(2):
        page.wait_for_selector(f".approval:has-text('block {number}')", state="detached")
    assert page.locator(".approval").count() == 1
    with site.as_user("ada") as api:
        assert api.get(f"/sessions/{uuids[0]}").json()["phase"] in ("CANCELLED", "FAILED")
        for uuid in uuids[1:]:
            site.move(api, uuid, "CANCELLED")


def test_the_calendars_table_stays_where_its_reader_has_scrolled_to(user):
    page = user(path="/ui/platforms").page
    page.wait_for_selector(".legend", state="attached")
    until(page, "document.querySelector('canvas').ariaLabel.startsWith('Calendar of here')")
    page.click("text=As a table")
    page.wait_for_selector("table tbody tr >> nth=23", state="attached")
    held(page, "#picture .scroll")
    page.evaluate("window.held.style.height = '90px'; window.held.style.overflow = 'auto'; window.held.scrollTop = 120")
    names = []

    def change(document):
        names.append(1)
        document["cores"] = [100 + len(names) for _ in document["cores"]]

    changing(page, "**/ui/data/platforms/here/picture*", change)
    page.evaluate(LOOK)
    until(page, "/Cores taken, of 10[1-9]/.test(document.querySelector('#picture caption').textContent)")
    assert same(page, "#picture .scroll")
    assert page.evaluate("window.held.scrollTop") == 120
