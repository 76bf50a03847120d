"""Our jobs: submitted once, found again, removed."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ebhpc import batch
from ebhpc.faults import point
from ebhpc.model import MessageKind, Session, message
from ebhpc.plugins import SessionFailed
from ebhpc_htcondor import carrying, records
from ebhpc_htcondor.asking import Impossible, NotReached, Pool, PoolFault, Refused
from ebhpc_htcondor.following import by_session
from ebhpc_htcondor.identities import is_user
from ebhpc_htcondor.names import session_id
from ebhpc_htcondor.settings import HTCondorSettings, Mapped
from ebhpc_htcondor.states import ENDED, HELD, REMOVED, SPOOLING
from ebhpc_htcondor.submission import SCRIPT, description

log = logging.getLogger("ebhpc_htcondor")

YOUNG = 600
"""Seconds for which a job that belongs to no session is left alone: its session may have come after the list."""

WAITS_FOR_FILES = f"JobStatus == {HELD} && HoldReasonCode =?= {SPOOLING}"
"""Of which jobs the schedd has not all files, or has not noticed yet that it has."""


class Jobs:
    """Our jobs in a pool."""

    def __init__(self, settings: HTCondorSettings, pool: Pool, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._pool = pool
        self._clock = clock

    def submit(self, session: Session, who: Mapped) -> str:
        """Submit a session's job, unless it was submitted before; return its number.

        Raises:
            SessionFailed: it can never be.
            PoolFault: not now; it may have been taken.
        """
        directory = batch.session_directory(self._settings.jobs.root, session.uuid)
        if directory.marked_to_end():
            text = "The session was ended before its job began."
            raise SessionFailed(message(MessageKind.FAILED, text, level="INFO"))
        if asked_before(directory.path) and (job := self._there(session, who)) is not None:
            return job.id
        carried = self._settings.files == "transfer"
        try:
            self._write_script(session, directory)
            files = carrying.lines(session, self._settings, directory, SCRIPT, who.user) if carried else None
            text = description(session, self._settings, who, directory, now=self._clock(), files=files)
        except ValueError as error:
            why = str(error)
            raise SessionFailed(message(MessageKind.FAILED, "The job cannot be submitted: {why}.", why=why)) from None
        _note(directory.path)
        point("htcondor.submit.before", session.uuid)
        try:
            number = self._pool.submit(text, who.user, spool=carried)
        except Impossible as error:
            why = str(error)
            raise SessionFailed(message(MessageKind.FAILED, "HTCondor refused the job: {why}.", why=why)) from None
        point("htcondor.submit.after", session.uuid)
        return f"{number}.0"

    def _write_script(self, session: Session, directory: batch.SessionDirectory) -> None:
        settings = self._settings
        if settings.files == "shared":
            write_script(directory, batch.job_script(settings.jobs, directory))
        elif (text := carrying.script(session, settings, directory)) is not None:
            write_script(directory, text)

    def cancel(self, session: Session, who: Mapped | None) -> None:
        """Remove a session's jobs, whatever their number; one that begins later ends by itself."""
        directory = batch.session_directory(self._settings.jobs.root, session.uuid)
        batch.mark_cancelled(directory)
        if session.native is not None or asked_before(directory.path):
            self._remove(session, who)

    def clear(self, session: Session, who: Mapped | None) -> None:
        """Remove what is left in the queue: a job that is held for good, or one that was submitted a second time."""
        directory = batch.session_directory(self._settings.jobs.root, session.uuid)
        if session.native is not None or asked_before(directory.path):
            self._remove(session, who)

    def reconcile(self, sessions: Sequence[Session]) -> None:
        """Remove jobs of ours that have no session."""
        living = {session.uuid for session in sessions}
        for job in self._pool.jobs():
            ours = session_id(job.session) is not None and is_user(self._settings, job.owner)
            old = job.submitted < self._clock() - YOUNG
            if ours and old and job.session not in living and job.status not in ENDED:
                log.warning("job %s (session %s) belongs to no session: removed", job.id, job.session)
                try:
                    self._pool.remove([job.id], job.owner, "it belongs to no session of the execution broker")
                except PoolFault as error:
                    log.warning("job %s: %s", job.id, error)

    def _there(self, session: Session, who: Mapped) -> records.Job | None:
        """Return the session's job; one whose files did not all come to the schedd is removed.

        The schedd tells the sender that it has the files before it lets the job go: a job that waits for them may have
        them all, so it is given time, and is removed only if it waits for them at that moment.

        Raises:
            NotReached: what became of it does not show yet.
        """
        within = float(self._settings.answer_within)
        deadline = time.monotonic() + within
        while (job := self._find(session, who)) is not None:
            if not (job.status == HELD and job.hold_code == SPOOLING):
                return job
            if time.monotonic() > deadline + within:
                raise NotReached(f"job {job.id} waits for its files, and cannot be removed")
            if time.monotonic() > deadline:
                self._pool.remove([job.id], job.owner, "its files were not sent", only=WAITS_FOR_FILES)
            time.sleep(0.2)
        return None

    def _find(self, session: Session, who: Mapped) -> records.Job | None:
        """Return the session's job, also one that has ended, but none that was removed before its files had come."""
        users = {session.uuid: self._owner(who)}
        found = by_session(filter(self._counts, self._pool.jobs()), users, self._settings.prefix)
        if session.uuid not in found:
            since = int(min(session.start, self._clock())) - 86400
            known = self._pool.history([session.uuid], max(since, 0))
            ended = [job for job in known if job.status in ENDED and self._counts(job)]
            found = by_session(ended, users, self._settings.prefix)
        return found.get(session.uuid)

    def _counts(self, job: records.Job) -> bool:
        return self._settings.files != "transfer" or job.status != REMOVED or job.spooled is not None

    def _owner(self, who: Mapped | None) -> str | None:
        return who.user if who is not None and self._settings.run_as == "token" else None

    def _remove(self, session: Session, who: Mapped | None) -> None:
        owner = self._owner(who)
        there: dict[str, list[str]] = {}
        for job in self._pool.jobs():
            if job.session == session.uuid and job.prefix == self._settings.prefix and owner in (None, job.owner):
                there.setdefault(job.owner, []).append(job.id)
        for user, numbers in there.items():
            try:
                self._pool.remove(numbers, user, "the session of the execution broker has ended")
            except Refused as refused:
                # It went by itself, or it goes
                left = {job.id for job in self._pool.jobs() if job.status not in ENDED}
                if left & set(numbers):
                    raise refused


def asked_before(directory: Path) -> bool:
    """Whether a job was asked for, whatever the answer was."""
    return (directory / "submissions").exists()


def write_script(directory: batch.SessionDirectory, text: str) -> None:
    """Write the job's script, whole and readable to whom the session's directory is open."""
    part = directory.path / f"{SCRIPT}.part"
    part.write_text(text, encoding="utf-8")
    part.chmod(0o644)
    os.replace(part, directory.path / SCRIPT)


def _note(directory: Path) -> None:
    """Note that a job is asked for now: whoever comes next has to look for it first."""
    with (directory / "submissions").open("ab") as notes:
        notes.write(b".")
        notes.flush()
        os.fsync(notes.fileno())
