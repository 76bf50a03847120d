"""`ebhpc release`: reserved time is given back before it is over."""

from __future__ import annotations

import click

from ebhpc.cli import screen
from ebhpc.cli.asking import write_moved
from ebhpc.cli.choices import choices_of, connect, for_all_commands
from ebhpc.cli.exits import Exit
from ebhpc.cli.last_offers import NAMES_OF_SESSIONS, state_file, which
from ebhpc.model import ReservedTime


@click.command(short_help="Give reserved time back before it is over.", epilog=NAMES_OF_SESSIONS)
@click.argument("session")
@click.option("--yes", is_flag=True, help="Do not ask, even where jobs run in it.")
@for_all_commands
@click.pass_context
def release(context: click.Context, session: str, yes: bool) -> None:
    """Give the reserved time SESSION back before it is over. Jobs that run in it, or wait for it, are ended."""
    broker = connect(context)
    uuid = which(session, broker.url, state_file())
    found = broker.session(uuid)
    if not isinstance(found.executable, ReservedTime):
        screen.tell("The session is no reserved time; 'ebhpc cancel' ends any session.")
        raise click.exceptions.Exit(Exit.NOT_POSSIBLE)
    running = [job.id for job in found.executable.jobs or () if job.ended is None]
    if running and not yes and not choices_of(context).json and screen.can_ask():
        what = "1 job runs" if len(running) == 1 else f"{len(running)} jobs run"
        if not click.confirm(f"{what} in it and would be ended. Give it back?", default=False, err=True):
            screen.tell("It is left alone.")
            raise click.exceptions.Exit(Exit.ENDED)
    write_moved(context, broker.cancel(uuid), "")
