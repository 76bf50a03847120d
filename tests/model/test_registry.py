from __future__ import annotations

import copy
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ebhpc import model
from ebhpc.media import JSON, YAML, decode, encode
from ebhpc.model import kinds
from ebhpc.model.documents import ExecutionRequest, OfferSet, ScheduledSession, SimpleSession
from ebhpc.model.elements import (
    Compute,
    CostItem,
    Data,
    EnumUpdate,
    Executable,
    Range,
    SimpleCompute,
    Update,
    Wire,
)
from ebhpc.model.registry import MOST_MESSAGES, Decoded, KindError, Kinds
from tests.model.requests import KINDS, full_request
from tests.model.strategies import plain, struct, texts


class BatchScript(Executable, tag="https://plugins.example.org/executable/batch-script", kw_only=True):
    script: str | None = None
    lines: int


class GpuCompute(Compute, tag="https://plugins.example.org/compute/gpus", frozen=True):
    gpus: Range | None = None


def where(decoded: Decoded[Any]) -> list[tuple[str | None, str]]:
    assert decoded.document is None
    return [(problem.kind, (problem.values or {})["path"]) for problem in decoded.problems]


SYNTAX = "urn:input-syntax-fail"
MISSING = "urn:missing-required-value"


# --- documents -------------------------------------------------------------------------------------------


def test_a_request_is_decoded_to_structs_of_its_kinds_and_back() -> None:
    raw = full_request()
    decoded = KINDS.request(raw)
    assert decoded.problems == ()
    assert decoded.warnings == ()
    document = decoded.document
    assert document is not None
    assert isinstance(document.executable, model.DockerContainer)
    assert isinstance(document.compute.volumes[1], model.SimpleVolume)
    assert isinstance(document.costs, list)
    assert document.costs[0] == model.SimpleCost(type=kinds.MONETARY, max=10.5)
    assert KINDS.to_builtins(document) == raw == full_request()
    assert msgspec.json.decode(KINDS.to_json(document)) == raw


round_trips = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@round_trips
@given(struct(ScheduledSession, unknown=True) | struct(SimpleSession, unknown=True))
def test_a_session_that_we_stored_is_read_exactly(session: SimpleSession) -> None:
    assert KINDS.session(msgspec.json.decode(KINDS.to_json(session))).document == session
    assert KINDS.session(KINDS.to_builtins(session)).document == session


@round_trips
@given(struct(OfferSet, unknown=True))
def test_an_offer_set_survives_both_media(offerset: OfferSet) -> None:
    for media_type in (JSON, YAML):
        assert KINDS.offerset(decode(encode(offerset, media_type), media_type)).document == offerset


@round_trips
@given(struct(ExecutionRequest, unknown=True))
def test_a_request_survives_both_media(request: ExecutionRequest) -> None:
    for media_type in (JSON, YAML):
        assert KINDS.request(decode(encode(request, media_type), media_type)).document == request


@pytest.mark.parametrize("base", [model.Option, Update])
def test_options_and_updates_are_read_exactly(base: type[Wire]) -> None:
    for type_ in KINDS.of(base).values():

        @settings(max_examples=20, deadline=None)
        @given(struct(type_))
        def check(element: Any) -> None:
            assert KINDS.element(KINDS.to_builtins(element), base).document == element

        check()


def test_times_are_written_in_utc_without_needless_fractions() -> None:
    meta = {"created": "2030-01-01T00:00:00Z", "modified": "2030-01-01T00:00:00.250000Z"}
    session = KINDS.session({"kind": kinds.SIMPLE_SESSION, "meta": meta, "expires": "2030-01-01T00:00:00Z"})
    assert KINDS.to_builtins(session.document)["meta"] == meta
    assert b'"expires":"2030-01-01T00:00:00Z"' in KINDS.to_json(session.document)


def test_null_is_absent() -> None:
    raw = full_request()
    raw["data"] = None
    raw["compute"]["meta"] = None
    raw["compute"]["cores"]["min"] = None
    document = KINDS.request(raw).document
    assert document is not None
    assert document.data is None
    assert KINDS.to_builtins(document)["compute"]["cores"] == {"max": 8}


