"""The OpenAPI 3.1 document of this broker: its components made from the data model, its paths from the table below."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import Struct

from ebhpc import __version__
from ebhpc.api import answers
from ebhpc.model import (
    Compute,
    CostItem,
    Data,
    Executable,
    ExecutionRequest,
    ExecutionSession,
    MetricItem,
    OfferSet,
    Option,
    Phase,
    Storage,
    Update,
    VolumeMount,
)
from ebhpc.model.registry import Kinds

_REF = "#/components/schemas/"

_BASES: dict[type[Any], str] = {
    Executable: "AnyExecutable",
    Compute: "AnyCompute",
    Storage: "AnyStorage",
    VolumeMount: "AnyVolume",
    Data: "AnyData",
    CostItem: "AnyCost",
    MetricItem: "AnyMetric",
    ExecutionSession: "AnySession",
    Option: "AnyOption",
    Update: "AnyUpdate",
}
"""What "an element of any kind of this base" is called."""

_HOLES = {
    "executable": "AnyExecutable",
    "compute": "AnyCompute",
    "storage": "AnyStorage",
    "data": "AnyData",
    "volumes": "AnyVolume",
    "costs": "AnyCost",
    "metrics": "AnyMetric",
    "options": "AnyOption",
    "offers": "AnySession",
    "sessions": "AnySession",
}
"""What stands in a property that the model leaves open, because plugins add kinds."""

_FORMATS = {
    "uuid": "uuid",
    "url": "uri",
    "next": "uri",
    "created": "date-time",
    "modified": "date-time",
    "expires": "date-time",
    "time": "date-time",
    "taken": "date-time",
}

_BODIES = ("application/json", "application/yaml")


class Operation(Struct, frozen=True, kw_only=True):
    """One method of one path. ``answers`` has the schema of each status; ``takes`` that of the body."""

    method: str
    path: str
    id: str
    summary: str
    answers: dict[int, str]
    takes: str | None = None
    open: bool = False
    query: tuple[tuple[str, dict[str, Any], str], ...] = ()


_LIMIT = {"type": "integer", "minimum": 1, "maximum": 200, "default": 50}
_DURATION = {"type": "string", "examples": ["PT12H"]}

OPERATIONS = (
    Operation(
        method="post",
        path="/requests",
        id="makeRequest",
        summary="Ask when something can run. The answer is an offer set, which says NO where it cannot, and why.",
        takes="ExecutionRequest",
        answers={303: "OfferSet"},
    ),
    Operation(
        method="post",
        path="/direct",
        id="runDirectly",
        summary="Take the first offer without asking. 400 with a session's messages where it cannot run.",
        takes="ExecutionRequest",
        answers={303: "AnySession", 400: "AnySession"},
    ),
    Operation(
        method="get",
        path="/offersets/{uuid}",
        id="getOfferSet",
        summary="Return an offer set as it is now.",
        answers={200: "OfferSet"},
    ),
    Operation(
        method="get",
        path="/sessions",
        id="listSessions",
        summary="List the caller's own sessions, newest first.",
        answers={200: "SessionPage"},
        query=(
            ("phase", {"type": "string", "enum": [*Phase]}, "Only sessions in this phase; may be repeated."),
            ("platform", {"type": "string"}, "Only sessions of this platform."),
            ("limit", _LIMIT, "How many at most."),
            ("after", {"type": "string", "format": "uuid"}, "Those that follow this session."),
            ("everybody", {"type": "boolean"}, "Everybody's sessions; for administrators."),
        ),
    ),
    Operation(
        method="get",
        path="/sessions/{uuid}",
        id="getSession",
        summary="Return a session (an offer is one in phase OFFERED) as it is now.",
        answers={200: "AnySession"},
    ),
    Operation(
        method="post",
        path="/sessions/{uuid}",
        id="updateSession",
        summary="Accept or reject an offer, cancel a session. 409 where that is not among its options now.",
        takes="AnyUpdate",
        answers={200: "AnySession"},
    ),
    Operation(
        method="post",
        path="/sessions/calendar",
        id="makeCalendarAddress",
        summary="Make a new, secret address of the calendar of one's reserved time; the one before leads nowhere.",
        answers={201: "CalendarAddress"},
    ),
    Operation(
        method="delete",
        path="/sessions/calendar",
        id="removeCalendarAddress",
        summary="Take the address of one's calendar away.",
        answers={204: ""},
    ),
    Operation(
        method="get",
        path="/sessions/calendar.ics",
        id="getCalendar",
        summary="Return the reserved time of the user whose calendar's address this is (RFC 5545).",
        answers={200: ""},
        open=True,
        query=(("key", {"type": "string"}, "The secret in the calendar's address."),),
    ),
    Operation(
        method="get",
        path="/sessions/{uuid}/output",
        id="listOutputs",
        summary="List a session's stdout, stderr and result files.",
        answers={200: "OutputList"},
    ),
    Operation(
        method="get",
        path="/sessions/{uuid}/output/{name}",
        id="getOutput",
        summary="Return one of a session's outputs; its name may have slashes.",
        answers={200: ""},
    ),
    Operation(
        method="get",
        path="/platforms",
        id="listPlatforms",
        summary="List the platforms, and whether they can be used now.",
        answers={200: "PlatformItems"},
    ),
    Operation(
        method="get",
        path="/platforms/{name}/timeline",
        id="getTimeline",
        summary="Return what is free on a platform from now on.",
        answers={200: "TimelineDocument"},
        query=(("duration", _DURATION, "How far to look, an ISO 8601 duration up to 31 days; default P1D."),),
    ),
    Operation(
        method="get",
        path="/platforms/{name}/picture",
        id="getPicture",
        summary="Return a platform's calendar, to be drawn: what takes which nodes from when to when.",
        answers={200: "PlatformPictureDocument"},
        query=(("duration", _DURATION, "How far to look, an ISO 8601 duration up to 31 days; default P1D."),),
    ),
    Operation(
        method="get",
        path="/admin/approvals",
        id="listApprovals",
        summary="List the sessions that wait for an operator's approval; for administrators.",
        answers={200: "ApprovalList"},
    ),
    Operation(
        method="post",
        path="/admin/approvals/{uuid}",
        id="decideApproval",
        summary="Approve a session or refuse it; for administrators. 409 where it does not wait for that.",
        takes="Decision",
        answers={200: "AnySession"},
    ),
    Operation(
        method="post",
        path="/admin/identities",
        id="makeAccount",
        summary="Make an account; for administrators. 409 with the UUID of the account that has the name.",
        takes="NewAccount",
        answers={201: "Account", 409: "Account"},
    ),
    Operation(
        method="get",
        path="/openapi.yaml",
        id="getDescription",
        summary="Return this document as YAML.",
        answers={200: ""},
        open=True,
    ),
    Operation(
        method="get",
        path="/openapi.json",
        id="getDescriptionAsJson",
        summary="Return this document as JSON.",
        answers={200: ""},
        open=True,
    ),
    Operation(
        method="get",
        path="/health/live",
        id="isLive",
        summary="Tell that the API lives.",
        answers={200: "Health"},
        open=True,
    ),
    Operation(
        method="get",
        path="/health/ready",
        id="isReady",
        summary="Tell whether the database answers, and which platforms can be used now.",
        answers={200: "Health", 503: "Health"},
        open=True,
    ),
    Operation(
        method="get",
        path="/metrics",
        id="getMetrics",
        summary="Return the broker's measures in the text form of Prometheus.",
        answers={200: ""},
        open=True,
    ),
    Operation(
        method="get",
        path="/availability",
        id="getAvailability",
        summary="Tell whether the service is up, as the IVOA's VOSI says, in XML.",
        answers={200: ""},
        open=True,
    ),
    Operation(
        method="get",
        path="/capabilities",
        id="getCapabilities",
        summary="Tell what the service can do and how it is reached, as the IVOA's VOSI says, in XML.",
        answers={200: ""},
        open=True,
    ),
)
"""Every operation of the API."""

_DOCUMENTS = (
    ExecutionRequest,
    OfferSet,
    answers.ProblemDocument,
    answers.SessionPage,
    answers.OutputList,
    answers.PlatformItems,
    answers.TimelineDocument,
    answers.PlatformPictureDocument,
    answers.CalendarAddress,
    answers.NewAccount,
    answers.Account,
    answers.ApprovalItem,
    answers.ApprovalList,
    answers.Decision,
    answers.Health,
)

_PLAIN = {
    "getOutput": ("*/*", {}),
    "getDescription": ("application/yaml", {"type": "object"}),
    "getDescriptionAsJson": ("application/json", {"type": "object"}),
    "getCalendar": ("text/calendar", {"type": "string"}),
    "getMetrics": ("text/plain", {"type": "string"}),
    "getAvailability": ("application/xml", {"type": "string"}),
    "getCapabilities": ("application/xml", {"type": "string"}),
}


def describe(kinds: Kinds, url: str) -> dict[str, Any]:
    """Return the document as plain data, for a broker at ``url`` that knows these kinds."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        item = paths.setdefault(operation.path, {})
        item[operation.method] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "ebhpc",
            "version": __version__,
            "summary": "An IVOA Execution Broker for HPC centres",
            "description": "Property names, enumerations and kinds are those of the IVOA Execution Broker 1.0. "
            "Every answer can be had as JSON or YAML, by the Accept header; errors are problem documents (RFC 9457).",
            "license": {"name": "Apache 2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": url}],
        "security": [{"basic": []}, {"bearer": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "basic": {"type": "http", "scheme": "basic", "description": "A local account."},
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "A token of an OpenID Connect issuer that the broker knows.",
                },
            },
            "schemas": schemas(kinds),
        },
    }


