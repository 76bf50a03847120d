"""The `ebhpc` command: which subcommands there are, and what happens when one ends or fails.

A subcommand's module is imported when that subcommand is used, so that the others, and ``--help``, start
fast. The short help stands here for the same reason; a test compares it with the commands'.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any, NoReturn

import click

from ebhpc import __version__
from ebhpc.cli.choices import for_all_commands

USER_COMMANDS: dict[str, tuple[str, str]] = {
    "offers": ("ebhpc.cli.asking", "Ask when and how the request in FILE can run."),
    "accept": ("ebhpc.cli.asking", "Accept an offer: it becomes a session, its siblings are given back."),
    "reject": ("ebhpc.cli.asking", "Give an offer back before it expires."),
    "show": ("ebhpc.cli.following", "Show an offer or a session as it is now."),
    "watch": ("ebhpc.cli.following", "Follow a session until it ends."),
    "output": ("ebhpc.cli.following", "List what a session wrote, or fetch it."),
    "cancel": ("ebhpc.cli.following", "End a session that was accepted."),
    "sessions": ("ebhpc.cli.listing", "List your sessions, newest first."),
    "run": ("ebhpc.cli.running", "Ask, accept, watch and fetch: the whole way in one go."),
    "platforms": ("ebhpc.cli.listing", "List what the broker runs things on."),
    "reserve": ("ebhpc.cli.reserving", "Book nodes for yourself: windows and what they cost, pick one."),
    "release": ("ebhpc.cli.releasing", "Give reserved time back before it is over."),
    "calendar": ("ebhpc.cli.calendar", "Draw a platform's coming days: free, promised, yours, maintenance."),
}
"""The commands for users: the module of each and its short help."""

OPERATOR_COMMANDS: dict[str, tuple[str, str]] = {
    "serve": ("ebhpc.cli.operators", "Run the API and a driver together, for one machine."),
    "api": ("ebhpc.cli.operators", "Run the API."),
    "drive": ("ebhpc.cli.operators", "Run a driver."),
    "check": ("ebhpc.cli.operators", "Check the configuration and every platform."),
    "plugins": ("ebhpc.cli.operators", "List the plugins that are loaded and their hooks."),
    "db": ("ebhpc.cli.operators", "Make, upgrade, back up or restore the database."),
    "account": ("ebhpc.cli.operators", "Add and change accounts."),
    "audit": ("ebhpc.cli.operators", "Show who did what."),
    "approve": ("ebhpc.cli.approving", "List what waits for approval, approve or refuse it."),
    "replay": ("ebhpc.cli.replay", "Replay a trace: how well would starts have been predicted?"),
}
"""The commands for operators: the module of each and its short help."""

_MODULES = {name: module for name, (module, _) in (USER_COMMANDS | OPERATOR_COMMANDS).items()}


class Commands(click.Group):
    """The top command; its subcommands are imported when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all subcommands, those for users first."""
        return [*USER_COMMANDS, *OPERATOR_COMMANDS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a subcommand; None where there is none of the name."""
        if cmd_name not in _MODULES:
            return None
        command: click.Command = getattr(importlib.import_module(_MODULES[cmd_name]), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the two lists of commands, without importing any."""
        with formatter.section("Commands for users"):
            formatter.write_dl([(name, text) for name, (_, text) in USER_COMMANDS.items()])
        with formatter.section("Commands for operators"):
            formatter.write_dl([(name, text) for name, (_, text) in OPERATOR_COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run a subcommand; turn the client's and the configuration's errors into words and exit codes."""
        try:
            value = super().invoke(ctx)
            sys.stdout.flush()
            return value
        except (click.ClickException, click.exceptions.Exit):
            raise
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            raise click.exceptions.Exit(130) from None
        except BrokenPipeError:
            _reader_is_gone()
        except Exception as error:
            # The modules of these errors take a while to import, and are there only if one can have been
            # raised.
            from ebhpc.cli.report import report_error
            from ebhpc.client.errors import BrokerError
            from ebhpc.config import SettingsError

            if isinstance(error, BrokerError):
                raise click.exceptions.Exit(report_error(ctx, error)) from error
            if isinstance(error, SettingsError):
                click.echo(str(error), err=True)
                raise click.exceptions.Exit(2) from error
            raise


@click.group(
    cls=Commands,
    epilog="'ebhpc COMMAND --help' tells more of each. The options may also stand after the command's name.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="ebhpc")
@for_all_commands
def ebhpc() -> None:
    """Ask an execution broker when something can run, make it run, follow it and fetch what it wrote."""


def main() -> None:
    """Run the `ebhpc` command with the arguments of this process, and end the process."""
    ebhpc(prog_name="ebhpc")


def _reader_is_gone() -> NoReturn:
    """End as a program does whose reader went away, as in ``ebhpc sessions | head``: silently."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise click.exceptions.Exit(141)
