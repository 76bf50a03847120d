"""The `ebhpc` command: `main` runs it."""

from __future__ import annotations


def main() -> None:
    """Run the `ebhpc` command with the arguments of this process, and end the process."""
    from ebhpc.cli.commands import main as run

    run()
