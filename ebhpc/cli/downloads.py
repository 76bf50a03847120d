"""Fetching a session's outputs into files, with a progress bar on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

from ebhpc.cli import screen
from ebhpc.cli.choices import Choices
from ebhpc.client import Broker
from ebhpc.client.broker import safe_name
from ebhpc.model import Output


def download_one(broker: Broker, uuid: str, name: str, to: Path, choices: Choices) -> Path:
    """Write one output to the file ``to``, or below the directory ``to``.

    Raises:
        click.ClickException: it cannot be written.
    """
    with _bars(choices) as bar, _faults_of_files():
        return broker.download(uuid, name, to, progress=bar(name, None))


def download_all(
    broker: Broker, uuid: str, outputs: Sequence[Output], folder: Path, choices: Choices
) -> dict[str, Path]:
    """Write all outputs below ``folder``, which is made; return their paths by name.

    Raises:
        click.ClickException: one cannot be written, or its name would leave the folder.
    """
    written: dict[str, Path] = {}
    with _bars(choices) as bar, _faults_of_files():
        for item in outputs:
            safe_name(item.name)
        folder.mkdir(parents=True, exist_ok=True)
        for item in outputs:
            written[item.name] = broker.download(uuid, item.name, folder, progress=bar(item.name, item.size))
    return written


@contextmanager
def _faults_of_files() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise click.ClickException(f"{error.filename or 'a result'} cannot be written: {error.strerror}.") from error
    except ValueError as error:
        raise click.ClickException(str(error)) from error


@contextmanager
def _bars(choices: Choices) -> Iterator[Callable[[str, int | None], Callable[[int], None]]]:
    """Give a function that makes a bar for a name and its size; that returns one to set the bytes so far."""
    if choices.quiet or choices.json or not screen.on_terminal(err=True):
        yield lambda name, size: lambda done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:

        def bar(name: str, size: int | None) -> Callable[[int], None]:
            task = progress.add_task(screen.clean(name), total=size)
            return lambda done: progress.update(task, completed=done)

        yield bar
