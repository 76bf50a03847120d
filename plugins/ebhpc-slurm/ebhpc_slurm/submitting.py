"""Our jobs: submitted once, found again, cancelled."""

from __future__ import annotations

import logging
from collections.abc import Callable, Container, Sequence
from pathlib import Path

from ebhpc import batch
from ebhpc.faults import point
from ebhpc.model import MessageKind, Session, message
from ebhpc.plugins import SessionFailed
from ebhpc_slurm import promises, records
from ebhpc_slurm.following import by_session
from ebhpc_slurm.holding import Orphans, Reservations
from ebhpc_slurm.looking import Cluster
from ebhpc_slurm.settings import Mapped, SlurmSettings
from ebhpc_slurm.snapshot import most_threads, native_name, session_of
from ebhpc_slurm.states import ENDED
from ebhpc_slurm.transport import Refused, Slurm, SlurmFault, Why

log = logging.getLogger("ebhpc_slurm")

NEVER = frozenset({Why.USER, Why.ACCOUNT, Why.PLACE, Why.LICENCES, Why.LIMIT, Why.TIME})
"""Refusals of a job that will not be otherwise at the next try."""


class Jobs:
    """Our jobs on a cluster."""

    def __init__(
        self,
        settings: SlurmSettings,
        slurm: Slurm,
        cluster: Cluster,
        reservations: Reservations,
        clock: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._slurm = slurm
        self._cluster = cluster
        self._reservations = reservations
        self._clock = clock
        self._orphans = Orphans(clock)

    def submit(self, session: Session, who: Mapped) -> str:
        """Submit a session's job, unless it was submitted before; return its number.

        Raises:
            SessionFailed: Slurm will not take it.
            SlurmFault: not now; it may have been taken.
        """
        directory = batch.session_directory(self._settings.jobs.root, session.uuid)
        if directory.marked_to_end():
            raise SessionFailed(
                message(MessageKind.FAILED, "The session was ended before its job began.", level="INFO")
            )
        if _asked_before(directory.path) and (job := self._find(session, who)) is not None:
            return str(job.id)
        until = self._reserved(session, who) if session.firm else None
        wish = self._wish(session, who, directory, until)
        _note(directory.path)
        point("slurm.submit.before", session.uuid)
        try:
            number = self._slurm.submit(wish)
        except Refused as refused:
            if refused.why in NEVER:
                raise SessionFailed(
                    message(MessageKind.FAILED, "Slurm refused the job: {why}.", why=str(refused))
                ) from None
            raise
        point("slurm.submit.after", session.uuid)
        return str(number)

    def cancel(self, session: Session, who: Mapped | None) -> None:
        """End a session's jobs, whatever their number; one that begins later ends by itself."""
        directory = batch.session_directory(self._settings.jobs.root, session.uuid)
        batch.mark_cancelled(directory)
        if session.native is None and not _asked_before(directory.path):
            return
        self._end(session, who)

    def cancel_doubles(self, session: Session, who: Mapped | None) -> None:
        """End what a call that was given up may have submitted beside the job that has ended."""
        directory = batch.session_directory(self._settings.jobs.root, session.uuid)
        if _asked_before(directory.path, times=2):
            self._end(session, who)

    def reconcile(self, sessions: Sequence[Session], made: Container[str]) -> None:
        """End jobs that we have ``made`` and that have no session."""
        living = {session.uuid for session in sessions}
        there = {
            str(job.id): job
            for job in self._slurm.jobs(f"{self._settings.prefix}-")
            if job.state not in ENDED
            and (uuid := session_of(job.name, self._settings.prefix)) is not None
            and uuid not in living
            and uuid in made
            and job.user in self._users()
        }
        for number in self._orphans.told(list(there)):
            log.warning("job %s (%s) belongs to no session: cancelled", number, there[number].name)
            try:
                self._slurm.cancel(there[number].id, there[number].user)
            except SlurmFault as error:
                log.warning("job %s: %s", number, error)

    def _users(self) -> _Users:
        return _Users(self._settings)

    def _find(self, session: Session, who: Mapped) -> records.Job | None:
        """Return the session's job; also one that has ended and that only the accounting knows."""
        prefix = self._settings.prefix
        users = {session.uuid: who.user}
        found = by_session(self._slurm.jobs(native_name(session.uuid, prefix)), users, prefix)
        if session.uuid not in found:
            since = int(min(session.start, self._clock())) - 86400
            try:
                known = self._slurm.ended(since, [native_name(session.uuid, prefix)])
            except Refused:  # there is no accounting
                known = ()
            found = by_session([job for job in known if job.state in ENDED], users, prefix)
        return found.get(session.uuid)

    def _reserved(self, session: Session, who: Mapped) -> float:
        """Return when the session's reservation ends, by our clock; one that has gone is made again."""
        there = self._reservations.find(session)
        if there is None:
            log.warning("session %s: its reservation is gone: made again", session.uuid)
            self._reservations.hold(session, who)
            there = self._reservations.find(session)
        return (there.end if there is not None else session.end) - self._cluster.skew()

    def _wish(
        self, session: Session, who: Mapped, directory: batch.SessionDirectory, until: float | None
    ) -> records.Submit:
        now = self._clock()
        limit = promises.minutes(session, self._settings, now, until=until)
        account = who.account
        partition = promises.partition_of(
            session.allocations,
            self._cluster.partitions(),
            self._settings.partitions,
            named=session.partition,
            seconds=min(limit * 60, session.duration),
            account=account,
        )
        nodes = self._cluster.nodes()
        node = nodes.get(session.allocations[0].node)
        # A job that may run on any node shall have its cores on each
        threads = node.threads if node is not None else most_threads(partition, nodes) if partition is not None else 1
        if partition is not None and partition.limit is not None:
            limit = max(min(limit, partition.limit // 60), 1)
        return promises.submit(
            session,
            self._settings,
            who,
            script=batch.job_script(self._settings.jobs, directory),
            directory=str(directory.path),
            log=str(directory.log),
            limit=limit,
            partition=partition.name if partition is not None else None,
            reservation=self._reservations.name(session) if session.firm else None,
            threads=threads,
            begin=session.start if not session.firm and session.start > now else None,
        )

    def _end(self, session: Session, who: Mapped | None) -> None:
        prefix = self._settings.prefix
        for job in self._slurm.jobs(native_name(session.uuid, prefix)):
            ours = who is None or job.user == who.user
            if ours and job.state not in ENDED and job.state != "COMPLETING":
                self._slurm.cancel(job.id, job.user)


class _Users:
    """The Unix users that the broker's users may be: all, where their names are their own."""

    def __init__(self, settings: SlurmSettings) -> None:
        self._all = settings.others == "same-name"
        self._names = {one.user for one in settings.identities.values()}

    def __contains__(self, user: str) -> bool:
        return self._all or user in self._names


def _asked_before(directory: Path, *, times: int = 1) -> bool:
    """Whether a job was asked for at least so many times, whatever the answer was."""
    try:
        return (directory / "submissions").stat().st_size >= times
    except FileNotFoundError:
        return False


def _note(directory: Path) -> None:
    """Note that a job is asked for now: whoever comes next has to look for it first."""
    with (directory / "submissions").open("ab") as notes:
        notes.write(b".")
