"""Plain data to typed settings, with every problem found at once."""

from __future__ import annotations

import difflib
import math
import re
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import msgspec
from msgspec.structs import FieldInfo, fields

from ebhpc.config.problems import KeyPath, SettingsError, SettingsProblem

S = TypeVar("S", bound=msgspec.Struct)
_WHERE = re.compile(r" - at `\$(.*)`$")
_STEP = re.compile(r"\.([^.\[]+)|\[(\d+)\]")
_PLAIN = {
    "object": "a mapping",
    "array": "a list",
    "str": "a string",
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "null": "nothing",
}


def is_internal(field: FieldInfo) -> bool:
    """Whether a field is for the program and no setting: ``Annotated[…, Meta(extra={"internal": True})]``."""
    return get_origin(field.type) is Annotated and any(
        (getattr(meta, "extra", None) or {}).get("internal") for meta in get_args(field.type)[1:]
    )


def setting_fields(settings: type[msgspec.Struct]) -> Iterator[FieldInfo]:
    """Yield the fields of a Struct that are settings."""
    return (field for field in fields(settings) if not is_internal(field))


def bare(hint: Any) -> Any:
    """Return a type without ``Annotated`` and ``| None``."""
    if get_origin(hint) is Annotated:
        return bare(get_args(hint)[0])
    if get_origin(hint) in (Union, types.UnionType):
        rest = [arg for arg in get_args(hint) if arg is not type(None)]
        if len(rest) == 1:
            return bare(rest[0])
    return hint


def is_struct(hint: Any) -> bool:
    """Whether a type is a Struct that is read field by field (no tagged union)."""
    return (
        isinstance(hint, type)
        and issubclass(hint, msgspec.Struct)
        and hint.__struct_config__.tag is None
        and not hint.__struct_config__.array_like
    )


def _expected(hint: Any) -> str | None:
    """Return in words what a type expects: its choices, or the ``description`` of its ``Meta``."""
    if get_origin(bare(hint)) is Literal:
        return "one of " + ", ".join(map(str, get_args(bare(hint))))
    notes = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
    return next((note.description for note in notes if isinstance(note, msgspec.Meta)), None)


def _allows_none(hint: Any) -> bool:
    if get_origin(hint) is Annotated:
        return _allows_none(get_args(hint)[0])
    return type(None) in get_args(hint)


def _decoder(base: Path | None) -> Callable[[type, Any], Any]:
    def decode(wanted: type, value: Any) -> Any:
        if issubclass(wanted, Path):
            if not isinstance(value, str) or not value or "\0" in value:
                raise ValueError(f"expected a path, got {value!r}")
            path = wanted(value).expanduser()
            return path if base is None else base / path
        make = getattr(wanted, "from_setting", None)
        if make is None:
            raise TypeError(f"{wanted!r} has no from_setting to read a setting with")
        return make(value)

    return decode


