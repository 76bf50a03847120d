"""read_settings, which the core and plugins share: every problem at once, each with its key and what was expected."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta, Struct

from ebhpc.config import Duration, Secret, SettingsError, SettingsProblem, read_settings


class Queue(Struct, frozen=True, kw_only=True):
    name: str
    limit: Duration | None = None


class Settings(Struct, frozen=True, kw_only=True):
    cores: Annotated[int, Meta(ge=1)] = 1
    shell: Path = Path("/bin/sh")
    token: Secret | None = None
    queue: Queue | None = None
    queues: tuple[Queue, ...] = ()
    by_name: dict[str, Queue] = {}
    names: list[str] = []

    def __post_init__(self) -> None:
        if self.cores == 13:
            raise ValueError("13 cores bring bad luck")


def problems(data: object) -> list[str]:
    with pytest.raises(SettingsError) as raised:
        read_settings(Settings, data)  # type: ignore[arg-type]
    return str(raised.value).splitlines()


def test_settings_of_every_form_are_read() -> None:
    settings = read_settings(
        Settings,
        {
            "cores": 4,
            "shell": "/bin/bash",
            "token": "s3cret",
            "queue": {"name": "short", "limit": "1h30m"},
            "queues": [{"name": "a"}, {"name": "b", "limit": "P1D"}],
            "by_name": {"x": {"name": "c"}},
            "names": ["n"],
        },
    )
    assert settings.cores == 4
    assert settings.shell == Path("/bin/bash")
    assert settings.token == "s3cret"
    assert settings.queue == Queue(name="short", limit=Duration(5400))
    assert settings.queues[1].limit == 86400
    assert settings.by_name["x"].name == "c"


def test_every_problem_is_reported_at_once_with_its_key() -> None:
    assert problems(
        {
            "core": 2,
            "cores": 0,
            "zzz": 1,
            "shell": 7,
            "queue": {"limit": "soon"},
            "queues": [{"name": "a"}, {"nam": "b"}, 3],
            "by_name": {"x": {"name": 5}},
            "names": ["a", 2],
        }
    ) == [
        "settings.core: unknown setting; did you mean cores?",
        "settings.cores: expected an integer >= 1, got 0",
        "settings.zzz: unknown setting; expected one of by_name, cores, names, queue, queues, shell, token",
        "settings.shell: expected a path, got 7",
        "settings.queue.limit: expected a duration such as 10s, 5m, 2h, 7d or PT10S, got 'soon'",
        "settings.queue: the setting name is missing",
        "settings.queues[1].nam: unknown setting; did you mean name?",
        "settings.queues[1]: the setting name is missing",
        "settings.queues[2]: expected a mapping of settings, got 3",
        "settings.by_name.x.name: expected a string, got 5",
        "settings.names[1]: expected a string, got 2",
    ]


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ([1], "settings: expected a mapping of settings, got a list"),
        (None, "settings: expected a mapping of settings, got nothing"),
        ({"queue": []}, "settings.queue: expected a mapping of settings, got a list"),
        ({"queues": {}}, "settings.queues: expected a list, got a mapping"),
        ({"by_name": [1]}, "settings.by_name: expected a mapping, got a list"),
        ({"names": "abc"}, "settings.names: expected a list, got 'abc'"),
        ({"cores": True}, "settings.cores: expected an integer, got true"),
        ({"cores": 1.5}, "settings.cores: expected an integer, got 1.5"),
        ({"cores": None}, "settings.cores: expected an integer, got nothing"),
        ({"cores": float("inf")}, "settings.cores: expected a finite number"),
        ({"names": [float("nan")]}, "settings.names[0]: expected a finite number"),
        ({"cores": 13}, "settings: 13 cores bring bad luck"),
    ],
)
def test_a_wrong_value_is_named_with_what_was_expected(data: object, problem: str) -> None:
    assert problems(data) == [problem]


def test_relative_paths_are_relative_to_the_base(tmp_path: Path) -> None:
    assert read_settings(Settings, {"shell": "x/y"}, base=tmp_path).shell == tmp_path / "x/y"
    assert read_settings(Settings, {"shell": "/x/y"}, base=tmp_path).shell == Path("/x/y")


def test_a_secret_is_neither_in_the_repr_nor_in_an_error() -> None:
    assert "s3cret" not in repr(read_settings(Settings, {"token": "s3cret"}))
    assert "98765" not in problems({"token": 98765})[0]


@given(
    st.dictionaries(
        st.sampled_from(["cores", "shell", "token", "queue", "queues", "by_name", "names", "x"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        ),
    )
)
def test_no_data_makes_another_error_than_a_settings_error(data: dict[str, object]) -> None:
    problems: tuple[SettingsProblem, ...] = ()
    try:
        settings = read_settings(Settings, data)
    except SettingsError as error:
        problems = error.problems
    assert problems or settings.cores >= 1
    assert all(problem.path[0] == "settings" for problem in problems)