def test_the_spelling_computer_is_read_and_never_written() -> None:
    raw = full_request()
    raw["compute"]["kind"] = kinds.BASE + "computer/simple-compute-resource.yaml"
    document = KINDS.request(raw).document
    assert document is not None
    assert isinstance(document.compute, SimpleCompute)
    assert KINDS.to_builtins(document) == full_request()


def test_an_unknown_kind_is_kept_as_it_came() -> None:
    strange = {"kind": "https://example.org/kinds/quantum", "meta": {"created": 5}, "qubits": [1, None, {"a": 2.5}]}
    raw = full_request() | {"compute": strange}
    raw["data"].append(strange)
    raw["executable"]["costs"] = [strange]
    decoded = KINDS.request(copy.deepcopy(raw))
    assert decoded.problems == decoded.warnings == ()
    assert decoded.document is not None
    assert decoded.document.compute == model.UnknownElement(kind=strange["kind"], raw=strange)
    assert KINDS.to_builtins(decoded.document) == raw
    assert msgspec.json.decode(KINDS.to_json(decoded.document)) == raw


def test_a_kind_of_another_base_is_unknown_where_it_stands() -> None:
    raw = full_request() | {"executable": {"kind": kinds.SIMPLE_COMPUTE}}
    document = KINDS.request(raw).document
    assert document is not None
    assert isinstance(document.executable, model.UnknownElement)


def test_an_offer_set_of_another_broker_may_have_no_kind() -> None:
    assert KINDS.offerset({"result": "NO"}).document == OfferSet(result="NO")
    assert KINDS.offerset({"kind": None, "result": "NO"}).document == OfferSet(result="NO")
    assert where(KINDS.offerset({"kind": "x", "result": "NO"})) == [(SYNTAX, "/kind")]


# --- problems --------------------------------------------------------------------------------------------


def test_all_type_errors_are_told_at_once_each_with_its_place() -> None:
    raw = full_request()
    raw["executable"]["image"]["locations"] = "one"
    raw["executable"]["command"] = [1, None, "fine"]
    raw["executable"]["environment"] = {"A": None, "B/c~": 3}
    raw["executable"]["network"]["ports"][0]["internal"] = {"port": True}
    raw["compute"]["cores"] = {"min": "two", "max": 2.5}
    raw["compute"]["volumes"][0]["mode"] = "RW"
    del raw["compute"]["volumes"][1]["kind"]
    raw["storage"] += [None, {"kind": 5}, []]
    raw["data"][0]["meta"] = {"created": "yesterday", "options": [{"kind": "q"}, {"kind": kinds.ENUM_OPTION}]}
    raw["schedule"] = []
    raw["costs"][0]["max"] = "cheap"
    raw["metrics"] = {}
    assert sorted(where(KINDS.request(raw))) == sorted(
        [
            (SYNTAX, "/executable/image/locations"),
            (SYNTAX, "/executable/command/0"),
            (SYNTAX, "/executable/command/1"),
            (SYNTAX, "/executable/environment/A"),
            (SYNTAX, "/executable/environment/B~1c~0"),
            (SYNTAX, "/executable/network/ports/0/internal/port"),
            (SYNTAX, "/compute/cores/min"),
            (SYNTAX, "/compute/cores/max"),
            (SYNTAX, "/compute/volumes/0/mode"),
            (MISSING, "/compute/volumes/1/kind"),
            (SYNTAX, "/storage/1"),
            (SYNTAX, "/storage/2/kind"),
            (SYNTAX, "/storage/3"),
            (SYNTAX, "/data/0/meta/created"),
            (SYNTAX, "/data/0/meta/options/0/kind"),
            (MISSING, "/data/0/meta/options/1/path"),
            (MISSING, "/data/0/meta/options/1/values"),
            (SYNTAX, "/schedule"),
            (SYNTAX, "/costs/0/max"),
            (SYNTAX, "/metrics"),
        ]
    )


def test_a_problem_names_place_value_and_what_was_expected() -> None:
    raw = full_request()
    raw["compute"]["volumes"][0]["mode"] = "RW\n" + "x" * 500
    (problem,) = KINDS.request(raw).problems
    assert problem.values is not None
    assert problem.values["path"] == "/compute/volumes/0/mode"
    assert problem.values["expected"] == "one of READONLY, READWRITE"
    assert problem.values["value"].startswith('"RW\\nxxx')
    assert str(problem).isprintable()
    assert len(str(problem)) < 200


