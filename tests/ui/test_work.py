"""Other work than notebooks, asked from the page: containers and batch scripts, all the way to their results."""

from __future__ import annotations

import pytest

from tests.lab import containers
from tests.labs import require
from tests.ui.browsing import ended_well, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def run(one, kind, **fields):
    """Ask for something of a kind, take the first offer, and wait for its good end; each page is loaded again."""
    page = one.page
    page.wait_for_selector(f"#kind-{kind}")
    page.check(f"#kind-{kind}", force=True)
    page.click("#more summary")
    for name, value in {"amount": "1", **fields}.items():
        page.fill(f"#f-{name}", value)
    page.wait_for_selector("#verdict.yes")
    page.click("#submit")
    page.wait_for_url("**/ui/offers/*")
    page.wait_for_selector("#accept-1")
    page.reload()
    page.click("#accept-1")
    page.wait_for_url("**/ui/sessions/*")
    page.wait_for_selector("#phases li.done")
    page.reload()
    ended_well(page)
    return page


def shown(page, name):
    """The text of a file."""
    page.locator(".files li", has_text=name).get_by_role("button", name="Show").click()
    until(page, f"document.querySelector('#shown h3')?.textContent === '{name}'")
    until(page, "!['', 'Fetching…'].includes(document.querySelector('#shown pre')?.textContent ?? '')")
    return page.inner_text("#shown pre")


def test_a_batch_script_goes_from_the_form_to_its_result(user):
    script = '#!/bin/sh\necho "hello $WHO"\necho 42 >"$EBHPC_RESULTS/answer.txt"\n'
    page = run(user(), "script", script=script, environment='WHO=it\'s "you" & $HOME', name="a script")
    assert page.inner_text("h1") == "a script"
    assert shown(page, "stdout") == 'hello it\'s "you" & $HOME\n'
    assert shown(page, "results/answer.txt" if page.locator(".files li", has_text="results/").count() else "answer.txt")
    page.click("#again")
    until(page, "document.querySelector('#f-script')?.value.includes('EBHPC_RESULTS')")
    assert page.input_value("#f-environment") == 'WHO=it\'s "you" & $HOME'


@pytest.mark.lab
@pytest.mark.containers
def test_a_container_goes_from_the_form_to_its_result(user, request):
    lacking = containers.missing()
    require(not lacking, f"containers cannot be tested: {'; '.join(lacking)}")
    registry = request.getfixturevalue("registry")
    page = run(
        user(),
        "container",
        image=registry.location,
        digest=registry.digest,
        command='sh\n-c\necho "$WORD"; id -u',
        environment="WORD=<b>bold</b>",
    )
    assert shown(page, "stdout") == "<b>bold</b>\n0\n"
    assert "Container: " in page.inner_text("#facts")
