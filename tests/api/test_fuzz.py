"""Whatever is sent: an answer of the form that the standard says, never a 5xx."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ebhpc.model import ExecutionRequest, kinds
from tests import standard_schema
from tests.api.conftest import Answer, Site
from tests.model import strategies
from tests.model.requests import full_request

QUICK = settings(
    max_examples=120,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture
def site(make_site) -> Site:
    return make_site(api={"max_outstanding_offers": 10**6})


def check(answer: Answer) -> None:
    """Whether an answer to a request for offers is one that there can be."""
    assert answer.status in (303, 400), answer.content
    if answer.status == 303:
        standard_schema.validate(answer.json, "OfferSetResponse")
        assert answer.json["result"] == ("YES" if "offers" in answer.json else "NO")
        assert answer.json["result"] == "YES" or answer.kinds()
    else:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.kinds()


def broken(request: Any, path: list[int], value: Any) -> Any:
    """A request with one of its places, found by going down some steps, set to something else."""
    request = copy.deepcopy(request)
    here, above, key = request, None, None
    for step in path:
        if isinstance(here, dict) and here:
            above, key = here, sorted(here)[step % len(here)]
        elif isinstance(here, list) and here:
            above, key = here, step % len(here)
        else:
            break
        here = above[key]
    if above is not None:
        above[key] = value
    return request


numbers = st.integers() | st.integers(-(10**30), 10**30) | st.floats()
odd = (
    strategies.plain
    | numbers
    | st.sampled_from(
        [
            "P1W",
            "PT0S",
            "P1M",
            "P99999999W",
            "9999-12-31T23:59:59Z/P1D",
            "/",
            "PT1H/2030-03-18",
            "0001-01-01/2030-03-18T00:00:00Z",
            "\x00",
            "\ud800",
        ]
    )
)


@QUICK
@given(document=strategies.struct(ExecutionRequest, unknown=True))
def test_documents_of_the_model_are_answered(site, document):
    check(site.post("/requests", strategies.KINDS.to_builtins(document)))


@QUICK
@given(path=st.lists(st.integers(0, 9), min_size=1, max_size=6), value=odd)
def test_a_good_request_with_one_place_broken_is_answered(site, path, value):
    request = broken(full_request(), path, value)
    check(site.post("/requests", body=json.dumps(request).encode(), headers={"Content-Type": "application/json"}))
    assert site.post(
        "/direct", body=json.dumps(request).encode(), headers={"Content-Type": "application/json"}
    ).status in (303, 400)


@QUICK
@given(path=st.lists(st.integers(0, 9), min_size=1, max_size=6), value=strategies.plain | numbers)
def test_the_same_as_yaml(site, path, value):
    body = yaml.safe_dump(broken(full_request(), path, value), allow_unicode=True).encode("utf-8", "surrogatepass")
    check(site.post("/requests", body=body, headers={"Content-Type": "application/yaml"}))


@QUICK
@given(
    body=st.binary(max_size=200) | st.text(st.characters(exclude_categories=("Cs",)), max_size=200).map(str.encode),
    media_type=st.sampled_from(["application/json", "application/yaml", ""]),
)
def test_any_bytes_are_answered(site, body, media_type):
    for path in ("/requests", "/direct"):
        answer = site.post(path, body=body, headers={"Content-Type": media_type})
        assert answer.status in (303, 400)


@QUICK
@given(
    update=st.fixed_dictionaries(
        {},
        optional={
            "kind": st.sampled_from([kinds.ENUM_UPDATE, kinds.STRING_UPDATE, kinds.INTEGER_UPDATE, kinds.DELTA_UPDATE])
            | odd,
            "path": st.sampled_from(["phase", "/phase"]) | odd,
            "value": odd,
            "delta": odd,
        },
    )
    | strategies.plain
)
def test_any_update_is_answered_and_none_but_ours_changes_anything(site, update):
    uuid = getattr(site, "uuid", None) or site.offers()["offers"][0]["meta"]["uuid"]
    site.uuid = uuid
    answer = site.post(
        f"/sessions/{uuid}", body=json.dumps(update).encode(), headers={"Content-Type": "application/json"}
    )
    assert answer.status in (400, 409)
    assert answer.kinds()


@QUICK
@given(document=strategies.plain | st.fixed_dictionaries({}, optional={"username": odd, "password": odd}))
def test_any_account_is_answered(site, document):
    answer = site.post(
        "/admin/identities",
        body=json.dumps(document).encode(),
        headers={"Content-Type": "application/json"},
        user="root",
    )
    assert answer.status in (201, 400, 409)


@QUICK
@given(
    query=st.dictionaries(
        st.sampled_from(["limit", "phase", "platform", "after", "everybody", "x"]), st.text(max_size=20), max_size=3
    ),
    duration=st.text(max_size=12),
)
def test_any_query_is_answered(site, query, duration):
    assert site.get("/sessions", params=query).status in (200, 400, 403)
    assert site.get("/platforms/paper/timeline", params={"duration": duration}).status in (200, 400)


@QUICK
@given(
    accept=st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=60),
    content_type=st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=60),
    authorization=st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=60),
)
def test_any_header_is_answered(site, accept, content_type, authorization):
    answer = site.post("/requests", body=b"{}", headers={"Accept": accept, "Content-Type": content_type})
    assert answer.status in (303, 406, 415)
    assert site.get("/sessions", user=None, headers={"Authorization": authorization}).status == 401


@QUICK
@given(path=st.text(max_size=30))
def test_any_path_is_answered(site, path):
    for prefix in ("/", "/sessions/", "/offersets/", "/platforms/"):
        try:
            answer = site.get(prefix + path.replace("?", "").replace("#", ""))
        except ValueError:
            return  # the test client refuses to send it
        assert answer.status in (200, 401, 404, 405), answer.content
