"""YAML text to plain data and back.

Reading builds the data straight from libyaml's events, with the scalars of YAML 1.2's core schema: dates, yes
and no are strings, no tag makes an object, and an alias costs what it stands for. Writing quotes every string
that a reader of YAML 1.1 or 1.2 would take for something else.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import yaml
from msgspec import Struct
from yaml.events import (
    AliasEvent,
    DocumentEndEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
    StreamStartEvent,
)

from ebhpc.media.errors import Malformed, TooLarge, malformed_at
from ebhpc.media.limits import MediaLimits

# The pure Python ones say the same, slower, where PyYAML was built without libyaml.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)

# YAML 1.2.2, section 10.3.2
_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_TRUE = frozenset({"true", "True", "TRUE"})
_FALSE = frozenset({"false", "False", "FALSE"})
_WHOLE = re.compile(r"[-+]?[0-9]+", re.ASCII)
_OCTAL = re.compile(r"0o[0-7]+", re.ASCII)
_HEXADECIMAL = re.compile(r"0x[0-9a-fA-F]+", re.ASCII)
_REAL = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", re.ASCII)
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_WHOLES = ((10, _WHOLE), (8, _OCTAL), (16, _HEXADECIMAL))
_NUMERIC_START = frozenset("+-.0123456789")

_CORE = "tag:yaml.org,2002:"
_TYPES: dict[str, type] = {"int": int, "float": float, "bool": bool, "null": type(None)}
_SURROGATE = re.compile("[\ud800-\udfff]")


_TOO_DEEP = "maximum nesting depth"
"""What libyaml says where it gives up by itself, as it reads ahead: later versions after 1000 levels."""


class _Anchored(Struct, frozen=True):
    """A value that aliases may repeat, and what each repetition costs: elements, characters, levels."""

    value: object
    elements: int
    characters: int
    height: int


def read_yaml(text: str, limits: MediaLimits) -> object:
    """Return the plain data of a YAML text of one document.

    Raises:
        Malformed: not YAML, several documents, an unknown tag, a key that is no string, or beyond the limits.
        TooLarge: its aliases expand to more than the limit of size.
    """
    try:
        return _Builder(text, limits).read()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        if _TOO_DEEP in (error.problem or ""):
            raise Malformed(line, column, f"more than {limits.depth} levels of nesting") from None
        what = ", ".join(part for part in (error.context, error.problem) if part)
        raise Malformed(line, column, f"not YAML: {what}") from None
    except yaml.reader.ReaderError as error:
        raise malformed_at(text, _index(text, error.position), f"not YAML: {error.reason}") from None


def _index(text: str, position: int) -> int:
    # libyaml counts bytes, PyYAML's own reader characters.
    if _Loader is yaml.SafeLoader:
        return position
    return len(text.encode()[:position].decode(errors="ignore"))


class _Builder:
    """Builds the data of one text from its events."""

    def __init__(self, text: str, limits: MediaLimits) -> None:
        self._events: Iterator[Any] = yaml.parse(text, Loader=_Loader)
        self._limits = limits
        self._anchors: dict[str, _Anchored] = {}
        self._aliases = 0
        self._elements = 0
        self._characters = 0

    def read(self) -> object:
        next(self._events)  # the stream's start
        if isinstance(next(self._events), StreamEndEvent):
            raise Malformed(1, 1, "there is no document")
        value, _ = self._value(next(self._events), 1)
        next(self._events)  # the document's end
        following = next(self._events)
        if not isinstance(following, StreamEndEvent):
            raise _at(following, "a second document begins: only one is read")
        return value

    def _value(self, event: Any, depth: int) -> tuple[object, int]:
        """The value that begins with ``event`` at ``depth``, and how many levels it has itself."""
        kind = event.__class__
        if kind is AliasEvent:
            return self._repeated(event, depth)
        elements, characters = self._elements, self._characters
        value: object
        if kind is ScalarEvent:
            self._count(event, 1, len(event.value))
            value, height = self._scalar(event), 0
        else:
            self._count(event, 1, 0)
            if depth > self._limits.depth:
                raise _at(event, f"more than {self._limits.depth} levels of nesting")
            value, height = self._mapping(event, depth) if kind is MappingStartEvent else self._list(event, depth)
        if event.anchor is not None:
            self._anchors[event.anchor] = _Anchored(
                value, self._elements - elements, self._characters - characters, height
            )
        return value, height

    def _count(self, event: Any, elements: int, characters: int) -> None:
        self._elements += elements
        self._characters += characters
        if self._elements > self._limits.elements:
            raise _at(event, f"more than {self._limits.elements} keys, values and items")
        if self._characters > self._limits.size:
            raise TooLarge(f"the text has more than {self._limits.size} characters with its aliases expanded")

    def _repeated(self, event: Any, depth: int) -> tuple[object, int]:
        anchored = self._anchors.get(event.anchor)
        if anchored is None:
            raise _at(event, f"the alias {event.anchor} has no anchor that is complete before it")
        self._aliases += 1
        if self._aliases > self._limits.aliases:
            raise _at(event, f"more than {self._limits.aliases} aliases")
        if depth + anchored.height - 1 > self._limits.depth:
            raise _at(event, f"more than {self._limits.depth} levels of nesting")
        self._count(event, anchored.elements, anchored.characters)
        return anchored.value, anchored.height

    def _list(self, event: Any, depth: int) -> tuple[list[object], int]:
        _check_tag(event, "seq")
        items: list[object] = []
        highest = 0
        while (event := next(self._events)).__class__ is not SequenceEndEvent:
            value, height = self._value(event, depth + 1)
            items.append(value)
            highest = max(highest, height)
        return items, highest + 1

    def _mapping(self, event: Any, depth: int) -> tuple[dict[str, object], int]:
        _check_tag(event, "map")
        members: dict[str, object] = {}
        highest = 0
        while (event := next(self._events)).__class__ is not MappingEndEvent:
            key = self._key(event, depth)
            if key in members:
                raise _at(event, f"the key {_short(key)} is given twice")
            members[key], height = self._value(next(self._events), depth + 1)
            highest = max(highest, height)
        return members, highest + 1

    def _key(self, event: Any, depth: int) -> str:
        if event.__class__ not in (ScalarEvent, AliasEvent):
            raise _at(event, "a key that is a list or a mapping: keys are strings")
        key, _ = self._value(event, depth)
        if not isinstance(key, str):
            raise _at(event, f"the key {_short(getattr(event, 'value', ''))} is no string: put it in quotes")
        if key == "<<" and not getattr(event, "style", ""):
            raise _at(event, "merging with << belongs to YAML 1.1: write the members out")
        return key

    def _scalar(self, event: Any) -> object:
        text: str = event.value
        if event.tag is not None and event.tag != "!":
            return self._tagged(event)
        if event.style or not event.implicit[0]:
            if _SURROGATE.search(text):
                raise _at(event, "a string with half a surrogate pair")
            return text
        return self._plain(event)

    def _tagged(self, event: Any) -> object:
        name = event.tag.removeprefix(_CORE)
        if name == "str":
            return event.value
        if name not in _TYPES or name == event.tag:
            raise _at(event, f"the tag {_short(event.tag)} is not known here")
        value = self._plain(event)
        if name == "float" and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if value.__class__ is not _TYPES[name]:
            raise _at(event, f"{_short(event.value)} is not of the type that its tag !!{name} says")
        return value

    def _plain(self, event: Any) -> object:
        """A scalar by the core schema of YAML 1.2."""
        text: str = event.value
        if text[:1] in _NUMERIC_START:
            return self._number(event, text)
        if text in _NULL:
            return None
        if text in _TRUE:
            return True
        return False if text in _FALSE else text

    def _number(self, event: Any, text: str) -> object:
        base = next((base for base, pattern in _WHOLES if pattern.fullmatch(text)), None)
        if base is None and not _REAL.fullmatch(text):
            if _NOT_FINITE.fullmatch(text):
                raise _at(event, f"{text} is not a number that can be used: put it in quotes if it is a text")
            return text
        if len(text) > self._limits.digits:
            raise _at(event, f"a number of more than {self._limits.digits} characters")
        if base is not None:
            return int(text, base)
        number = float(text)
        if not math.isfinite(number):
            raise _at(event, f"the number {text} is out of range")
        return number


def _check_tag(event: Any, name: str) -> None:
    if event.tag not in (None, "!", _CORE + name):
        raise _at(event, f"the tag {_short(event.tag)} is not known here")


def _at(event: Any, what: str) -> Malformed:
    mark = event.start_mark
    return Malformed(mark.line + 1, mark.column + 1, what)


def _short(text: str) -> str:
    return ascii(text if len(text) <= 60 else text[:60] + "...")


# --- writing -------------------------------------------------------------------------------------------

# What PyYAML takes for something else than a string: the types of YAML 1.1, by first character.
_IMPLICIT: dict[Any, list[tuple[str, re.Pattern[str]]]] = yaml.SafeDumper.yaml_implicit_resolvers
# The specification of YAML 1.1 has these among its booleans, PyYAML has not.
_LETTERS = frozenset("yYnN")
_EITHER = (True, True)
_QUOTED = (False, True)
# Writers only read events, so that one of each will do.
_MAPPING = MappingStartEvent(None, None, True, flow_style=False)
_MAPPING_END = MappingEndEvent()
_SEQUENCE = SequenceStartEvent(None, None, True, flow_style=False)
_SEQUENCE_END = SequenceEndEvent()


def write_yaml(data: object) -> str:
    """Return plain data as a YAML text that readers of YAML 1.1 and 1.2 understand alike."""
    events: list[Event] = [StreamStartEvent(), DocumentStartEvent(explicit=False)]
    _write(data, events)
    events += (DocumentEndEvent(explicit=False), StreamEndEvent())
    text: str = yaml.emit(events, Dumper=_Dumper, allow_unicode=True, width=_WIDTH)
    return text


_WIDTH = 1_000_000
"""Characters in a line: none is ever folded."""


def _write(data: object, events: list[Event]) -> None:
    if isinstance(data, str):
        events.append(_string(data))
    elif isinstance(data, dict):
        events.append(_MAPPING)
        for key, value in data.items():
            events.append(_string(key))
            _write(value, events)
        events.append(_MAPPING_END)
    elif isinstance(data, list | tuple):
        events.append(_SEQUENCE)
        for item in data:
            _write(item, events)
        events.append(_SEQUENCE_END)
    else:
        events.append(ScalarEvent(None, None, _EITHER, _word(data)))


def _string(text: str) -> ScalarEvent:
    # Property names, kinds and phases come again and again.
    return _short_string(text) if len(text) <= _SHORT else _any_string(text)


def _any_string(text: str) -> ScalarEvent:
    if not text.isprintable():
        # A block of lines where it can be read, and else escapes: writers differ in what they keep of odd characters.
        block = "\n" in text and text.replace("\n", "").replace("\t", "").isprintable()
        return ScalarEvent(None, None, _QUOTED, text, style="|" if block else '"')
    return ScalarEvent(None, None, _QUOTED if _ambiguous(text) else _EITHER, text)


_SHORT = 120
_short_string = lru_cache(maxsize=4096)(_any_string)


def _ambiguous(text: str) -> bool:
    """Whether a reader of YAML 1.1 or 1.2 would take a plain text for something else than a string."""
    first = text[:1]
    if any(pattern.match(text) for _, pattern in _IMPLICIT.get(first, ())):
        return True
    if first in _NUMERIC_START:
        return any(pattern.fullmatch(text) for _, pattern in _WHOLES) or bool(_REAL.fullmatch(text))
    return text in _LETTERS


def _word(data: object) -> str:
    if isinstance(data, bool):
        return "true" if data else "false"
    if isinstance(data, int):
        return str(data)
    if isinstance(data, float) and math.isfinite(data):
        mantissa, exponent, power = repr(data).partition("e")
        # YAML 1.1 wants a point in every number with an exponent.
        return mantissa + ("" if "." in mantissa else ".0") + exponent + power
    # JSON has no NaN and no infinity either, and msgspec writes null.
    if data is None or isinstance(data, float):
        return "null"
    raise TypeError(f"{type(data).__name__} is not plain data")
