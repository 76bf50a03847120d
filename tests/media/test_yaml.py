from __future__ import annotations

import datetime
import json
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ebhpc.media import YAML, Malformed, MediaError, MediaLimits, TooLarge, decode, encode, yaml_text
from tests.model.requests import full_request
from tests.model.strategies import finite, int64, plain, texts


@pytest.fixture(params=["libyaml", "pure Python"], autouse=True)
def loader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both of PyYAML's readers and writers: which one is there depends on how PyYAML was built."""
    if request.param == "pure Python":
        monkeypatch.setattr(yaml_text, "_Loader", yaml.SafeLoader)
        monkeypatch.setattr(yaml_text, "_Dumper", yaml.SafeDumper)
    return str(request.param)


def read(text: str, limits: MediaLimits = MediaLimits()) -> Any:
    return decode(text.encode(), YAML, limits)


def refusal(text: str, limits: MediaLimits = MediaLimits()) -> Malformed:
    with pytest.raises(Malformed) as raised:
        read(text, limits)
    assert str(raised.value).isprintable()
    return raised.value


# --- scalars ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", "yes"),
        ("NO", "NO"),
        ("on", "on"),
        ("y", "y"),
        ("2030-01-01", "2030-01-01"),
        ("2030-01-01T00:00:00Z", "2030-01-01T00:00:00Z"),
        ("12:30:45", "12:30:45"),
        ("1_000", "1_000"),
        ("0b101", "0b101"),
        ("017", 17),
        ("0o17", 15),
        ("0x1F", 31),
        ("-0x1F", "-0x1F"),
        ("+12", 12),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("-1.5E-3", -0.0015),
        (".", "."),
        ("1.2.3", "1.2.3"),
        ("true", True),
        ("False", False),
        ("tRue", "tRue"),
        ("~", None),
        ("null", None),
        ("", None),
        ("'null'", "null"),
        ('"1"', "1"),
        ("!!str 1", "1"),
        ("!!str", ""),
        ('!!int "3"', 3),
        ("!!float 3", 3.0),
        ("!!bool 'true'", True),
        ("!!null ''", None),
        ("=", "="),
        ("PT2H", "PT2H"),
        ("٣", "٣"),
        ("|\n   two\n   lines\n", "two\nlines\n"),
        ("'\U0001f600 é'", "\U0001f600 é"),
    ],
)
def test_scalars_are_those_of_the_core_schema_of_yaml_1_2(text: str, value: Any) -> None:
    found = read(f"a: {text}")["a"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "line", "column", "what"),
    [
        ("", 1, 1, "empty"),
        ("# nothing but a comment", 1, 1, "no document"),
        ("a: 1\nb: 2\na: 3", 3, 1, "the key 'a' is given twice"),
        ("{a: 1, 'a': 3}", 1, 8, "the key 'a' is given twice"),
        ("a: .nan", 1, 4, ".nan is not a number that can be used"),
        ("a: -.INF", 1, 4, "-.INF is not a number that can be used"),
        ("a: 1e999", 1, 4, "out of range"),
        ("a: " + "1" * 65, 1, 4, "a number of more than 64"),
        ("a: 0x" + "1" * 65, 1, 4, "a number of more than 64"),
        ("1: one", 1, 1, "the key '1' is no string"),
        ("a:\n  true: one", 2, 3, "the key 'true' is no string"),
        ("? [a]\n: b", 1, 3, "a key that is a list or a mapping"),
        ("<<: {a: 1}", 1, 1, "merging"),
        ("--- a\n--- b", 2, 1, "a second document"),
        ("a: !!int x", 1, 4, "'x' is not of the type that its tag !!int says"),
        ("a: !!python/object/apply:os.system [id]", 1, 4, "the tag 'tag:yaml.org,2002:python"),
        ("a: !local x", 1, 4, "the tag '!local' is not known"),
        ("a: !!set {x}", 1, 4, "is not known"),
        ("a: !!binary aGk=", 1, 4, "is not known"),
        ("a: !!timestamp 2030-01-01", 1, 4, "is not known"),
        ("a: !!map [x]", 1, 4, "is not known"),
        ("a: *b", 1, 4, "the alias b has no anchor"),
        ("a: &b [*b]", 1, 8, "the alias b has no anchor that is complete"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_place(text: str, line: int, column: int, what: str) -> None:
    error = refusal(text)
    assert what in error.what
    assert (error.line, error.column) == (line, column)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "a: b: c",
        "a: -",
        "\tb: 1",
        "a: 'x",
        "@a",
        "a: \x07",
        "a: !<x",
        "%YAML 9\n",
        "'\\ud800",
        '"\\ud800"',
        '"\\x"',
    ],
)
def test_what_is_not_yaml_is_refused(text: str) -> None:
    assert "not YAML" in refusal(text).what or "surrogate" in refusal(text).what


