"""Hypothesis strategies: documents of the model with every field, plain data, and requests that can run."""

from __future__ import annotations

import types
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Literal, Union, get_args, get_origin

import msgspec
from hypothesis import strategies as st
from msgspec.structs import fields

from ebhpc.model import elements, kinds
from ebhpc.model.elements import (
    Compute,
    CostItem,
    Data,
    Executable,
    MetricItem,
    Storage,
    UnknownElement,
    VolumeMount,
)
from ebhpc.model.registry import Kinds

KINDS = Kinds()

texts = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=12)
int64 = st.integers(-(2**63), 2**63 - 1)
finite = st.floats(allow_nan=False, allow_infinity=False)
times = st.datetimes(datetime(1970, 1, 1), datetime(9999, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
scalars = st.none() | st.booleans() | int64 | finite | texts

plain = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
"""Any plain data that a body can hold."""

_DURATIONS = st.sampled_from(["PT2H", "P1D", "P1W", "PT90M", "PT1.5S", "P1DT12H"])
_INSTANTS = times.map(lambda time: time.replace(microsecond=0).strftime("%Y-%m-%dT%H:%M:%SZ"))
_BY_NAME: dict[tuple[str, str], st.SearchStrategy[Any]] = {
    ("Metadata", "uuid"): st.uuids().map(str),
    ("InstantSchedule", "start"): _INSTANTS,
    ("IntervalSchedule", "start"): _INSTANTS.map(lambda text: f"{text}/PT2H"),
    ("RequestedItem", "start"): _INSTANTS.map(lambda text: f"{text}/P1D"),
    ("RequestedItem", "duration"): _DURATIONS,
    ("InstantSchedule", "duration"): _DURATIONS,
    ("IntervalSchedule", "duration"): _DURATIONS,
}
_URIS = st.sampled_from(["urn:ivoa:calycopis:cost:monetary", "https://example.org/a", "ivo://example.org/a"])
_INT32 = {"port", "calib_level", "content_length"}

unknown_elements = st.builds(
    lambda kind, rest: UnknownElement(kind=kind, raw={**rest, "kind": kind}),
    st.sampled_from(["https://example.org/kinds/thing", "urn:x:y"]),
    st.dictionaries(texts, plain, max_size=3),
)

_BASES: dict[str, type[elements.Wire]] = {
    "executable": Executable,
    "compute": Compute,
    "storage": Storage,
    "data": Data,
    "volumes": VolumeMount,
    "costs": CostItem,
    "metrics": MetricItem,
}


def one_of_kind(base: type[elements.Wire], *, unknown: bool) -> st.SearchStrategy[Any]:
    """An element of any kind of the standard's of a base, where ``unknown`` also ours and one that nobody knows."""
    types_ = [type_ for kind, type_ in KINDS.of(base).items() if unknown or not kind.startswith(kinds.OWN_BASE)]
    known = st.one_of([struct(type_, unknown=unknown) for type_ in types_])
    return known | unknown_elements if unknown else known


def struct(type_: type[Any], *, unknown: bool = False, full: bool = False) -> st.SearchStrategy[Any]:
    """A Struct with any of its fields absent; ``full``: none absent at the top."""

    def build() -> st.SearchStrategy[Any]:
        made = {}
        for field in fields(type_):
            present = _of_field(type_, field, unknown)
            made[field.name] = present if field.required or full else st.none() | present
        return st.builds(type_, **made)

    return st.deferred(build)


def _of_field(type_: type[Any], field: Any, unknown: bool) -> st.SearchStrategy[Any]:
    if (type_.__name__, field.name) in _BY_NAME:
        return _BY_NAME[type_.__name__, field.name]
    if field.name in _BASES and _holds_any(field.type):
        element = one_of_kind(_BASES[field.name], unknown=unknown)
        return st.lists(element, max_size=2) if field.type is not Any else element
    if field.name == "offers":
        return st.lists(st.one_of([struct(t, unknown=unknown) for t in KINDS.of(_session_base()).values()]), max_size=2)
    if (field.name == "url" and type_.__name__ == "Metadata") or field.name == "ivoid":
        return _URIS
    if field.name == "type" and issubclass(type_, CostItem | MetricItem):
        return _URIS
    if field.name in _INT32:
        return st.integers(-(2**31), 2**31 - 1)
    return of_type(field.type)


def _session_base() -> type[Any]:
    from ebhpc.model.documents import ExecutionSession

    return ExecutionSession


def _holds_any(type_: Any) -> bool:
    parts = [part for part in get_args(type_) if part is not type(None)] or [type_]
    return any(part is Any or get_args(part) == (Any,) for part in parts)


def of_type(type_: Any) -> st.SearchStrategy[Any]:
    """A value of a type that the model uses."""
    origin = get_origin(type_)
    if origin in (Union, types.UnionType):
        return st.one_of([of_type(part) for part in get_args(type_) if part is not type(None)])
    if origin is Literal:
        return st.sampled_from(get_args(type_))
    if origin is list:
        return st.lists(of_type(get_args(type_)[0]), max_size=2)
    if origin is dict:
        return st.dictionaries(texts, of_type(get_args(type_)[1]), max_size=2)
    if isinstance(type_, type) and issubclass(type_, Enum):
        return st.sampled_from(list(type_))
    if isinstance(type_, type) and issubclass(type_, msgspec.Struct):
        return struct(type_)
    return {str: texts, int: int64, float: finite, bool: st.booleans(), datetime: times}[type_]
