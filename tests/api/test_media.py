"""Forms: JSON and YAML both ways, problem documents, and bodies that are none."""

from __future__ import annotations

import json

import pytest
import yaml

from ebhpc.store import live_bookings
from tests.api.conftest import notebook


@pytest.mark.parametrize(
    ("accept", "answered"),
    [
        ("", "application/yaml"),
        ("*/*", "application/yaml"),
        ("application/json", "application/json"),
        ("application/yaml", "application/yaml"),
        ("text/yaml", "text/yaml"),
        ("application/x-yaml", "application/x-yaml"),
        ("application/json, application/yaml", "application/yaml"),
        ("application/json, application/yaml;q=0.5", "application/json"),
        ("application/json;q=0.1, */*;q=0.05", "application/json"),
        ("text/html, application/json;q=0.9, */*;q=0.1", "application/json"),
    ],
)
def test_answers_have_the_form_that_is_wanted(site, accept, answered):
    answer = site.post("/requests", notebook(), headers={"Accept": accept})
    assert answer.status == 303
    assert answer.headers["content-type"] == answered
    assert "Accept" in answer.headers["vary"]
    document = answer.json if answered.endswith("json") else answer.yaml
    assert document["result"] == "YES"


@pytest.mark.parametrize("accept", ["image/png", "application/xml", "text/html, image/*", "application/json;q=0"])
def test_what_cannot_be_sent_is_406_and_nothing_was_done(site, accept):
    answer = site.post("/requests", notebook(), headers={"Accept": accept})
    assert answer.status == 406
    assert answer.headers["content-type"].startswith("application/problem+")
    with site.store.read() as tx:
        assert live_bookings(tx) == []


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "*/*",
        "application/yaml",
        "text/yaml",
        "application/x-yaml",
        "application/vnd.x+yaml",
        "application/yaml; charset=utf-8",
    ],
)
def test_yaml_is_read(site, content_type):
    body = yaml.safe_dump(notebook()).encode()
    answer = site.post("/requests", body=body, headers={"Content-Type": content_type})
    assert answer.status == 303
    assert answer.json["result"] == "YES"


@pytest.mark.parametrize(
    "content_type",
    ["", "application/json", "application/vnd.x+json", "application/json; charset=utf-8", "APPLICATION/JSON"],
)
def test_json_is_read_also_where_no_type_is_named(site, content_type):
    answer = site.post("/requests", body=json.dumps(notebook()).encode(), headers={"Content-Type": content_type})
    assert answer.status == 303
    assert answer.json["result"] == "YES"


@pytest.mark.parametrize(
    "content_type", ["application/xml", "text/plain", "image/png", "nonsense", "application/json; charset=ebcdic"]
)
def test_another_type_is_415_and_says_what_is_read(site, content_type):
    answer = site.post("/requests", body=b"{}", headers={"Content-Type": content_type})
    assert answer.status == 415
    assert answer.kinds() == ["urn:not-supported"]
    assert answer.headers["accept-post"] == "application/json, application/yaml"


@pytest.mark.parametrize(
    ("accept", "answered"),
    [
        ("application/json", "application/problem+json"),
        ("application/yaml", "application/problem+yaml"),
        ("", "application/problem+yaml"),
        ("image/png", "application/problem+json"),
    ],
)
def test_errors_are_problem_documents_in_the_form_that_is_wanted(site, accept, answered):
    answer = site.get("/nowhere", headers={"Accept": accept})
    assert answer.status == 404
    assert answer.headers["content-type"] == answered
    problem = answer.json if answered.endswith("json") else answer.yaml
    assert problem["status"] == 404
    assert problem["title"] == "Not Found"
    assert problem["type"] == "about:blank"
    assert [set(item) >= {"kind", "level", "template", "message"} for item in problem["messages"]] == [True]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"   ",
        b"{",
        b"[1, 2",
        b"\xff\xfe\x00",
        b'{"a": 1, "a": 2}',
        b'{"a": NaN}',
        b'{"a": "\\ud800"}',
        b"nul\x00",
        b"[" * 5000 + b"]" * 5000,
        b'{"a":' * 200 + b"1" + b"}" * 200,
        b"9" * 10000,
    ],
    ids=range(12),
)
def test_a_body_that_is_no_json_is_400_with_its_place(site, body):
    answer = site.post("/requests", body=body, headers={"Content-Type": "application/json"})
    assert answer.status == 400
    assert answer.kinds() == ["urn:input-syntax-fail"]


