"""What a Struct expects of plain data: every type error in it, and every property that it does not know.

msgspec stops at the first error. A person who wrote a request by hand wants them all, so where msgspec says
no, the data is walked a second time, type by type, with msgspec judging only the leaves.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from datetime import datetime
from enum import Enum
from functools import cache, cached_property
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import msgspec
from msgspec.structs import FieldInfo, fields

from ebhpc.model.messages import Message, MessageKind, message

Problems = list[Message]
Checker = Callable[[object, str, Problems], None]
"""Looks at a value that stands at a JSON pointer and appends what is wrong with it."""

_SHOWN = 60
_DEEPEST = 200
_INT64 = range(-(2**63), 2**64)


def pointer(path: str, key: str | int) -> str:
    """Return the JSON pointer (RFC 6901) of a member or item of what ``path`` points to.

    A key with characters that cannot be printed is written as section 5 has it, with the escapes of JSON strings.
    """
    token = str(key)
    if not token.isprintable():
        token = json.dumps(token)[1:-1]
    return f"{path}/{token.replace('~', '~0').replace('/', '~1')}"


def shown(value: object) -> str:
    """Return a value in a few printable characters, for a message."""
    if value is None:
        return "nothing"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and abs(value) >= 10**_SHOWN:
        return f"an integer of {value.bit_length()} bits"
    if isinstance(value, str):
        return json.dumps(value if len(value) <= _SHOWN else value[:_SHOWN] + "...")
    text = ascii(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def mistyped(path: str, expected: str, value: object) -> Message:
    """Return the message for a value of a wrong type."""
    at = " at {path}" if path else ""
    return message(
        MessageKind.INPUT_SYNTAX,
        f"expected {{expected}}{at}, found {{value}}",
        path=path,
        expected=expected,
        value=shown(value),
    )


def missing(path: str, expected: str) -> Message:
    """Return the message for a required property that is not there; ``path`` points to where it should be."""
    return message(
        MessageKind.MISSING_VALUE,
        "{path} is required: {expected}",
        path=path,
        expected=expected,
        value="nothing",
    )


def unknown(path: str) -> Message:
    """Return the warning for a property that nobody reads."""
    return message(MessageKind.UNKNOWN_PROPERTY, "{path} is not a known property: ignored", level="WARN", path=path)


# --- types ---------------------------------------------------------------------------------------------

_WORDS: dict[Any, str] = {
    str: "a string",
    int: "an integer",
    float: "a number",
    bool: "true or false",
    datetime: "an RFC 3339 time",
}


def _without_none(type_: Any) -> tuple[Any, ...]:
    if get_origin(type_) in (Union, UnionType):
        return tuple(part for part in get_args(type_) if part is not type(None))
    return (type_,)


def _is_struct(type_: Any) -> bool:
    return isinstance(type_, type) and issubclass(type_, msgspec.Struct)


def _expected(type_: Any) -> str | None:
    if get_origin(type_) is Literal:
        return "one of " + ", ".join(str(value) for value in get_args(type_))
    if isinstance(type_, type) and issubclass(type_, Enum):
        return "one of " + ", ".join(str(member.value) for member in type_)
    return _WORDS.get(type_)


@cache
def checker(type_: Any) -> Checker:
    """Return the checker of a type; None is taken for absent, and so is no error."""
    parts = _without_none(type_)
    if len(parts) > 1 and all(_is_struct(part) for part in parts):
        return _TaggedUnion(parts).check
    if len(parts) > 1:
        return _leaf(type_)
    (part,) = parts
    if part is Any:
        return lambda value, path, problems: None
    if _is_struct(part):
        return structure(part).check
    if get_origin(part) is list:
        return _list_of(get_args(part)[0])
    if get_origin(part) is dict:
        return _mapping_to(get_args(part)[1])
    return _leaf(part)


def _leaf(type_: Any) -> Checker:
    def check(value: object, path: str, problems: Problems) -> None:
        try:
            msgspec.convert(value, type_)
        except msgspec.ValidationError as error:
            problems.append(mistyped(path, _expected(type_) or _without_place(error), value))

    return check


def _list_of(type_: Any) -> Checker:
    def check(value: object, path: str, problems: Problems) -> None:
        if not isinstance(value, list):
            problems.append(mistyped(path, "a list", value))
            return
        inner = checker(type_)
        for place, item in enumerate(value):
            _check_item(inner, type_, item, pointer(path, place), problems)

    return check


def _mapping_to(type_: Any) -> Checker:
    def check(value: object, path: str, problems: Problems) -> None:
        if not isinstance(value, dict):
            problems.append(mistyped(path, "a mapping", value))
            return
        inner = checker(type_)
        for key, item in value.items():
            if not isinstance(key, str):
                problems.append(mistyped(pointer(path, shown(key)), "a string as the key", key))
            _check_item(inner, type_, item, pointer(path, key), problems)

    return check


def _check_item(inner: Checker, type_: Any, item: object, path: str, problems: Problems) -> None:
    # Null is absent as a property, but an item of a list or a map cannot be absent.
    if item is None and type_ is not Any and type(None) not in get_args(type_):
        problems.append(mistyped(path, _expected(type_) or "a value", item))
    else:
        inner(item, path, problems)


def _without_place(error: msgspec.ValidationError) -> str:
    text = str(error).partition(" - at `")[0]
    return text[len("Expected ") :].partition(", got")[0] if text.startswith("Expected ") else f"another value ({text})"


class _TaggedUnion:
    def __init__(self, types: tuple[Any, ...]) -> None:
        self.tag_field: str = types[0].__struct_config__.tag_field or "type"
        self.types = {type_.__struct_config__.tag: type_ for type_ in types}

    def check(self, value: object, path: str, problems: Problems) -> None:
        if not isinstance(value, dict):
            problems.append(mistyped(path, "a mapping", value))
            return
        tag = value.get(self.tag_field)
        choices = "one of " + ", ".join(str(choice) for choice in self.types)
        if tag is None:
            problems.append(missing(pointer(path, self.tag_field), choices))
        elif not isinstance(tag, str) or tag not in self.types:
            problems.append(mistyped(pointer(path, self.tag_field), choices, tag))
        else:
            structure(self.types[tag]).check(value, path, problems)

    def strange(self, value: dict[str, Any], path: str, warnings: Problems) -> None:
        type_ = self.types.get(value.get(self.tag_field))
        if type_ is not None:
            structure(type_).strange(value, path, warnings)


# --- Structs -------------------------------------------------------------------------------------------


class Structure:
    """One Struct's properties, as they are on the wire."""

    def __init__(self, type_: type[msgspec.Struct]) -> None:
        self.type = type_

    @cached_property
    def fields(self) -> tuple[FieldInfo, ...]:
        """The Struct's fields."""
        return fields(self.type)

    @cached_property
    def names(self) -> frozenset[str]:
        """The properties that the Struct reads, its tag among them."""
        tag_field = self.type.__struct_config__.tag_field
        return frozenset(field.encode_name for field in self.fields) | ({tag_field} if tag_field else frozenset())

    @cached_property
    def _nested(self) -> tuple[tuple[str, Callable[[Any, str, Problems], None]], ...]:
        """The properties that hold Structs, and what looks for strange properties in them."""
        found = []
        for field in self.fields:
            look = _strange_in(field.type)
            if look is not None:
                found.append((field.encode_name, look))
        return tuple(found)

    def check(self, value: object, path: str, problems: Problems) -> None:
        """Append every type error of ``value``, which stands at ``path``."""
        if not isinstance(value, dict):
            problems.append(mistyped(path, "a mapping", value))
            return
        before = len(problems)
        for field in self.fields:
            item = value.get(field.encode_name)
            if item is not None:
                checker(field.type)(item, pointer(path, field.encode_name), problems)
            elif field.required:
                expected = " or ".join(_expected(part) or "a value" for part in _without_none(field.type))
                problems.append(missing(pointer(path, field.encode_name), expected))
        if len(problems) == before:
            self._check_as_a_whole(value, path, problems)

    def _check_as_a_whole(self, value: dict[str, Any], path: str, problems: Problems) -> None:
        # What no single property shows: a tag that differs, a constraint that a plugin's Struct has as a
        # whole.
        try:
            msgspec.convert({name: item for name, item in value.items() if item is not None}, self.type)
        except msgspec.ValidationError as error:
            tag_field, tag = self.type.__struct_config__.tag_field, self.type.__struct_config__.tag
            if tag_field and value.get(tag_field) not in (None, tag):
                problems.append(mistyped(pointer(path, tag_field), str(tag), value[tag_field]))
            else:
                problems.append(mistyped(path, _without_place(error), value))

    def strange(self, value: dict[str, Any], path: str, warnings: Problems) -> None:
        """Append a warning for each property in ``value``, which msgspec has read, that nobody knows."""
        if not value.keys() <= self.names:
            warnings.extend(unknown(pointer(path, name)) for name in value if name not in self.names)
        for name, look in self._nested:
            item = value.get(name)
            if item is not None:
                look(item, f"{path}/{name}", warnings)


