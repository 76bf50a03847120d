"""`ebhpc show`, `watch`, `output`, `cancel`: what becomes of a session."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import click
import msgspec

from ebhpc.cli import facts, screen, times
from ebhpc.cli.asking import write_moved
from ebhpc.cli.choices import choices_of, connect, for_all_commands
from ebhpc.cli.downloads import download_all, download_one
from ebhpc.cli.exits import Exit, exit_of_phase
from ebhpc.cli.last_offers import NAMES_OF_SESSIONS, state_file, which
from ebhpc.cli.progress import follow, left_alone, message_line
from ebhpc.client import as_json
from ebhpc.model import LIVE, Phase, SimpleSession


@click.command(short_help="Show an offer or a session as it is now.", epilog=NAMES_OF_SESSIONS)
@click.argument("session")
@for_all_commands
@click.pass_context
def show(context: click.Context, session: str) -> None:
    """Show the offer or session SESSION as it is now: when, with what, its messages, what is possible."""
    broker = connect(context)
    found = broker.session(which(session, broker.url, state_file()))
    if choices_of(context).json:
        screen.result(as_json(found))
        return
    rows = list(_description(found, datetime.now(UTC)))
    width = max(len(name) for name, _ in rows)
    for name, text in rows:
        screen.result(f"{name.ljust(width)}  {screen.clean(text)}".rstrip())


@click.command(short_help="Follow a session until it ends.", epilog=NAMES_OF_SESSIONS)
@click.argument("session")
@click.option(
    "--until",
    type=click.Choice([str(phase) for phase in Phase if phase is not Phase.INITIAL], case_sensitive=False),
    help="End as soon as the session has reached this phase or a later one.",
)
@for_all_commands
@click.pass_context
def watch(context: click.Context, session: str, until: str | None) -> None:
    """Follow SESSION until it ends; the exit code says how it ended.

    Ctrl-C ends the watching, not the session. With --json each change is a line on stdout: the whole session.
    """
    broker = connect(context)
    uuid = which(session, broker.url, state_file())
    choices = choices_of(context)
    try:
        last = follow(broker, uuid, choices, until=Phase(until.upper()) if until else None, json_lines=choices.json)
    except KeyboardInterrupt:
        screen.tell(left_alone(uuid))
        raise click.exceptions.Exit(Exit.INTERRUPTED) from None
    raise click.exceptions.Exit(exit_of_phase(last.phase))


@click.command(short_help="List what a session wrote, or fetch it.", epilog=NAMES_OF_SESSIONS)
@click.argument("session")
@click.argument("name", required=False)
@click.option(
    "--to",
    type=click.Path(path_type=Path),
    help="Write to this file or directory, not to stdout; without NAME, fetch everything into it.",
)
@for_all_commands
@click.pass_context
def output(context: click.Context, session: str, name: str | None, to: Path | None) -> None:
    """List what SESSION wrote, or write the output NAME to stdout."""
    broker = connect(context)
    uuid = which(session, broker.url, state_file())
    choices = choices_of(context)
    if name is not None and to is not None:
        written = download_one(broker, uuid, name, to, choices)
        screen.result(msgspec.json.encode({name: str(written)}).decode() if choices.json else str(written))
    elif name is not None:
        for piece in broker.read_output(uuid, name):
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
    elif to is not None:
        files = download_all(broker, uuid, broker.outputs(uuid), to, choices)
        if choices.json:
            screen.result(msgspec.json.encode({key: str(path) for key, path in files.items()}).decode())
        else:
            for path in files.values():
                screen.result(str(path))
    else:
        found = broker.outputs(uuid)
        if choices.json:
            screen.result(msgspec.json.encode(found).decode())
        else:
            if not found and not choices.quiet:
                screen.tell("The session has written nothing.")
            screen.table(
                ("name", "bytes", "type"),
                [(item.name, str(item.size), item.media_type) for item in found],
                right=(1,),
            )


@click.command(short_help="End a session that was accepted.", epilog=NAMES_OF_SESSIONS)
@click.argument("session")
@for_all_commands
@click.pass_context
def cancel(context: click.Context, session: str) -> None:
    """End SESSION, which was accepted: what runs is stopped, what was reserved is given back."""
    broker = connect(context)
    write_moved(context, broker.cancel(which(session, broker.url, state_file())), "")


def _description(session: SimpleSession, now: datetime) -> Iterator[tuple[str, str]]:
    yield "session", facts.uuid_of(session)
    if name := facts.name_of(session):
        yield "name", name
    yield "phase", str(session.phase or "")
    if session.executable is not None:
        yield "executes", facts.words_of_kind(session.executable)
    if session.phase is Phase.OFFERED and session.expires is not None:
        moment = times.words_of_moment(session.expires, now)
        yield "expires", f"{moment} ({times.words_of_distance(session.expires, now)})"
    if (start := facts.start_of(session)) is not None:
        soon = f" ({times.words_of_distance(start[0], now)})" if start[0] > now else ""
        yield "start", f"{times.words_of_interval(*start, now)}{soon}, {times.zone_name(now)}"
    if (duration := facts.duration_of(session)) is not None:
        yield "duration", times.words_of_duration(duration)
    if (cores := facts.cores_of(session)) is not None:
        yield "cores", str(cores)
    if (memory := facts.memory_of(session)) is not None:
        yield "memory", f"{memory} GiB"
    for title, components in (("storage", session.storage), ("data", session.data)):
        for component in components or ():
            yield title, facts.words_of_component(component)
    if costs := facts.words_of_items(session.costs):
        yield "costs", costs
    if metrics := facts.words_of_items(session.metrics):
        yield "metrics", metrics
    for connector in session.connectors or ():
        yield "connect", " ".join(filter(None, (connector.location, connector.protocol, connector.status)))
    if allowed := facts.possible_phases(session):
        yield "possible", ", ".join(_COMMANDS.get(phase, phase) for phase in allowed)
    elif session.phase in LIVE:
        yield "possible", "nothing now"
    for item in facts.messages_of(session):
        yield "message", message_line(item)


_COMMANDS = {"ACCEPTED": "accept", "REJECTED": "reject", "CANCELLED": "cancel"}
