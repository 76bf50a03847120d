"""What the user chose for all commands: which broker, as whom, and how to show the answer.

An option counts before an environment variable, that before ``~/.config/ebhpc/client.yaml``, that before the
default. A name and password of that file are for the broker that the file names, and are sent to no other.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from msgspec import Struct

if TYPE_CHECKING:
    from ebhpc.client import Broker

DEFAULT_URL = "http://127.0.0.1:8080"
_Command = TypeVar("_Command", bound=Callable[..., Any])


@dataclass(kw_only=True)
class Choices:
    """The options given for all commands, before or after the command's name; None where not given."""

    url: str | None = None
    user: str | None = None
    password_file: Path | None = None
    token_file: Path | None = None
    ca: Path | None = None
    json: bool = False
    quiet: bool = False


class ClientFile(Struct, frozen=True, kw_only=True):
    """The settings of ``client.yaml``; relative paths are relative to its folder."""

    url: str | None = None
    username: str | None = None
    password_file: Path | None = None
    token_file: Path | None = None
    ca: Path | None = None


class Access(Struct, frozen=True, kw_only=True):
    """How to reach the broker, all sources considered."""

    url: str
    username: str | None = None
    password: str | None = None
    token: str | None = None
    ca: Path | None = None


def _store(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    # Made by the top command already, so that it and its subcommand share one.
    choices = context.ensure_object(Choices)
    if value not in (None, False):
        assert parameter.name is not None
        setattr(choices, parameter.name, value)


_PATH = click.Path(path_type=Path, dir_okay=False)
_FLAGS: dict[str, dict[str, Any]] = {
    "--url": {"metavar": "URL", "help": f"The broker.  [env: EBHPC_URL; default: {DEFAULT_URL}]"},
    "--user": {
        "metavar": "NAME",
        "help": "Who you are there; the password comes from EBHPC_PASSWORD, "
        "--password-file or a prompt.  [env: EBHPC_USER]",
    },
    "--password-file": {"type": _PATH, "help": "Read the password from the first line of a file."},
    "--token-file": {
        "type": _PATH,
        "help": "Read a bearer token from a file, instead of a password.  [env: EBHPC_TOKEN]",
    },
    "--ca": {"type": _PATH, "help": "Trust the certificates in this file (PEM) and no others."},
    "--json": {"is_flag": True, "help": "Write what the broker answered as JSON, for programs."},
    "--quiet": {"is_flag": True, "help": "No progress on stderr; errors only."},
}


def for_all_commands(command: _Command) -> _Command:
    """Decorate a command or group with the options that all user commands have."""
    for name, settings in reversed(_FLAGS.items()):
        command = click.option(name, expose_value=False, callback=_store, **settings)(command)
    return command


def choices_of(context: click.Context) -> Choices:
    """Return the options given so far."""
    return context.ensure_object(Choices)


def client_file(environment: Mapping[str, str]) -> Path:
    """Return where the user's settings are, below XDG_CONFIG_HOME."""
    folder = environment.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(folder) / "ebhpc" / "client.yaml"


def access(choices: Choices, environment: Mapping[str, str]) -> Access:
    """Put options, environment and the user's file together; ask for a missing password on a terminal.

    Raises:
        click.UsageError: a URL, a file or a combination is wrong.
        ebhpc.config.SettingsError: the user's file is wrong.
    """
    from ebhpc.client.http import checked_url, origin

    settings = _read_client_file(client_file(environment))
    try:
        theirs = checked_url(settings.url) if settings.url else DEFAULT_URL
        url = checked_url(choices.url or environment.get("EBHPC_URL") or theirs)
    except ValueError as error:
        raise click.UsageError(f"{error}.") from error
    if origin(url) != origin(theirs):
        settings = ClientFile()
    ca = choices.ca or settings.ca
    if ca is not None and not ca.is_file():
        raise click.UsageError(f"{ca}: there is no such file of certificates.")
    anonymous = Access(url=url, ca=ca)
    if choices.token_file is not None:
        return _with_token(anonymous, _first_line(choices.token_file))
    username = choices.user or environment.get("EBHPC_USER")
    if username is None and (token := environment.get("EBHPC_TOKEN")):
        return _with_token(anonymous, token)
    if username is None and settings.token_file is not None:
        return _with_token(anonymous, _first_line(settings.token_file))
    username = username or settings.username
    if username is None:
        if choices.password_file is not None or environment.get("EBHPC_PASSWORD"):
            raise click.UsageError("There is a password but no user name: give --user, or set EBHPC_USER.")
        return anonymous
    if ":" in username:
        raise click.UsageError(f"The user name {username!r} has a colon, which HTTP Basic cannot send.")
    return Access(url=url, ca=ca, username=username, password=_password(username, url, choices, environment, settings))


def connect(context: click.Context) -> Broker:
    """Return the chosen broker; it is closed when the command ends.

    Raises:
        click.UsageError: as :func:`access`.
    """
    from ebhpc.cli import screen
    from ebhpc.client import Broker
    from ebhpc.client.http import is_loopback

    choices = choices_of(context)
    way = access(choices, os.environ)
    if (way.password or way.token) and way.url.startswith("http:") and not is_loopback(way.url) and not choices.quiet:
        screen.tell(f"Warning: {way.url} is not encrypted: others on the way can read your credentials.")
    try:
        broker = Broker(way.url, way.username, way.password, way.token, ca=way.ca)
    except OSError as error:
        raise click.UsageError(f"{way.ca}: no certificates that can be read: {error}.") from error
    return context.with_resource(broker)


def _read_client_file(path: Path) -> ClientFile:
    if not path.exists():
        return ClientFile()
    from ebhpc.config import SettingsError, read_settings
    from ebhpc.config.documents import read_document

    data, source = read_document(path)
    try:
        return read_settings(ClientFile, data, where="", base=path.parent)
    except SettingsError as error:
        raise SettingsError(*source.locate(error.problems)) from None


def _password(username: str, url: str, choices: Choices, environment: Mapping[str, str], settings: ClientFile) -> str:
    if choices.password_file is not None:
        return _first_line(choices.password_file)
    if (password := environment.get("EBHPC_PASSWORD")) is not None:
        return password
    if settings.password_file is not None:
        return _first_line(settings.password_file)
    from ebhpc.cli import screen

    if not screen.can_ask():
        raise click.UsageError(
            f"No password for {username}, and no terminal to ask on: give EBHPC_PASSWORD or --password-file."
        )
    answer: str = click.prompt(f"Password of {username} at {url}", hide_input=True, err=True)
    return answer


def _with_token(way: Access, token: str) -> Access:
    if not token.isascii() or not token.isprintable() or not token:
        raise click.UsageError("The bearer token is empty, or has letters that no token has.")
    return Access(url=way.url, ca=way.ca, token=token)


def _first_line(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise click.UsageError(f"{path} cannot be read: {reason}.") from error
    line = text.splitlines()[0] if text else ""
    if not line:
        raise click.UsageError(f"{path}: its first line is empty.")
    return line
