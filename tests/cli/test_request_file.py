"""What `ebhpc` makes of the user's FILE."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from ebhpc.cli.request_file import read_request_file


def written(tmp_path: Path, text: str | bytes) -> str:
    path = tmp_path / "request"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(path)


@pytest.mark.parametrize(
    "text",
    [
        "a: {b: [1, x]}\n",
        '{"a": {"b": [1, "x"]}}',
        '{\n\t"a":{\n\t\t"b":[1,"x"]}}',
        "\ufeffa:\n  b:\n  - 1\n  - x\n",
        "{a: {b: [1, x]}}",
        "  \n{a: {b: [1, x]}}",
    ],
)
def test_json_and_yaml_are_told_apart_by_their_content(text: str, tmp_path: Path) -> None:
    assert read_request_file(written(tmp_path, text)).data == {"a": {"b": [1, "x"]}}


def test_dates_and_words_of_yaml_stay_what_the_user_wrote(tmp_path: Path) -> None:
    data = read_request_file(written(tmp_path, "day: 2030-01-31\nanswer: no\n")).data
    assert data == {"day": "2030-01-31", "answer": "no"}


def test_an_element_is_found_by_its_json_pointer(tmp_path: Path) -> None:
    file = read_request_file(written(tmp_path, "a:\n  b/c:\n  - x\n  -\n    ~d: 1\n"))
    assert file.place("/a") == f"{file.name}:1"
    assert file.place("/a/b~1c") == f"{file.name}:2"
    assert file.place("/a/b~1c/0") == f"{file.name}:3"
    assert file.place("/a/b~1c/1/~0d") == f"{file.name}:5"


def test_an_element_that_the_file_lacks_is_placed_at_what_would_contain_it(tmp_path: Path) -> None:
    file = read_request_file(written(tmp_path, '\n{"a": 1,\n "b": {"c": 2}}'))
    assert file.place("/b/d/e") == f"{file.name}:3"
    assert file.place("/executable") == f"{file.name}:2"
    assert file.place("") == f"{file.name}:2"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is empty"),
        ("   \n", "is empty"),
        ("just words", 'found "just words"'),
        ("- a\n- b\n", "found a list"),
        ("a: 1\nb: [1, 2\n", ":3:1: not YAML"),
        ('{"a": 1,\n "b" 2}', ":2:6: not JSON"),
        ("a: 1\na: 2\n", ":2:"),
        ("a: !!python/object/apply:os.system [id]\n", ":1:"),
        ("a: 1\n---\nb: 2\n", "document"),
        (b"a: \xff\n", "UTF-8"),
        ("a: &x [*x]\n", ":1:"),
        ("[" * 5000, "nest"),
    ],
)
def test_what_is_no_request_is_told_with_its_place(text: str | bytes, why: str, tmp_path: Path) -> None:
    with pytest.raises(click.UsageError) as caught:
        read_request_file(written(tmp_path, text))
    assert why in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(click.UsageError, match="cannot be read: No such file"):
        read_request_file(str(tmp_path / "nothing"))


def test_a_directory_is_no_request(tmp_path: Path) -> None:
    with pytest.raises(click.UsageError, match="cannot be read: Is a directory"):
        read_request_file(str(tmp_path))


def test_an_endless_file_is_not_read_for_ever() -> None:
    with pytest.raises(click.UsageError, match="at most"):
        read_request_file("/dev/zero")
