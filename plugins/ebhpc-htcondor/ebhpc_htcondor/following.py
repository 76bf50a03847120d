"""What became of our jobs: HTCondor's records as what the batch system says of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from ebhpc.batch import Native, Report, observation, read_report, session_directory
from ebhpc.batch.reports import Port
from ebhpc.model import Message, MessageKind, Observation, Session, message
from ebhpc_htcondor import records
from ebhpc_htcondor.asking import Pool
from ebhpc_htcondor.carrying import Bringer
from ebhpc_htcondor.names import SERVICES, slot_of
from ebhpc_htcondor.settings import HTCondorSettings
from ebhpc_htcondor.states import COMPLETED, ENDED, HELD, IDLE, LIVE, REMOVED, hold, state
from ebhpc_htcondor.universe import TIME_IS_OVER, is_run_by_pool, ports, publishes

_DAY = 86400


def by_session(jobs: Iterable[records.Job], users: Mapping[str, str | None], prefix: str) -> dict[str, records.Job]:
    """Return for each session its job. ``users``: who owns a session's job (None: whoever we are).

    An attribute is anybody's to give: a job of another user is none of ours. Where there are several, the one that
    lives counts, else the one that came last.
    """
    found: dict[str, records.Job] = {}
    for job in jobs:
        if job.prefix != prefix or job.session not in users or users[job.session] not in (None, job.owner):
            continue
        before = found.get(job.session)
        if before is None or _rank(job) > _rank(before):
            found[job.session] = job
    return found


def _rank(job: records.Job) -> tuple[int, int, int]:
    return (2 if job.status in LIVE else 0 if job.status in ENDED else 1, job.submitted, job.cluster)


def native(job: records.Job, now: float, *, negotiator: bool = True) -> Native | None:
    """Return what HTCondor says of a job; None: nobody knows the number of its state."""
    known = state(job.status)
    if known is None:
        return None
    if job.status == HELD:
        return _held(job)
    waits_for_its_time = job.status in LIVE and job.begin is not None and job.executing is None and job.begin > now
    if job.status == IDLE or waits_for_its_time:
        return Native(state="PENDING", messages=tuple(_waits(job, now, negotiator)))
    told = [message(MessageKind.PROGRESS, "{what}", what=known.words, level=known.level)] if known.words else []
    if job.status == REMOVED:
        words = "{what}: {why}" if job.remove_reason else "{what}"
        values: dict[str, Any] = {"what": known.words, **({"why": job.remove_reason} if job.remove_reason else {})}
        told = [message(MessageKind.FAILED, words, level="ERROR", **values)]
    elif job.starts > 1 and job.status in LIVE:
        told.append(message(MessageKind.PROGRESS, "the job was evicted, and started again", level="WARN"))
    ended = job.status in ENDED
    code = job.exit_code if job.exit_signal is None else 128 + job.exit_signal
    failed = job.status == COMPLETED and code not in (0, None)
    return Native(
        state="FAILED" if failed else known.seen,
        exit_code=code if job.status == COMPLETED else None,
        node=slot_of(job.slot) if job.slot else None,
        started=job.executing or job.started,
        ended=(job.finished or job.entered) if ended else None,
        messages=tuple(told),
    )


def _held(job: records.Job) -> Native:
    why = hold(job.hold_code)
    words = "{what}: {why}" if job.hold_reason else "{what}"
    values: dict[str, Any] = {"what": why.words, **({"why": job.hold_reason} if job.hold_reason else {})}
    if not why.final:
        return Native(state="PENDING", messages=(message(MessageKind.PROGRESS, words, level="WARN", **values),))
    return Native(
        state="FAILED",
        node=slot_of(job.slot) if job.slot else None,
        started=job.executing or job.started,
        ended=job.entered,
        messages=(message(why.kind, words, level="ERROR", **values),),
    )


def _waits(job: records.Job, now: float, negotiator: bool) -> Iterator[Message]:
    if not negotiator:
        text = "the job waits, and the pool's negotiator does not answer: nothing starts until it does"
        yield message(MessageKind.PROGRESS, text, level="WARN")
    elif job.status in LIVE:
        yield message(MessageKind.PROGRESS, "the job has its place, and waits for its time", level="INFO")
    elif job.starts:
        yield message(
            MessageKind.PROGRESS, "the pool took the job's machine away, and the job waits again", level="WARN"
        )
    elif job.begin is not None and job.begin > now:
        yield message(MessageKind.PROGRESS, "the job waits for its time", level="INFO")
    elif job.reject_reason:
        yield message(MessageKind.PROGRESS, "the job waits: {why}", level="INFO", why=reject(job.reject_reason))
    else:
        yield message(MessageKind.PROGRESS, "the job waits for the pool's negotiator to look at it", level="INFO")


REJECTS: tuple[tuple[str, str], ...] = (
    ("no match found", "no machine has what it asks for free now"),
    ("insufficient priority", "jobs of users with a better priority have the machines"),
    ("concurrency limit", "a licence that it needs is not free"),
    ("submitter limit exceeded", "its user has as much of the pool as his priority gives him"),
    ("group quota exceeded", "its accounting group has as much of the pool as it may"),
    ("PREEMPTION_REQUIREMENTS", "the machines are taken, and the pool does not take them away"),
)
"""LastRejMatchReason, and what it means."""


def reject(text: str) -> str:
    """Return in words why the negotiator did not start a job."""
    return next((words for said, words in REJECTS if said.lower() in text.lower()), f"the negotiator says: {text}")


GONE = Native(state="GONE")


def of_container(session: Session, job: records.Job, said: Native) -> Native:
    """Return what is said of a container of the pool's, which no runner of ours ends: a service has had its time."""
    over = job.status == HELD and (job.hold_code in (46, 47) or (job.hold_code, job.hold_subcode) == (3, TIME_IS_OVER))
    if not over:
        return said
    if not ports(session.executable):
        words = message(MessageKind.TIME_LIMIT, "The job was ended because the session's time is over.", level="ERROR")
        return replace(said, messages=(words,))
    words = message(MessageKind.TIME_LIMIT, "The session's time is over; its service was ended.", level="INFO")
    return replace(said, state="SUCCEEDED", exit_code=None, messages=(words,))


