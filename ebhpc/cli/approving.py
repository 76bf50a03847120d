"""`ebhpc approve`: an operator's word on firm time that waits for it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import click
import msgspec

from ebhpc.cli import screen, times
from ebhpc.cli.asking import write_moved
from ebhpc.cli.choices import choices_of, connect, for_all_commands
from ebhpc.model.times import parse_duration


@click.command(short_help="List what waits for approval, approve or refuse it.")
@click.argument("session", required=False)
@click.option("--refuse", metavar="REASON", help="Refuse it; the reason is told to its owner.")
@click.option("--reason", metavar="TEXT", help="Something to tell its owner beside the approval.")
@for_all_commands
@click.pass_context
def approve(context: click.Context, session: str | None, refuse: str | None, reason: str | None) -> None:
    """Approve SESSION, which an administrator must before its firm time is used, or refuse it.

    Without SESSION the sessions that wait are listed, the most urgent first. The end of a UUID is enough where it is
    the only one.
    """
    if session is None and (refuse or reason):
        raise click.UsageError("Say which session; without one, those that wait are listed.")
    if refuse is not None and (reason is not None or not refuse.strip()):
        raise click.UsageError("Give a reason with --refuse, and nothing with --reason then.")
    broker = connect(context)
    waiting = broker.approvals()
    if session is None:
        _list(context, waiting)
        return
    changed = broker.decide(_whole(session, waiting), approve=refuse is None, reason=refuse or reason)
    write_moved(context, changed, "")


def _whole(session: str, waiting: list[dict[str, Any]]) -> str:
    found = [str(item.get("session")) for item in waiting if str(item.get("session", "")).endswith(session)]
    return found[0] if len(found) == 1 else session


def _list(context: click.Context, waiting: list[dict[str, Any]]) -> None:
    if choices_of(context).json:
        screen.result(msgspec.json.encode(waiting).decode())
        return
    now = datetime.now(UTC)
    screen.table(
        ("session", "owner", "platform", "name", f"start ({times.zone_name(now)})", "duration", "nodes", "decide"),
        [_row(item, now) for item in waiting],
        right=(6,),
    )
    if not waiting and not choices_of(context).quiet:
        screen.tell("Nothing waits for approval.")


def _row(item: dict[str, Any], now: datetime) -> list[str]:
    return [
        str(item.get("session", "")),
        str(item.get("owner", "")),
        str(item.get("platform", "")),
        str(item.get("name") or ""),
        _moment(item.get("start"), now, times.words_of_moment),
        _duration(item.get("duration")),
        str(len(item.get("nodes") or ())),
        _moment(item.get("deadline"), now, times.words_of_distance),
    ]


def _moment(text: object, now: datetime, words: Any) -> str:
    try:
        return str(words(datetime.fromisoformat(str(text)), now))
    except ValueError:
        return ""


def _duration(text: object) -> str:
    try:
        return times.words_of_duration(timedelta(seconds=parse_duration(str(text))))
    except ValueError:
        return ""
