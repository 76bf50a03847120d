"""Signing in on the page by a real OpenID Connect provider, in a real browser."""

from __future__ import annotations

import httpx
import pytest

from tests.broker import QUICK, local_platform
from tests.lab import identity_provider
from tests.labs import require
from tests.ui.browsing import PATIENCE, User
from tests.ui.conftest import Site

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def federated(tmp_path_factory):
    """A broker whose people sign in elsewhere."""
    lacking = identity_provider.missing()
    require(not lacking, "; ".join(lacking))
    made = Site(tmp_path_factory.mktemp("federated"), QUICK)
    back = f"{made.url}/ui/sign-in/lab/answer"
    with identity_provider.provider(tmp_path_factory.mktemp("provider"), redirects=(back,)) as provider:
        import yaml

        settings = yaml.safe_load(made.config.read_text())
        made.config.write_text(
            yaml.safe_dump({**settings, "issuers": [provider.settings()], "platforms": [local_platform()]})
        )
        try:
            made.make_ready()
            made.start("serve")
            made.wait_ready(300)
            yield made
        finally:
            made.stop()


def test_one_signs_in_elsewhere_and_comes_back_to_the_page_that_one_wanted(chrome, federated):
    ada = User(chrome, federated.url)
    page = ada.go("/ui/platforms")
    page.click("text=Sign in with lab")
    page.fill("input[name=login]", "ada-1815")
    page.fill("input[name=password]", "any")
    page.click("button[type=submit]")
    page.locator("form:not(:has(input[name=login])) button[type=submit], nav").first.wait_for()
    if page.locator("nav").count() == 0:  # what the broker may know is to be allowed
        page.click("button[type=submit]")
    page.wait_for_url(f"{federated.url}/ui/platforms")
    assert page.inner_text(".who .name").startswith("lab:")
    names = {one["name"] for one in ada.context.cookies(federated.url + "/ui/sign-in/lab/answer")}
    assert "ebhpc" in names
    assert "ebhpc-sign-in" not in names
    page.click("text=Sign out")
    page.wait_for_url("**/ui/sign-in")
    assert not ada.faults
    ada.close()


def test_an_answer_that_nobody_waits_for_is_refused(federated):
    with httpx.Client(base_url=federated.url, trust_env=False, timeout=PATIENCE) as client:
        stray = client.get("/ui/sign-in/lab/answer", params={"code": "x", "state": "y"})
        assert stray.status_code == 400
        begun = client.get("/ui/sign-in/lab", params={"to": "https://evil.example"})
        assert begun.status_code == 303
        assert "code_challenge_method=S256" in begun.headers["Location"]
        forged = client.get("/ui/sign-in/lab/answer", params={"code": "x", "state": "another's"})
        assert forged.status_code == 401
        assert "<html" in forged.text
        assert client.get("/ui/sign-in/nobody").status_code == 404
        told = client.get("/ui/sign-in/lab/answer", params={"error": "access_denied", "error_description": "<b>no</b>"})
        assert "<b>" not in told.text
        assert "ebhpc" not in client.cookies