@cache
def structure(type_: type[msgspec.Struct]) -> Structure:
    """Return the Structure of a Struct type."""
    return Structure(type_)


def _strange_in(type_: Any) -> Callable[[Any, str, Problems], None] | None:
    parts = _without_none(type_)
    if len(parts) > 1:
        return _TaggedUnion(parts).strange if all(_is_struct(part) for part in parts) else None
    (part,) = parts
    if _is_struct(part):
        return lambda value, path, warnings: structure(part).strange(value, path, warnings)
    if get_origin(part) is list:
        inner = _strange_in(get_args(part)[0])
        if inner is not None:
            look = inner

            def each(value: list[Any], path: str, warnings: Problems) -> None:
                for place, item in enumerate(value):
                    look(item, f"{path}/{place}", warnings)

            return each
    return None


# --- plain data ----------------------------------------------------------------------------------------


def check_plain(value: object, path: str, problems: Problems, depth: int = 0) -> None:
    """Append what of ``value`` cannot be stored and sent again as JSON.

    That is NUL (no text column holds it) and lone surrogates in strings, integers of more than 64 bits, NaN
    and infinity, keys that are no strings, and anything that is not plain data.
    """
    if depth > _DEEPEST:
        problems.append(mistyped(path, f"at most {_DEEPEST} levels of nesting", value))
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                problems.append(mistyped(pointer(path, shown(key)), "a string as the key", key))
                continue
            if not _storable(key):
                problems.append(mistyped(path, "keys without NUL characters or lone surrogates", key))
            check_plain(item, pointer(path, key), problems, depth + 1)
    elif isinstance(value, list):
        for place, item in enumerate(value):
            check_plain(item, pointer(path, place), problems, depth + 1)
    elif isinstance(value, str):
        if not _storable(value):
            problems.append(mistyped(path, "a string without NUL characters or lone surrogates", value))
    elif isinstance(value, float):
        if not math.isfinite(value):
            problems.append(mistyped(path, "a finite number", value))
    elif isinstance(value, int):
        if value not in _INT64:
            problems.append(mistyped(path, "an integer of at most 64 bits", value))
    elif value is not None:
        problems.append(mistyped(path, "plain data", value))


def _storable(text: str) -> bool:
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)
