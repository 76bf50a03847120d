"""What operators do on the page: see all, approve, refuse."""

from __future__ import annotations

import contextlib

import pytest
from playwright.sync_api import TimeoutError as PlaywrightTimeout

from ebhpc.model import kinds
from tests.ui.browsing import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def long_block(name):
    """A request for more time than one gets without an operator's word."""
    return {
        "executable": {"kind": kinds.RESERVED_TIME, "meta": {"name": name}},
        "schedule": {"requested": {"duration": "PT30H"}},
    }


def test_an_operator_approves_and_refuses_and_users_are_told_why(user, site):
    ada = user("ada", "/ui/sessions")
    blocks = {name: site.accepted("ada", long_block(name)) for name in ("<b>wanted</b>", "unwanted")}
    try:
        page = user("admin", "/ui/operations").page
        for name, button, reason in (("<b>wanted</b>", "Approve", "for the <i>survey</i>"), ("unwanted", "Refuse", "")):
            waits = page.locator(".approval", has_text=name)
            waits.wait_for()
            assert " of ada: 1 node of here" in waits.inner_text()
            waits.get_by_placeholder("Reason").fill(reason)
            page.wait_for_timeout(100)
            waits.get_by_role("button", name=button).click()
            page.mouse.move(0, 0)  # nothing moves under the pointer
            waits.wait_for(state="detached")
        until(page, "document.querySelector('#approvals-card').hidden")
        until(page, "['approve', 'refuse'].every(word => document.querySelector('#audit').textContent.includes(word))")
        kept = ada.go(f"/ui/sessions/{blocks['<b>wanted</b>']}")
        kept.wait_for_selector("#messages li:has-text('has approved it: for the <i>survey</i>')")
        ended = ada.go(f"/ui/sessions/{blocks['unwanted']}")
        ended.wait_for_selector("#phases li:has-text('Cancelled'), #phases li.bad")
        assert "refused" in ended.inner_text("#messages")
    finally:
        with site.as_user("ada") as api:
            site.move(api, blocks["<b>wanted</b>"], "CANCELLED")


def test_what_two_operators_decide_at_once_is_decided_once(user, site):
    uuid = site.accepted("ada", long_block("one for both"))
    pages = [user("admin", "/ui/operations").page for _ in range(2)]
    for page in pages:
        page.locator(".approval", has_text="one for both").wait_for()
    with site.as_user("admin") as api:
        assert api.post(f"/admin/approvals/{uuid}", json={"decision": "refuse"}).status_code == 200
    waits = pages[0].locator(".approval", has_text="one for both")
    with contextlib.suppress(PlaywrightTimeout):  # it may hear of it before the click
        waits.get_by_role("button", name="Approve").click(timeout=3000)
    pages[0].mouse.move(0, 0)
    for page in pages:
        until(page, "!document.querySelector('#approvals').textContent.includes('one for both')")
    with site.as_user("ada") as api:
        assert api.get(f"/sessions/{uuid}").json()["phase"] in ("CANCELLED", "FAILED")
