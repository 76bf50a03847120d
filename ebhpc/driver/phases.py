"""The machine as a table: what the driver does next with a session, by which hooks, and where that leads.

What to do follows from the stored session alone, so a driver that was killed goes on where the database says.
"""

from __future__ import annotations

import math
from enum import StrEnum

from msgspec import Struct

from ebhpc.model import DockerContainer, Executable, Phase
from ebhpc.store import SessionRecord


class Step(StrEnum):
    """What the driver does with a session."""

    HOLD = "hold"
    WAIT = "wait"
    PREPARE = "prepare"
    SUBMIT = "submit"
    FOLLOW = "follow"
    END = "end"
    CLEAN = "clean"


class Rule(Struct, frozen=True, kw_only=True):
    """A step: the phases in which it runs, its hooks in order, and where its success and failure lead.

    ``success`` None: to where the session's outcome says, or nowhere: the phase stays. ``failure`` is where
    a SessionFailed, a missed start or a platform that stays silent lead; from a phase that is final
    already, nowhere.
    """

    phases: tuple[Phase, ...]
    hooks: tuple[str, ...] = ()
    success: Phase | None = None
    failure: Phase = Phase.FAILED
    words: str
    """what it does, for messages: "while …" """


MACHINE: dict[Step, Rule] = {
    Step.HOLD: Rule(
        phases=(Phase.ACCEPTED,),
        hooks=("ebhpc_hold",),
        success=Phase.WAITING,
        words="reserving its resources",
    ),
    Step.WAIT: Rule(phases=(Phase.WAITING,), success=Phase.PREPARING, words="waiting for its time"),
    Step.PREPARE: Rule(
        phases=(Phase.PREPARING,),
        hooks=("ebhpc_prepare",),
        success=Phase.AVAILABLE,
        words="preparing what it needs",
    ),
    # A job that was submitted is followed: only when it runs the phase moves.
    Step.SUBMIT: Rule(phases=(Phase.AVAILABLE,), hooks=("ebhpc_submit",), words="starting its job"),
    Step.FOLLOW: Rule(phases=(Phase.AVAILABLE, Phase.RUNNING), hooks=("ebhpc_observe",), words="following its job"),
    Step.END: Rule(
        phases=(Phase.RELEASING, Phase.CANCELLED, Phase.FAILED),
        hooks=("ebhpc_cancel", "ebhpc_observe"),
        words="ending its job",
    ),
    Step.CLEAN: Rule(
        phases=(Phase.RELEASING, Phase.CANCELLED, Phase.FAILED, Phase.REJECTED, Phase.EXPIRED),
        hooks=("ebhpc_cleanup", "ebhpc_release"),
        words="cleaning up after it",
    ),
}
"""The machine. A session in one of ``Rule.phases`` of several steps is told apart by ``next_step``."""

BEFORE_ITS_JOB = frozenset({Step.HOLD, Step.WAIT, Step.PREPARE, Step.SUBMIT})
"""Steps before a job runs: each ends when the session has missed its start."""

WATCHED = frozenset({Step.FOLLOW, Step.END})
"""Steps during which the job is observed."""


def next_step(record: SessionRecord) -> Step | None:
    """What to do with a session; None: nothing, it has ended and nothing of it is left."""
    if not record.unfinished:
        return None
    match record.phase:
        case Phase.ACCEPTED:
            return Step.HOLD
        case Phase.WAITING:
            return Step.WAIT
        case Phase.PREPARING:
            return Step.PREPARE
        case Phase.AVAILABLE:
            return Step.SUBMIT if record.native is None else Step.FOLLOW
        case Phase.RUNNING:
            return Step.FOLLOW
        case Phase.RELEASING | Phase.CANCELLED | Phase.FAILED:
            return Step.END if job_may_live(record) else Step.CLEAN
        case Phase.REJECTED | Phase.EXPIRED:
            return Step.CLEAN
        case _:
            return None


def job_may_live(record: SessionRecord) -> bool:
    """Whether a job may exist, now or minutes from now, that nobody has seen ended.

    Or a reservation that was asked for without an answer: it may appear as late as a job.
    """
    return (record.submitting or record.native is not None) and record.ended is None


def when(record: SessionRecord, step: Step, lead: int) -> float:
    """When a step may begin, POSIX seconds. ``lead``: seconds that preparing takes.

    A session without a firm start is prepared and submitted at once: its job waits in the batch system's queue, which
    is told not to start it before ``record.start``. Reserved time stands as soon as it can, so that jobs can be
    submitted to it before it begins.
    """
    if step is Step.WAIT and record.approval is not None and record.approval.approved is None:
        return record.approval.deadline
    if not record.firm or record.wants.reserved:
        return 0.0
    if step is Step.WAIT:
        return record.start - lead
    if step is Step.SUBMIT:
        return record.start
    return 0.0


def end_of(record: SessionRecord, now: float) -> int:
    """When its job must be over, POSIX seconds: counted from its start, or from ``now`` where it has none.

    A job without a firm start has all of its duration from its real start on, and may start as late as was asked for.
    """
    if not record.firm:
        return record.finish if record.started is None else math.ceil(record.started) + record.duration
    begin = max(record.started if record.started is not None else now, record.start)
    return min(record.finish, math.ceil(begin) + record.duration)


def latest_start(record: SessionRecord) -> int:
    """The latest start that a session without a firm start may have, POSIX seconds: its request's."""
    return record.finish - record.duration


LEAST_SECONDS = 60
LEAST_PART = 10


def missed(record: SessionRecord, now: float) -> bool:
    """Whether a session that has not started has too little of its booked time left to start at all.

    Too little is less than a minute and less than a tenth of its duration. One without a firm start has booked no
    time, and has missed the latest start that was asked for.
    """
    if not record.firm:
        return now > latest_start(record)
    left = record.finish - now
    return left <= 0 or (left < LEAST_SECONDS and left < record.duration / LEAST_PART)


def is_interactive(record: SessionRecord, executable: Executable | None) -> bool:
    """Whether somebody works in the session until its time is over, so that reaching its end is natural."""
    if record.connectors:
        return True
    if isinstance(executable, DockerContainer) and executable.network is not None:
        return any(port.access for port in executable.network.ports or ())
    return False
