"""`ebhpc watch`, `output`, `sessions`, `platforms` and `run`, with another broker of the standard."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.client.other_broker import SECOND, SESSION, OtherBroker, Reply, offerset_document, session_document

WHERE = f"/sessions/{SESSION}"


def goes_through(other: OtherBroker, *phases: str, uuid: str = SESSION) -> None:
    other.answer(f"GET /sessions/{uuid}", *(Reply(document=session_document(uuid, phase)) for phase in phases))


def has_written(other: OtherBroker, **files: str) -> None:
    listed = [{"name": name, "size": len(text), "media_type": "text/plain"} for name, text in files.items()]
    other.answer(f"GET {WHERE}/output", Reply(document={"outputs": listed}))
    for name, text in files.items():
        other.answer(f"GET {WHERE}/output/{name}", Reply(text=text))


def offers_two(other: OtherBroker, **second: object) -> None:
    other.answer(
        "POST /requests",
        Reply(status=303, document=offerset_document(session_document(), session_document(SECOND, **second))),  # type: ignore[arg-type]
    )
    for uuid in (SESSION, SECOND):
        other.answer(f"POST /sessions/{uuid}", Reply(document=session_document(uuid, "ACCEPTED")))


@pytest.mark.parametrize(
    ("phase", "code"), [("COMPLETED", 0), ("FAILED", 4), ("CANCELLED", 5), ("EXPIRED", 5), ("REJECTED", 5)]
)
def test_the_exit_code_of_watch_says_how_the_session_ended(
    phase: str, code: int, command: Command, other: OtherBroker
) -> None:
    goes_through(other, phase)
    assert command("watch", SESSION).exit_code == code


def test_watch_tells_each_change_on_stderr(command: Command, other: OtherBroker) -> None:
    said = {"level": "WARN", "message": "little space left", "time": "2030-01-31T12:00:01Z"}
    other.answer(
        f"GET {WHERE}",
        Reply(document=session_document(phase="PREPARING")),
        Reply(
            document=session_document(
                phase="RUNNING",
                messages=[said],
                connectors=[{"status": "AVAILABLE", "location": "http://node1:8888/"}],
            )
        ),
        Reply(document=session_document(phase="COMPLETED", messages=[said])),
    )
    result = command("watch", SESSION)
    assert result.stdout == ""
    assert [line.split(maxsplit=1)[1] for line in result.stderr.splitlines() if line[0].isdigit()] == [
        "PREPARING",
        "RUNNING",
        "COMPLETED",
    ]
    assert "  12:00:01 WARN little space left\n" in result.stderr
    assert "  connect to http://node1:8888/\n" in result.stderr


def test_watch_in_json_is_a_line_for_each_change(command: Command, other: OtherBroker) -> None:
    goes_through(other, "WAITING", "WAITING", "RUNNING", "FAILED")
    result = command("watch", SESSION, "--json")
    assert [json.loads(line)["phase"] for line in result.stdout.splitlines()] == ["WAITING", "RUNNING", "FAILED"]
    assert result.stderr == ""
    assert result.exit_code == 4


def test_watch_until_a_phase_ends_there(command: Command, other: OtherBroker) -> None:
    goes_through(other, "WAITING", "RUNNING")
    assert command("watch", SESSION, "--until", "running").exit_code == 0


def test_outputs_are_listed_and_fetched_by_name(command: Command, other: OtherBroker) -> None:
    has_written(other, stdout="hello\n", result="[1]")
    listed = command("output", SESSION)
    assert listed.stdout.splitlines() == [
        "name    bytes  type",
        "stdout      6  text/plain",
        "result      3  text/plain",
    ]
    assert command("output", SESSION, "result").stdout == "[1]"
    assert json.loads(command("output", SESSION, "--json").stdout)[0] == {
        "name": "stdout",
        "size": 6,
        "media_type": "text/plain",
    }


def test_outputs_are_written_to_a_directory(command: Command, other: OtherBroker, tmp_path: Path) -> None:
    has_written(other, stdout="hello\n", result="[1]")
    folder = tmp_path / "new" / "folder"
    result = command("output", SESSION, "--to", str(folder))
    assert result.stdout.splitlines() == [str(folder / "stdout"), str(folder / "result")]
    assert (folder / "result").read_text() == "[1]"
    command("output", SESSION, "stdout", "--to", str(tmp_path / "file"))
    assert (tmp_path / "file").read_text() == "hello\n"


def test_an_output_that_would_leave_the_directory_stops_before_any_is_written(
    command: Command, other: OtherBroker, tmp_path: Path
) -> None:
    listed = [
        {"name": "stdout", "size": 1, "media_type": "text/plain"},
        {"name": "../../etc/passwd", "size": 1, "media_type": "text/plain"},
    ]
    other.answer(f"GET {WHERE}/output", Reply(document={"outputs": listed}))
    result = command("output", SESSION, "--to", str(tmp_path / "folder"))
    assert result.exit_code == 1
    assert "not written" in result.stderr
    assert not (tmp_path / "folder").exists()


def test_an_output_that_cannot_be_written_is_told(command: Command, other: OtherBroker, tmp_path: Path) -> None:
    has_written(other, stdout="hello\n")
    (tmp_path / "file").write_text("")
    result = command("output", SESSION, "--to", str(tmp_path / "file" / "below"))
    assert result.exit_code == 1
    assert "cannot be written" in result.stderr


def test_sessions_are_listed_up_to_a_limit(command: Command, other: OtherBroker) -> None:
    two = [session_document(phase="RUNNING"), session_document(SECOND, "COMPLETED")]
    other.answer("GET /sessions?limit=2", Reply(document={"sessions": two, "next": "/sessions?limit=2&after=x"}))
    result = command("sessions", "--limit", "2")
    assert result.exit_code == 0
    assert [line.split()[:3] for line in result.stdout.splitlines()[1:]] == [
        [SESSION, "hello", "RUNNING"],
        [SECOND, "hello", "COMPLETED"],
    ]
    assert [item["phase"] for item in json.loads(command("sessions", "--limit", "2", "--json").stdout)] == [
        "RUNNING",
        "COMPLETED",
    ]


def test_platforms_that_are_not_available_say_why(command: Command, other: OtherBroker) -> None:
    platforms = [
        {"name": "a", "kind": "local", "available": True, "nodes": 1, "cores": 8, "memory": 16, "devices": {"gpu": 2}},
        {"name": "b", "kind": "slurm", "available": False, "reason": "slurmctld does not answer"},
    ]
    other.answer("GET /platforms", Reply(document={"platforms": platforms}))
    first, second = command("platforms").stdout.splitlines()[1:]
    assert first.split() == ["a", "local", "available", "1", "8", "16", "GiB", "2", "gpu"]
    assert "not available: slurmctld does not answer" in second


def test_what_another_broker_does_not_have_exits_with_8(command: Command) -> None:
    result = command("platforms")
    assert result.exit_code == 8
    assert "not part of the standard" in result.stderr


def test_run_goes_the_whole_way(command: Command, other: OtherBroker, request_file: Path, tmp_path: Path) -> None:
    offers_two(other, start="2030-02-01T12:00:00Z/PT0S")
    goes_through(other, "ACCEPTED", "RUNNING", "COMPLETED")
    has_written(other, stdout="hello\n", stderr="oh\n", result="[1]")
    result = command("run", str(request_file), "--output", str(tmp_path / "out"))
    assert result.exit_code == 0
    assert result.stdout == "hello\n"
    assert "oh\n" in result.stderr
    assert "Accepting 1 of 2 offers: start 31 Jan 2030 12:00, for at most 2 h, 2 cores, 4 GiB" in result.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["result", "stderr", "stdout"]


def test_run_in_json_is_one_document(command: Command, other: OtherBroker, request_file: Path, tmp_path: Path) -> None:
    offers_two(other)
    goes_through(other, "FAILED")
    has_written(other, stdout="hello\n")
    result = command("run", str(request_file), "--json", "--output", str(tmp_path))
    assert result.exit_code == 4
    document = json.loads(result.stdout)
    assert document["session"]["phase"] == "FAILED"
    assert document["outputs"] == [
        {"name": "stdout", "size": 6, "media_type": "text/plain", "file": str(tmp_path / "stdout")}
    ]
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("pick", "second", "taken"),
    [
        ("earliest", {"start": "2030-01-30T12:00:00Z/PT0S"}, SECOND),
        ("earliest", {"start": "2030-02-02T12:00:00Z/PT0S"}, SESSION),
        ("longest", {"duration": "PT3H"}, SECOND),
        ("longest", {"duration": "PT1H"}, SESSION),
        ("largest", {"cores": 64}, SECOND),
        ("largest", {"cores": 2, "memory": 1}, SESSION),
        ("cheapest", {"price": 0.5}, SECOND),
        ("cheapest", {"price": 2.5}, SESSION),
        ("1", {}, SESSION),
        ("2", {}, SECOND),
    ],
)
def test_run_accepts_the_offer_that_is_picked(
    pick: str,
    second: dict[str, object],
    taken: str,
    command: Command,
    other: OtherBroker,
    request_file: Path,
) -> None:
    offers_two(other, **second)
    goes_through(other, "COMPLETED", uuid=taken)
    assert command("run", str(request_file), "--pick", pick).exit_code == 0
    assert [path for path in other.paths() if path.startswith("POST /sessions")] == [f"POST /sessions/{taken}"]


@pytest.mark.parametrize("pick", ["0", "3", "-1", "best", "1.5"])
def test_run_refuses_a_pick_that_means_no_offer(
    pick: str, command: Command, other: OtherBroker, request_file: Path
) -> None:
    offers_two(other)
    assert command("run", str(request_file), f"--pick={pick}").exit_code == 2
    assert not [path for path in other.paths() if path.startswith("POST /sessions")]


def test_run_ends_with_3_where_the_broker_says_no(command: Command, other: OtherBroker, request_file: Path) -> None:
    other.answer("POST /requests", Reply(document=offerset_document(result="NO")))
    assert command("run", str(request_file)).exit_code == 3


def test_run_does_without_outputs_at_a_broker_that_serves_none(
    command: Command, other: OtherBroker, request_file: Path
) -> None:
    offers_two(other)
    goes_through(other, "COMPLETED")
    result = command("run", str(request_file))
    assert result.exit_code == 0
    assert "does not serve outputs" in result.stderr


def test_run_says_8_when_results_are_wanted_that_the_broker_does_not_serve(
    command: Command, other: OtherBroker, request_file: Path, tmp_path: Path
) -> None:
    offers_two(other)
    goes_through(other, "COMPLETED")
    assert command("run", str(request_file), "--output", str(tmp_path / "out")).exit_code == 8


def test_an_offer_that_expired_before_it_was_accepted_exits_with_8(
    command: Command, other: OtherBroker, request_file: Path
) -> None:
    offers_two(other)
    other.answer(f"POST {WHERE}", Reply(status=409, document={"detail": "the offer has expired"}))
    result = command("run", str(request_file))
    assert result.exit_code == 8
    assert "the offer has expired" in result.stderr
