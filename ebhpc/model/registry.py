"""The kinds of the data model: plain data to documents and back.

:class:`Kinds` knows the standard's kinds, ours and those that plugins add, and treats both alike. An element of a
kind that nobody knows becomes an UnknownElement, which is refused later with a reason, and encodes as it
came.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Generic, TypeVar, cast

import msgspec
from msgspec import Struct
from msgspec.structs import force_setattr

from ebhpc.model import documents, elements, kinds
from ebhpc.model.batch_script import BatchScript
from ebhpc.model.cluster import ClusterCompute
from ebhpc.model.documents import ExecutionRequest, ExecutionSession, OfferSet
from ebhpc.model.elements import (
    Component,
    Compute,
    CostItem,
    Data,
    Executable,
    MetricItem,
    Option,
    Storage,
    UnknownElement,
    Update,
    VolumeMount,
    Wire,
)
from ebhpc.model.messages import Message, MessageKind, message
from ebhpc.model.reserved_time import ReservedTime
from ebhpc.model.structure import Problems, check_plain, missing, mistyped, pointer, shown, structure

T = TypeVar("T")
W = TypeVar("W", bound=Wire)

EXTENSIBLE: tuple[type[Wire], ...] = (Executable, Compute, Storage, VolumeMount, Data, CostItem, MetricItem)
"""The bases that plugins may derive kinds from."""

MOST_MESSAGES = 1000
"""Problems or warnings of one document that are told one by one."""

_BASES: tuple[type[Wire], ...] = (*EXTENSIBLE, ExecutionSession, Option, Update)

_CORE: tuple[type[Wire], ...] = (
    elements.DockerContainer,
    elements.SingularityContainer,
    elements.JupyterNotebook,
    BatchScript,
    ReservedTime,
    elements.SimpleCompute,
    ClusterCompute,
    elements.SimpleStorage,
    elements.SimpleVolume,
    elements.SimpleData,
    elements.S3Data,
    elements.IvoaData,
    elements.RucioData,
    elements.SkaoData,
    elements.CostItem,
    elements.SimpleCost,
    elements.MetricItem,
    elements.SimpleMetric,
    documents.SimpleSession,
    documents.ScheduledSession,
    elements.StringOption,
    elements.EnumOption,
    elements.IntegerOption,
    elements.DeltaOption,
    elements.StringUpdate,
    elements.EnumUpdate,
    elements.IntegerUpdate,
    elements.DeltaUpdate,
)


class KindError(TypeError):
    """A plugin's data-model type cannot be used; the text names the type and what is wrong."""


class Decoded(Struct, Generic[T], frozen=True, kw_only=True):
    """What became of plain data: a ``document``, or None and the ``problems``; ``warnings`` in both cases."""

    document: T | None = None
    problems: tuple[Message, ...] = ()
    warnings: tuple[Message, ...] = ()


class _Slot(Struct, frozen=True):
    """A property whose value is an element of any kind of a base, or a list of them."""

    name: str
    base: type[Wire]
    many: bool


_COSTS = _Slot("costs", CostItem, True)
_METRICS = _Slot("metrics", MetricItem, True)
_PARTS = (
    _Slot("executable", Executable, False),
    _Slot("compute", Compute, False),
    _Slot("storage", Storage, True),
    _Slot("data", Data, True),
)
_SLOTS: tuple[tuple[type[Wire], tuple[_Slot, ...]], ...] = (
    (ExecutionRequest, (*_PARTS, _COSTS, _METRICS)),
    (documents.SimpleSession, (*_PARTS, _COSTS, _METRICS)),
    (OfferSet, (_Slot("offers", ExecutionSession, True), _COSTS, _METRICS)),
    (Compute, (_Slot("volumes", VolumeMount, True), _COSTS, _METRICS)),
    (Component, (_COSTS, _METRICS)),
)


def _slots(type_: type[Wire]) -> tuple[_Slot, ...]:
    return next((slots for base, slots in _SLOTS if issubclass(type_, base)), ())


def as_plain(value: object) -> object:
    """Return what msgspec cannot encode as plain data: the ``enc_hook`` of every encoder of documents."""
    if isinstance(value, UnknownElement):
        return value.raw
    raise NotImplementedError(f"{type(value).__name__} has no form on the wire")


_MAYBE_TOO_LONG = re.compile(rb"[0-9]{19}")
_JSON = msgspec.json.Encoder(enc_hook=as_plain)


