"""When would a demand start if it were queued now: for the API, from the newest snapshot and what was learned."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from ebhpc.model.sessions import Demand
from ebhpc.planning.booking import Booking
from ebhpc.planning.queue.estimator import CONFIDENCE, NeverStartsError, StartEstimator
from ebhpc.planning.queue.forecast import Forecast, Outlooks, forecast_of, marks_of
from ebhpc.planning.queue.newcomers import promise_newcomers
from ebhpc.planning.queue.platform_queue import asked_of_finished, platform_queue, queue_of
from ebhpc.planning.queue.state import QueueState
from ebhpc.planning.snapshot import FinishedJob, Snapshot

_MOST_PROMISES = 200
"""So many new jobs' starts are promised at one look."""

_MOST_OPEN = 2000
"""So many promises are open at the same time."""

_MOST_FINISHED = 10_000
"""So many ids of jobs that have ended are kept in mind, so that each counts once."""


class ExpectedStart(Struct, frozen=True, kw_only=True):
    """When a job would start (POSIX seconds): in [``earliest``, ``latest``] with probability ``confidence``.

    ``median``: as probably before as after. ``planned``: if each job used all of its limit. ``known``: how many
    past starts the answer builds on. ``age``: how old the snapshot was, in seconds.
    """

    earliest: int
    median: int
    latest: int
    planned: int
    confidence: float = CONFIDENCE
    known: int = 0
    age: int = 0


def expected_start(
    snapshot: Snapshot,
    demand: Demand,
    estimator: StartEstimator,
    *,
    now: int,
    bookings: Iterable[Booking] = (),
    user: str | None = None,
    account: str | None = None,
) -> ExpectedStart | None:
    """Return when a demand would start, queued behind what waits in the snapshot; None: never, as it looks.

    What has happened since the snapshot was taken is not known, so a start that it gives before ``now`` is
    told as ``now``. The demand's ``latest`` start is the caller's to compare.
    """
    state, place = queue_of(snapshot, demand, bookings=bookings, user=user, account=account)
    assert place is not None, "a demand has a place"
    try:
        answer = estimator.expect(state, place)
    except NeverStartsError:
        return None
    # What begins later can have waited no less, whatever was learned of others
    soonest = max(now, demand.earliest)
    taken = snapshot.taken
    return ExpectedStart(
        earliest=max(taken + answer.earliest, soonest),
        median=max(taken + answer.median, soonest),
        latest=max(taken + answer.latest, soonest),
        planned=max(taken + answer.planned, soonest),
        confidence=answer.confidence,
        known=answer.known,
        age=max(now - taken, 0),
    )


def observe(estimator: StartEstimator, snapshot: Snapshot) -> None:
    """Learn from a new snapshot: what started and ended since the last one, and promise starts to what is new.

    Call it with each snapshot once, in their order.
    """
    learn(estimator, snapshot)
    state, _ = queue_of(snapshot)
    new = _new(estimator, state)
    if new:
        estimator.promise_all(state, new)


def look(
    estimator: StartEstimator,
    snapshot: Snapshot,
    *,
    ended: Iterable[FinishedJob] = (),
    bookings: Iterable[Booking] = (),
    before: Outlooks | None = None,
) -> Forecast:
    """Learn from a new snapshot as :func:`observe` does, and return the forecast for those who ask until the next.

    ``ended`` are jobs that ended in snapshots that were left out. What is in both, or was told before, counts once.
    ``before`` is the last forecast: what it would have told those who came since is compared with what they got.
    """
    ended = tuple(ended)
    if before is not None:
        promise_newcomers(estimator, before, snapshot, (*ended, *snapshot.finished))
    learn(estimator, snapshot, ended=ended)
    queue = platform_queue(snapshot, bookings=bookings)
    marks = marks_of(queue, snapshot)
    simulated = estimator.simulate(queue.state, marks=marks)
    estimator.promise_from(queue.state, simulated, _new(estimator, queue.state))
    return forecast_of(snapshot, queue, simulated, estimator, marks)


def learn(estimator: StartEstimator, snapshot: Snapshot, *, ended: Iterable[FinishedJob] = ()) -> None:
    """Learn what started and ended since the last snapshot; promise nothing."""
    running = {job.id for job in snapshot.running}
    waiting = {job.id for job in snapshot.waiting}
    finished = {job.id: job for job in (*ended, *snapshot.finished)}
    for job in sorted(finished.values(), key=lambda job: job.ended):
        if job.id in estimator.finished:
            continue
        estimator.finished[job.id] = None
        if job.started > 0:
            estimator.started(job.id, job.started)
            estimator.ended(job.id, asked_of_finished(job), job.ended - job.started)
        else:
            estimator.gone(job.id)
    while len(estimator.finished) > _MOST_FINISHED:
        del estimator.finished[next(iter(estimator.finished))]
    for started in snapshot.running:
        estimator.started(started.id, started.started)
    for id in estimator.known_jobs() - running - waiting:
        estimator.gone(id)
    estimator.waiting(snapshot.taken)


def _new(estimator: StartEstimator, state: QueueState) -> list[int]:
    """Return the places of jobs to which a start is to be promised: of many, some from the whole queue."""
    room = min(_MOST_PROMISES, _MOST_OPEN - len(estimator.promises))
    new = [place for place, job in enumerate(state.waiting) if estimator.promised(job.id) is None]
    if len(new) <= room:
        return new
    return [new[number * len(new) // room] for number in range(room)] if room > 0 else []
