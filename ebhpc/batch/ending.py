"""What happens to a session's directory after its job: results kept, all else removed, and in the end the results."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import BinaryIO

from ebhpc.batch.directory import SessionDirectory, session_directory
from ebhpc.batch.settings import JobSettings
from ebhpc.faults import point
from ebhpc.model import Output, Session
from ebhpc.staging.files import held, mark
from ebhpc.staging.locations import file_name
from ebhpc.staging.outputs import listed, opened
from ebhpc.staging.removal import remove
from ebhpc.staging.volumes import label, mounts, places

_log = logging.getLogger(__name__)


def cleanup(session: Session, settings: JobSettings) -> None:
    """Leave nothing of the session but its results and its report: what ``ebhpc_cleanup`` does. Safe to repeat.

    Only called when the batch system says that the job has ended.

    A directory that the user has shut, so that only he or root can remove it, goes to ``ROOT/left`` with a warning.

    Raises:
        Busy: somebody still prepares.
        OSError: something is left.
    """
    directory = session_directory(settings.root, session.uuid)
    if not directory.path.is_dir():
        return
    point("batch.cleanup.before", session.uuid)
    mark(directory.closed)  # from here on nobody prepares
    with held(directory.prepare_lock, wait=False):
        if settings.keep_storage:
            _keep_storage(session, settings, directory)
        for path in (directory.work, directory.stage, directory.storage, directory.job, directory.runner):
            _take_away(path, settings, session.uuid)
    point("batch.cleanup.after", session.uuid)


def outputs(session: Session, settings: JobSettings) -> list[Output]:
    """List the session's stdout, stderr and result files: what ``ebhpc_outputs`` does."""
    directory = session_directory(settings.root, session.uuid)
    return [*listed(directory.output), *listed(directory.kept)]


def open_output(session: Session, settings: JobSettings, name: str) -> BinaryIO | None:
    """Open one of the session's outputs; None if there is none of that name: what ``ebhpc_open_output`` does."""
    directory = session_directory(settings.root, session.uuid)
    return opened(directory.kept, name) or opened(directory.output, name)


def forget(session: Session, settings: JobSettings) -> None:
    """Delete the session's directory: what ``ebhpc_forget`` does. Safe to repeat.

    Raises:
        OSError: something is left.
    """
    directory = session_directory(settings.root, session.uuid)
    point("batch.forget.before", session.uuid)
    _take_away(directory.path, settings, session.uuid)
    point("batch.forget.after", session.uuid)


def _take_away(path: Path, settings: JobSettings, uuid: str) -> None:
    """Remove a file or directory; what its user has shut is put aside, for root."""
    try:
        remove(path, open_up=settings.access == "own")
    except PermissionError as error:
        left = left_directory(settings)
        left.mkdir(mode=0o700, exist_ok=True)
        os.replace(path, left / f"{uuid}-{path.name}-{time.time_ns()}")
        _log.warning("session %s: %s cannot be removed (%s) and was put into %s", uuid, path.name, error, left)


def left_directory(settings: JobSettings) -> Path:
    """Return where is put what only its user, or root, can remove."""
    return settings.root / "left"


def _keep_storage(session: Session, settings: JobSettings, directory: SessionDirectory) -> None:
    """Move the storage that some volume may write to among the results; staged data is none."""
    shown = mounts(session.volumes, session.storage, session.data)
    kept = {int(mount.source.partition("/")[0]) for mount in shown if not mount.read_only}
    taken: set[str] = set()
    for at, element in enumerate(session.storage):
        name = file_name(label(element, str(at)), str(at))
        name = name if name not in taken else f"{at}-{name}"
        taken.add(name)
        source = directory.storage / str(at)
        if at not in kept or not source.is_dir():
            continue
        for place in places(session.storage, session.data):
            if place.storage == at:
                _take_away(source / place.name, settings, session.uuid)
        if any(source.iterdir()):
            home = directory.kept / "storage"
            home.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.replace(source, home / name)