class _Reader:
    """Reads one document; ``base`` is the folder that relative paths are relative to."""

    def __init__(self, base: Path | None) -> None:
        self.problems: list[SettingsProblem] = []
        self.decode = _decoder(base)

    def wrong(self, path: KeyPath, text: str) -> None:
        self.problems.append(SettingsProblem(path=path, text=text))

    def struct(self, wanted: type[S], value: object, path: KeyPath) -> S | None:
        """Read a mapping to a Struct; None when there were problems, which are noted."""
        if not isinstance(value, Mapping):
            self.wrong(path, f"expected a mapping of settings, got {_shown(value)}")
            return None
        before = len(self.problems)
        known = {field.encode_name: field for field in setting_fields(wanted)}
        given: dict[str, Any] = {}
        for key, item in value.items():
            if key not in known:
                self.wrong((*path, str(key)), _unknown(str(key), known))
            else:
                given[known[key].name] = self.value(known[key].type, item, (*path, key))
        for name, field in known.items():
            if field.required and name not in value:
                self.wrong(path, f"the setting {name} is missing")
        if len(self.problems) > before:
            return None
        try:
            return wanted(**given)
        except ValueError as error:
            self.wrong(path, str(error))
            return None

    def value(self, hint: Any, value: object, path: KeyPath) -> Any:
        """Read any value; what is returned means nothing when there were problems."""
        if value is None and _allows_none(hint):
            return None
        inner = bare(hint)
        if is_struct(inner):
            return self.struct(inner, value, path)
        if get_origin(inner) in (list, tuple, Sequence) and is_struct(bare(get_args(inner)[0])):
            if not isinstance(value, list):
                self.wrong(path, f"expected a list, got {_shown(value)}")
                return None
            items = [self.value(get_args(inner)[0], item, (*path, at)) for at, item in enumerate(value)]
            return tuple(items) if get_origin(inner) is tuple else items
        if get_origin(inner) in (dict, Mapping) and is_struct(bare(get_args(inner)[1])):
            if not isinstance(value, Mapping):
                self.wrong(path, f"expected a mapping, got {_shown(value)}")
                return None
            return {key: self.value(get_args(inner)[1], item, (*path, key)) for key, item in value.items()}
        if (infinite := _not_finite(value)) is not None:
            self.wrong((*path, *infinite), "expected a finite number")
            return None
        try:
            return msgspec.convert(value, hint, dec_hook=self.decode)
        except msgspec.ValidationError as error:
            where, text = _located(error, path, value)
            if (expected := _expected(hint)) is not None:
                text = f"expected {expected}, got {_shown(value)}"
            self.wrong(where, text)
            return None


def read_settings(
    type_: type[S],
    mapping: Mapping[str, Any],
    where: str = "settings",
    *,
    base: Path | None = None,
) -> S:
    """Read plain data to the Struct ``type_``, nested Structs included. Every key must be a field.

    A field may be of any type that msgspec converts to, ``pathlib.Path``, or a class with a class method
    ``from_setting`` (see ``ebhpc.config.values``: durations, addresses, secrets). ``where`` is the key path
    of ``mapping`` within its document, for error messages; ``base`` the folder that relative paths are
    relative to.

    Raises:
        SettingsError: with every problem: keys that are unknown or missing, values of a wrong type or out of
            range, and ValueErrors that the Struct's ``__post_init__`` raised.
    """
    reader = _Reader(base)
    path: KeyPath = tuple(where.split(".")) if where else ()
    settings = reader.struct(type_, mapping, path)
    if reader.problems or settings is None:
        raise SettingsError(*reader.problems)
    return settings


def _unknown(key: str, known: Mapping[str, object]) -> str:
    near = difflib.get_close_matches(key, known, n=1)
    if near:
        return f"unknown setting; did you mean {near[0]}?"
    return f"unknown setting; expected one of {', '.join(sorted(known))}" if known else "unknown setting"


def _shown(value: object) -> str:
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _not_finite(value: object) -> KeyPath | None:
    """Return where the first number is that is infinite or not a number; None: all are finite."""
    if isinstance(value, float) and not math.isfinite(value):
        return ()
    items: Iterator[tuple[Any, Any]] = iter(())
    if isinstance(value, Mapping):
        items = iter(value.items())
    elif isinstance(value, list):
        items = enumerate(value)
    for key, item in items:
        if (found := _not_finite(item)) is not None:
            return (key, *found)
    return None


def _located(error: msgspec.ValidationError, path: KeyPath, value: object) -> tuple[KeyPath, str]:
    """Turn msgspec's message into our words, and the place it names into a key path."""
    text = str(error)
    if match := _WHERE.search(text):
        text = text[: match.start()]
        for key, index in _STEP.findall(match[1]):
            step = int(index) if index else key
            path = (*path, step)
            try:
                value = value[step]  # type: ignore[index]  # the place is msgspec's own
            except (LookupError, TypeError):
                return path, text
    if error.__cause__ is not None:  # raised by from_setting, in words of its own
        return path, text
    expected = re.sub(r", got `.*`$", "", text)
    expected = re.sub(r"`([^`]+)`", lambda quoted: " or ".join(_words(quoted[1])), expected)
    return path, f"{expected[:1].lower()}{expected[1:]}, got {_shown(value)}"


def _words(types_: str) -> list[str]:
    return [_PLAIN.get(name, name) for name in types_.split(" | ")]
