"""Errors and refusals in words on stderr, each problem with the place in the user's file that it is about."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import click
import msgspec

from ebhpc.cli import screen
from ebhpc.cli.choices import choices_of
from ebhpc.cli.exits import Exit, exit_of_error
from ebhpc.cli.request_file import RequestFile
from ebhpc.client.errors import BrokerError, NoAnswer, NotAuthorised
from ebhpc.model import Message

_FILE = "ebhpc.request_file"


def about_file(context: click.Context, file: RequestFile) -> None:
    """Note that the command is about a request in ``file``, so that an error names lines of it."""
    context.meta[_FILE] = file


def problem_lines(messages: Iterable[Message], file: RequestFile | None) -> list[str]:
    """Return a line for each message: where, what; the level where it is no error."""
    return [_problem_line(item, file) for item in messages]


def tell_messages(messages: Sequence[Message], file: RequestFile | None = None) -> None:
    """Write messages to stderr, one a line."""
    for line in problem_lines(messages, file):
        screen.tell(f"  {line}")


def report_error(context: click.Context, error: BrokerError) -> Exit:
    """Write an error of the client to stderr, in words or as JSON; return the exit code for it."""
    code = exit_of_error(error)
    file: RequestFile | None = context.meta.get(_FILE)
    if choices_of(context).json:
        screen.tell(
            msgspec.json.encode(
                {
                    "error": error.summary,
                    "status": error.status,
                    "messages": error.messages,
                    "exit_code": int(code),
                }
            ).decode()
        )
        return code
    screen.tell(f"Error: {screen.clean(error.summary)}")
    tell_messages([item for item in error.messages if str(item) != error.summary], file)
    if isinstance(error, NotAuthorised) and error.status == 401:
        screen.tell("Give your name with --user or EBHPC_USER, your password with --password-file or EBHPC_PASSWORD.")
    if isinstance(error, NoAnswer):
        screen.tell("Look at it with 'ebhpc show' or 'ebhpc sessions' before you try again.")
    return code


def _problem_line(item: Message, file: RequestFile | None) -> str:
    path = _path(item)
    level = "" if item.level in (None, "ERROR") else f"{item.level}: "
    text = f"{level}{screen.clean(item)}"
    if path is None:
        return text
    if path not in text:
        text = f"{screen.clean(path)}: {text}"
    if file is not None and (not path or path.startswith("/")):
        text = f"{file.place(path)}: {text}"
    return text


def _path(item: Message) -> str | None:
    return (item.values or {}).get("path")
