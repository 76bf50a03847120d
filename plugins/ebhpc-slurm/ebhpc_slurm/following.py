"""What became of our jobs: Slurm's records as what the batch system says of them."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence

from ebhpc.batch import Native, observation, read_report, session_directory
from ebhpc.model import Message, MessageKind, Observation, Session, message
from ebhpc_slurm import records
from ebhpc_slurm.looking import AS_LAST_TOLD, Cluster
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
    """Follows our jobs by one question for all of them, at the looks that it shares with the snapshots."""

    def __init__(self, settings: SlurmSettings, slurm: Slurm, cluster: Cluster) -> None:
        self._settings = settings
        self._slurm = slurm
        self._cluster = cluster
        self._lock = threading.Lock()
        self._changes = itertools.count(1)
        self._changed = 0
        self._seen = 0
        self._told = 0
        self._fresh = False
        self._jobs: list[records.Job] = []
        self._ended: dict[str, records.Job] = {}
        self._unknown: frozenset[str] = frozenset()
        self._asked: frozenset[str] = frozenset()
        self._asked_before: frozenset[str] = frozenset()

    def expect(self, session: Session) -> None:
        """Look anew at the next call: something was done to a session's job."""
        # No lock: a look that takes its time must not hold up whoever submits
        self._changed = next(self._changes)
        self._ended.pop(session.uuid, None)

    def look(self, asked: Sequence[str], *, reservations: bool = False) -> Sequence[records.Job]:
        """Look where a look is due; return the jobs as of the last one: ours, and those in our reservations.

        ``asked`` are the sessions that somebody wants to know of; ``reservations``: these too are looked at.

        Raises:
            SlurmFault: there was no answer.
        """
        with self._lock:
            prefix = f"{self._settings.prefix}-"
            changed = self._changed
            told, jobs = self._cluster.follow(prefix, anew=changed != self._seen, reservations=reservations)
            self._seen = changed
            if told != self._told:
                self._jobs = list(self._slurm.jobs(prefix, AS_LAST_TOLD) if jobs is None else jobs)
                self._told = told
                self._unknown = frozenset()
                # One that a snapshot asked for is older than this question, but not than the one before
                self._asked = self._asked_before if jobs is None else frozenset(asked)
                self._fresh = True
            self._asked_before = frozenset(asked)
            return self._jobs

    def observe(self, sessions: Sequence[Session], users: Mapping[str, str]) -> Iterator[Observation]:
        """Yield what became of the sessions as of the last look; those are left out of which nothing can be said."""
        with self._lock:
            natives = {session.uuid: session.native for session in sessions}
            found = by_session(self._jobs, users, self._settings.prefix, natives)
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
