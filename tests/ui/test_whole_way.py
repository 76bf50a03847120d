"""A scientist's way on the page, in a real browser against a real ``ebhpc serve``: from signing in to the result."""

from __future__ import annotations

import re
import time

import httpx
import psutil
import pytest

from tests.broker import PASSWORD
from tests.ui.browsing import PATIENCE, ended_well, until
from tests.ui.conftest import VIEW

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def identifier(page):
    """The UUID in a page's address."""
    return page.url.rpartition("/")[2]


def test_from_signing_in_to_the_result_with_a_reload_at_each_step(user, notebooks):
    ada = user()
    page = ada.ask_for(f"{notebooks}/good.ipynb")
    page.wait_for_selector("#verdict.yes")
    assert re.match(r"Fits \w+ \d\d:\d\d", page.inner_text("#verdict"))
    until(page, "document.querySelector('#picture canvas').ariaLabel.includes('Shown on top: 1:')")
    page.reload()
    page.wait_for_selector("#f-location")

    ada.ask_for(f"{notebooks}/good.ipynb")
    page.fill("#f-amount", "10")
    page.select_option("#f-unit", "60")
    until(page, "document.querySelector('#text').textContent.includes('duration: PT10M')")
    assert f"location: {notebooks}/good.ipynb" in page.inner_text("#text")
    page.click("#submit")
    page.wait_for_url("**/ui/offers/*")
    page.wait_for_selector(".offer >> nth=2")
    assert page.locator(".offer").first.inner_text().count("Open for") == 1
    page.reload()
    page.wait_for_selector("#accept-1")
    page.click("#accept-1")

    page.wait_for_url("**/ui/sessions/*")
    page.wait_for_selector("#phases li.done")
    page.reload()
    ended_well(page)  # it came by itself, without another reload
    assert "It ended well" in page.inner_text("#lead")
    assert "The session has completed" in page.inner_text("#messages")

    page.wait_for_selector(".files li >> nth=3")
    page.locator(".files li", has_text="table.txt").get_by_role("button", name="Show").click()
    until(page, "document.querySelector('#shown pre')?.textContent === '1 2 3'")
    page.locator(".files li", has_text="good.html").get_by_role("button", name="Show").click()
    frame = page.frame_locator("#shown iframe")
    assert "It works" in frame.locator("body").inner_text()
    with page.expect_download() as told:
        page.locator(".files li", has_text="good.ipynb").get_by_role("link", name="Download").click()
    assert told.value.suggested_filename == "good.ipynb"
    assert b"It works" in told.value.path().read_bytes()

    page.click("#again")
    until(page, f"document.querySelector('#f-location')?.value === '{notebooks}/good.ipynb'")
    assert page.input_value("#f-amount") == "10"
    page.click("nav >> text=My sessions")
    page.wait_for_selector(".rowlink .tag.good")


def test_a_running_session_is_cancelled_by_two_clicks(user, notebooks):
    ada = user()
    page = ada.ask_for(f"{notebooks}/slow.ipynb")
    page.click("#submit")
    page.click("#accept-1")
    page.wait_for_selector("#phases li.now:has-text('Running')")
    page.wait_for_selector("#picture-card:not([hidden]) .legend:has-text('mine')")
    # At once: the question is withdrawn after a few seconds
    asked = "(document.querySelector('#cancel').click(), document.querySelector('#cancel').textContent)"
    assert page.evaluate(asked) == "Really? Click again"
    ada.cancel()
    page.wait_for_selector("#cancel", state="detached")


