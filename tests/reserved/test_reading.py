"""Requests for batch scripts and reserved time: what is read, and what is told of bad input, all at once."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ebhpc.model import BatchScript, ReservedTime, kinds
from ebhpc.model.reading import reissue
from ebhpc.staging.scripts import ScriptRules, script_refusals
from tests.model.requests import found, reading, uuids

INVALID, MISSING = "urn:invalid-value", "urn:missing-required-value"
DIGEST = "sha256:" + "a1" * 32


def script(**executable: Any) -> dict[str, Any]:
    return {"executable": {"kind": kinds.BATCH_SCRIPT, **executable}}


def reserved(**executable: Any) -> dict[str, Any]:
    return {"executable": {"kind": kinds.RESERVED_TIME, **executable}}


def test_what_is_asked_for_is_read_and_what_is_empty_is_left_out() -> None:
    raw = script(
        script="#!/bin/sh\n",
        interpreter=[],
        arguments=["", "a b"],
        environment={},
        directory="/scratch//run/",
        modules=["gcc/13", "openmpi", "gcc/13"],
    )
    request = reading(raw).request
    assert request is not None
    read = request.executable
    assert isinstance(read, BatchScript)
    assert (read.interpreter, read.environment, read.arguments) == (None, None, ["", "a b"])
    assert (read.directory, read.modules) == ("/scratch/run", ["gcc/13", "openmpi"])
    again = reissue(request, uuids())
    assert isinstance(again.executable, BatchScript)
    assert again.executable.script == "#!/bin/sh\n"


def test_of_reserved_time_what_only_the_broker_can_say_is_dropped() -> None:
    raw = reserved(
        users=["berta", "berta"],
        idle_release="PT1H",
        replaces="01A20965-4FCB-7618-8052-F0F213ADB346",
        jobs=[{"id": "1"}],
    )
    request = reading(raw).request
    assert request is not None
    read = request.executable
    assert isinstance(read, ReservedTime)
    assert (read.users, read.accounts, read.jobs) == (["berta"], None, None)
    assert read.replaces == "01a20965-4fcb-7618-8052-f0f213adb346"


@pytest.mark.parametrize(
    ("raw", "problems"),
    [
        (script(), [(MISSING, "/executable/script")]),
        (script(script=" \n"), [(INVALID, "/executable/script")]),
        (script(script="x" * 300_000), [(INVALID, "/executable/script")]),
        (script(script="x", location="https://example.org/x", digest=DIGEST), [(INVALID, "/executable/location")]),
        (script(location="https://example.org/x"), [(MISSING, "/executable/digest")]),
        (script(location="x", digest="md5:1"), [(INVALID, "/executable/location"), (INVALID, "/executable/digest")]),
        (script(script="x", interpreter=["bash"]), [(INVALID, "/executable/interpreter/0")]),
        (script(script="x", directory="../x"), [(INVALID, "/executable/directory")]),
        (script(script="x", directory="/a/../b"), [(INVALID, "/executable/directory")]),
        (script(script="x", modules=["a", "b;c"]), [(INVALID, "/executable/modules/1")]),
        (script(script="x", modules=["-x"]), [(INVALID, "/executable/modules/0")]),
        (script(script="x", environment={"A=B": "1"}), [(INVALID, "/executable/environment")]),
        (reserved(users=[""]), [(INVALID, "/executable/users/0")]),
        (reserved(accounts=["a,b"]), [(INVALID, "/executable/accounts/0")]),
        (reserved(idle_release="1h"), [(INVALID, "/executable/idle_release")]),
        (reserved(idle_release="PT5S"), [(INVALID, "/executable/idle_release")]),
        (reserved(replaces="that one"), [(INVALID, "/executable/replaces")]),
        (
            reserved(users=["\x07"], accounts=[" "], idle_release="P1Y", replaces=""),
            [
                (INVALID, "/executable/users/0"),
                (INVALID, "/executable/accounts/0"),
                (INVALID, "/executable/idle_release"),
                (INVALID, "/executable/replaces"),
            ],
        ),
    ],
)
def test_all_that_is_wrong_is_told_with_its_place(raw: dict[str, Any], problems: list[tuple[str, str]]) -> None:
    assert found(raw) == problems


@pytest.mark.parametrize("raw", [script(script=["x"]), script(script="x", arguments="a"), reserved(users={"a": 1})])
def test_what_has_another_type_is_no_document(raw: dict[str, Any]) -> None:
    from tests.model.requests import KINDS

    decoded = KINDS.request(raw)
    assert decoded.document is None
    assert [str((problem.values or {})["path"]).startswith("/executable") for problem in decoded.problems] == [True]


STORABLE = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
TEXTS = st.text(STORABLE, max_size=20)


@settings(max_examples=80, deadline=None)
@given(TEXTS, st.lists(TEXTS, max_size=3), st.dictionaries(TEXTS, TEXTS))
def test_no_text_whatever_makes_reading_or_refusing_fail(
    text: str, words: list[str], environment: dict[str, str]
) -> None:
    raw = script(
        script=text, interpreter=words, arguments=words, environment=environment, directory=text, modules=words
    )
    result = reading(raw)
    assert (result.request is None) == bool(result.problems)
    if result.request is not None:
        assert isinstance(result.request.executable, BatchScript)
        list(script_refusals(result.request.executable, ScriptRules(allowed=True, modules=["*"])))
    for name in ("users", "accounts"):
        assert reading(reserved(**{name: words, "idle_release": text, "replaces": text})).problems