@pytest.mark.parametrize("raw", [None, 1, "text", [], [{}], True])
def test_a_document_that_is_no_mapping_is_a_problem(raw: object) -> None:
    for decoded in (KINDS.request(raw), KINDS.session(raw), KINDS.offerset(raw), KINDS.update(raw), KINDS.option(raw)):
        assert where(decoded) == [(SYNTAX, "")]


def test_a_session_or_update_needs_a_kind_that_is_known() -> None:
    assert where(KINDS.session({})) == [(MISSING, "/kind")]
    assert where(KINDS.session({"kind": 1})) == [(SYNTAX, "/kind")]
    assert where(KINDS.session({"kind": kinds.SIMPLE_COMPUTE})) == [("urn:not-supported", "/kind")]
    assert where(KINDS.update({"kind": kinds.ENUM_UPDATE})) == [(MISSING, "/path"), (MISSING, "/value")]
    update = {"kind": kinds.ENUM_UPDATE, "path": "phase", "value": "ACCEPTED"}
    assert KINDS.update(update).document == EnumUpdate(path="phase", value="ACCEPTED")


@pytest.mark.parametrize("text", ["a\0b", "\ud800"])
def test_text_that_no_database_keeps_is_a_problem_wherever_it_stands(text: str) -> None:
    raw = full_request()
    raw["executable"]["command"].append(text)
    raw["data"].append({"kind": "urn:unknown:kind", "deep": [{"er": text}]})
    raw["executable"]["environment"][text] = "x"
    assert where(KINDS.request(raw)) == [
        (SYNTAX, "/executable/command/4"),
        (SYNTAX, "/executable/environment"),
        (SYNTAX, "/data/1/deep/0/er"),
    ]
    assert where(KINDS.update({"kind": kinds.ENUM_UPDATE, "path": text, "value": "x"})) == [(SYNTAX, "/path")]


def test_a_literal_backslash_before_u0000_is_only_text() -> None:
    raw = full_request()
    raw["executable"]["command"] = ["\\u0000", "12345678901234567890"]
    assert KINDS.request(raw).problems == ()


def test_integers_of_more_than_64_bits_are_a_problem_also_in_unknown_kinds() -> None:
    raw = full_request()
    raw["compute"]["cores"]["min"] = 10**30
    raw["data"].append({"kind": "urn:unknown:kind", "deep": [-(10**30), 2**63]})
    assert where(KINDS.request(raw)) == [(SYNTAX, "/compute/cores/min"), (SYNTAX, "/data/1/deep/0")]


def test_what_is_no_plain_data_is_a_problem() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    for strange in (object(), 1j, deep):
        raw = full_request()
        raw["data"].append({"kind": "urn:unknown:kind", "deep": strange})
        assert KINDS.request(raw).document is None


def test_thousands_of_problems_are_counted_rather_than_listed() -> None:
    problems = KINDS.request({"data": [5] * (MOST_MESSAGES + 7)}).problems
    assert len(problems) == MOST_MESSAGES + 1
    assert str(problems[-1]) == "and 7 more"


# --- warnings --------------------------------------------------------------------------------------------


def test_properties_that_nobody_reads_are_warned_of_at_every_level() -> None:
    raw = full_request()
    raw["nice"] = 5
    raw["executable"]["image"]["tag"] = "x"
    raw["executable"]["network"]["ports"][0]["internal"]["a/b"] = 1
    raw["compute"]["cores"]["units"] = "cores"
    raw["compute"]["volumes"][1]["size"] = 3
    raw["data"][0]["meta"]["author"] = "me"
    raw["data"][0]["meta"]["options"] = [{"kind": kinds.STRING_OPTION, "path": "a", "values": []}]
    raw["costs"][0]["currency"] = "EUR"
    decoded = KINDS.request(raw)
    assert decoded.document is not None
    assert {(warning.kind, warning.level) for warning in decoded.warnings} == {("urn:unknown-property", "WARN")}
    assert [(warning.values or {})["path"] for warning in decoded.warnings] == [
        "/nice",
        "/executable/image/tag",
        "/executable/network/ports/0/internal/a~1b",
        "/compute/cores/units",
        "/compute/volumes/1/size",
        "/data/0/meta/author",
        "/data/0/meta/options/0/values",
        "/costs/0/currency",
    ]


# --- kinds of plugins ------------------------------------------------------------------------------------


