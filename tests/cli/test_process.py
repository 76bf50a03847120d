"""`ebhpc` as a process: start-up, signals, pipes and terminals."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import click
import pytest

from ebhpc.cli.commands import OPERATOR_COMMANDS, USER_COMMANDS, ebhpc
from tests.client.other_broker import SESSION, OtherBroker, Reply, offerset_document, session_document

WHERE = f"/sessions/{SESSION}"
EBHPC = (sys.executable, "-m", "ebhpc")


def environment(other: OtherBroker) -> Mapping[str, str]:
    return {**os.environ, "EBHPC_URL": other.url, "COLUMNS": "120"}


def wait_for(other: OtherBroker, call: str) -> None:
    deadline = time.monotonic() + 60
    while call not in other.paths():
        assert time.monotonic() < deadline, other.paths()
        time.sleep(0.02)


def start(other: OtherBroker, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*EBHPC, *arguments],
        env=environment(other),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def running(other: OtherBroker) -> None:
    other.answer("POST /requests", Reply(status=303, document=offerset_document(session_document())))
    other.answer(f"GET {WHERE}", Reply(document=session_document(phase="RUNNING")))

    def update(call: object) -> Reply:
        phase = other.calls[-1].document()["value"]
        other.answer(f"GET {WHERE}", Reply(document=session_document(phase=phase)))
        return Reply(document=session_document(phase=phase))

    other.answer(f"POST {WHERE}", Reply(document=session_document(phase="ACCEPTED")), update)


def test_help_imports_little() -> None:
    code = (
        "import sys; from ebhpc.cli.commands import ebhpc; ebhpc(['--help'], standalone_mode=False);"
        "print([name for name in ('httpx', 'rich', 'sqlalchemy', 'falcon', 'ebhpc.model', 'numpy')"
        " if name in sys.modules], file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stderr == "[]\n"


def test_the_version_is_told() -> None:
    from ebhpc import __version__

    result = subprocess.run([*EBHPC, "--version"], capture_output=True, text=True, check=True)
    assert result.stdout == f"ebhpc, version {__version__}\n"


def test_every_user_command_is_there_under_the_help_that_the_list_shows() -> None:
    context = click.Context(ebhpc)
    for name, (_, text) in USER_COMMANDS.items():
        command = ebhpc.get_command(context, name)
        assert command is not None
        assert command.name == name
        assert command.get_short_help_str(200) == text


def test_every_operator_command_is_there() -> None:
    context = click.Context(ebhpc)
    for name in OPERATOR_COMMANDS:
        command = ebhpc.get_command(context, name)
        assert command is not None
        assert command.name == name


def test_an_unknown_command_is_a_usage_error() -> None:
    result = subprocess.run([*EBHPC, "dance"], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "No such command 'dance'" in result.stderr


def test_a_reader_that_goes_away_ends_it_silently(home: Path, other: OtherBroker) -> None:
    other.answer(f"GET {WHERE}/output/big", Reply(text=b"x" * 4_000_000))
    process = start(other, "output", SESSION, "big")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.wait(20) == 141
    assert process.stderr.read() == ""
    process.stderr.close()


def test_a_reader_of_a_short_answer_that_goes_away_ends_it_silently(home: Path, other: OtherBroker) -> None:
    other.answer(f"GET {WHERE}", Reply(document=session_document()))
    reading, writing = os.pipe()
    os.close(reading)
    result = subprocess.run(
        [*EBHPC, "show", SESSION], env=environment(other), stdout=writing, stderr=subprocess.PIPE, check=False
    )
    os.close(writing)
    assert (result.returncode, result.stderr) == (141, b"")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_watch_leaves_the_session_alone(number: signal.Signals, home: Path, other: OtherBroker) -> None:
    running(other)
    process = start(other, "watch", SESSION)
    wait_for(other, f"GET {WHERE}")
    time.sleep(0.3)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "The session is left alone" in errors
    assert not [path for path in other.paths() if path.startswith("POST")]


@pytest.mark.parametrize(("wish", "code", "cancelled"), [("yes", 5, True), ("no", 130, False), ("ask", 130, False)])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_cancels_only_where_it_was_told_to(
    number: signal.Signals,
    wish: str,
    code: int,
    cancelled: bool,
    home: Path,
    other: OtherBroker,
    request_file: Path,
) -> None:
    running(other)
    process = start(other, "run", str(request_file), "--cancel-on-interrupt", wish)
    wait_for(other, f"GET {WHERE}")
    time.sleep(0.3)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    values = [call.document()["value"] for call in other.calls if (call.method, call.path) == ("POST", WHERE)]
    assert values == (["ACCEPTED", "CANCELLED"] if cancelled else ["ACCEPTED"])
    assert ("The session is CANCELLED" if cancelled else "The session is left alone") in errors


def on_a_terminal(other: OtherBroker, *arguments: str, typed: bytes = b"") -> tuple[int, str]:
    """Run ``ebhpc`` with a terminal for all of its streams; return its exit code and what the terminal showed."""
    process, terminal = pty.fork()
    if process == 0:
        os.execve(sys.executable, [*EBHPC, *arguments], {**environment(other), "TERM": "xterm"})
    shown = b""
    if typed:
        while b"assword" not in shown:
            shown += os.read(terminal, 4096)
        os.write(terminal, typed)
    while True:
        try:
            piece = os.read(terminal, 4096)
        except OSError:  # Linux says that the other side has gone by EIO
            break
        if not piece:
            break
        shown += piece
    os.close(terminal)
    _, status = os.waitpid(process, 0)
    return os.waitstatus_to_exitcode(status), shown.decode()


def test_a_terminal_gets_a_table_and_a_live_line(home: Path, other: OtherBroker, request_file: Path) -> None:
    running(other)
    code, shown = on_a_terminal(other, "offers", str(request_file))
    assert code == 0
    assert "─" in shown
    assert SESSION[-8:] in shown
    other.answer(
        f"GET {WHERE}",
        *[Reply(document=session_document(phase="RUNNING", duration="PT10S"))] * 3,
        Reply(document=session_document(phase="COMPLETED")),
    )
    code, shown = on_a_terminal(other, "watch", SESSION)
    assert code == 0
    assert "of at most 10 s" in shown
    assert "COMPLETED" in shown


def test_a_terminal_is_asked_for_the_password_which_it_does_not_show(home: Path, other: OtherBroker) -> None:
    running(other)
    code, shown = on_a_terminal(other, "show", SESSION, "--user", "ada", typed=b"s3cret\n")
    assert code == 0
    assert "s3cret" not in shown
    assert other.calls[0].headers["Authorization"] == "Basic YWRhOnMzY3JldA=="


def test_completion_of_the_shell_knows_the_commands() -> None:
    result = subprocess.run(
        [sys.executable, "-c", "from ebhpc.cli import main; main()"],
        env={**os.environ, "_EBHPC_COMPLETE": "bash_complete", "COMP_WORDS": "ebhpc acc", "COMP_CWORD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "accept" in result.stdout


def test_the_memory_of_offers_survives_until_the_next_command(
    home: Path, other: OtherBroker, request_file: Path
) -> None:
    running(other)
    subprocess.run([*EBHPC, "offers", str(request_file), "--quiet"], env=environment(other), check=True)
    result = subprocess.run([*EBHPC, "accept", "1", "--json"], env=environment(other), check=True, capture_output=True)
    assert json.loads(result.stdout)["meta"]["uuid"] == SESSION
