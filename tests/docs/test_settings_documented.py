"""docs/operators/settings.md and conf/ebhpc.yaml show every setting, with its default."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from ebhpc.config import Config, PlatformConfig, Seconds, setting_fields, settings
from ebhpc.config.reading import bare, is_struct

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs" / "operators" / "settings.md").read_text(encoding="utf-8")

UNITS = {"w": 604800, "d": 86400, "h": 3600, "m": 60, "s": 1}


def spelled(value: object) -> str:
    """Write a default as in a file of settings."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Seconds):
        unit = next((unit for unit, seconds in UNITS.items() if value and value % seconds == 0), "s")
        return f"{value / UNITS[unit]:g}{unit}"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)


def all_settings(struct: type[msgspec.Struct], prefix: str = "") -> Iterator[tuple[str, str | None]]:
    """Yield each setting's dotted key and its default; None: it has no plain one."""
    for field in setting_fields(struct):
        key = prefix + field.encode_name
        inner = bare(field.type)
        if is_struct(inner):
            yield from all_settings(inner, f"{key}.")
        elif field.required:
            yield key, "required"
        else:
            default = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
            yield key, spelled(default) if default not in ((), {}) else None


SETTINGS = [*all_settings(Config), *all_settings(PlatformConfig, "platforms[].")]
ROWS = re.findall(r"^\| `([^`]+)` \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", PAGE, re.MULTILINE)


@pytest.mark.parametrize(("key", "default"), SETTINGS)
def test_a_setting_has_a_row_with_its_default(key: str, default: str | None) -> None:
    found = [row for row in ROWS if row[0] == key]
    assert len(found) == 1, f"{key} needs one row in docs/operators/settings.md"
    if default is not None:
        assert found[0][2].strip("` ") == default
    assert len(found[0][3].strip()) > 10


def test_the_page_has_no_setting_that_is_not_there() -> None:
    assert {row[0] for row in ROWS} - {key for key, _ in SETTINGS} == set()


def test_every_setting_says_in_the_code_what_it_means() -> None:
    for name, struct in inspect.getmembers(settings, inspect.isclass):
        if not issubclass(struct, msgspec.Struct) or struct.__module__ != settings.__name__:
            continue
        (tree,) = ast.parse(inspect.getsource(struct)).body
        assert isinstance(tree, ast.ClassDef)
        explained = {
            node.target.id
            for node, after in zip(tree.body, tree.body[1:], strict=False)
            if isinstance(node, ast.AnnAssign)
            and isinstance(node.target, ast.Name)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
        }
        missing = {field.name for field in setting_fields(struct)} - explained
        assert not missing, f"{name}: {missing}"


def test_the_file_in_conf_shows_every_setting() -> None:
    text = (REPOSITORY / "conf" / "ebhpc.yaml").read_text(encoding="utf-8")
    keys = set(re.findall(r"^[ #-]*([\w-]+):(?: |$)", text, re.MULTILINE))
    wanted = {part.removesuffix("[]") for key, _ in SETTINGS for part in key.split(".")}
    # Of the costs, the one that has a default shows what all three hold
    assert wanted - keys == set()


def test_names_that_end_in_a_unit_say_it_and_durations_are_durations() -> None:
    for struct in (Config, PlatformConfig):
        for field in setting_fields(struct):
            assert not re.search(r"_(s|sec|seconds|minutes|hours)$", field.name)


def test_all_types_of_settings_have_a_word_for_them() -> None:
    """The table's column of types: nothing else stands there."""
    words = {
        "text", "path", "URL", "address", "integer", "number", "duration", "true or false", "mapping", "list", "name",
        "username",
    }  # fmt: skip
    for key, type_, _, _ in ROWS:
        plain = type_.strip()
        assert plain in words or plain.startswith("`"), f"{key}: {plain}"
