"""Expected starts: a distribution of when a job will start, from simulation and from what became of others.

The simulation knows the queue, but not all that the scheduler and the people do: priorities, fair share,
windows for long jobs, jobs that come later. So each simulated wait is corrected by how real waits compared with
simulated ones in past cases like this, found by a forest of random trees. How wide an interval has to be is then
learned from the promises made. Nothing is ever learned before it has happened.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable

import numpy as np
from msgspec import Struct

from ebhpc.planning.queue.calibration import TAIL, Levels
from ebhpc.planning.queue.forest import Forest
from ebhpc.planning.queue.placement import Floats
from ebhpc.planning.queue.runtimes import Asked, RunTimes
from ebhpc.planning.queue.simulation import Outlook, look_out
from ebhpc.planning.queue.state import QueueState

SAMPLES = 48
"""Simulations for one question."""

_FULLY_SIMULATED, _FEWEST_SAMPLES = 60, 9
"""Of a queue with more waiting jobs there are fewer simulations: one costs as the square of their number."""

CONFIDENCE = 1 - 2 * TAIL
"""The probability with which a start is promised to lie in the interval."""

MINUTE = 60
"""Intervals are told in whole minutes: nobody plans by seconds, and batch systems do not start to the second."""

_DAY, _WEEK = 86_400, 604_800
_REMEMBERED = 6000
_DOUBT = 60.0
"""So many starts as have to be known before they weigh as much as the simulation alone."""

_LEANINGS = (0.5, 0.0)
"""How far the interval's ends lean from the simulated wait, corrected as in past cases, to the waits of those
cases themselves (their geometric mean): where simulations go wrong, long waits are less certain than their
corrections say. Of these the one is used whose intervals have scored best; the median leans not at all."""

_FADING = 0.999
"""What a score still counts after the next start."""


class Expectation(Struct, frozen=True, kw_only=True):
    """When a job is expected to start, in seconds from the asking.

    The start lies in [``earliest``, ``latest``] with probability ``confidence``, and is as probably before
    ``median`` as after. ``planned`` is the plan on limits, ``known`` how many past starts the answer builds on.
    """

    earliest: int
    median: int
    latest: int
    planned: int
    confidence: float = CONFIDENCE
    known: int = 0


class _Promise(Struct):
    made: int
    features: Floats
    scale: float
    intervals: Floats
    expectation: Expectation
    user: Hashable
    settled: bool = False


class NeverStartsError(ValueError):
    """A job needs more than there ever will be."""


class StartEstimator:
    """What has been learned of one queue, and answers from it.

    Tell it what happens in the order in which it does: :meth:`ended` when a job has ended, :meth:`started` when
    one has started. :meth:`expect` only answers; :meth:`promise` also remembers its answer, to learn from it later.
    """

    __slots__ = (
        "_forest",
        "_promises",
        "_recent",
        "_scores",
        "_shift",
        "_shifts",
        "_tables",
        "_waits",
        "levels",
        "run_times",
        "seed",
    )

    def __init__(self, *, seed: int = 0, remembered: int = _REMEMBERED) -> None:
        self.run_times = RunTimes()
        self.levels = Levels()
        self.seed = seed
        self._forest = Forest(len(_FEATURES), remembered, np.random.default_rng(seed))
        # Of each case that the forest remembers, by its place: the logarithm of the wait, and of the wait over
        # the simulated one
        self._waits: Floats = np.zeros(remembered)
        self._shifts: Floats = np.zeros(remembered)
        self._scores: Floats = np.zeros(len(_LEANINGS))
        self._promises: dict[str, _Promise] = {}
        self._tables: dict[str, Floats] = {}
        self._recent: dict[Hashable, float] = {}
        self._shift = 0.0

    @property
    def known(self) -> int:
        """How many starts have been learned from."""
        return self._forest.count

    def ended(self, id: str, asked: Asked, seconds: float) -> None:
        """Learn how long a job ran."""
        self._tables.pop(id, None)
        self.run_times.end(asked, seconds)

    def gone(self, id: str) -> None:
        """Forget a job that will never start or whose end nobody will tell."""
        self._tables.pop(id, None)
        self._promises.pop(id, None)

    def started(self, id: str, at: int) -> None:
        """Learn that a job started at an instant (POSIX seconds)."""
        promise = self._promises.pop(id, None)
        if promise is None:
            return
        wait = max(at - promise.made, 0)
        self._settle(promise, wait, started=True)
        self._scores = _FADING * self._scores + _scored(promise.intervals, wait)
        logarithm = float(np.log(wait + MINUTE))
        shift = logarithm - float(np.log(promise.scale))
        place = self._forest.learn(promise.features, shift)
        self._shifts[place], self._waits[place] = shift, logarithm
        self._shift += 0.1 * (shift - self._shift)
        before = self._recent.get(promise.user, 0.0)
        self._recent[promise.user] = before + 0.5 * (shift - before)

    def expect(self, state: QueueState, index: int = -1) -> Expectation:
        """Return when the waiting job at ``index`` will start.

        Raises:
            NeverStartsError: it needs more than there ever will be.
        """
        outlook = self._outlook(state)
        id = state.waiting[index].id
        if id not in self._promises:
            self._tables.pop(id, None)
        return self._expect(state, outlook, index)[0]

    def promise(self, state: QueueState, index: int = -1) -> Expectation:
        """Answer as :meth:`expect` does, and remember the answer until :meth:`started` tells the truth."""
        expectation, promise = self._expect(state, self._outlook(state), index)
        self._promises[state.waiting[index].id] = promise
        return expectation

    def promise_all(self, state: QueueState, indices: Iterable[int]) -> list[Expectation | None]:
        """Promise the starts of several waiting jobs from one simulation; None for one that never starts."""
        outlook = self._outlook(state)
        answers: list[Expectation | None] = []
        for index in indices:
            try:
                expectation, self._promises[state.waiting[index].id] = self._expect(state, outlook, index)
            except NeverStartsError:
                answers.append(None)
            else:
                answers.append(expectation)
        return answers

    def promised(self, id: str) -> Expectation | None:
        """Return what was promised to a job that has not started yet."""
        promise = self._promises.get(id)
        return promise.expectation if promise else None

    def waiting(self, now: int) -> None:
        """Learn that all that has been promised a start still waits: a promise that is broken counts at once."""
        for promise in self._promises.values():
            if not promise.settled and now - promise.made > promise.expectation.latest:
                self._settle(promise, now - promise.made, started=False)

    def known_jobs(self) -> set[str]:
        """Return the ids of the jobs of which something is kept: promises not yet settled, and run times."""
        return {*self._tables, *self._promises}

    def _settle(self, promise: _Promise, wait: float, *, started: bool) -> None:
        expectation = promise.expectation
        # An immediate start foreseen as such teaches nothing: it would only hide what is wrong with the others
        if not promise.settled and max(wait, expectation.median) > MINUTE:
            self.levels = self.levels.learn(
                early=started and wait < expectation.earliest, late=wait > expectation.latest
            )
        promise.settled = True

    def _outlook(self, state: QueueState) -> Outlook:
        for id, asked in state.asked():
            if id not in self._tables:
                self._tables[id] = self.run_times.quantiles(asked)
        random = np.random.default_rng((self.seed, abs(state.now), len(state.running), len(state.waiting)))
        samples = max(SAMPLES * _FULLY_SIMULATED // max(len(state.waiting), _FULLY_SIMULATED), _FEWEST_SAMPLES)
        return look_out(state, self._tables, samples, random)

    def _expect(self, state: QueueState, outlook: Outlook, index: int) -> tuple[Expectation, _Promise]:
        index %= len(state.waiting)
        simulated = outlook.simulated[:, index]
        planned = float(outlook.planned[index])
        if not np.isfinite(planned) or not np.isfinite(simulated[-1]):
            raise NeverStartsError(f"job {state.waiting[index].id} needs more than there ever will be")
        job = state.waiting[index]
        low, middle, high = simulated[[len(simulated) // 10, len(simulated) // 2, len(simulated) * 9 // 10]].tolist()
        scale = middle + MINUTE
        features = np.array(
            [
                np.log(low + MINUTE),
                np.log(scale),
                np.log(high + MINUTE),
                np.log(planned + MINUTE),
                *_situation(state, outlook, index),
                self._recent.get(job.asked.user, 0.0),
                self._shift,
            ]
        )
        median, intervals = self._percentiles(np.log(simulated + MINUTE), scale, features)
        earliest, latest = intervals[self._scores.argmin()].tolist()
        expectation = Expectation(
            earliest=int(min(earliest, median) // MINUTE) * MINUTE,
            median=round(median),
            latest=-int(-max(latest, median) // MINUTE) * MINUTE,
            planned=round(planned),
            known=self.known,
        )
        return expectation, _Promise(state.now, features, scale, intervals, expectation, job.asked.user)

    def _percentiles(self, simulated: Floats, scale: float, features: Floats) -> tuple[float, Floats]:
        """Return the median, and for each leaning the interval's beginning and end; in seconds.

        ``simulated`` are the logarithms of the simulated waits. They count beside past cases, less and less.
        """
        levels = np.array([self.levels.before, 1.0 - self.levels.after])
        weights = np.full(len(simulated), 1.0 / len(simulated))
        if not self._forest.grown:
            median = float(_quantiles(simulated, weights, np.array([0.5]))[0])
            return median, np.tile(_quantiles(simulated, weights, levels), (len(_LEANINGS), 1))
        past = self._forest.weights(features)
        trust = self.known / (self.known + _DOUBT)
        used = np.flatnonzero(past)
        weights = np.concatenate([weights * (1.0 - trust), past[used] * trust])
        corrected = self._shifts[used] + np.log(scale)
        median = float(_quantiles(np.concatenate([simulated, corrected]), weights, np.array([0.5]))[0])
        leant = [corrected + leaning * (self._waits[used] - corrected) for leaning in _LEANINGS]
        return median, np.array([_quantiles(np.concatenate([simulated, each]), weights, levels) for each in leant])


def _scored(intervals: Floats, wait: float) -> Floats:
    """Return the interval score of each row: its width, and by how much it was missed (seconds)."""
    begin, end = intervals.T
    missed = np.maximum(begin - wait, 0.0) + np.maximum(wait - end, 0.0)
    scores: Floats = end - begin + missed / TAIL
    return scores


def _quantiles(logarithms: Floats, weights: Floats, levels: Floats) -> Floats:
    """Return weighted quantiles in seconds."""
    order = logarithms.argsort()
    mass = weights[order].cumsum()
    found = np.minimum(mass.searchsorted(levels * mass[-1]), len(order) - 1)
    seconds: Floats = np.maximum(np.exp(logarithms[order[found]]) - MINUTE, 0.0)
    return seconds


_FEATURES = (
    "simulated 10th", "simulated median", "simulated 90th", "planned",
    "size", "free", "lack", "queue", "running", "work running", "work waiting", "limit", "area", "hour", "day",
    "user's recent shift", "recent shift",
)  # fmt: skip


def _situation(state: QueueState, outlook: Outlook, index: int) -> tuple[float, ...]:
    """Tell what the job is like and what stands before it, in numbers that mean the same on any machine."""
    job = state.waiting[index]
    capacity = np.maximum(state.capacity, 1.0)
    size = float((np.array(job.needs) / capacity).max())
    wanted = np.array(job.needs) > 0
    free = float((state.free / capacity)[wanted].min()) if wanted.any() else 1.0
    return (
        size,
        free,
        size - free,
        float(index),
        float(len(state.running)),
        float(np.log(outlook.running + MINUTE)),
        float(np.log(outlook.waiting[index] + MINUTE)),
        float(np.log(max(job.asked.limit, 1))),
        float(np.log(max(job.asked.limit * size, 1.0))),
        (state.now % _DAY) / 3600,
        # The first of January 1970 was a Thursday; where a week begins is all the same to a tree
        float(state.now % _WEEK // _DAY),
    )
