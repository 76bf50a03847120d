"""Our own OpenAPI document: valid, complete, and true of what is sent."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
import yaml
from openapi_spec_validator import OpenAPIV31SpecValidator, validate

from ebhpc.api.app import resources
from ebhpc.api.openapi import OPERATIONS, schemas
from ebhpc.model import Executable
from ebhpc.model.registry import Kinds
from tests.api.conftest import notebook
from tests.model.requests import full_request


class Telescope(Executable, tag="https://example.org/kinds/telescope.yaml"):
    """Points a telescope."""

    target: str | None = None


def judge(document: Any, name: str, description: dict[str, Any]) -> None:
    """Raise unless plain data is what a schema of the document says."""
    schema = {"$ref": f"#/components/schemas/{name}", "components": description["components"]}
    jsonschema.Draft202012Validator(schema).validate(document)


@pytest.fixture
def description(site):
    answer = site.get("/openapi.json", user=None)
    assert answer.status == 200
    return answer.json


def test_it_is_valid_openapi_31(description):
    validate(description, cls=OpenAPIV31SpecValidator)


def test_it_is_the_same_as_yaml(site, description):
    answer = site.get("/openapi.yaml", user=None)
    assert answer.headers["content-type"] == "application/yaml"
    assert answer.yaml == description


def test_it_has_every_resource_and_method(site):
    routes = {
        (path.replace("{name:path}", "{name}"), method)
        for path, resource in resources(_nothing()).items()
        for method in ("get", "post", "put", "patch", "delete")
        if hasattr(resource, f"on_{method}")
    }
    assert routes == {(operation.path, operation.method) for operation in OPERATIONS}


def _nothing() -> Any:
    """Resources keep what they are given and look at it when they are asked."""
    return None


def test_what_is_sent_is_what_it_says(site, description):
    offers = site.offers(full_request())
    judge(offers, "OfferSet", description)
    first = offers["offers"][0]["meta"]["uuid"]
    judge(site.move(first, "ACCEPTED").json, "AnySession", description)
    judge(site.get("/sessions").json, "SessionPage", description)
    judge(site.get("/platforms").json, "PlatformItems", description)
    judge(site.get("/platforms/paper/timeline").json, "TimelineDocument", description)
    judge(site.get(f"/sessions/{first}/output").json, "OutputList", description)
    judge(site.get("/health/ready").json, "Health", description)
    judge(site.post("/direct", {}).json, "AnySession", description)
    judge(site.post("/requests", {}).json, "OfferSet", description)
    for problem in (site.get("/nowhere"), site.post("/requests", []), site.call("PUT", "/sessions")):
        judge(problem.json, "ProblemDocument", description)


def test_requests_are_what_it_says(description):
    judge(full_request(), "ExecutionRequest", description)
    judge(notebook(), "ExecutionRequest", description)
    with pytest.raises(jsonschema.ValidationError):
        judge(notebook(compute={"cores": {"min": 1}}), "ExecutionRequest", description)


def test_kinds_of_plugins_stand_in_it_like_our_own():
    made = schemas(Kinds([Telescope]))
    assert made["AnyExecutable"]["discriminator"]["mapping"]["https://example.org/kinds/telescope.yaml"].endswith(
        "/Telescope"
    )
    assert made["Telescope"]["properties"]["target"] == {"type": "string"}


def test_nothing_in_it_may_be_null(description):
    assert '{"type": "null"}' not in json.dumps(description)


def test_it_can_be_read_as_yaml_by_others(site):
    assert yaml.safe_load(site.get("/openapi.yaml", user=None).content)["openapi"] == "3.1.0"