BILLION = b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (98 + n, 98 + n, b",".join([b"*%c" % (97 + n)] * 9)) for n in range(9)
)


@pytest.mark.parametrize(
    "body",
    [
        BILLION,
        b"a: !!python/object/apply:os.system [id]",
        b"a: &a [*a]",
        b"{a: b",
        b"? {a: 1}\n: b",
        b"a: 1\na: 2",
        b"--- 1\n--- 2",
        b'a: "\\ud800"',
        b"- " * 5000,
        b"%YAML 9.9\n---\na",
    ],
    ids=range(10),
)
def test_a_body_that_is_no_safe_yaml_is_400_and_quickly(site, body):
    answer = site.post("/requests", body=body, headers={"Content-Type": "application/yaml"})
    assert answer.status == 400
    assert answer.kinds()


@pytest.mark.parametrize("document", [[], "text", 3, True, None])
def test_a_body_that_is_no_mapping_is_400(site, document):
    answer = site.post("/requests", body=json.dumps(document).encode(), headers={"Content-Type": "application/json"})
    assert answer.status == 400
    assert answer.kinds() == ["urn:input-syntax-fail"]


def test_every_wrong_type_is_told_at_once_with_its_place(site):
    answer = site.post(
        "/requests",
        notebook(
            compute={"kind": 3, "cores": "many"},
            storage={"kind": "x"},
            schedule={"requested": {"duration": 7}},
        ),
    )
    assert answer.status == 400
    paths = {item["values"]["path"] for item in answer.json["messages"]}
    assert {"/compute/kind", "/storage", "/schedule/requested/duration"} <= paths
    assert set(answer.kinds()) <= {"urn:input-syntax-fail", "urn:missing-required-value"}


def test_a_body_that_is_too_long_is_413_before_it_is_read(make_site):
    site = make_site(api={"max_body_bytes": 1000})
    answer = site.post("/requests", body=b" " * 1001, headers={"Content-Type": "application/json"})
    assert answer.status == 413
    assert answer.kinds() == ["urn:resource-limit"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/requests", "POST"),
        ("DELETE", "/direct", "POST"),
        ("POST", "/sessions", "GET"),
        ("POST", "/offersets/x", "GET"),
        ("PUT", "/platforms", "GET"),
        ("GET", "/admin/identities", "POST"),
    ],
)
def test_another_method_is_405_and_says_which_are_there(site, method, path, allowed):
    answer = site.call(method, path, user="root")
    assert answer.status == 405
    assert allowed in answer.headers["allow"]
    assert answer.headers["content-type"] == "application/problem+json"


def test_options_needs_no_account(site):
    answer = site.call("OPTIONS", "/requests", user=None)
    assert answer.status == 200
    assert "POST" in answer.headers["allow"]


def test_head_answers_the_headers_of_get(site):
    uuid = site.offers()["offers"][0]["meta"]["uuid"]
    got, head = site.get(f"/sessions/{uuid}"), site.call("HEAD", f"/sessions/{uuid}")
    assert head.status == 200
    assert head.content == b""
    assert head.headers["content-type"] == got.headers["content-type"]


@pytest.mark.parametrize(
    ("host", "seen"),
    [
        ("broker.example.org", "http://broker.example.org/"),
        ("[::1]:8080", "http://[::1]:8080/"),
        ("evil.example/x?", "http://127.0.0.1:8080/"),
        ("a b", "http://127.0.0.1:8080/"),
        ("x" * 300, "http://127.0.0.1:8080/"),
    ],
)
def test_urls_are_those_of_the_host_that_was_asked_if_it_is_one(site, host, seen):
    answer = site.post("/requests", notebook(), headers={"Host": host})
    assert answer.headers["location"].startswith(seen)
    assert answer.json["meta"]["url"].startswith(seen)


def test_urls_are_the_configured_ones_whatever_the_host(make_site):
    from ebhpc.config import WebAddress

    site = make_site(api={"url": WebAddress("https://broker.example.org/run")})
    answer = site.post("/requests", notebook(), headers={"Host": "evil.example"})
    assert answer.headers["location"].startswith("https://broker.example.org/run/offersets/")
    assert answer.json["offers"][0]["meta"]["url"].startswith("https://broker.example.org/run/sessions/")