def ports_report(session: Session, job: records.Job, settings: HTCondorSettings) -> Report | None:
    """Return how the ports of a container of the pool's are reached; None: not yet.

    The machine says it some time after the container has begun where they are published; else by their own numbers.
    """
    inner = ports(session.executable)
    told = not publishes(settings) or all(name in job.ports for name in SERVICES[: len(inner)])
    if job.executing is None or job.status not in LIVE or not told:
        return None
    return Report(
        node=slot_of(job.slot),
        started=float(job.executing),
        ports=tuple(Port(port, job.ports.get(name, port)) for name, port in zip(SERVICES, inner, strict=False)),
    )


class Follower:
    """Follows our jobs by one question for all of them, no more often than the settings' ``look``."""

    def __init__(
        self,
        settings: HTCondorSettings,
        pool: Pool,
        clock: Callable[[], float],
        monotonic: Callable[[], float] = time.monotonic,
        bringer: Bringer | None = None,
    ) -> None:
        self._settings = settings
        self._pool = pool
        self._clock = clock
        self._monotonic = monotonic
        self._bringer = bringer
        self._lock = threading.Lock()
        self._looked: float | None = None
        self._fresh = False
        self._jobs: list[records.Job] = []
        self._ended: dict[str, records.Job] = {}
        self._with_slots: frozenset[str] = frozenset()
        self.negotiator = True

    def expect(self, session: Session) -> None:
        """Look anew at the next call: something was done to a session's job."""
        with self._lock:
            self._looked = None
            self._ended.pop(session.uuid, None)

    def has_slot(self, uuid: str) -> bool:
        """Whether a session's job had a slot when last looked at, be it that it waits for its time there."""
        return uuid in self._with_slots

    def observe(self, sessions: Sequence[Session], users: Mapping[str, str | None]) -> Iterator[Observation]:
        """Yield what became of the sessions.

        Raises:
            PoolFault: there was no answer.
        """
        with self._lock:
            prefix = self._settings.prefix
            now = self._monotonic()
            if self._looked is None or now - self._looked >= self._settings.look:
                self._jobs = list(self._pool.jobs())
                self._looked, self._fresh = now, True
            found = by_session(self._jobs, users, prefix)
            self._account_for([session for session in sessions if session.uuid not in found], users)
            queued = frozenset(found)
            found = {**self._ended, **found}
            self._with_slots = frozenset(uuid for uuid, job in found.items() if job.status in LIVE)
        for session in sessions:
            job = found.get(session.uuid)
            said = GONE if job is None else native(job, self._clock(), negotiator=self.negotiator)
            if said is None:
                continue
            if job is not None and job.status == COMPLETED and self._bringer is not None:
                said = self._bringer.bring(session, job, queued=session.uuid in queued) or said
            directory = session_directory(self._settings.jobs.root, session.uuid)
            report = read_report(directory)
            if job is not None and is_run_by_pool(session.executable, self._settings):
                said, report = of_container(session, job, said), ports_report(session, job, self._settings)
            yield observation(session, said, report, self._settings.jobs)

    def _account_for(self, sessions: Sequence[Session], users: Mapping[str, str | None]) -> None:
        """Ask the history, at each look once, what became of jobs that have left the queue."""
        wanted = [session for session in sessions if session.uuid not in self._ended]
        if not wanted or not self._fresh:
            return
        since = int(min(session.start for session in wanted)) - _DAY
        known = self._pool.history([session.uuid for session in wanted], max(since, 0))
        self._fresh = False
        self._ended.update(by_session([job for job in known if job.status in ENDED], users, self._settings.prefix))
        asked = {session.uuid for session in sessions}
        self._ended = {uuid: job for uuid, job in self._ended.items() if uuid in asked}