DIGEST = f"sha256:{'a' * 64}"
REFUSED = [
    ("notebook", {"cores": "9"}, "cores"),
    ("notebook", {"memory": "17"}, "memory"),
    ("notebook", {"cores": "many"}, "cores"),
    ("notebook", {"amount": "soon"}, "amount"),
    ("notebook", {"location": "ftp:nowhere"}, "location"),
    ("notebook", {"location": "https://example.org/a.ipynb", "data": "gopher://example.org/x"}, "data"),
    ("notebook", {"location": "https://example.org/a.ipynb", "storage": "much"}, "storage"),
    ("container", {"image": "example.org/a:b", "digest": "sha256:short"}, "digest"),
    ("container", {"image": "not an image", "digest": DIGEST}, "image"),
    ("container", {"image": "example.org/a:b", "digest": DIGEST, "port": "99999"}, "port"),
    ("container", {"image": "example.org/a:b", "digest": DIGEST, "environment": "A=B\n=no name"}, "environment"),
    ("script", {"script": "#!/bin/sh\n", "environment": "1 x=y"}, "environment"),
    ("time", {"users": "not/a user"}, "users"),
    ("time", {"idle": "-1"}, "idle"),
]


def test_what_is_wrong_stands_at_its_field_while_one_types(user):
    """Each on the same page, after the one before has been put right."""
    page = user().page
    page.wait_for_selector("#f-location")
    for kind, fields, at in REFUSED:
        page.reload()
        page.wait_for_selector("#f-location")
        if kind != "notebook":
            page.wait_for_selector(f"#kind-{kind}")
            page.check(f"#kind-{kind}", force=True)
        page.click("#more summary")
        for name, value in fields.items():
            page.fill(f"#f-{name}", value)
        page.wait_for_selector(f"#f-{at}[aria-invalid=true]")
        assert len(page.inner_text(f"#f-{at}-wrong")) > 15, (kind, fields)
        assert page.locator("#verdict.yes").count() == 0, (kind, fields)


def test_a_start_that_cannot_be_stands_at_its_field(user, notebooks):
    page = user().ask_for(f"{notebooks}/good.ipynb")
    page.check("#when-between", force=True)
    page.fill("#f-from", "2040-01-02T10:00")
    page.fill("#f-to", "2040-01-01T10:00")
    page.wait_for_selector("#f-from[aria-invalid=true]")
    assert len(page.inner_text("#f-from-wrong")) > 15


def test_a_request_that_is_asked_for_all_the_same_is_told_why_not_at_its_fields(user, notebooks):
    page = user().ask_for(f"{notebooks}/good.ipynb", cores="9", memory="99")
    page.click("#submit")
    page.wait_for_selector("#verdict.no:has-text('No offer can be made')")
    assert page.inner_text("#f-cores-wrong")
    assert page.inner_text("#f-memory-wrong")
    page.reload()
    page.wait_for_selector("#f-location")
    page.click("#submit")  # nothing to run was said
    page.wait_for_selector("#f-location[aria-invalid=true]")


