"""`ebhpc sessions` and `platforms`: what is there. Both use endpoints that other brokers need not have."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice
from typing import Any

import click
import msgspec

from ebhpc.cli import facts, screen, times
from ebhpc.cli.choices import choices_of, connect, for_all_commands
from ebhpc.client import as_json
from ebhpc.model import Phase, SimpleSession

_PAGE = 100


@click.command(short_help="List your sessions, newest first.")
@click.option(
    "--phase",
    "phases",
    multiple=True,
    type=click.Choice([str(phase) for phase in Phase if phase is not Phase.INITIAL], case_sensitive=False),
    help="Only those in this phase; may be given several times.",
)
@click.option("--platform", metavar="NAME", help="Only those on this platform.")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=50,
    show_default=True,
    help="How many at most.",
)
@click.option("--all", "everything", is_flag=True, help="All of them, without a limit.")
@click.option("--everybody", is_flag=True, help="Everybody's, for administrators.")
@for_all_commands
@click.pass_context
def sessions(
    context: click.Context,
    phases: tuple[str, ...],
    platform: str | None,
    limit: int,
    everything: bool,
    everybody: bool,
) -> None:
    """List your sessions, newest first. With --json: a list of the whole sessions."""
    broker = connect(context)
    matching = broker.sessions(
        phases=[phase.upper() for phase in phases],
        platform=platform,
        everybody=everybody,
        page_size=_PAGE if everything else min(limit, _PAGE),
    )
    found = list(islice(matching, None if everything else limit))
    if choices_of(context).json:
        screen.result(f"[{','.join(as_json(session) for session in found)}]")
        return
    if not found and not choices_of(context).quiet:
        screen.tell("There are no such sessions.")
    now = datetime.now(UTC)
    screen.table(
        ("session", "name", "phase", f"start ({times.zone_name(now)})", "duration", "cores", "memory"),
        [_row(session, now) for session in found],
        right=(5, 6),
    )


@click.command(short_help="List what the broker runs things on.")
@for_all_commands
@click.pass_context
def platforms(context: click.Context) -> None:
    """List what the broker runs things on."""
    found = connect(context).platforms()
    if choices_of(context).json:
        screen.result(msgspec.json.encode(found).decode())
        return
    screen.table(
        ("name", "kind", "state", "nodes", "cores", "memory", "devices"),
        [_platform_row(item) for item in found],
        right=(3, 4, 5),
    )


def _platform_row(item: dict[str, Any]) -> list[str]:
    devices = item.get("devices")
    return [
        str(item.get("name", "")),
        str(item.get("kind", "")),
        "available" if item.get("available") else f"not available: {item.get('reason', 'no reason given')}",
        str(item.get("nodes", "")),
        str(item.get("cores", "")),
        f"{item['memory']} GiB" if "memory" in item else "",
        ", ".join(f"{count} {name}" for name, count in devices.items()) if isinstance(devices, dict) else "",
    ]


def _row(session: SimpleSession, now: datetime) -> list[str]:
    start, duration = facts.start_of(session), facts.duration_of(session)
    cores, memory = facts.cores_of(session), facts.memory_of(session)
    return [
        facts.uuid_of(session),
        facts.name_of(session),
        str(session.phase or ""),
        times.words_of_interval(*start, now) if start else "",
        times.words_of_duration(duration) if duration is not None else "",
        "" if cores is None else str(cores),
        "" if memory is None else f"{memory} GiB",
    ]