class Kinds:
    """The kinds that this broker knows: the standard's, ours and ``extra`` ones.

    Raises:
        KindError: one of ``extra`` is not a Struct of an extensible base with a ``kind`` of its own.
    """

    def __init__(self, extra: Iterable[type] = ()) -> None:
        self._by_base: dict[type[Wire], dict[str, type[Wire]]] = {base: {} for base in _BASES}
        self._slots: dict[type[Wire], tuple[_Slot, ...]] = {
            ExecutionRequest: _slots(ExecutionRequest),
            OfferSet: _slots(OfferSet),
        }
        for type_ in _CORE:
            self._add(type_)
        for candidate in extra:
            if not inspect.isclass(candidate):
                raise KindError(f"{candidate!r} is not a class: a plugin's kinds are Structs of ebhpc.model")
            self._add(self._checked(candidate))

    def _add(self, type_: type[Wire]) -> None:
        base = next(base for base in _BASES if issubclass(type_, base))
        self._by_base[base][str(type_.__struct_config__.tag)] = type_
        self._slots[type_] = _slots(type_)

    def _checked(self, candidate: type) -> type[Wire]:
        name = f"{candidate.__module__}.{candidate.__qualname__}"
        if not issubclass(candidate, EXTENSIBLE):
            bases = ", ".join(base.__name__ for base in EXTENSIBLE)
            raise KindError(f"{name} must be a Struct derived from one of {bases} (ebhpc.model)")
        config = candidate.__struct_config__
        # msgspec takes the class's name for a tag that was not given.
        if config.tag_field != "kind" or not isinstance(config.tag, str) or ":" not in config.tag:
            raise KindError(f"{name} needs a URI of its own as kind: class {candidate.__name__}(…, tag='https://…')")
        taken = OfferSet if config.tag == kinds.OFFERSET else self.types.get(config.tag)
        if taken is not None:
            raise KindError(f"{name}: the kind {config.tag} is taken by {taken.__module__}.{taken.__qualname__}")
        try:
            msgspec.json.Decoder(candidate)
        except (TypeError, NameError) as error:
            raise KindError(f"{name} has a field that cannot be decoded: {error}") from error
        return candidate

    @property
    def types(self) -> Mapping[str, type[Wire]]:
        """All types by their kind."""
        return MappingProxyType({kind: type_ for table in self._by_base.values() for kind, type_ in table.items()})

    def of(self, base: type[Wire]) -> Mapping[str, type[Wire]]:
        """Return the types derived from one of the bases (Executable, Compute, …) by their kind."""
        return MappingProxyType(self._by_base[base])

    # --- plain data to documents -----------------------------------------------------------------------

    def request(self, raw: object) -> Decoded[ExecutionRequest]:
        """Read a request from plain data; what cannot be stored is a problem too."""
        return self._document(raw, ExecutionRequest, outside=True)

    def offerset(self, raw: object) -> Decoded[OfferSet]:
        """Read an offer set from plain data."""
        return self._document(raw, OfferSet)

    def session(self, raw: object) -> Decoded[ExecutionSession]:
        """Read a session of any known kind from plain data."""
        return self.element(raw, ExecutionSession)

    def update(self, raw: object) -> Decoded[Update]:
        """Read an update from plain data; what cannot be stored is a problem too."""
        return self.element(raw, Update, outside=True)

    def option(self, raw: object) -> Decoded[Option]:
        """Read an option from plain data."""
        return self.element(raw, Option)

    def element(self, raw: object, base: type[W], *, outside: bool = False) -> Decoded[W]:
        """Read one element of any known kind of ``base`` (Executable, Compute, …) from plain data.

        ``outside``: it comes from a client, so what cannot be stored is a problem.
        """
        table = self._by_base[base]
        if not isinstance(raw, dict):
            return Decoded(problems=(mistyped("", "a mapping", raw),))
        kind = raw.get("kind")
        if kind is None:
            return Decoded(problems=(missing("/kind", _choices(table)),))
        if not isinstance(kind, str):
            return Decoded(problems=(mistyped("/kind", "a string", kind),))
        type_ = table.get(kinds.canonical(kind))
        if type_ is None:
            return Decoded(problems=(_not_supported(kind, table),))
        return self._document(raw, cast(type[W], type_), outside=outside)

    def _document(self, raw: object, type_: type[W], *, outside: bool = False) -> Decoded[W]:
        problems: Problems = []
        if outside and not _storable(raw):
            check_plain(raw, "", problems)
        warnings: Problems = []
        if not problems and isinstance(raw, dict):
            try:
                document = self._convert(raw, type_)
                self._strange(raw, type_, "", warnings)
                return Decoded(document=document, warnings=_some(warnings))
            except msgspec.ValidationError as error:
                # The walk finds this error again, and all others.
                self._check(raw, type_, "", problems)
                if not problems:
                    problems.append(mistyped("", str(error), raw))
        else:
            self._check(raw, type_, "", problems)
        return Decoded(problems=_some(_once(problems)))

    def _convert(self, raw: Any, type_: type[W]) -> W:
        kind = raw.get("kind", "")
        if kind is None:
            raw = {name: value for name, value in raw.items() if name != "kind"}
        elif kind.__class__ is str and (right := kinds.canonical(kind)) is not kind:
            raw = {**raw, "kind": right}
        made = msgspec.convert(raw, type_)
        for slot in self._slots[type_]:
            value = getattr(made, slot.name)
            if value is None:
                continue
            table = self._by_base[slot.base]
            filled = [self._fill(item, table) for item in value] if slot.many else self._fill(value, table)
            force_setattr(made, slot.name, filled)
        return made

    def _fill(self, raw: Any, table: Mapping[str, type[Wire]]) -> Wire | UnknownElement:
        kind = raw.get("kind") if raw.__class__ is dict else None
        if kind.__class__ is not str:
            raise msgspec.ValidationError("not an element")
        type_ = table.get(kind) or table.get(kinds.canonical(kind))
        return UnknownElement(kind=kind, raw=raw) if type_ is None else self._convert(raw, type_)

    # --- all errors of plain data, and what nobody reads -----------------------------------------------

    def _check(self, raw: object, type_: type[Wire], path: str, problems: Problems) -> None:
        if isinstance(raw, dict) and isinstance(raw.get("kind"), str):
            raw = {**raw, "kind": kinds.canonical(raw["kind"])}
        structure(type_).check(raw, path, problems)
        if not isinstance(raw, dict):
            return
        for slot in self._slots[type_]:
            value = raw.get(slot.name)
            place = pointer(path, slot.name)
            if value is None:
                continue
            if not slot.many:
                self._check_element(value, slot.base, place, problems)
            elif isinstance(value, list):
                for number, item in enumerate(value):
                    self._check_element(item, slot.base, pointer(place, number), problems)

    def _check_element(self, raw: object, base: type[Wire], path: str, problems: Problems) -> None:
        if not isinstance(raw, dict):
            problems.append(mistyped(path, "a mapping with a kind", raw))
            return
        kind = raw.get("kind")
        table = self._by_base[base]
        if kind is None:
            problems.append(missing(pointer(path, "kind"), _choices(table)))
        elif not isinstance(kind, str):
            problems.append(mistyped(pointer(path, "kind"), "a string", kind))
        elif (type_ := table.get(kinds.canonical(kind))) is not None:
            self._check(raw, type_, path, problems)

    def _strange(self, raw: dict[str, Any], type_: type[Wire], path: str, warnings: Problems) -> None:
        structure(type_).strange(raw, path, warnings)
        for slot in self._slots[type_]:
            value = raw.get(slot.name)
            if not value:
                continue
            table = self._by_base[slot.base]
            items = enumerate(value) if slot.many else ((None, value),)
            for number, item in items:
                inner = table.get(kinds.canonical(item["kind"]))
                if inner is not None:
                    place = f"{path}/{slot.name}" if number is None else f"{path}/{slot.name}/{number}"
                    self._strange(item, inner, place, warnings)

    # --- documents to plain data -----------------------------------------------------------------------

    def to_builtins(self, document: object) -> Any:
        """Return a document, or part of one, as plain data: absent values left out, times as RFC 3339 text."""
        return msgspec.to_builtins(document, enc_hook=as_plain)

    def to_json(self, document: object) -> bytes:
        """Return a document, or any part of one, as JSON text in UTF-8."""
        return _JSON.encode(document)