def test_a_plugins_kinds_are_read_like_our_own() -> None:
    kinds_here = Kinds([BatchScript, GpuCompute])
    raw = {
        "executable": {"kind": "https://plugins.example.org/executable/batch-script", "lines": 3, "script": "date"},
        "compute": {
            "kind": "https://plugins.example.org/compute/gpus",
            "gpus": {"min": 2},
            "volumes": [{"kind": kinds.SIMPLE_VOLUME, "path": "/a"}],
            "costs": [{"kind": kinds.SIMPLE_COST, "max": 1.0}],
        },
    }
    decoded = kinds_here.request(raw)
    assert decoded.document is not None
    assert decoded.document.executable == BatchScript(script="date", lines=3)
    assert isinstance(decoded.document.compute.volumes[0], model.SimpleVolume)
    assert kinds_here.to_builtins(decoded.document) == raw
    assert isinstance(KINDS.request(raw).document.executable, model.UnknownElement)  # type: ignore[union-attr]
    del raw["executable"]["lines"]
    raw["executable"]["script"] = 5
    assert where(kinds_here.request(raw)) == [(SYNTAX, "/executable/script"), (MISSING, "/executable/lines")]


def test_a_constraint_that_a_plugins_struct_has_as_a_whole_is_told() -> None:
    class Odd(Data, tag="https://plugins.example.org/data/odd"):
        count: int = 1

        def __post_init__(self) -> None:
            if self.count % 2 == 0:
                raise ValueError("count must be odd")

    odd = Kinds([Odd])
    raw = {"data": [{"kind": "https://plugins.example.org/data/odd", "count": 2}]}
    (problem,) = odd.request(raw).problems
    assert (problem.values or {})["path"] == "/data/0"
    assert "count must be odd" in str(problem)


def test_a_type_that_cannot_be_a_kind_is_refused_by_name() -> None:
    class NoTag(Executable):
        pass

    class Taken(Compute, tag=kinds.SIMPLE_COMPUTE):
        pass

    class Undecodable(CostItem, tag="urn:x:undecodable"):
        value: int | msgspec.Struct | dict[str, int] = 0

    class Tuned(msgspec.Struct, tag="urn:x:y", tag_field="kind"):
        pass

    class Session(SimpleSession, tag="urn:x:session"):
        pass

    for type_, reason in [
        (NoTag, "needs a URI"),
        (Taken, "is taken by ebhpc.model.elements.SimpleCompute"),
        (Undecodable, "cannot be decoded"),
        (Tuned, "must be a Struct derived from one of Executable, Compute"),
        (Session, "must be a Struct derived from"),
        (dict, "must be a Struct"),
    ]:
        with pytest.raises(KindError, match=reason) as raised:
            Kinds([type_])
        assert type_.__name__ in str(raised.value)
    with pytest.raises(KindError, match="is taken by"):
        Kinds([BatchScript, BatchScript])
    with pytest.raises(KindError, match="is not a class"):
        Kinds([BatchScript(lines=1)])  # type: ignore[list-item]


# --- no input raises -------------------------------------------------------------------------------------


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        found += places(item, (*path, key))
    return found


def put(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    value = copy.deepcopy(value)
    inner = value
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = new
    return value


broken_requests = st.tuples(st.sampled_from(places(full_request())), plain).map(
    lambda change: put(full_request(), *change)
)


@settings(max_examples=300, deadline=None)
@given(broken_requests)
def test_any_data_at_any_place_of_a_request_is_read_or_a_problem(raw: Any) -> None:
    decoded = KINDS.request(raw)
    assert (decoded.document is None) == bool(decoded.problems)
    for problem in decoded.problems:
        assert str(problem).isprintable()
    if decoded.document is not None:
        again = KINDS.request(msgspec.json.decode(KINDS.to_json(decoded.document))).document
        assert again == decoded.document


@settings(max_examples=200, deadline=None)
@given(plain | st.dictionaries(st.sampled_from(["kind", "executable", "data", "meta", "offers"]) | texts, plain))
def test_any_data_is_read_or_a_problem(raw: Any) -> None:
    for read in (KINDS.request, KINDS.session, KINDS.offerset, KINDS.update, KINDS.option):
        decoded: Decoded[Any] = read(raw)
        assert (decoded.document is None) == bool(decoded.problems)
