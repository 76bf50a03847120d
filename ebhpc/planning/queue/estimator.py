"""Expected starts: a distribution of when a job will start, from simulation and from what became of others.

The simulation knows the queue, but not all that the scheduler and the people do: priorities, fair share,
windows for long jobs, jobs that come later. So each simulated wait is corrected by how real waits compared with
simulated ones in past cases like this, found by a forest of random trees. How wide an interval has to be is then
learned from the promises made. Nothing is ever learned before it has happened.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Collection, Hashable, Iterable

import numpy as np
from msgspec import Struct

from ebhpc.planning.queue.calibration import TAIL, Levels
from ebhpc.planning.queue.forest import Forest
from ebhpc.planning.queue.grid import GRID
from ebhpc.planning.queue.placement import Floats
from ebhpc.planning.queue.runtimes import Asked, RunTimes
from ebhpc.planning.queue.simulation import Simulated, look_out
from ebhpc.planning.queue.state import QueueState

SAMPLES = 48
"""Simulations for one question."""

_FULLY_SIMULATED, _FEWEST_SAMPLES = 1000, 16
"""Of a queue with more waiting jobs there are fewer simulations."""

_ROOM = 6_000_000
"""So many numbers the simulation's profiles may have; with many pools and marks there are fewer samples."""

CONFIDENCE = 1 - 2 * TAIL
"""The probability with which a start is promised to lie in the interval."""

MINUTE = 60
"""Intervals are told in whole minutes: nobody plans by seconds, and batch systems do not start to the second."""

_DAY, _WEEK = 86_400, 604_800
_REMEMBERED = 6000
_MOST_RECENT = 2000
"""So many users' last starts are kept in mind."""

_MOST_OUTCOMES = 1000
_MOST_EARLY = 2000
"""So many starts that came before their simulated ones are kept to be learned from later."""

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


class Promise(Struct):
    """What was expected of a job, and all that is needed to learn from it when it starts."""

    made: int
    features: Floats
    scale: float
    intervals: Floats
    expectation: Expectation
    user: Hashable
    settled: bool = False


class EarlyStart(Struct, frozen=True, array_like=True, order=True):
    """A start that came ``wait`` seconds after its promise, and is learned from when it was simulated to come:
    ``due``, POSIX seconds. ``number`` tells those that are due together apart.
    """

    due: int
    number: int
    wait: int
    promise: Promise


class Outcome(Struct, frozen=True, array_like=True):
    """A start that was expected ``earliest``, ``median``, ``latest`` and ``planned`` seconds after ``made`` (POSIX
    seconds), and came after ``wait`` seconds.
    """

    made: int
    wait: int
    earliest: int
    median: int
    latest: int
    planned: int


class Distribution(Struct, frozen=True):
    """When a job will start: logarithms of waits (seconds, and a minute more), and their weights."""

    logarithms: Floats
    weights: Floats

    def quantiles(self, levels: Floats) -> Floats:
        """Return the waits at these levels, in seconds."""
        return _quantiles(self.logarithms, self.weights, levels)

    def by(self, seconds: float) -> float:
        """Return the probability that the wait is at most so many seconds."""
        inside = self.logarithms <= np.log(max(seconds, 0.0) + MINUTE) + 1e-9
        return float(self.weights[inside].sum() / self.weights.sum())


class NeverStartsError(ValueError):
    """A job needs more than there ever will be."""