def test_a_file_that_is_chosen_fills_the_form_and_what_the_form_does_not_know_is_kept(user, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(
        "executable:\n"
        "  kind: https://www.purl.org/ivoa.net/Calycopis-openapi/schema/v1.0/kinds/executable/docker-container.yaml\n"
        "  meta: {name: sky survey}\n"
        f"  image: {{locations: [docker.io/library/busybox:stable], digest: 'sha256:{'a' * 64}'}}\n"
        "  command: [sh, -c, 'echo hello']\n"
        "compute: {kind: 'https://www.purl.org/ivoa.net/Calycopis-openapi/schema/v1.0/kinds/compute/simple-compute-resource.yaml',"
        " cores: {min: 2, max: 4}}\n"
        "metrics: [{kind: 'https://www.purl.org/ivoa.net/Calycopis-openapi/schema/v1.0/kinds/metrics/simple-minmax-float-metric.yaml',"
        " type: 'urn:ivoa:calycopis:metric:compute-performance', min: 0.5}]\n"
        "schedule: {requested: {duration: PT90M}}\n"
    )
    page = user().page
    page.wait_for_selector("#f-location")
    page.set_input_files("#file", file)
    until(page, "document.querySelector('#text').textContent.includes('sky survey')")
    assert page.input_value("#f-command") == "sh\n-c\necho hello"
    assert page.input_value("#f-cores") == "2"
    assert page.input_value("#f-amount") == "90"
    shown = page.inner_text("#text")
    assert "max: 4" in shown
    assert "compute-performance" in shown
    page.click("#form-curl")
    assert page.inner_text("#text").startswith("curl --user ada")
    page.click("#form-ebhpc")
    assert "ebhpc offers - <<'EOF'" in page.inner_text("#text")

    # Dropped onto the page, as a file manager does
    page.reload()
    page.wait_for_selector("#f-location")
    page.evaluate(
        "text => { const held = new DataTransfer(); held.items.add(new File([text], 'mine.yaml'));"
        " for (const kind of ['dragover', 'drop']) document.querySelector('#ask').dispatchEvent("
        "new DragEvent(kind, {dataTransfer: held, bubbles: true, cancelable: true})) }",
        file.read_text(),
    )
    until(page, "document.querySelector('#text').textContent.includes('sky survey')")
    assert page.input_value("#f-command") == "sh\n-c\necho hello"

    file.write_text("executable: [")
    page.set_input_files("#file", file)
    page.wait_for_selector("#problems:has-text('mine.yaml')")


def test_an_offer_that_expires_while_one_looks_can_no_longer_be_taken(user, site, notebooks, request_of):
    with site.as_user("ada") as api:
        offers = api.post("/requests", json=request_of(f"{notebooks}/good.ipynb")).json()
    ada = user(path=f"/ui/offers/{offers['meta']['uuid']}")
    page = ada.page
    page.wait_for_selector("#accept-1")
    site.shorten_offers(6)
    until(page, "/^[0-6] s$/.test(document.querySelector('#left-1')?.textContent) || document.querySelector('.over')")
    page.wait_for_selector(".offer.over >> nth=2")
    assert page.locator("#accept-1").count() == 0
    assert "None of them is open any more" in page.inner_text("#lead")
    with site.as_user("ada") as api:
        last = api.get(f"/offersets/{offers['meta']['uuid']}").json()["offers"]
    assert {offer["phase"] for offer in last} == {"EXPIRED"}


def earliest(site, one):
    """When the first of the offers begins that somebody looks at."""
    cookies = {item["name"]: item["value"] for item in one.context.cookies()}
    with httpx.Client(base_url=site.url, cookies=cookies, trust_env=False, timeout=PATIENCE) as client:
        offers = client.get(f"/ui/data/offersets/{identifier(one.page)}").json()["offers"]
    return min(offer["start"] for offer in offers)


def test_two_users_after_one_window_get_different_ones_and_what_one_declines_the_other_gets(user, site, notebooks):
    ada, bob = user("ada"), user("bob")
    for one in (ada, bob):
        one.ask_for(f"{notebooks}/good.ipynb", cores="8")
    ada.page.click("#submit")
    ada.page.wait_for_selector("#accept-1")
    bob.page.click("#submit")
    bob.page.wait_for_selector("#accept-1")
    first, second = earliest(site, ada), earliest(site, bob)
    assert first + 3600 <= second

    tab = ada.open()
    tab.goto(ada.page.url)
    tab.wait_for_selector("#reject-1")
    for number in range(1, ada.page.locator(".offer").count() + 1):
        ada.page.click(f"#reject-{number}")
        ada.page.wait_for_selector(f".offer >> nth={number - 1} >> text=Declined")
    until(tab, "!document.querySelector('#accept-1')")  # the other tab hears of it
    time.sleep(VIEW)
    before = bob.page.url
    bob.page.click("text=Ask for others")
    bob.page.wait_for_selector("#verdict.yes")
    bob.page.click("#submit")
    bob.page.wait_for_url(lambda url: "/offers/" in url and url != before)
    bob.page.wait_for_selector("#accept-1")
    assert earliest(site, bob) < second


def test_a_broker_that_is_down_is_told_of_and_the_page_goes_on_when_it_is_back(user, site, notebooks, request_of):
    with site.as_user("ada") as api:
        offers = api.post("/requests", json=request_of(f"{notebooks}/good.ipynb")).json()
    ada = user(path=f"/ui/offers/{offers['meta']['uuid']}")
    page = ada.page
    page.wait_for_selector("#accept-1")
    (arbiter,) = [one for one in psutil.Process(site.processes["serve"].pid).children() if "api" in one.cmdline()]
    arbiter.suspend()  # nobody accepts connections for it meanwhile, and `serve` does not start another
    workers = arbiter.children()
    for one in workers:
        one.kill()
    # What is told for a moment only is noted in the page itself
    page.evaluate(
        "window.told = []; new MutationObserver(() => told.push(document.querySelector('#news').textContent))"
        ".observe(document.querySelector('#news'), {childList: true, subtree: true, characterData: true})"
    )
    with page.expect_request("**/ui/data/sessions/*"):
        page.click("#accept-1", no_wait_after=True)
    arbiter.kill()
    until(page, "told.some(text => text.includes('does not answer'))")
    site.wait_ready(120)
    page.wait_for_selector("#news:has-text('does not answer')", state="hidden")
    page.click("#accept-1")
    page.wait_for_url("**/ui/sessions/*")
    ended_well(page)


def test_signing_in_leads_back_to_the_page_that_was_wanted_and_signing_out_ends_it(user, site):
    nobody = user(None)
    page = nobody.go("/ui/platforms")
    assert "/ui/sign-in?to=platforms" in page.url
    page.fill("#username", "ada")
    page.fill("#password", "wrong password")
    page.click("text=Sign in >> nth=-1")
    assert page.inner_text("[role=alert]") == "The username or the password is wrong."
    assert page.input_value("#username") == "ada"
    page.fill("#password", PASSWORD)
    page.click("text=Sign in >> nth=-1")
    page.wait_for_url("**/ui/platforms")
    (cookie,) = [one for one in nobody.context.cookies() if one["name"] == "ebhpc"]
    assert cookie["httpOnly"]
    assert cookie["sameSite"] == "Lax"
    assert cookie["path"] == "/ui"
    page.wait_for_selector("text=Promised and real starts")
    page.click("text=Sign out")
    page.wait_for_url("**/ui/sign-in")
    # Who kept the cookie has nothing of it
    nobody.context.add_cookies([{**{key: cookie[key] for key in ("name", "value", "path", "domain")}}])
    page.goto(f"{site.url}/ui/sessions")
    assert "/ui/sign-in" in page.url


def test_time_for_oneself_is_booked_reached_and_given_back(user):
    bob = user("bob")
    page = bob.page
    page.wait_for_selector("#kind-time")
    page.check("#kind-time", force=True)
    page.wait_for_selector("#f-idle")
    page.wait_for_selector("#verdict.yes")
    until(page, "document.querySelector('#text').textContent.includes('executable/reserved-time')")
    page.click("#submit")
    page.click("#accept-1")
    page.wait_for_selector("#reach-card:not([hidden]) code >> nth=0")
    page.locator("#reach code", has_text="COMMAND").first.wait_for()
    assert page.inner_text("#cancel") == "Give it back"
    bob.cancel()
    page.wait_for_selector("#reach-card", state="hidden")

    page.click("nav >> text=My sessions")
    page.click("#calendar")
    page.wait_for_selector("#address code:has-text('calendar.ics?key=')")


def test_what_takes_longer_than_a_second_is_said(user, notebooks):
    page = user().ask_for(f"{notebooks}/good.ipynb")
    held = []
    page.route("**/ui/data/requests", lambda route: held.append(route))
    page.click("#submit")
    page.wait_for_selector("#verdict:has-text('Asking for offers…')")
    for _ in range(PATIENCE * 10):
        if held:
            break
        page.wait_for_timeout(100)
    page.wait_for_selector("body[aria-busy=true]")
    held[0].continue_()
    page.wait_for_url("**/ui/offers/*")
    page.wait_for_selector("#accept-1")
    until(page, "document.body.getAttribute('aria-busy') !== 'true'")
