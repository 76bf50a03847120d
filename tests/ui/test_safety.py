"""The page against who wants to act as its reader: users, jobs, other sites."""

from __future__ import annotations

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.broker import PASSWORD
from tests.ui.browsing import PATIENCE, ended_well, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

NAMES = [
    "<script>top.pwned=1</script>",
    '"><img src=x onerror=top.pwned=1>',
    "</title><svg onload=top.pwned=1>",
    "javascript:top.pwned=1",
    "{{7*7}}${7*7}<%=7*7%>",
    "‮gnp.evil",
]


def test_strings_of_users_are_text_wherever_they_are_shown(user, site, notebooks, request_of):
    with site.as_user("admin") as api:
        made = [api.post("/requests", json=request_of(f"{notebooks}/{n}", name)).json() for n, name in enumerate(NAMES)]
        assert all(one.get("offers") for one in made), [one.get("messages", one) for one in made]
        taken = made[0]["offers"][0]["meta"]["uuid"]
        update = {"kind": "uri:enum-value-update", "path": "phase", "value": "ACCEPTED"}
        assert api.post(f"/sessions/{taken}", json=update).status_code == 200
    page = user("admin", "/ui/sessions").page
    page.wait_for_selector(".rowlink")
    assert NAMES[0] in page.locator(".rowlink .headline").all_inner_texts()
    page.check("#group-offers", force=True)
    page.wait_for_selector(".rowlink >> nth=10")
    shown = page.locator(".rowlink .headline").all_inner_texts()
    assert set(NAMES[1:]) <= set(shown)
    for path in (
        f"/ui/sessions/{taken}",
        f"/ui/offers/{made[1]['meta']['uuid']}",
        "/ui/operations",
        f"/ui/?like={taken}",
    ):
        page.goto(site.url + path)
        page.wait_for_load_state("networkidle")
        assert page.evaluate("top.pwned === undefined"), path
        assert page.evaluate("document.querySelectorAll('main script, main img[src=x], main svg[onload]').length === 0")
    page.goto(f"{site.url}/ui/sessions/{taken}")
    until(page, "document.querySelector('h1').textContent.startsWith('<script>')")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(alphabet=st.sampled_from(list("<>\"'`&=/\\;:(){}$%!-_ \u202e\u0000a1é\n\t")), min_size=1, max_size=40))
def test_any_text_in_the_form_comes_out_as_the_same_text(form_page, text):
    """The form, the broker's own words about it and the copied lines: all of it stays text."""
    page = form_page
    page.fill("#f-location", text)
    page.evaluate("document.querySelector('#form-curl').click()")
    page.wait_for_timeout(120)
    assert page.evaluate("document.querySelectorAll('#problems *:not(p), #text *, .wrong *:not(br)').length") == 0
    assert page.evaluate("top.pwned === undefined")


@pytest.fixture
def form_page(user):
    page = user().page
    page.wait_for_selector("#f-location")
    return page


