"""The directory of a session on a file system that the broker and the nodes share.

    ROOT/ab/UUID/          the door: the broker's, and open to the session's user alone
      job.json             what the runner is to do
      runner.py            the runner
      cancel, closed       marks: it shall end; it is being cleaned up
      prepare.lock         held while somebody prepares
      staged               mark: all is there, and behind the door only the job makes changes
      stage/               the notebook or image, as fetched
      storage/N/           the session's storage elements, in their order
      work/                the job's working directory
      report/              what the runner tells, and batch.log, what the batch script itself says
      output/              what is kept: stdout, stderr, results
      kept/storage/        storage that is kept as results, moved here after the job

    ROOT/left/             what only its user, or root, can remove

The user's job may write to ``stage``, ``storage/N``, ``work``, ``report`` and ``output``: nothing in them is trusted.
"""

from __future__ import annotations

from pathlib import Path

from ebhpc.staging.files import directory_name


class SessionDirectory:
    """The directory of one session."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.uuid = path.name
        self.job = path / "job.json"
        self.runner = path / "runner.py"
        self.cancel = path / "cancel"
        self.closed = path / "closed"
        self.prepare_lock = path / "prepare.lock"
        self.staged = path / "staged"
        self.stage = path / "stage"
        self.storage = path / "storage"
        self.work = path / "work"
        self.report = path / "report"
        self.output = path / "output"
        self.kept = path / "kept"

    @property
    def results(self) -> Path:
        """Where the job leaves the files that shall be kept."""
        return self.output / "results"

    @property
    def log(self) -> Path:
        """Where the batch system shall write what the batch script itself says."""
        return self.report / "batch.log"

    def marked_to_end(self) -> bool:
        """Whether the session shall end, or has been cleaned up."""
        return self.cancel.exists() or self.closed.exists()


def session_directory(root: Path, uuid: str) -> SessionDirectory:
    """Return the directory of a session; it need not be there.

    Raises:
        ValueError: ``uuid`` is none, so that it must not become part of a path.
    """
    name = directory_name(uuid)
    return SessionDirectory(root / name[:2] / name)
