from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ebhpc.media import JSON, Malformed, MediaError, MediaLimits, TooLarge, decode, encode
from tests.model.requests import full_request
from tests.model.strategies import plain


def refusal(text: str | bytes, limits: MediaLimits = MediaLimits()) -> Malformed:
    body = text.encode() if isinstance(text, str) else text
    with pytest.raises(Malformed) as raised:
        decode(body, JSON, limits)
    assert str(raised.value).isprintable()
    return raised.value


@given(plain)
def test_what_we_write_is_what_we_read(data: Any) -> None:
    assert decode(encode(data, JSON), JSON) == data


@given(plain, st.booleans())
def test_what_others_write_is_what_we_read(data: Any, ascii_only: bool) -> None:
    assert decode(json.dumps(data, ensure_ascii=ascii_only, indent=1).encode(), JSON) == data


@pytest.mark.parametrize(
    ("text", "line", "column", "what"),
    [
        ("", 1, 1, "empty"),
        (" \n ", 1, 1, "empty"),
        ("{", 1, 2, "not JSON"),
        ('{"a": 1}\n x', 2, 2, "not JSON: Extra data"),
        ("[1,]", 1, 4, "not JSON"),
        ("{'a': 1}", 1, 2, "not JSON"),
        ('{"a": 1,\n "b": {"c": 1, "c": 2}}', 2, 16, 'the key "c" is given twice'),
        ('{"a": 1, "\\u0061": 2}', 1, 10, "is given twice"),
        ('[{"a": 1}, {"a": 1, "b": "\\"a\\":", "a": 2}]', 1, 36, 'the key "a" is given twice'),
        ('{"x": NaN}', 1, 7, "NaN is not a number"),
        ("[1,\n -Infinity]", 2, 2, "-Infinity is not a number"),
        ("[1e999]", 1, 2, "out of range"),
        ("[" + "1" * 65 + "]", 1, 2, "a number of more than 64"),
        ("[0." + "1" * 65 + "]", 1, 2, "a number of more than 64"),
        ("[" + "1" * 100_000 + "]", 1, 2, "a number of more than 64"),
        ('{"a": "\\ud800"}', 1, 7, "half a surrogate pair"),
        ('["\\uD83D\\uDE00", "\\udc00\\ud800"]', 1, 18, "half a surrogate pair"),
        ('"\x01"', 1, 2, "not JSON: Invalid control character"),
        ("01", 1, 2, "not JSON"),
    ],
)
def test_what_is_not_json_is_refused_with_its_place(text: str, line: int, column: int, what: str) -> None:
    error = refusal(text)
    assert what in error.what
    assert (error.line, error.column) == (line, column)


def test_whole_surrogate_pairs_are_characters() -> None:
    assert decode(b'"\\ud83d\\ude00 \\\\ud800"', JSON) == "\U0001f600 \\ud800"


@pytest.mark.parametrize("count", [65, 1000, 500_000])
@pytest.mark.parametrize("opener", ["[", '{"a":', '[{"a":'])
def test_deep_nesting_is_refused_before_it_is_followed(opener: str, count: int) -> None:
    assert "levels of nesting" in refusal(opener * count, MediaLimits(size=10**7, elements=10**9)).what


def test_brackets_in_strings_are_no_nesting() -> None:
    data = ["[[[{{{" * 100, '"[\\', ["]"] * 3]
    assert decode(json.dumps(data).encode(), JSON) == data


def test_nesting_to_the_limit_is_read() -> None:
    assert decode(b"[" * 64 + b"]" * 64, JSON) is not None


def test_the_number_of_elements_is_limited() -> None:
    limits = MediaLimits(elements=100)
    assert decode(json.dumps([1] * 99).encode(), JSON, limits) == [1] * 99
    assert decode(json.dumps([",,,:[[[" * 100]).encode(), JSON, limits) == [",,,:[[[" * 100]
    assert "more than 100 keys" in refusal(json.dumps([1] * 101), limits).what
    assert "more than 100 keys" in refusal(json.dumps({str(n): n for n in range(51)}), limits).what


def test_the_size_is_limited() -> None:
    with pytest.raises(TooLarge, match="at most 10"):
        decode(b'"123456789"', JSON, MediaLimits(size=10))


@pytest.mark.parametrize(
    "filler", ['\\"', "\\", '"', "[", "{", ",", ":", "1", "a", "[],", '"a":', '{"a":1},', "\u2028"]
)
@pytest.mark.parametrize("start", ["", "[" * 65 + '"', '{"a":', '"', "[" * 65 + '"a\\'])
@pytest.mark.timeout(5)
def test_a_megabyte_of_anything_takes_no_time(start: str, filler: str) -> None:
    text = start + filler * (1_000_000 // len(filler.encode()))
    try:
        decode(text.encode(), JSON, MediaLimits(size=2_000_000))
    except Malformed as error:
        line = error.line
    else:
        line = 1
    assert line == 1


@settings(max_examples=300)
@given(st.binary(max_size=60) | st.text('{}[]":,\\u0123456789abcdefDNaInfity-+.eE \n\t', max_size=40).map(str.encode))
def test_nothing_but_our_errors_comes_of_any_bytes(body: bytes) -> None:
    said = ""
    try:
        data = decode(body, JSON)
    except MediaError as error:
        said = str(error)
    else:
        assert decode(encode(data, JSON), JSON) == data
    assert said.isprintable()


@settings(max_examples=200)
@given(st.data())
def test_a_request_with_bytes_changed_is_read_or_refused(data: st.DataObject) -> None:
    body = json.dumps(full_request()).encode()
    place = data.draw(st.integers(0, len(body)))
    changed = body[:place] + data.draw(st.binary(max_size=3)) + body[place + data.draw(st.integers(0, 3)) :]
    try:
        decode(changed, JSON)
    except Malformed as error:
        column = error.column
    else:
        column = 1
    assert column >= 1