def schemas(kinds: Kinds) -> dict[str, Any]:
    """Return the JSON Schema of every document and element by its name."""
    types = list(kinds.types.values())
    made, components = msgspec.json.schema_components([*_DOCUMENTS, *types], ref_template=_REF + "{name}")
    names = {type_: str(ref["$ref"]).removeprefix(_REF) for type_, ref in zip([*_DOCUMENTS, *types], made, strict=True)}
    result = {name: _closed(schema) for name, schema in components.items()}
    for base, name in _BASES.items():
        mapping = {kind: _REF + names[type_] for kind, type_ in kinds.of(base).items()}
        result[name] = {
            "oneOf": [{"$ref": ref} for ref in mapping.values()],
            "discriminator": {"propertyName": "kind", "mapping": mapping},
        }
    return dict(sorted(result.items()))


def _closed(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a component as it is on the wire: absent and never null, its open properties filled."""
    if "description" in schema:
        schema["description"] = schema["description"].replace("``", "`")
    for name, value in schema.get("properties", {}).items():
        value.pop("default", None)
        choices = [choice for choice in value.get("anyOf", ()) if choice != {"type": "null"}]
        if len(choices) == 1 and len(value["anyOf"]) == 2:
            del value["anyOf"]
            value.update(choices[0])
        if name in _HOLES:
            element = {"$ref": _REF + _HOLES[name]}
            if not value:
                value.update(element)
            elif value == {"type": "array"} or name == "options":
                value["items"] = element
        if name in _FORMATS and value.get("type") == "string":
            value["format"] = _FORMATS[name]
    return schema


def _operation(operation: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {"operationId": operation.id, "summary": operation.summary}
    parameters = [*_path_parameters(operation.path), *_query_parameters(operation)]
    if parameters:
        described["parameters"] = parameters
    if operation.open:
        described["security"] = []
    if operation.takes is not None:
        described["requestBody"] = {"required": True, "content": _content(operation.takes)}
    described["responses"] = {
        **{str(status): _response(operation, status) for status in sorted(operation.answers)},
        "default": {
            "description": "An error, as a problem document.",
            "content": {
                f"application/problem+{form}": {"schema": {"$ref": _REF + "ProblemDocument"}}
                for form in ("json", "yaml")
            },
        },
    }
    return described


_STATUSES = {
    200: "Done.",
    201: "Made.",
    204: "Gone.",
    303: "Made; Location says where it can be seen again.",
    400: "It cannot run, or the document cannot be read; the messages say why.",
    409: "There is such a one already.",
    503: "Not ready.",
}


def _response(operation: Operation, status: int) -> dict[str, Any]:
    schema = operation.answers[status]
    response: dict[str, Any] = {"description": _STATUSES[status]}
    if status == 303:
        response["headers"] = {"Location": {"required": True, "schema": {"type": "string", "format": "uri"}}}
    if schema:
        response["content"] = _content(schema)
    elif status != 204:
        media_type, plain = _PLAIN[operation.id]
        response["content"] = {media_type: {"schema": plain} if plain else {}}
    if status == 400:
        response["content"] |= {
            f"application/problem+{form}": {"schema": {"$ref": _REF + "ProblemDocument"}} for form in ("json", "yaml")
        }
    return response


def _content(schema: str) -> dict[str, Any]:
    return {media_type: {"schema": {"$ref": _REF + schema}} for media_type in _BODIES}


def _path_parameters(path: str) -> Iterable[dict[str, Any]]:
    for name in ("uuid", "name"):
        if "{" + name + "}" in path:
            schema = {"type": "string", "format": "uuid"} if name == "uuid" else {"type": "string"}
            yield {"name": name, "in": "path", "required": True, "schema": schema}


def _query_parameters(operation: Operation) -> Iterable[dict[str, Any]]:
    for name, schema, text in operation.query:
        yield {"name": name, "in": "query", "description": text, "schema": schema}
