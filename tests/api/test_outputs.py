"""What a session left behind: listed, fetched, and never shown as a page that could act for its reader."""

from __future__ import annotations

import pytest

from ebhpc.plugins import PlatformUnavailable
from tests.api.conftest import NODES
from tests.api.paper_platform import Paper

FILES = {
    "stdout": ("text/plain", b"hello\n" * 3),
    "results/a b.html": ("text/html", b"<script>alert(1)</script>"),
    "results/plot.png": ("image/png", b"\x89PNG"),
    'results/"x"; y.bin': ("application/octet-stream", bytes(range(256)) * 4096),
}


@pytest.fixture
def site(make_site):
    return make_site(Paper("paper", NODES, outputs=FILES))


@pytest.fixture
def uuid(site):
    uuid = site.offers()["offers"][0]["meta"]["uuid"]
    site.move(uuid, "ACCEPTED")
    return uuid


@pytest.mark.parametrize("slash", ["", "/"])
def test_outputs_are_listed_with_size_type_and_place(site, uuid, slash):
    answer = site.get(f"/sessions/{uuid}/output{slash}")
    assert answer.status == 200
    listed = {item["name"]: item for item in answer.json["outputs"]}
    assert listed.keys() == FILES.keys()
    for name, (media_type, content) in FILES.items():
        assert (listed[name]["media_type"], listed[name]["size"]) == (media_type, len(content))
        path = listed[name]["url"].partition("/sessions")[2]
        assert site.get(f"/sessions{path}").content == content


def test_pictures_and_text_are_shown_and_pages_are_saved(site, uuid):
    shown = site.get(f"/sessions/{uuid}/output/stdout")
    assert shown.headers["content-type"] == "text/plain"
    assert shown.headers["content-disposition"].startswith("inline;")
    page = site.get(f"/sessions/{uuid}/output/results/a%20b.html", headers={"Accept": "text/html"})
    assert page.status == 200
    assert page.headers["content-disposition"] == "attachment; filename*=UTF-8''a%20b.html"
    for answer in (shown, page):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "sandbox" in answer.headers["content-security-policy"]
        assert "private" in answer.headers["cache-control"]


@pytest.mark.parametrize("name", ["stderr", "..%2f..%2fetc%2fpasswd", "results", "%00", "results/%ff", "a" * 3000])
def test_an_output_that_is_not_there_is_404(site, uuid, name):
    answer = site.get(f"/sessions/{uuid}/output/{name}")
    assert answer.status == 404
    assert answer.kinds() == ["urn:resource-not-found"]


def test_outputs_are_their_owners_alone(make_site):
    site = make_site(Paper("paper", NODES, outputs=FILES), api={"public_reads": True})
    uuid = site.offers()["offers"][0]["meta"]["uuid"]
    assert site.get(f"/sessions/{uuid}/output/stdout", user="bob").status == 403
    assert site.get(f"/sessions/{uuid}/output/stdout", user=None).status == 401
    assert site.get(f"/sessions/{uuid}/output/stdout", user="root").status == 200


def test_a_platform_that_does_not_answer_is_503_with_a_time_to_come_back(site, uuid, monkeypatch):
    def fail(hook, **_):
        raise PlatformUnavailable("paper", hook, "no answer", 7.0)

    monkeypatch.setattr(site.platforms["paper"], "call", fail)
    for path in ("output", "output/stdout"):
        answer = site.get(f"/sessions/{uuid}/{path}")
        assert answer.status == 503
        assert answer.headers["retry-after"] == "8"


def test_the_outputs_of_a_platform_that_is_no_longer_there_are_409(site, uuid):
    platform = site.platforms.pop("paper")
    answer = site.get(f"/sessions/{uuid}/output")
    site.platforms["paper"] = platform
    assert answer.status == 409
