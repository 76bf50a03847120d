"""When would a demand start if it were queued now: for the API, from the newest snapshot and what was learned."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from ebhpc.model.sessions import Demand
from ebhpc.planning.booking import Booking
from ebhpc.planning.queue.estimator import CONFIDENCE, NeverStartsError, StartEstimator
from ebhpc.planning.queue.platform_queue import asked_of_finished, queue_of
from ebhpc.planning.snapshot import Snapshot

_MOST_PROMISES = 200
"""So many new jobs' starts are promised at one look: of more, the first."""


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
    running = {job.id for job in snapshot.running}
    waiting = {job.id for job in snapshot.waiting}
    for job in sorted(snapshot.finished, key=lambda job: job.ended):
        if job.started > 0:
            estimator.started(job.id, job.started)
            estimator.ended(job.id, asked_of_finished(job), job.ended - job.started)
        else:
            estimator.gone(job.id)
    for started in snapshot.running:
        estimator.started(started.id, started.started)
    for id in estimator.known_jobs() - running - waiting:
        estimator.gone(id)
    estimator.waiting(snapshot.taken)
    state, _ = queue_of(snapshot)
    new = [place for place, job in enumerate(state.waiting) if estimator.promised(job.id) is None]
    if new:
        estimator.promise_all(state, new[:_MOST_PROMISES])