def _choices(table: Mapping[str, object]) -> str:
    return "one of " + ", ".join(table)


def _not_supported(kind: str, table: Mapping[str, object]) -> Message:
    return message(
        MessageKind.NOT_SUPPORTED,
        "the kind {value} is not known, expected {expected}",
        path="/kind",
        value=shown(kind),
        expected=_choices(table),
    )


def _storable(raw: object) -> bool:
    """Whether ``raw`` can surely be stored; False: perhaps not, look closely."""
    try:
        text = msgspec.json.encode(raw)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return False
    # Integers of more than 64 bits have 19 digits at least. A NaN has become null here, but no reader of
    # ours lets one in.
    return b"\\u0000" not in text and not _MAYBE_TOO_LONG.search(text)


def _some(messages: Problems) -> tuple[Message, ...]:
    if len(messages) <= MOST_MESSAGES:
        return tuple(messages)
    rest = len(messages) - MOST_MESSAGES
    more = message(messages[0].kind or "", "and {count} more", level=messages[0].level or "ERROR", count=rest)
    return (*messages[:MOST_MESSAGES], more)


def _once(problems: Problems) -> Problems:
    seen: set[tuple[str, str]] = set()
    kept = []
    for problem in problems:
        place = (problem.values or {}).get("path", ""), problem.template or ""
        if place not in seen:
            seen.add(place)
            kept.append(problem)
    return kept
