"""Reserved time on a cluster: who may use it, how, and what ran in it."""

from __future__ import annotations

import math
import shlex
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence

from ebhpc.model import (
    Connector,
    JobUse,
    Message,
    MessageKind,
    Observation,
    ReservedTime,
    Session,
    Usage,
    kinds,
    message,
)
from ebhpc.plugins import SessionFailed
from ebhpc_slurm import records
from ebhpc_slurm.identities import mapped
from ebhpc_slurm.settings import Mapped, SlurmSettings
from ebhpc_slurm.states import ENDED, state
from ebhpc_slurm.transport import Slurm, SlurmFault

MOST_LISTED = 200
"""Jobs of one reservation that are listed one by one; of older ones only the core-hours are told."""


def is_reserved(session: Session) -> bool:
    """Whether nothing of ours runs in a session: its time is its user's."""
    return isinstance(session.executable, ReservedTime)


def sharers(session: Session, settings: SlurmSettings) -> tuple[str, ...]:
    """Return the Unix users who share a session's time with its owner.

    Raises:
        SessionFailed: one of them is nobody on this cluster.
    """
    executable = session.executable
    if not isinstance(executable, ReservedTime):
        return ()
    found = []
    for name in executable.users or ():
        who = mapped(settings, name)
        if who is None:
            raise SessionFailed(message(MessageKind.POLICY_REFUSED, "The user {name} has no account here.", name=name))
        found.append(who.user)
    return tuple(found)


def unknown_sharers(executable: ReservedTime, settings: SlurmSettings, platform: str) -> Iterable[Message]:
    """Yield a refusal for each user who is nobody on this cluster."""
    for at, name in enumerate(executable.users or ()):
        if mapped(settings, name) is None:
            yield message(
                MessageKind.POLICY_REFUSED,
                "The user {name} has no account on {platform}.",
                path=f"/executable/users/{at}",
                name=name,
                platform=platform,
            )


def own_account_missing(executable: ReservedTime, who: Mapped) -> Message | None:
    """Return why a user could not enter the time that he reserves for accounts; None: he could."""
    if not executable.accounts or who.account in executable.accounts:
        return None
    return message(
        MessageKind.POLICY_REFUSED,
        "Your own account here, {account}, is not among those that shall share the time: you could not use it.",
        path="/executable/accounts",
        account=who.account or "Slurm's default one",
    )


# --- how to use it ---------------------------------------------------------------------------------------------------


def connector(
    session: Session, who: Mapped | None, reservation: records.Reservation, platform: str, *, over: bool = False
) -> Connector:
    """Say how a session's reservation is used: its name, its partition, and lines to type."""
    nodes = len(session.allocations)
    words = [f"--reservation={reservation.name}"]
    if reservation.partition:
        words.append(f"--partition={reservation.partition}")
    if who is not None and who.account:
        words.append(f"--account={who.account}")
    if nodes > 1:
        words.append(f"--nodes={nodes}")
    options = shlex.join(words)
    place = f"?partition={reservation.partition}" if reservation.partition else ""
    return Connector(
        kind=kinds.RESERVATION_CONNECTOR,
        status="FINISHED" if over else "AVAILABLE",
        protocol="SLURM",
        location=f"slurm://{platform}/{reservation.name}{place}",
        reservation=reservation.name,
        partition=reservation.partition or None,
        commands=[f"sbatch {options} SCRIPT", f"salloc {options}", f"srun {options} COMMAND"],
    )


# --- what ran in it --------------------------------------------------------------------------------------------------


