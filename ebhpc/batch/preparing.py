"""What happens to a session before its job is submitted: its directory made, filled, and opened to its user."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ebhpc.batch.access import Account, arrange, make_door, open_door
from ebhpc.batch.directory import SessionDirectory, session_directory
from ebhpc.batch.job import NOTEBOOK, SCRIPT, job
from ebhpc.batch.runtimes import IMAGE
from ebhpc.batch.script import runner_text
from ebhpc.batch.settings import JobSettings
from ebhpc.faults import point
from ebhpc.model import (
    BatchScript,
    JupyterNotebook,
    Message,
    MessageKind,
    Prepared,
    Session,
    SingularityContainer,
    message,
)
from ebhpc.plugins import SessionFailed
from ebhpc.staging import scripts
from ebhpc.staging.elements import Fetcher
from ebhpc.staging.files import held, mark, write_json
from ebhpc.staging.locations import LocationError
from ebhpc.staging.volumes import read_only_storage, sizes


def prepare(
    session: Session,
    settings: JobSettings,
    account: Account,
    *,
    seconds: float | None = None,
    node_variable: str | None = None,
    command: Sequence[str] | None = None,
    data_schemes: Sequence[str] = (),
) -> Prepared:
    """Make everything ready for the job: what ``ebhpc_prepare`` does. Safe to repeat, after a crash at any instant.

    ``account`` is who the job will run as; ``seconds``, ``node_variable``, ``command`` and ``data_schemes`` are as for
    ``ebhpc.batch.job.job``.

    Raises:
        SessionFailed: it can never be, or the session has been ended.
        FetchFailed, Busy, AccessFailed, OSError: not now.
    """
    directory = session_directory(settings.root, session.uuid)
    point("batch.prepare.before", session.uuid)
    make_door(directory)
    # A call that was given up may still be at work: its lock says so, and the next try comes later
    with held(directory.prepare_lock, wait=False):
        _refuse_ended(directory)
        told: list[Message] = []
        if not directory.staged.exists():
            told = _fill(session, settings, directory)
            try:
                wanted = job(
                    session,
                    settings,
                    seconds=seconds,
                    node_variable=node_variable,
                    command=command,
                    data_schemes=data_schemes,
                )
            except (LookupError, LocationError) as error:
                raise SessionFailed(
                    message(MessageKind.FAILED, "The job cannot be started: {why}.", why=str(error))
                ) from None
            write_json(directory.job, wanted)
            _write(directory.runner, runner_text())
            _arrange(session, settings, account, directory)
            mark(directory.staged)
        point("batch.door.before", session.uuid)
        open_door(directory, settings, account)
        point("batch.prepare.after", session.uuid)
        return Prepared(messages=tuple(told))


def mark_cancelled(directory: SessionDirectory) -> None:
    """Mark that the session shall end: a job that begins later ends at once. Safe to repeat."""
    if directory.path.is_dir():
        mark(directory.cancel)


def _fill(session: Session, settings: JobSettings, directory: SessionDirectory) -> list[Message]:
    """Make the directories, and fetch what the broker fetches."""
    count = len(sizes(session.storage, session.data, settings))
    storage = [directory.storage / str(at) for at in range(count)]
    for part in (directory.stage, directory.work, directory.report, directory.results, directory.storage, *storage):
        part.mkdir(mode=0o700, parents=True, exist_ok=True)
    if settings.staging == "job":
        return []
    sources = session.sources
    fetcher = Fetcher(uuid=session.uuid, rules=settings, stop=directory.marked_to_end, sources=sources)
    told = fetcher.data(session, directory.storage)
    executable = session.executable
    if isinstance(executable, JupyterNotebook):
        fetcher.notebook(executable, directory.path / NOTEBOOK)
    elif isinstance(executable, SingularityContainer):
        url = executable.location or ""
        if url.partition(":")[0].lower() in ("http", "https", "file"):
            fetcher.file(url, directory.path / IMAGE, "/executable/location")
    elif isinstance(executable, BatchScript) and executable.location is not None:
        url = scripts.checked_location(executable)
        path = "/executable/location"
        fetcher.file(url, directory.path / SCRIPT, path, most=scripts.LARGEST, sources=sources.notebooks)
    return told


def _arrange(session: Session, settings: JobSettings, account: Account, directory: SessionDirectory) -> None:
    """Set what the job may write to; where the job itself fetches, its runner shuts read-only storage later."""
    count = len(sizes(session.storage, session.data, settings))
    shut = read_only_storage(session.volumes, session.storage, session.data) if settings.staging == "broker" else ()
    writable = [directory.storage / str(at) for at in range(count) if at not in shut]
    arrange(
        directory,
        settings,
        account,
        writable=[directory.stage, directory.work, directory.report, directory.output, *writable],
        shut=[directory.storage / str(at) for at in shut],
    )


def _refuse_ended(directory: SessionDirectory) -> None:
    if directory.marked_to_end():
        raise SessionFailed(message(MessageKind.FAILED, "The session was ended before its job began.", level="INFO"))


def _write(path: Path, text: str) -> None:
    part = path.with_name(f"{path.name}.part")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    with open(os.open(part, flags, 0o644), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)
