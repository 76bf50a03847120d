"""``ebhpc audit``: who did what."""

from __future__ import annotations

import getpass
import socket
import time
from collections.abc import Iterator

import click
import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ebhpc.cli.assembly import open_store
from ebhpc.cli.screen import clean
from ebhpc.config import Config, Seconds
from ebhpc.model.times import utc
from ebhpc.store import AuditEntry, AuditQuestion, Store, read_audit, write_audit

_FOLLOW = 1.0
"""Seconds between two looks at what is new."""


def show_audit(config: Config, question: AuditQuestion, *, as_json: bool, follow: bool) -> None:
    """Write the entries that were asked for, oldest first; with ``follow`` go on with those that come."""
    store = open_store(config)
    try:
        found = read_audit(store, question)
        if not follow:
            _write(found, as_json=as_json)
            return
        for entries in _coming(store, question, found):
            _write(entries, as_json=as_json)
    finally:
        store.close()


def instant_of(text: str, now: float) -> float:
    """Read a time: ``2h`` ago, or an instant as ISO 8601 (without zone: UTC).

    Raises:
        ValueError: it is neither.
    """
    import datetime

    try:
        return now - Seconds.from_setting(text)
    except ValueError:
        pass
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"expected a duration such as 2h or 7d, or a time as 2030-01-31T12:00, got {text!r}") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)).timestamp()


def note_command(store: Store, action: str, kind: str, object: str, detail: str = "") -> None:
    """Write what a command of an operator's did."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "?"
    entry = AuditEntry(
        time=time.time(),
        action=action,
        username=f"(operator {user})",
        address=socket.gethostname(),
        kind=kind,
        object=object,
        detail=detail,
    )
    write_audit(store, [entry])


def _coming(
    store: Store, question: AuditQuestion, found: list[tuple[int, AuditEntry]]
) -> Iterator[list[tuple[int, AuditEntry]]]:
    last = 0
    while True:
        if found:
            last = found[-1][0]
            yield found
        time.sleep(_FOLLOW)
        found = read_audit(store, msgspec.structs.replace(question, after=last, most=1000))


def _write(found: list[tuple[int, AuditEntry]], *, as_json: bool) -> None:
    if as_json:
        for number, entry in found:
            line = {"id": number, **msgspec.to_builtins(entry), "time": utc(round(entry.time, 3)).isoformat()}
            click.echo(msgspec.json.encode(line).decode())
        return
    table = Table("time", "who", "from", "did", "what", "result", "detail", box=None, pad_edge=False)
    for _, entry in found:
        what = " ".join(filter(None, (entry.kind, entry.object)))
        times = f" ×{entry.count}" if entry.count > 1 else ""
        moment = utc(int(entry.time)).strftime("%Y-%m-%d %H:%M:%SZ")
        cells = (
            moment,
            entry.username or "-",
            entry.address or "-",
            entry.action + times,
            what,
            entry.result,
            entry.detail,
        )
        table.add_row(*(Text(clean(cell)) for cell in cells))
    if found:
        Console().print(table)
    else:
        click.echo("no entries", err=True)