def test_a_directive_changes_nothing() -> None:
    assert read("%YAML 1.1\n---\na: on\n...\n") == {"a": "on"}


# --- aliases and limits ----------------------------------------------------------------------------------


def test_aliases_repeat_what_they_stand_for() -> None:
    assert read("a: &a {x: [1]}\nb: *a\nc: &k key\n*k : *a\n") == {
        "a": {"x": [1]},
        "b": {"x": [1]},
        "c": "key",
        "key": {"x": [1]},
    }


def test_a_million_laughs_are_not_laughed() -> None:
    lines = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    assert "more than 20000 keys, values and items" in refusal("\n".join(lines)).what


def test_repeated_text_counts_as_often_as_it_is_repeated() -> None:
    text = f"a: &a {'x' * 300_000}\nb: [*a, *a, *a]"
    with pytest.raises(TooLarge, match="with its aliases expanded"):
        read(text)
    assert len(read(text, MediaLimits(size=2_000_000))["b"]) == 3


def test_the_number_of_aliases_is_limited() -> None:
    assert "more than 100 aliases" in refusal("a: &a 1\nb: [" + "*a, " * 101 + "]").what


def test_aliases_do_not_hide_depth() -> None:
    lines = ["a0: &a0 [1]"] + [f"a{n}: &a{n} [[[[[[[[[[*a{n - 1}]]]]]]]]]]" for n in range(1, 9)]
    assert "more than 64 levels of nesting" in refusal("\n".join(lines)).what


@pytest.mark.parametrize("opener", ["[", "{a: ", "- ", "? ", "[a, "])
@pytest.mark.parametrize("count", [65, 200_000])
def test_deep_nesting_is_refused_before_it_is_followed(opener: str, count: int) -> None:
    error = refusal(opener * count)
    assert "levels of nesting" in error.what or "a key that is" in error.what


def test_the_number_of_elements_is_limited() -> None:
    limits = MediaLimits(elements=100)
    assert len(read("[" + "1, " * 99 + "]", limits)) == 99
    assert "more than 100 keys" in refusal("[" + "1, " * 101 + "]", limits).what


