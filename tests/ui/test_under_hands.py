"""A page that changes while somebody types and clicks: nothing is taken from under their hands."""

from __future__ import annotations

import pytest

from tests.ui.browsing import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def test_limits_that_change_leave_what_one_types_and_clicks(user):
    page = user().page
    page.wait_for_selector("form.ready")
    more = []

    def change(route):
        headers = {name: value for name, value in route.request.headers.items() if name != "if-none-match"}
        answer = route.fetch(headers=headers)
        document = answer.json()
        for platform in document["platforms"]:
            platform["most_cores"] += 1000 + len(more)
        more.append(1)
        route.fulfill(response=answer, json=document)

    def look_again():
        said = page.inner_text("#f-cores-help")
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        until(page, f"document.querySelector('#f-cores-help').textContent !== {said!r}")

    page.route("**/ui/data/platforms", change)
    page.fill("#f-cores", "123")
    page.evaluate("const cores = document.querySelector('#f-cores'); cores.focus(); cores.setSelectionRange(1, 1)")
    look_again()
    page.keyboard.type("9")
    assert page.input_value("#f-cores") == "1923", "the caret has moved"

    for text, came in ("Reserved time", "#f-idle"), ("Between", "#f-from"):
        label = page.locator(".segments label", has_text=text)
        label.scroll_into_view_if_needed()
        place = label.bounding_box()
        page.mouse.move(place["x"] + place["width"] / 2, place["y"] + place["height"] / 2)
        page.mouse.down()
        look_again()
        page.mouse.up()
        page.wait_for_selector(came)
        assert label.locator("input").is_checked()
    assert page.input_value("#f-cores") == "1923"
    assert len(more) == 3