class StartEstimator:
    """What has been learned of one queue, and answers from it.

    Tell it what happens in the order in which it does: :meth:`ended` when a job has ended, :meth:`started` when
    one has started. :meth:`expect` only answers; :meth:`promise` also remembers its answer, to learn from it later.
    """

    __slots__ = (
        "_tables",
        "early",
        "finished",
        "forest",
        "levels",
        "numbered",
        "outcomes",
        "promises",
        "recent",
        "run_times",
        "scores",
        "seed",
        "shift",
        "shifts",
        "waits",
    )

    def __init__(self, *, seed: int = 0, remembered: int = _REMEMBERED, begun: int = 0) -> None:
        """``begun``: how many starts another, of whom this one takes over, has learned from."""
        self.run_times = RunTimes()
        self.levels = Levels()
        self.seed = seed
        self.forest = Forest(len(_FEATURES), remembered, np.random.default_rng((seed, begun) if begun else seed))
        # Of each case that the forest remembers, by its place: the logarithm of the wait, and of the wait over
        # the simulated one
        self.waits: Floats = np.zeros(remembered)
        self.shifts: Floats = np.zeros(remembered)
        self.scores: Floats = np.zeros(len(_LEANINGS))
        self.promises: dict[str, Promise] = {}
        self.recent: dict[Hashable, float] = {}
        self.shift = 0.0
        self.finished: dict[str, None] = {}
        """ids of the jobs that were seen to end, the last ones: each is learned from once"""
        self.outcomes: deque[Outcome] = deque(maxlen=_MOST_OUTCOMES)
        """of the last starts that were foreseen or came more than a minute ahead"""
        self.early: list[EarlyStart] = []
        """a heap of the starts that came before their simulated ones, not yet learned from"""
        self.numbered = 0
        self._tables: dict[str, tuple[Asked, Floats]] = {}

    @property
    def known(self) -> int:
        """How many starts have been learned from."""
        return self.forest.count

    def ended(self, id: str, asked: Asked, seconds: float) -> None:
        """Learn how long a job ran."""
        self._tables.pop(id, None)
        self.run_times.end(asked, seconds)

    def gone(self, id: str) -> None:
        """Forget a job that will never start or whose end nobody will tell."""
        self._tables.pop(id, None)
        self.promises.pop(id, None)

    def started(self, id: str, at: int) -> None:
        """Learn that a job started at an instant (POSIX seconds).

        A start that comes before its simulated one is learned from when that has come, as :meth:`waiting` tells:
        of jobs that were foreseen alike the quick ones start first, and to learn from them alone, while the others
        wait, would promise too much in a queue that grows.
        """
        promise = self.promises.pop(id, None)
        if promise is None:
            return
        wait = max(at - promise.made, 0)
        made, expected = promise.made, promise.expectation
        if max(wait, expected.median, expected.planned) > MINUTE:
            self.outcomes.append(
                Outcome(made, wait, expected.earliest, expected.median, expected.latest, expected.planned)
            )
        simulated = round(promise.scale) - MINUTE
        if wait >= simulated:
            self._learn(promise, wait)
            return
        heapq.heappush(self.early, EarlyStart(made + simulated, self._number(), wait, promise))
        if len(self.early) > _MOST_EARLY:
            first = heapq.heappop(self.early)
            self._learn(first.promise, first.wait)

    def _number(self) -> int:
        self.numbered += 1
        return self.numbered

    def _learn(self, promise: Promise, wait: int) -> None:
        self._settle(promise, wait, started=True)
        self.scores = _FADING * self.scores + _scored(promise.intervals, wait)
        logarithm = float(np.log(wait + MINUTE))
        shift = logarithm - float(np.log(promise.scale))
        place = self.forest.learn(promise.features, shift)
        self.shifts[place], self.waits[place] = shift, logarithm
        self.shift += 0.1 * (shift - self.shift)
        before = self.recent.pop(promise.user, 0.0)
        self.recent[promise.user] = before + 0.5 * (shift - before)
        if len(self.recent) > _MOST_RECENT:
            del self.recent[next(iter(self.recent))]

    def expect(self, state: QueueState, index: int = -1) -> Expectation:
        """Return when the waiting job at ``index`` will start.

        Raises:
            NeverStartsError: it needs more than there ever will be.
        """
        outlook = self.simulate(state)
        id = state.waiting[index].id
        if id not in self.promises:
            self._tables.pop(id, None)
        return self._expect(state, outlook, index)[0]

    def promise(self, state: QueueState, index: int = -1) -> Expectation:
        """Answer as :meth:`expect` does, and remember the answer until :meth:`started` tells the truth."""
        expectation, promise = self._expect(state, self.simulate(state), index)
        self.promises[state.waiting[index].id] = promise
        return expectation

    def promise_all(self, state: QueueState, indices: Iterable[int]) -> list[Expectation | None]:
        """Promise the starts of several waiting jobs from one simulation; None for one that never starts."""
        return self.promise_from(state, self.simulate(state), indices)

    def promise_from(self, state: QueueState, simulated: Simulated, indices: Iterable[int]) -> list[Expectation | None]:
        """Promise as :meth:`promise_all` does, from a simulation that there is."""
        answers: list[Expectation | None] = []
        for index in indices:
            try:
                expectation, self.promises[state.waiting[index].id] = self._expect(state, simulated, index)
            except NeverStartsError:
                answers.append(None)
            else:
                answers.append(expectation)
        return answers

    def promise_placed(
        self,
        id: str,
        made: int,
        simulated: Floats,
        planned: float,
        situation: tuple[float, ...],
        user: Hashable,
    ) -> None:
        """Promise a start as :meth:`foresee` would have told it at ``made`` (POSIX seconds), if there is one."""
        if not np.isfinite(planned) or not np.isfinite(simulated[-1]):
            return
        features, scale = self._features(simulated, planned, situation, user)
        median, intervals, _ = self._percentiles(np.log(simulated + MINUTE), scale, features)
        expectation = self._expectation(median, intervals, planned)
        self.promises[id] = Promise(made, features, scale, intervals, expectation, user)

    def expect_from(self, state: QueueState, simulated: Simulated, index: int) -> Expectation | None:
        """Return when the waiting job at ``index`` will start, from a simulation that there is; None: never."""
        try:
            return self._expect(state, simulated, index)[0]
        except NeverStartsError:
            return None

    def promised(self, id: str) -> Expectation | None:
        """Return what was promised to a job that has not started yet."""
        promise = self.promises.get(id)
        return promise.expectation if promise else None

    def waiting(self, now: int) -> None:
        """Learn that it is ``now`` (POSIX seconds), and that all that has been promised a start still waits.

        A promise that is broken counts at once; starts that were simulated to come by now are learned from.
        """
        while self.early and self.early[0].due <= now:
            first = heapq.heappop(self.early)
            self._learn(first.promise, first.wait)
        for promise in self.promises.values():
            if not promise.settled and now - promise.made > promise.expectation.latest:
                self._settle(promise, now - promise.made, started=False)

    def known_jobs(self) -> set[str]:
        """Return the ids of the jobs of which something is kept: promises not yet settled, and run times."""
        return {*self._tables, *self.promises}

    def _settle(self, promise: Promise, wait: float, *, started: bool) -> None:
        expectation = promise.expectation
        # An immediate start foreseen as such teaches nothing: it would only hide what is wrong with the others
        if not promise.settled and max(wait, expectation.median) > MINUTE:
            self.levels = self.levels.learn(
                early=started and wait < expectation.earliest, late=wait > expectation.latest
            )
        promise.settled = True

    def simulate(self, state: QueueState, *, marks: Collection[int] = ()) -> Simulated:
        """Simulate the queue; ``marks`` as in :func:`~ebhpc.planning.queue.simulation.look_out`."""
        alike: dict[Asked, Floats] = {}
        tables: dict[str, Floats] = {}
        for id, asked in state.asked():
            known = self._tables.get(id)
            # Somebody may have given it another limit since
            if known is None or known[0] != asked:
                if asked not in alike:
                    alike[asked] = self.run_times.quantiles(asked)
                known = self._tables[id] = asked, alike[asked]
            tables[id] = known[1]
        random = np.random.default_rng((self.seed, abs(state.now), len(state.running), len(state.waiting)))
        samples = max(SAMPLES * _FULLY_SIMULATED // max(len(state.waiting), _FULLY_SIMULATED), _FEWEST_SAMPLES)
        room = _ROOM // (len(GRID) * max(len(state.capacity), 1) * (len(marks) + 1))
        return look_out(state, tables, max(min(samples, room), _FEWEST_SAMPLES // 2), random, marks=marks)

    def _expect(self, state: QueueState, outlook: Simulated, index: int) -> tuple[Expectation, Promise]:
        index %= len(state.waiting)
        job = state.waiting[index]
        simulated = outlook.simulated[:, index]
        planned = float(outlook.planned[index])
        situation = _situation(state, outlook, index)
        if not np.isfinite(planned) or not np.isfinite(simulated[-1]):
            raise NeverStartsError(f"job {job.id} needs more than there ever will be")
        features, scale = self._features(simulated, planned, situation, job.asked.user)
        median, intervals, _ = self._percentiles(np.log(simulated + MINUTE), scale, features)
        expectation = self._expectation(median, intervals, planned)
        return expectation, Promise(state.now, features, scale, intervals, expectation, job.asked.user)

    def foresee(
        self, simulated: Floats, planned: float, situation: tuple[float, ...], user: Hashable
    ) -> tuple[Expectation, Distribution]:
        """Return when a job will start whose ``simulated`` waits (seconds, ascending) and ``situation`` are known.

        Raises:
            NeverStartsError: it needs more than there ever will be.
        """
        if not np.isfinite(planned) or not np.isfinite(simulated[-1]):
            raise NeverStartsError("it needs more than there ever will be")
        features, scale = self._features(simulated, planned, situation, user)
        median, intervals, distribution = self._percentiles(np.log(simulated + MINUTE), scale, features)
        return self._expectation(median, intervals, planned), distribution

    def _features(
        self, simulated: Floats, planned: float, situation: tuple[float, ...], user: Hashable
    ) -> tuple[Floats, float]:
        low, middle, high = simulated[[len(simulated) // 10, len(simulated) // 2, len(simulated) * 9 // 10]].tolist()
        scale = middle + MINUTE
        logarithms = np.log(np.array([low + MINUTE, scale, high + MINUTE, planned + MINUTE]))
        return np.array([*logarithms, *situation, self.recent.get(user, 0.0), self.shift]), scale

    def _expectation(self, median: float, intervals: Floats, planned: float) -> Expectation:
        earliest, latest = intervals[self.scores.argmin()].tolist()
        return Expectation(
            earliest=int(min(earliest, median) // MINUTE) * MINUTE,
            median=round(median),
            latest=-int(-max(latest, median) // MINUTE) * MINUTE,
            planned=round(planned),
            known=self.known,
        )

    def _percentiles(self, simulated: Floats, scale: float, features: Floats) -> tuple[float, Floats, Distribution]:
        """Return the median, for each leaning the interval's beginning and end (seconds), and the distribution.

        ``simulated`` are the logarithms of the simulated waits. They count beside past cases, less and less.
        """
        levels = np.array([self.levels.before, 1.0 - self.levels.after])
        weights = np.full(len(simulated), 1.0 / len(simulated))
        if not self.forest.grown:
            alone = Distribution(simulated, weights)
            median = float(alone.quantiles(np.array([0.5]))[0])
            return median, np.tile(alone.quantiles(levels), (len(_LEANINGS), 1)), alone
        past = self.forest.weights(features)
        trust = self.known / (self.known + _DOUBT)
        used = np.flatnonzero(past)
        weights = np.concatenate([weights * (1.0 - trust), past[used] * trust])
        corrected = self.shifts[used] + np.log(scale)
        median = float(_quantiles(np.concatenate([simulated, corrected]), weights, np.array([0.5]))[0])
        leant = [corrected + leaning * (self.waits[used] - corrected) for leaning in _LEANINGS]
        found = [Distribution(np.concatenate([simulated, each]), weights) for each in leant]
        intervals = np.array([each.quantiles(levels) for each in found])
        return median, intervals, found[int(self.scores.argmin())]


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


def _situation(state: QueueState, outlook: Simulated, index: int) -> tuple[float, ...]:
    job = state.waiting[index]
    return situation(
        needs=np.array(job.needs),
        limit=job.asked.limit,
        capacity=state.capacity,
        free=state.free,
        place=index,
        running=len(state.running),
        work_running=outlook.running,
        work_waiting=float(outlook.waiting[index]),
        now=state.now,
    )


def situation(
    *,
    needs: Floats,
    limit: int,
    capacity: Floats,
    free: Floats,
    place: int,
    running: int,
    work_running: float,
    work_waiting: float,
    now: int,
) -> tuple[float, ...]:
    """Tell what a job is like and what stands before it, in numbers that mean the same on any machine.

    ``work_running`` and ``work_waiting`` (with the job's own) as in ``Simulated``.
    """
    capacity = np.maximum(capacity, 1.0)
    size = float((needs / capacity).max())
    wanted = needs > 0
    idle = float((free / capacity)[wanted].min()) if wanted.any() else 1.0
    return (
        size,
        idle,
        size - idle,
        float(place),
        float(running),
        float(np.log(work_running + MINUTE)),
        float(np.log(work_waiting + MINUTE)),
        float(np.log(max(limit, 1))),
        float(np.log(max(limit * size, 1.0))),
        (now % _DAY) / 3600,
        # The first of January 1970 was a Thursday; where a week begins is all the same to a tree
        float(now % _WEEK // _DAY),
    )
