"""What a firm window does to the others: jobs that start later, and node-hours that nobody uses.

Delay is told by planning the queue twice, with the window and without, by the planner of ``planned_starts``. Without it
is what the snapshot has in ``planned``. With it, the jobs that it would be in the way of are planned anew, in their
order. If no more than MOST_ANEW jobs stand from the first of them on, all of these are planned anew, as the
scheduler itself would. If there are more, the others keep their places, and those in the way go to the earliest place
that is left from their planned start on: planning thousands of jobs anew costs seconds, and what comes out is as much
chance as harm, because a list of jobs that is packed a little differently packs differently to its end (R. Graham,
"Bounds on Multiprocessing Timing Anomalies", SIAM J. Appl. Math. 17(2), 1969).

Where windows may not delay anybody (``delay_queue`` is off) they lie beside all planned jobs, each of which then
still has its earliest place: nothing is planned twice, the delay is 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from msgspec import Struct
from msgspec.structs import replace
from numpy.typing import NDArray

from ebhpc.model.sessions import Window
from ebhpc.planning.firm.promised import share_of_node
from ebhpc.planning.firm.rules import HOUR
from ebhpc.planning.inventory import Inventory
from ebhpc.planning.planned import Planner
from ebhpc.planning.profile import FOREVER, Integers
from ebhpc.planning.snapshot import PlannedJob, Scheduler, Snapshot, WaitingJob
from ebhpc.planning.table import Kind, Table
from ebhpc.planning.timeline import Timeline

MOST_ANEW = 64
"""So many jobs are planned anew as the scheduler would."""

_USUAL_LIMITS = (900, 3600, 3600, 4 * 3600, 24 * 3600)
"""Seconds: time limits taken where hardly any job is known."""

_ENOUGH = 20

_MOST_CHOICE = 8
"""Jobs to choose from for a hole, at most: of those that wait not all would fit the nodes."""


class Harm(Struct, frozen=True, kw_only=True):
    """What a window does to others.

    ``idle``: node-hours that are expected to stay idle before its start; ``idle_most``: if no job that may come uses
    them. ``delay`` and ``worst``: seconds by which waiting jobs start later, all together and the one hit most.
    ``delayed`` are how many; ``node_delay`` are node-hours, each job's delay times its nodes.
    """

    idle: float = 0.0
    idle_most: float = 0.0
    delay: float = 0.0
    worst: float = 0.0
    delayed: int = 0
    node_delay: float = 0.0


class Holes:
    """What holes in the use of nodes are good for: how much of one stays unused, however well it is filled.

    While so much time is left before a hole ends, a job fits in it with the chance that its limit is no longer. Of a
    few jobs that could be taken at least one does, or the node stays idle. So the nearer the end, the less fits:
    of a hole of length g the integral of (1 - F(x))^k from 0 to g stays unused, where F is the distribution of limits
    and k the number of jobs to choose from. That is nearly all of a short hole, and of a long one no more than
    the shortest of k jobs needs.
    """

    def __init__(self, limits: Iterable[int], choice: int = 1) -> None:
        """``limits`` are time limits of jobs as they are here, seconds; ``choice`` of how many one can be taken."""
        known = sorted(limits)
        if len(known) < _ENOUGH:
            known = sorted([*known, *_USUAL_LIMITS * _ENOUGH][:_ENOUGH])
        self._limits: NDArray[np.float64] = np.concatenate([[0.0], np.array(known, dtype=float)])
        # The chance of no fit is the same from one limit to the next, so the integral is a line between them
        none_fits = (1.0 - np.arange(len(known)) / len(known)) ** choice
        self._unused = np.concatenate([[0.0], np.cumsum(none_fits * np.diff(self._limits))])

    @classmethod
    def of(cls, snapshot: Snapshot) -> Holes:
        """Learn from the jobs that run, wait, and have ended lately."""
        limits = [job.time_limit for job in snapshot.waiting if job.time_limit]
        limits += [job.time_limit for job in snapshot.finished if job.time_limit]
        limits += [job.ends - job.started for job in snapshot.running if job.ends is not None]
        choice = min(1 + sum(not (job.held or job.dependent) for job in snapshot.waiting), _MOST_CHOICE)
        return cls((limit for limit in limits if limit > 0), choice)

    def wasted(self, lengths: Integers) -> Integers:
        """Return how much of holes of such lengths (seconds) stays unused."""
        found: Integers = np.rint(np.interp(lengths, self._limits, self._unused)).astype(np.int64)
        return found


def idle_before(table: Table | Timeline, known: Inventory, window: Window, now: int) -> list[int]:
    """Return for each node of a window for how many seconds before its start its share is free without a break."""
    found = []
    for share in window.allocations:
        place = known.index[share.node]
        if isinstance(table, Table):
            count = int(table.count[place])
            times, free = table.times[place, :count], table.free[:, place, :count]
        else:
            profile = table.profile(place)
            times, free = profile.times, profile.free
        # The window itself may be taken already: only what is before it is looked at
        stop = int(times.searchsorted(window.start, "left"))
        amounts = np.array(known.amounts(share), dtype=np.int64)[:, np.newaxis]
        full = np.flatnonzero(np.logical_or.reduce(free[:, :stop] < amounts))
        since = now if not len(full) else max(int(times[full[-1] + 1]) if full[-1] + 1 < len(times) else now, now)
        found.append(max(window.start - since, 0))
    return found


class QueuePlan:
    """The plan of a queue that windows may delay; it answers what each of several windows would do."""

    def __init__(self, timeline: Timeline, now: int, with_plan: Timeline | None = None) -> None:
        """Make ready for windows on a timeline with ``delay_queue``; ``now`` in POSIX seconds.

        ``with_plan`` is the same timeline with what waits where it is planned (None: it is made).
        """
        snapshot = timeline.snapshot
        self._now = now
        self._gap = timeline.gap
        self._planned = snapshot.planned
        self._waiting = {job.id: job for job in snapshot.waiting}
        self._scheduler = snapshot.scheduler or Scheduler()
        with_plan = with_plan or planned_on(timeline)
        self._planner = Planner(replace(snapshot, running=(), reservations=(), planned=()), (), now)
        self._known = with_plan.inventory
        self._table = Table(with_plan)
        index = self._known.index
        places = [[index[name] for name in job.nodes if name in index] for job in self._planned]
        self._places = places
        counts = [len(those) for those in places]
        self._row_job: Integers = np.repeat(np.arange(len(places)), counts)
        self._row_place: Integers = np.array([place for those in places for place in those], dtype=np.int64)
        self._starts: Integers = np.array([job.start for job in self._planned], dtype=np.int64)
        self._ends: Integers = np.array([min(job.end, FOREVER) for job in self._planned], dtype=np.int64)
        self._bounds: dict[tuple[bytes, bytes, int], Integers] = {}

    def table_with(self, window: Window) -> tuple[Table, list[tuple[PlannedJob, int | None]]]:
        """Return the plan with a window in it, and each job that was planned anew with its new start (None: none)."""
        known = self._known
        places = [known.index[share.node] for share in window.allocations]
        start, end = window.start, window.end + self._gap
        in_the_way = self._in_the_way(places, start, end)
        table = _copied(self._table)
        for share, place in zip(window.allocations, places, strict=True):
            wanted = np.array(known.amounts(share), dtype=np.int64)[:, np.newaxis]
            table.take([place], wanted, known.licence_amounts({}), start, end)
        if window.licences:
            table.take(
                [], np.zeros((len(known.capacities), 1), np.int64), known.licence_amounts(window.licences), start, end
            )
        displaced = [job for job in in_the_way if not self._still_fits(table, job)]
        if not displaced:
            return table, []
        anew: Sequence[int] = displaced
        whole = len(self._planned) - displaced[0] <= MOST_ANEW
        if whole:
            anew = range(displaced[0], len(self._planned))
        for job in anew:
            self._put(table, job, back=True)
        return table, self._planned_anew(table, anew, as_scheduler=whole)

    def harm(self, window: Window, holes: Holes) -> Harm:
        """Return what a window does to the others."""
        table, anew = self.table_with(window)
        delays = [(job, self._delay(job, start, window.end + self._gap)) for job, start in anew]
        delays = [(job, delay) for job, delay in delays if delay > 0]
        return with_idle(
            Harm(
                delay=float(sum(delay for _, delay in delays)),
                worst=float(max((delay for _, delay in delays), default=0)),
                delayed=len(delays),
                node_delay=sum(delay * len(job.nodes) for job, delay in delays) / HOUR,
            ),
            idle_before(table, self._known, window, self._now),
            holes,
            window,
            self._known,
        )

    def _delay(self, job: PlannedJob, start: int | None, end: int) -> int:
        """A job for which no start is planned any more waits until the window has ended, and as far as is planned."""
        if start is None:
            start = end if self._scheduler.window is None else max(end, self._planner.last)
        return start - job.start

    def _in_the_way(self, places: Sequence[int], start: int, end: int) -> list[int]:
        on = np.zeros(len(self._known.nodes), dtype=bool)
        on[list(places)] = True
        job = self._row_job[on[self._row_place]]
        met = np.unique(job)
        return [int(each) for each in met[(self._starts[met] < end) & (self._ends[met] > start)]]

    def _still_fits(self, table: Table, job: int) -> bool:
        """Whether a job's place is still its own; one that had lost it before is none of this window's harm."""
        return not _overdrawn(table, self._places[job], self._starts[job], self._ends[job]) or _overdrawn(
            self._table, self._places[job], self._starts[job], self._ends[job]
        )

    def _put(self, table: Table, job: int, *, back: bool) -> None:
        one, known = self._planned[job], self._known
        wanted = np.array(known.amounts(one.shape), dtype=np.int64)[:, np.newaxis]
        if one.whole:
            wanted = known.capacities[:, self._places[job]]
        licences = known.licence_amounts(one.licences)
        if back:
            wanted, licences = -wanted, tuple(-count for count in licences)
        table.take(self._places[job], wanted, licences, int(self._starts[job]), int(self._ends[job]))

    def _planned_anew(
        self, table: Table, jobs: Sequence[int], *, as_scheduler: bool
    ) -> list[tuple[PlannedJob, int | None]]:
        planner = self._planner
        before = [one for one in self._planned[: jobs[0]] if one.start > self._now]
        waits = [self._waiting[one.id] for one in before if one.id in self._waiting]
        planner.begin_on(table, {one.partitions[0] if one.partitions else None for one in waits})
        informed: set[Kind] = set()
        left = np.zeros(len(self._known.nodes), dtype=bool)
        left[[place for job in jobs for place in self._places[job]]] = True
        found: list[tuple[PlannedJob, int | None]] = []
        for job in jobs:
            one = self._planned[job]
            waiting = self._waiting.get(one.id)
            if waiting is None:
                continue
            begin = max(waiting.begin or self._now, self._now)
            if waiting.at_once is not None or not as_scheduler:
                # Its other tasks are where they were; or all others are, and before its start there was no room for it
                begin = max(begin, one.start)
            if not as_scheduler:
                self._inform(waiting, left, informed)
            planned = planner.place(waiting, begin)
            found.append((one, None if planned is None else planned.start))
        return found

    def _inform(self, job: WaitingJob, left: NDArray[np.bool_], informed: set[Kind]) -> None:
        """Tell a job's kinds where there is no room for them: as in the whole plan, but on nodes that jobs have left.

        What the whole plan leaves is looked at once for all windows. ``informed`` are those that know already.
        """
        for name, lasting in self._planner.pools(job):
            kind = self._planner.kind(job, name, lasting)
            if kind is None or kind in informed:
                continue
            informed.add(kind)
            key = (kind.places.tobytes(), kind.wanted.tobytes(), lasting)
            bounds = self._bounds.get(key)
            if bounds is None:
                bounds, _ = self._table.earliest(kind.places, kind.wanted, lasting, self._now)
                self._bounds[key] = bounds
            stayed = ~left[kind.places]
            kind.bounds = np.where(stayed, np.maximum(kind.bounds, bounds), kind.bounds)


def planned_on(timeline: Timeline) -> Timeline:
    """Return a timeline with what waits where it is planned, though windows may delay it."""
    return Timeline.of(timeline.snapshot, timeline.bookings(), gap=timeline.gap)


def with_idle(harm: Harm, gaps: Sequence[int], holes: Holes, window: Window, known: Inventory) -> Harm:
    """Return a harm with what stays idle before a window, from the time that each of its nodes is free before it."""
    parts = np.array([share_of_node(share, known) for share in window.allocations])
    lengths = np.array(gaps, dtype=np.int64)
    return Harm(
        idle=round(float((holes.wasted(lengths) * parts).sum()) / HOUR, 3),
        idle_most=round(float((lengths * parts).sum()) / HOUR, 3),
        delay=harm.delay,
        worst=harm.worst,
        delayed=harm.delayed,
        node_delay=harm.node_delay,
    )


def _overdrawn(table: Table, places: Sequence[int], start: int, end: int) -> bool:
    """Whether less than nothing is left on one of the places at some time of [``start``, ``end``)."""
    for place in places:
        count = int(table.count[place])
        times = table.times[place, :count]
        first = max(int(times.searchsorted(start, "right")) - 1, 0)
        last = int(times.searchsorted(end, "left"))
        if (table.free[:, place, first:last] < 0).any():
            return True
    return False


def _copied(table: Table) -> Table:
    copy = Table.__new__(Table)
    copy.times, copy.free, copy.count = table.times.copy(), table.free.copy(), table.count.copy()
    copy.licences = table.licences
    return copy