def test_what_a_job_wrote_is_shown_in_a_sandbox_or_as_text_and_else_saved(user, site, notebooks, request_of):
    with site.as_user("bob") as api:
        offers = api.post("/requests", json=request_of(f"{notebooks}/evil.ipynb")).json()["offers"]
        uuid = offers[0]["meta"]["uuid"]
        update = {"kind": "uri:enum-value-update", "path": "phase", "value": "ACCEPTED"}
        assert api.post(f"/sessions/{uuid}", json=update).status_code == 200
    bob = user("bob", f"/ui/sessions/{uuid}")
    page = bob.page
    ended_well(page)
    page.wait_for_selector(".files li:has-text('onerror')")
    page.locator(".files li", has_text="evil.html").get_by_role("button", name="Show").click()
    assert page.frame_locator("#shown iframe").locator("#shown").inner_text() == "seen"
    page.locator(".files li", has_text="page.html").get_by_role("button", name="Show").click()
    assert page.frame_locator("#shown iframe").locator("h1").inner_text() == "page"
    page.locator(".files li", has_text="onerror").get_by_role("button", name="Show").click()
    until(page, "document.querySelector('#shown pre')?.textContent.startsWith('<script>')")
    assert page.locator(".files li", has_text="draw.svg").get_by_role("button", name="Show").count() <= 1
    assert page.evaluate("top.pwned === undefined")
    for _ in range(PATIENCE * 10):  # the frame is another process, which tells of it when it can
        if len(bob.blocked) >= 3:
            break
        page.wait_for_timeout(100)
    assert len(bob.blocked) >= 3  # the scripts of both, and the picture from elsewhere

    # Also where somebody is lured to the file itself, outside of the frame
    page.goto(f"{site.url}/ui/shown/{uuid}/results/page.html")
    assert page.inner_text("h1") == "page"
    assert page.evaluate("self.origin") == "null"
    cookies = {one["name"]: one["value"] for one in bob.context.cookies()}
    with httpx.Client(base_url=site.url, cookies=cookies, trust_env=False, timeout=PATIENCE) as client:
        kept = client.get(f"/ui/data/sessions/{uuid}/files/results/draw.svg")
        assert kept.headers["Content-Disposition"].startswith("attachment")
        for answer in (kept, client.get(f"/ui/shown/{uuid}/results/page.html")):
            assert "sandbox" in answer.headers["Content-Security-Policy"]
            assert "script-src" not in answer.headers["Content-Security-Policy"]
            assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_somebody_elses_session_offers_files_and_operations_are_refused(user, site, notebooks, request_of):
    with site.as_user("bob") as api:
        offers = api.post("/requests", json=request_of(f"{notebooks}/good.ipynb")).json()
    theirs, its = offers["meta"]["uuid"], offers["offers"][0]["meta"]["uuid"]
    ada = user("ada", f"/ui/sessions/{its}")
    ada.page.wait_for_selector("#lead:has-text('somebody else')")
    ada.page.goto(f"{site.url}/ui/offers/{theirs}")
    ada.page.wait_for_selector("#lead:has-text('not yours')")
    assert ada.page.goto(f"{site.url}/ui/operations").status == 403
    assert ada.page.locator("nav >> text=Operations").count() == 0
    cookies = {one["name"]: one["value"] for one in ada.context.cookies()}
    with httpx.Client(base_url=site.url, cookies=cookies, trust_env=False, timeout=PATIENCE) as client:
        for path in (f"sessions/{its}", f"sessions/{its}/files", f"sessions/{its}/request", f"offersets/{theirs}",
                     "operations", "sessions?everybody=true"):  # fmt: skip
            assert client.get(f"/ui/data/{path}").status_code == 403, path
        picture = client.get("/ui/data/platforms/here/picture").json()
    assert its not in str(picture)  # that something is offered is there, whose it is not
    assert 5 in picture["spans"]["kind"]


def test_changes_need_the_pages_token_and_our_own_origin(user, site):
    ada = user("ada")
    token = ada.page.evaluate("document.body.dataset.token")
    cookies = {one["name"]: one["value"] for one in ada.context.cookies()}
    with httpx.Client(base_url=site.url, cookies=cookies, trust_env=False, timeout=PATIENCE) as client:

        def post(path, **headers):
            return client.post(path, headers=headers, json={}).status_code

        assert post("/ui/data/preview", **{"X-CSRF-Token": token}) == 200
        assert post("/ui/data/preview") == 403
        assert post("/ui/data/preview", **{"X-CSRF-Token": "0" * 64}) == 403
        assert post("/ui/data/preview", **{"X-CSRF-Token": token, "Origin": "https://evil.example"}) == 403
        assert client.post("/ui/sign-out", data={"csrf": "wrong"}).status_code == 403
        assert client.get("/ui/sign-out").status_code == 405
        # The API does not know the cookie at all
        assert client.get("/sessions").status_code == 401
        assert client.post("/requests", headers={"X-CSRF-Token": token}, json={}).status_code == 401


def test_a_forged_sign_in_and_an_open_redirect_lead_nowhere(site):
    with httpx.Client(base_url=site.url, trust_env=False, timeout=PATIENCE) as client:
        form = {"username": "ada", "password": PASSWORD, "csrf": "guessed", "to": ""}
        assert client.post("/ui/sign-in", data=form).status_code == 403
        for to in (
            "https://evil.example",
            "//evil.example",
            "\\\\evil.example",
            "../../sessions",
            "sessions/../x",
            "%0d%0aX:1",
        ):
            page = client.get("/ui/sign-in", params={"to": to})
            form["csrf"] = page.text.partition('name="csrf" value="')[2].partition('"')[0]
            signed = client.post("/ui/sign-in", data={**form, "to": to})
            assert signed.status_code == 303
            assert signed.headers["Location"] == "/ui/"
            client.cookies.clear()
        assert client.get("/", headers={"Accept": "text/html"}).headers["Location"] == "/ui/"
        assert client.get("/", headers={"Accept": "application/json"}).status_code == 404


def test_every_answer_bears_the_strict_policy(site):
    with httpx.Client(base_url=site.url, trust_env=False, timeout=PATIENCE) as client:
        for path in (
            "/ui/sign-in",
            "/ui/nothing",
            "/ui/data/sessions",
            "/ui/static/x/page.css",
            "/ui/static/x/../../x",
        ):
            headers = client.get(path).headers
            policy = dict(part.strip().split(" ", 1) for part in headers["Content-Security-Policy"].split(";"))
            assert policy["default-src"] == "'none'"
            assert policy["script-src"] == policy["style-src"] == "'self'"
            assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert "WWW-Authenticate" not in headers