class Inside:
    """What runs, and ran, in reservations. Slurm forgets jobs minutes after their end: here they are remembered.

    ``clock`` gives POSIX seconds, ``threads`` how many of Slurm's CPUs a core of a node counts.
    """

    def __init__(self, slurm: Slurm, clock: Callable[[], float], threads: Callable[[str], int]) -> None:
        self._slurm = slurm
        self._clock = clock
        self._threads = threads
        self._lock = threading.Lock()
        self._known: dict[str, dict[str, JobUse]] = {}
        self._asked: set[str] = set()

    def usage(self, names: Mapping[str, int], jobs: Sequence[records.Job]) -> dict[str, Usage]:
        """Return what ran in each reservation. ``names``: since when each is there (POSIX seconds).

        ``jobs`` are those that the controller knows. What it has forgotten is asked of the accounting once, after a
        start, and for jobs that it has lost sight of.
        """
        with self._lock:
            self._known = {name: self._known.get(name, {}) for name in names}
            self._asked &= names.keys()
            self._learn(jobs)
            present = {str(job.id) for job in jobs}
            if self._lost(present):
                # A job whose reservation was deleted is not among those of our reservations any more
                present |= self._learn_from_all()
            lost = self._lost(present) | (names.keys() - self._asked)
            if lost:
                self._account_for({name: names[name] for name in lost}, present)
            return {name: _usage(those.values()) for name, those in self._known.items()}

    def _lost(self, present: set[str]) -> set[str]:
        """Return the reservations with a job that has not ended as far as we know, and that is not there."""
        return {
            name
            for name, those in self._known.items()
            if any(job.ended is None and key not in present for key, job in those.items())
        }

    def _learn_from_all(self) -> set[str]:
        try:
            jobs = self._slurm.jobs()
        except SlurmFault:  # the accounting may know
            return set()
        self._learn(jobs)
        return {str(job.id) for job in jobs}

    def _account_for(self, names: Mapping[str, int], present: set[str]) -> None:
        try:
            told = self._slurm.ended(min(names.values()))
        except SlurmFault:  # there is none, or not now: what was lost sight of has ended
            told = ()
        self._learn([job for job in told if job.state in ENDED])
        self._asked |= names.keys()
        now = self._clock()
        for name in names:
            those = self._known[name]
            for key, job in those.items():
                if job.ended is None and key not in present:
                    those[key] = JobUse(
                        id=job.id,
                        name=job.name,
                        user=job.user,
                        nodes=job.nodes,
                        cores=job.cores,
                        state="UNKNOWN",
                        started=job.started,
                        ended=now,
                    )

    def _learn(self, jobs: Sequence[records.Job]) -> None:
        for job in jobs:
            # `--reservation=a,b` is a list until the job has begun in one of them
            those = self._holder(job)
            if those is None or not job.started or not job.hosts:
                continue
            known = state(job.state)
            if known is None or known.seen == "PENDING":
                continue
            over = job.state in ENDED
            code = job.exit.partition(":")[0]
            those[str(job.id)] = JobUse(
                id=f"{job.array}_{job.task}" if job.task and job.array else str(job.id),
                name=job.name[:200],
                user=job.user,
                nodes=max(job.nodes, 1),
                cores=max(math.ceil(job.cpus / self._threads(job.hosts)), 1),
                state=job.state,
                started=float(job.started),
                ended=float(job.ends) if over and job.ends else None,
                exit_code=int(code) if over and code.isdecimal() else None,
            )

    def _holder(self, job: records.Job) -> dict[str, JobUse] | None:
        """Return the jobs of the reservation in which a job ran: when that is deleted, its name goes from the job."""
        if job.reservation in self._known:
            return self._known[job.reservation]
        for those in self._known.values():
            before = those.get(str(job.id))
            if before is not None and (before.user, before.started) == (job.user, job.started):
                return those
        return None


def _usage(jobs: Iterable[JobUse]) -> Usage:
    found = sorted(jobs, key=lambda job: (job.started, job.id))
    older = [job for job in found[:-MOST_LISTED] if job.ended is not None]
    listed = [job for job in found if job not in older] if older else found
    return Usage(
        jobs=tuple(listed),
        more=round(sum(job.core_hours(job.ended or 0.0) for job in older), 6),
        others=len(older),
    )


ENDING = frozenset({"RELEASING", "CANCELLED", "FAILED"})
"""Phases in which a session's reservation is on its way out."""


def expected(session: Session, now: float) -> bool:
    """Whether a session's reservation should be there."""
    return session.phase not in ENDING and now < session.end


def observation(
    session: Session,
    there: records.Reservation | None,
    usage: Usage,
    who: Mapped | None,
    platform: str,
    now: float,
) -> Observation:
    """Say what became of a session's reservation and what runs in it."""
    ending = session.phase in ENDING
    busy = any(job.ended is None for job in usage.jobs)
    if there is None and expected(session, now):
        return Observation(uuid=session.uuid, state="GONE", usage=usage)
    # A job may have been taken out of the reservation and go on without it; one that is ending is waited for
    finishing = any(job.ended is None and job.state == "COMPLETING" for job in usage.jobs)
    over = (there is None and not finishing) or ((ending or now >= session.end) and not busy)
    nodes = [allocation.node for allocation in session.allocations]
    return Observation(
        uuid=session.uuid,
        state="SUCCEEDED" if over else "RUNNING" if usage.jobs or usage.others else "PENDING",
        node=nodes[0] if nodes else None,
        ended=min(now, float(session.end)) if over else None,
        usage=usage,
        connectors=(connector(session, who, there, platform, over=over),) if there is not None else None,
    )
