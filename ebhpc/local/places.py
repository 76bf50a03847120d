"""Where the local platform keeps what: its state directory and the directory of each session.

    state/
      claims/            a file for each core and device, locked by the supervisor that has it
      sessions/UUID/
        job.json         what the supervisor is to do
        launch.lock      held while somebody launches the supervisor, or cleans up
        prepare.lock     held while somebody prepares
        alive.lock       held by the supervisor as long as it lives
        started          made once, by the supervisor that has the job: its processes and its start
        running.json     how to reach the job while it runs
        status.json      how it ended
        cancel, closed   marks: it shall end; it is being cleaned up
        supervisor.log   what went wrong in the supervisor itself
        stage/           the notebook or image, as fetched
        work/            the job's working directory
        storage/N/       the session's storage elements, in their order
        output/          what is kept: stdout, stderr, results

Imported by the supervisor: the standard library only.
"""

from __future__ import annotations

from pathlib import Path

from ebhpc.staging.files import Busy, directory_name, held


class SessionDirectory:
    """The directory of one session."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.uuid = path.name
        self.job = path / "job.json"
        self.launch_lock = path / "launch.lock"
        self.prepare_lock = path / "prepare.lock"
        self.alive_lock = path / "alive.lock"
        self.started = path / "started"
        self.running = path / "running.json"
        self.status = path / "status.json"
        self.cancel = path / "cancel"
        self.closed = path / "closed"
        self.log = path / "supervisor.log"
        self.image = path / "image.json"
        self.stage = path / "stage"
        self.work = path / "work"
        self.storage = path / "storage"
        self.output = path / "output"

    @property
    def results(self) -> Path:
        """Where the job leaves the files that shall be kept."""
        return self.output / "results"

    @property
    def kept_storage(self) -> Path:
        """Where storage elements go that are kept as results."""
        return self.output / "storage"

    @property
    def name(self) -> str:
        """The name of everything of this session outside of its directory: container, control group."""
        return f"ebhpc-{self.uuid}"

    def make(self) -> None:
        """Make the directory and its parts. Safe to repeat."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        for part in (self.stage, self.work, self.storage, self.output, self.results):
            part.mkdir(mode=0o700, exist_ok=True)

    def marked_to_end(self) -> bool:
        """Whether the session shall end, or has been cleaned up."""
        return self.cancel.exists() or self.closed.exists()

    def lives(self) -> bool:
        """Whether a supervisor is at work: it holds ``alive.lock`` until its very end."""
        try:
            with held(self.alive_lock, shared=True, wait=False, make=False):
                return False
        except Busy:
            return True
        except FileNotFoundError:
            return False


def session_directory(state: Path, uuid: str) -> SessionDirectory:
    """Return the directory of a session.

    Raises:
        ValueError: ``uuid`` is none, so that it must not become part of a path.
    """
    return SessionDirectory(state / "sessions" / directory_name(uuid))
