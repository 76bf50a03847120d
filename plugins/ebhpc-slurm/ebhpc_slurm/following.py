"""What became of our jobs: Slurm's records as what the batch system says of them."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from ebhpc.batch import Native, observation, read_report, session_directory
from ebhpc.model import Message, MessageKind, Observation, Session, message
from ebhpc_slurm import records
from ebhpc_slurm.notation import hosts
from ebhpc_slurm.settings import SlurmSettings
from ebhpc_slurm.snapshot import native_name, session_of
from ebhpc_slurm.states import ENDED, LIVE, State, exit_code, reason, state
from ebhpc_slurm.transport import Refused, Slurm, SlurmFault


def by_session(
    jobs: Iterable[records.Job], users: Mapping[str, str], prefix: str, natives: Mapping[str, str | None] = {}
) -> dict[str, records.Job]:
    """Return for each session its job. ``users``: the Unix user that a session's job has.

    A name is anybody's to give: a job of another user is none of ours. Of a session whose owner is nobody on the
    cluster any more, the job is told by its number in ``natives``. Where there are several, as when a
    controller forgot one and was asked again, the one that lives counts, else the one that came last.
    """
    found: dict[str, records.Job] = {}
    for job in jobs:
        uuid = session_of(job.name, prefix) or session_of(job.comment, prefix)
        if uuid is None or (users[uuid] != job.user if uuid in users else natives.get(uuid) != str(job.id)):
            continue
        before = found.get(uuid)
        if before is None or _rank(job) > _rank(before):
            found[uuid] = job
    return found


def _rank(job: records.Job) -> tuple[int, int, int]:
    return (2 if job.state in LIVE else 0 if job.state in ENDED else 1, job.submitted, job.id)


def native(job: records.Job) -> Native | None:
    """Return what Slurm says of a job; None: nobody knows the word for its state."""
    known = state(job.state)
    if known is None:
        return None
    began = job.started if known.seen != "PENDING" else None
    names = hosts(job.hosts)
    ended = known.seen in ("SUCCEEDED", "FAILED")
    return Native(
        state=known.seen,
        exit_code=exit_code(job.exit) if job.state in ("COMPLETED", "FAILED") else None,
        node=names[0] if names and known.seen != "PENDING" else None,
        started=began,
        ended=job.ends if ended else None,
        messages=tuple(_told(job, known)),
    )


def _told(job: records.Job, known: State) -> Iterable[Message]:
    if known.words:
        yield message(known.kind, "{what}", what=known.words, level=known.level)
    elif known.seen == "PENDING" and job.reason not in ("", "None"):
        why = reason(job.reason)
        yield message(
            MessageKind.PROGRESS,
            "the job waits: {why}",
            why=why.words,
            level="WARN" if why.held else "INFO",
        )


GONE = Native(state="GONE")


def names_of(sessions: Iterable[Session], prefix: str) -> list[str]:
    """Return the names of the sessions' jobs."""
    return [native_name(session.uuid, prefix) for session in sessions]


class Follower:
    """Follows our jobs by one question for all of them, no more often than the settings' ``look``."""

    def __init__(self, settings: SlurmSettings, slurm: Slurm, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._slurm = slurm
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._looked: float | None = None
        self._changes = itertools.count(1)
        self._changed = 0
        self._seen = 0
        self._fresh = False
        self._jobs: list[records.Job] = []
        self._ended: dict[str, records.Job] = {}
        self._unknown: frozenset[str] = frozenset()
        self._asked: frozenset[str] = frozenset()

    def expect(self, session: Session) -> None:
        """Look anew at the next call: something was done to a session's job."""
        # No lock: a look that takes its time must not hold up whoever submits
        self._changed = next(self._changes)
        self._ended.pop(session.uuid, None)

    def observe(self, sessions: Sequence[Session], users: Mapping[str, str]) -> Iterator[Observation]:
        """Yield what became of the sessions; those are left out of which nothing can be said now.

        Raises:
            SlurmFault: there was no answer.
        """
        with self._lock:
            prefix = self._settings.prefix
            self._look(f"{prefix}-", [session.uuid for session in sessions])
            natives = {session.uuid: session.native for session in sessions}
            found = by_session(self._jobs, users, prefix, natives)
            self._account_for([session for session in sessions if session.uuid not in found], users, natives)
            found = {**self._ended, **found}
            # Of one that nobody asked about at that look, it says nothing that its job was not there
            unknown = self._unknown | (natives.keys() - self._asked)
        for session in sessions:
            job = found.get(session.uuid)
            said = GONE if job is None else native(job)
            if said is None or (job is None and session.uuid in unknown):
                continue
            directory = session_directory(self._settings.jobs.root, session.uuid)
            yield observation(session, said, read_report(directory), self._settings.jobs)

    def jobs(self, asked: Sequence[str]) -> Sequence[records.Job]:
        """Return the jobs as of the last look, or of a new one: ours, and those in our reservations.

        ``asked`` are the sessions that somebody wants to know of.

        Raises:
            SlurmFault: there was no answer.
        """
        with self._lock:
            self._look(f"{self._settings.prefix}-", asked)
            return self._jobs

    def _look(self, prefix: str, asked: Sequence[str]) -> None:
        now = self._monotonic()
        changed = self._changed
        if self._looked is None or changed != self._seen or now - self._looked >= self._settings.look:
            self._jobs = list(self._slurm.jobs(prefix))
            self._looked, self._seen = now, changed
            self._unknown = frozenset()
            self._asked = frozenset(asked)
            self._fresh = True

    def _account_for(
        self, sessions: Sequence[Session], users: Mapping[str, str], natives: Mapping[str, str | None]
    ) -> None:
        """Ask the accounting, at each look once, what became of jobs that the controller has forgotten."""
        wanted = [session for session in sessions if session.uuid not in self._ended]
        if not wanted or not self._fresh:
            return
        self._fresh = False
        since = min(session.start for session in wanted) - _DAY
        try:
            known = self._slurm.ended(max(since, 0), names_of(wanted, self._settings.prefix))
        except Refused:  # there is no accounting: the controller's word is the last
            return
        except SlurmFault:
            self._unknown = frozenset(session.uuid for session in wanted)
            return
        # A job that is said to wait or to run, and that the controller does not know, was lost with its memory
        done = by_session([job for job in known if job.state in ENDED], users, self._settings.prefix, natives)
        asked = {session.uuid for session in sessions}
        self._ended = {uuid: job for uuid, job in {**self._ended, **done}.items() if uuid in asked}


_DAY = 86400
