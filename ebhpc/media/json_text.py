"""JSON text to plain data, strictly: no duplicate keys, no NaN, nothing absurdly deep or long.

The standard library's parser is used, not msgspec's: it can tell of duplicate keys, and where an error
stands.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from ebhpc.media.errors import Malformed, malformed_at
from ebhpc.media.limits import MediaLimits

# To its end, or to that of the text: a search that could fail would begin again at each quote, in quadratic time.
_STRING = r'"(?:[^"\\]++|\\.?)*+"?'
_STRINGS = re.compile(_STRING, re.DOTALL)
_TOKEN = re.compile(rf"{_STRING}|[\[\]{{}}:,]|[^\s\[\]{{}}:,\"]+", re.DOTALL)
_OPENER_OR_CLOSER = re.compile(r"[\[\]{}]")
_SURROGATE = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}|\\u[dD][c-fC-F][0-9a-fA-F]{2}")


class _Refused(Exception):
    """A value that JSON or we do not allow; the parser does not say where it stands."""


def read_json(text: str, limits: MediaLimits) -> object:
    """Return the plain data of a JSON text.

    Raises:
        Malformed: not JSON, or beyond the limits.
    """
    _check_form(text, limits)

    def whole(digits: str) -> int:
        if len(digits) > limits.digits:
            raise _Refused
        return int(digits)

    def real(digits: str) -> float:
        number = float(digits)
        if len(digits) > limits.digits or not math.isfinite(number):
            raise _Refused
        return number

    decoder = json.JSONDecoder(
        object_pairs_hook=_mapping, parse_int=whole, parse_float=real, parse_constant=_no_constant
    )
    try:
        data = decoder.decode(text)
    except json.JSONDecodeError as error:
        raise Malformed(error.lineno, error.colno, f"not JSON: {error.msg}") from None
    except _Refused:
        raise _found(text, limits) from None
    if _SURROGATE.search(text):
        _check_surrogates(text)
    return data


def _mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise _Refused
    return made


def _no_constant(name: str) -> object:
    raise _Refused(name)


def _check_form(text: str, limits: MediaLimits) -> None:
    # Each value but the first follows one of these characters, and each level opens with one: mostly this
    # is enough.
    openers = text.count("[") + text.count("{")
    if openers <= limits.depth and openers + text.count(",") + text.count(":") < limits.elements:
        return
    bare = _STRINGS.sub(lambda match: "s" * len(match[0]), text)
    if bare.count("[") + bare.count("{") + bare.count(",") + bare.count(":") >= limits.elements:
        raise Malformed(1, 1, f"more than {limits.elements} keys, values and items")
    depth = 0
    for match in _OPENER_OR_CLOSER.finditer(bare):
        depth += 1 if match[0] in "[{" else -1
        if depth > limits.depth:
            raise malformed_at(text, match.start(), f"more than {limits.depth} levels of nesting")


def _found(text: str, limits: MediaLimits) -> Malformed:
    """The error for the first duplicate key or unusable number in a text that is JSON up to there."""
    keys: list[set[str]] = []
    last: tuple[str, int] = ("", 0)
    for match in _TOKEN.finditer(text):
        token, start = match[0], match.start()
        if token in "[{":
            keys.append(set())
        elif token in "]}":
            keys.pop()
        elif token == ":":
            key = json.loads(last[0])
            if key in keys[-1]:
                return malformed_at(text, last[1], f"the key {_short(last[0])} is given twice")
            keys[-1].add(key)
        elif token in ("NaN", "Infinity", "-Infinity"):
            return malformed_at(text, start, f"{token} is not a number of JSON")
        elif token[0] in "-0123456789" and len(token) > limits.digits:
            return malformed_at(text, start, f"a number of more than {limits.digits} characters")
        elif token[0] in "-0123456789" and not math.isfinite(float(token)):
            return malformed_at(text, start, f"the number {token} is out of range")
        last = (token, start)
    return Malformed(1, 1, "a key that is given twice, or a number that cannot be used")


def _check_surrogates(text: str) -> None:
    for match in _STRINGS.finditer(text):
        try:
            json.loads(match[0]).encode()
        except UnicodeEncodeError:
            raise malformed_at(text, match.start(), "a string with half a surrogate pair") from None


def _short(token: str) -> str:
    short = token if len(token) <= 60 else token[:60] + "..."
    return short.encode("ascii", "backslashreplace").decode()
