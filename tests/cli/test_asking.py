"""`ebhpc offers`, `accept`, `reject`, `show`, `cancel` and their exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.client.other_broker import (
    SECOND,
    SESSION,
    OtherBroker,
    Reply,
    offerset_document,
    session_document,
)

TWO = Reply(status=303, document=offerset_document(session_document(), session_document(SECOND, cores=16)))
NO = offerset_document(
    result="NO",
    meta={
        "messages": [
            {"level": "ERROR", "message": "cores must be above zero", "values": {"path": "/compute/cores/min"}},
            {"level": "ERROR", "message": "unknown property", "values": {"path": "/compute/cores/max"}},
            {"level": "WARN", "message": "nobody reads this", "values": {"path": "/executable/locatoin"}},
            {"message": "no platform answers"},
        ]
    },
)


def test_offers_are_a_table_of_plain_text_where_there_is_no_terminal(
    command: Command, other: OtherBroker, request_file: Path
) -> None:
    other.answer("POST /requests", TWO)
    result = command("offers", str(request_file))
    assert result.exit_code == 0
    heading, first, second = result.stdout.splitlines()
    assert heading.split() == ["offer", "start", "(UTC)", "duration", "cores", "memory", "costs", "expires"]
    assert first.startswith(f"1  {SESSION[-8:]}  31 Jan 2030 12:00  2 h           2   4 GiB  monetary 1.5  in ")
    assert second.startswith(f"2  {SECOND[-8:]}  31 Jan 2030 12:00  2 h          16")
    assert result.stderr == "Take one with 'ebhpc accept NUMBER'.\n"
    assert other.calls[0].document()["compute"]["cores"] == {"min": 0}


def test_quiet_leaves_only_the_result(command: Command, other: OtherBroker, request_file: Path) -> None:
    other.answer("POST /requests", TWO)
    assert command("offers", str(request_file), "--quiet").stderr == ""


def test_json_is_one_document_on_stdout(command: Command, other: OtherBroker, request_file: Path) -> None:
    other.answer("POST /requests", TWO)
    result = command("--json", "offers", str(request_file))
    document = json.loads(result.stdout)
    assert [offer["meta"]["uuid"] for offer in document["offers"]] == [SESSION, SECOND]
    assert result.stderr == ""


def test_a_no_lists_every_problem_with_its_line_and_exits_with_3(
    command: Command, other: OtherBroker, request_file: Path
) -> None:
    other.answer("POST /requests", Reply(status=303, document=NO))
    result = command("offers", str(request_file))
    assert result.exit_code == 3
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        "NO: the broker has no offer for this request.",
        f"  {request_file}:8: /compute/cores/min: cores must be above zero",
        f"  {request_file}:7: /compute/cores/max: unknown property",
        f"  {request_file}:2: /executable/locatoin: WARN: nobody reads this",
        "  no platform answers",
    ]


def test_a_no_in_json_is_the_offer_set_and_exits_with_3(
    command: Command, other: OtherBroker, request_file: Path
) -> None:
    other.answer("POST /requests", Reply(status=303, document=NO))
    result = command("offers", str(request_file), "--json")
    assert result.exit_code == 3
    assert json.loads(result.stdout)["result"] == "NO"
    assert result.stderr == ""


def test_a_yes_without_offers_is_a_no(command: Command, other: OtherBroker, request_file: Path) -> None:
    other.answer("POST /requests", Reply(document=offerset_document()))
    assert command("offers", str(request_file)).exit_code == 3


def test_a_malformed_request_lists_its_problems_with_their_lines(
    command: Command, other: OtherBroker, request_file: Path
) -> None:
    problem = {
        "detail": "the request cannot be read",
        "messages": [{"message": "expected a string, found 3", "values": {"path": "/executable/location"}}],
    }
    other.answer("POST /requests", Reply(status=400, document=problem))
    result = command("offers", str(request_file))
    assert result.exit_code == 3
    assert result.stderr.splitlines() == [
        "Error: the request cannot be read",
        f"  {request_file}:4: /executable/location: expected a string, found 3",
    ]


def test_with_json_an_error_is_one_document_on_stderr(command: Command, other: OtherBroker, request_file: Path) -> None:
    problem = {"detail": "cannot be read", "messages": [{"kind": "urn:invalid-value", "message": "wrong"}]}
    other.answer("POST /requests", Reply(status=400, document=problem))
    result = command("offers", str(request_file), "--json")
    assert result.stdout == ""
    assert json.loads(result.stderr) == {
        "error": "cannot be read",
        "status": 400,
        "messages": [{"kind": "urn:invalid-value", "message": "wrong"}],
        "exit_code": 3,
    }


def test_a_request_comes_from_stdin_too(command: Command, other: OtherBroker) -> None:
    other.answer("POST /requests", Reply(status=303, document=NO))
    result = command("offers", "-", stdin='{"compute":\n\t{"cores": {"min": 0}}}')
    assert "standard input:2: /compute/cores/min: cores" in result.stderr
    assert other.calls[0].document() == {"compute": {"cores": {"min": 0}}}


@pytest.mark.parametrize("typed", ["2", "3333", "33333333-0000", SECOND[-8:], SECOND, SECOND.upper()])
def test_an_offer_of_the_last_table_is_named_by_number_or_by_a_part_of_its_uuid(
    typed: str, command: Command, other: OtherBroker, request_file: Path
) -> None:
    other.answer("POST /requests", TWO)
    other.answer(f"POST /sessions/{SECOND}", Reply(document=session_document(SECOND, "ACCEPTED")))
    command("offers", str(request_file))
    result = command("accept", typed)
    assert result.exit_code == 0
    assert result.stdout == f"{SECOND} ACCEPTED\n"
    assert result.stderr == f"Follow it with 'ebhpc watch {SECOND}'.\n"


@pytest.mark.parametrize(
    ("typed", "why"),
    [
        ("0", "no offer 0"),
        ("3", "no offer 3"),
        ("22", "no offer 22"),
        ("abc", "too short"),
        ("4444", "of none of the UUIDs"),
        ("../admin", "of none of the UUIDs"),
    ],
)
def test_what_names_no_offer_is_a_usage_error(
    typed: str, why: str, command: Command, other: OtherBroker, request_file: Path
) -> None:
    other.answer("POST /requests", TWO)
    command("offers", str(request_file))
    result = command("accept", typed)
    assert result.exit_code == 2
    assert why in result.stderr
    assert len(other.calls) == 1


def test_a_part_of_several_uuids_is_refused(command: Command, other: OtherBroker, request_file: Path) -> None:
    twin = SESSION[:-1] + "2"
    other.answer("POST /requests", Reply(document=offerset_document(session_document(), session_document(twin))))
    command("offers", str(request_file))
    result = command("accept", "2222")
    assert result.exit_code == 2
    assert "of several of the UUIDs" in result.stderr


def test_offers_of_another_broker_are_not_mixed_up(command: Command, other: OtherBroker, request_file: Path) -> None:
    other.answer("POST /requests", TWO)
    command("offers", str(request_file))
    with OtherBroker() as second:
        result = command("accept", "1", EBHPC_URL=second.url)
        assert second.calls == []
    assert result.exit_code == 2
    assert "another broker" in result.stderr


@pytest.mark.parametrize("content", ["", "nonsense", "[]", '{"broker": 1}'])
def test_a_damaged_memory_of_offers_is_as_none(content: str, command: Command, home: Path) -> None:
    (home / "state" / "ebhpc").mkdir(parents=True)
    (home / "state" / "ebhpc" / "offers.json").write_text(content)
    result = command("accept", "1")
    assert result.exit_code == 2
    assert "earlier 'ebhpc offers' to choose from" in result.stderr


def test_where_offers_cannot_be_remembered_they_are_shown_nevertheless(
    command: Command, other: OtherBroker, request_file: Path, home: Path
) -> None:
    (home / "state").write_text("a file where a directory should be")
    other.answer("POST /requests", TWO)
    result = command("offers", str(request_file))
    assert result.exit_code == 0
    assert "not remembered" in result.stderr
    assert SESSION[-8:] in result.stdout


def test_the_memory_of_offers_is_for_its_owner_alone(
    command: Command, other: OtherBroker, request_file: Path, home: Path
) -> None:
    other.answer("POST /requests", TWO)
    command("offers", str(request_file))
    (memory,) = (home / "state" / "ebhpc").iterdir()
    assert memory.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(("status", "code"), [(401, 7), (403, 7), (404, 8), (409, 8), (500, 1), (503, 6), (400, 3)])
def test_the_exit_code_says_what_kind_of_error_it_was(
    status: int, code: int, command: Command, other: OtherBroker
) -> None:
    other.answer(f"POST /sessions/{SESSION}", Reply(status=status, document={"detail": "because"}))
    result = command("accept", SESSION)
    assert result.exit_code == code
    assert "Error: because" in result.stderr


def test_a_broker_that_is_not_there_exits_with_6(command: Command) -> None:
    result = command("show", SESSION, EBHPC_URL="http://127.0.0.1:1")
    assert result.exit_code == 6
    assert "cannot reach the broker at http://127.0.0.1:1" in result.stderr


def test_show_tells_what_can_be_done(command: Command, other: OtherBroker) -> None:
    other.answer(f"GET /sessions/{SESSION}", Reply(document=session_document(messages=[{"message": "well\nmet"}])))
    result = command("show", SESSION)
    lines = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    assert lines["phase"] == "OFFERED"
    assert lines["executes"] == "docker-container hello"
    assert lines["start"].startswith("31 Jan 2030 12:00 (in ")
    assert lines["memory"] == "4 GiB"
    assert lines["possible"] == "accept, reject"
    assert lines["message"] == "well met"


def test_a_broker_cannot_write_control_characters_to_the_terminal(command: Command, other: OtherBroker) -> None:
    evil = "\x1b]0;owned\x07\x1b[2J\u202e"
    document = session_document(messages=[{"message": evil}], start="\x1b[31m")
    document["executable"]["meta"]["name"] = evil
    other.answer(f"GET /sessions/{SESSION}", Reply(document=document))
    result = command("show", SESSION)
    assert result.exit_code == 0
    assert not set(result.stdout) & {"\x1b", "\x07", "\u202e"}


@pytest.mark.parametrize(("verb", "phase"), [("reject", "REJECTED"), ("cancel", "CANCELLED")])
def test_reject_and_cancel_say_what_became_of_the_session(
    verb: str, phase: str, command: Command, other: OtherBroker
) -> None:
    other.answer(f"POST /sessions/{SESSION}", Reply(document=session_document(phase=phase)))
    assert command(verb, SESSION).stdout == f"{SESSION} {phase}\n"
    assert json.loads(command(verb, SESSION, "--json").stdout)["phase"] == phase


def test_a_path_that_a_message_names_itself_is_not_repeated(
    command: Command, other: OtherBroker, request_file: Path
) -> None:
    said = {"message": "expected an integer at /compute/cores/min", "values": {"path": "/compute/cores/min"}}
    other.answer("POST /requests", Reply(document=offerset_document(result="NO", meta={"messages": [said]})))
    result = command("offers", str(request_file))
    assert result.stderr.splitlines()[1] == f"  {request_file}:8: expected an integer at /compute/cores/min"


def test_nothing_is_written_to_stdout_where_there_is_nothing(command: Command, other: OtherBroker) -> None:
    other.answer("GET /sessions?limit=50", Reply(document={"sessions": []}))
    result = command("sessions")
    assert (result.exit_code, result.stdout) == (0, "")
    assert json.loads(command("sessions", "--json").stdout) == []