@pytest.mark.parametrize(
    "filler",
    [
        "[",
        "{",
        "- ",
        "? ",
        ": ",
        "&a ",
        "!a ",
        "'",
        '"',
        "a: b\n",
        "\t",
        "#",
        "|\n",
        "*a ",
        '\\"',
        "a ",
        "[a,",
        "'a' ",
        "a:\n ",
        "---\n",
        "- &a a\n- *a\n",
        "1.",
        "\u2028",
        "é",
        "\r",
    ],
)
@pytest.mark.timeout(60)
def test_a_lot_of_anything_takes_no_time(filler: str, loader: str) -> None:
    # The pure Python reader is a hundred times slower.
    size = 1_000_000 if loader == "libyaml" else 10_000
    try:
        read(filler * (size // len(filler.encode())))
    except Malformed as error:
        line = error.line
    else:
        line = 1
    assert line >= 1


# --- writing ---------------------------------------------------------------------------------------------

tricky = st.sampled_from(
    [
        "NO", "on", "y", "N", "~", "null", "", "1", "1e3", "0o17", "0x1F", "1_000", "190:20:30", ".5", "5.",
        "=", "<<", "2030-01-01", "2030-01-01T00:00:00Z", "true", "a: b", "a #b", "- a", "[a", "{", "%a", "@a",
        "`a", "!a", "&a", "*a", "a\nb", "a\n", "\na", " a", "a ", "\t", "a\n\n", "a\n b\n", "\u2028", "\x85",
        "\ufeff", "\x1b", "é", "😀", ".nan", "-.inf", "0b1", "+1", "-", "--- a", "...", "?", ": ", "a:", "1:2",
        "#", "'", '"', "\\", "x" * 2000, "a " * 200,
    ],
)  # fmt: skip
documents = st.recursive(
    st.none() | st.booleans() | int64 | finite | texts | tricky,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(texts | tricky.filter(lambda key: key != "<<"), inner, max_size=4)
    ),
    max_leaves=15,
)


def same(one: Any, other: Any) -> bool:
    return json.dumps(one) == json.dumps(other)


@settings(max_examples=300)
@given(documents)
def test_what_we_write_is_what_we_read(data: Any) -> None:
    assert same(decode(encode(data, YAML), YAML), data)


@settings(max_examples=300)
@given(documents)
def test_a_reader_of_yaml_1_1_reads_the_same(data: Any) -> None:
    assert same(yaml.safe_load(encode(data, YAML)), data)


def test_strings_that_look_like_something_else_are_quoted() -> None:
    words = ["NO", "y", "1e3", "0o17", "2030-01-01", "190:20:30", "~", "", "1_0", "="]
    assert encode(words, YAML).decode().splitlines() == [f"- '{word}'" for word in words]
    plain_words = ["PT2H", "urn:a:b", "https://a/b?c", "a-b", "4e1c-x", "été"]
    assert encode(plain_words, YAML).decode().splitlines() == [f"- {word}" for word in plain_words]


def test_the_order_stays_and_nothing_is_folded_or_aliased() -> None:
    shared = {"z": 1, "a": "word " * 100}
    text = encode({"b": shared, "a": shared}, YAML).decode()
    assert "&" not in text
    assert len(text.splitlines()) == 6
    assert text.index("b:") < text.index("z:")


def test_a_text_of_several_lines_is_written_as_such() -> None:
    assert encode({"a": "one\ntwo\n"}, YAML) == b"a: |\n  one\n  two\n"


def test_what_is_not_plain_data_is_not_written() -> None:
    class Odd:
        pass

    with pytest.raises((TypeError, NotImplementedError)):
        encode({"a": Odd()}, YAML)
    assert encode({"a": datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)}, YAML) == b"a: '2030-01-01T00:00:00Z'\n"
    assert encode({"a": float("nan")}, YAML) == b"a: null\n"


# --- anything --------------------------------------------------------------------------------------------


@settings(max_examples=300)
@given(st.binary(max_size=60) | st.text("{}[]\"':,&*!|>%@-?#<=~.0123xeanNy \n\t\\", max_size=40).map(str.encode))
def test_nothing_but_our_errors_comes_of_any_bytes(body: bytes) -> None:
    said = ""
    try:
        data = decode(body, None)
    except MediaError as error:
        said = str(error)
    else:
        assert same(decode(encode(data, YAML), YAML), data)
    assert said.isprintable()


@given(plain)
def test_json_without_a_type_is_read_with_all_its_escapes(data: Any) -> None:
    assert same(read(json.dumps([data])), [data])


@settings(max_examples=100)
@given(st.data())
def test_a_request_with_bytes_changed_is_read_or_refused(data: st.DataObject) -> None:
    body = encode(full_request(), YAML)
    place = data.draw(st.integers(0, len(body)))
    changed = body[:place] + data.draw(st.binary(max_size=3)) + body[place + data.draw(st.integers(0, 3)) :]
    try:
        decode(changed, YAML)
    except Malformed as error:
        column = error.column
    else:
        column = 1
    assert column >= 1
