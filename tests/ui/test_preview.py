"""What is planned while one types: as what would be offered, and nothing of it is kept."""

from __future__ import annotations

import httpx
import pytest

from ebhpc.model import kinds
from tests.broker import PASSWORD

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture
def preview(site):
    """Ask for previews as ada, by the page's own way but without a browser."""
    with httpx.Client(base_url=site.url, trust_env=False, timeout=120) as client:
        form = client.get("/ui/sign-in").text.partition('name="csrf" value="')[2].partition('"')[0]
        client.post("/ui/sign-in", data={"username": "ada", "password": PASSWORD, "csrf": form})
        token = client.get("/ui/").text.partition('data-token="')[2].partition('"')[0]

        def ask(document):
            answer = client.post("/ui/data/preview", json=document, headers={"X-CSRF-Token": token})
            assert answer.status_code == 200, answer.text
            return answer.json()

        yield ask


def block(hours, cores=8, **executable):
    """A request for reserved time."""
    return {
        "executable": {"kind": kinds.RESERVED_TIME, **executable},
        "compute": {"kind": kinds.SIMPLE_COMPUTE, "cores": {"min": cores, "max": cores}},
        "schedule": {"requested": {"duration": f"PT{hours}H"}},
    }


def sessions(site):
    with site.as_user("ada") as api:
        return len(api.get("/sessions").json()["sessions"])


def test_a_preview_of_what_replaces_a_session_plans_without_that_session(site, preview):
    uuid = site.accepted("ada", block(1))
    with site.as_user("ada") as api:
        before = sessions(site)
        found = preview(block(2, replaces=uuid))
        alone = preview(block(2))
        assert sessions(site) == before
        site.move(api, uuid, "CANCELLED")
    assert found["windows"], found
    assert alone["windows"], alone
    assert min(one["start"] for one in found["windows"]) + 3000 < min(one["start"] for one in alone["windows"])


def test_what_cannot_be_replaced_is_told_at_its_place(preview):
    found = preview(block(1, replaces="00000000-0000-0000-0000-000000000000"))
    assert found["windows"] == []
    assert [one["path"] for one in found["problems"]] == ["/executable/replaces"]


def test_a_preview_follows_the_sites_rules_for_firm_time(preview):
    short, long = preview(block(2, 1)), preview(block(30, 1))
    told = [one["kind"] for window in long["windows"] for one in window["messages"]]
    assert any("approval" in kind for kind in told), long
    assert not any("approval" in one["kind"] for window in short["windows"] for one in window["messages"])
