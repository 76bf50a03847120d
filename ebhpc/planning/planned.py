"""Planned starts: when and where the batch system's waiting jobs would start, each using all of its limit.

It is the plan that a backfilling scheduler keeps (A. Mu'alem and D. Feitelson, "Utilization, Predictability,
Workloads, and User Runtime Estimates in Scheduling the IBM SP2 with Backfilling", IEEE TPDS 12(6), 2001): the jobs are
placed in their order, each as early as it fits. A firm window that leaves it as it is harms nobody who waits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from heapq import heappush, heappushpop

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from ebhpc.planning.booking import Booking
from ebhpc.planning.inventory import Inventory
from ebhpc.planning.profile import FOREVER, Amounts, Integers
from ebhpc.planning.snapshot import Partition, PlannedJob, Scheduler, Snapshot, WaitingJob
from ebhpc.planning.table import NEVER, Kind, Table, find
from ebhpc.planning.timeline import Timeline

UNLIMITED = 365 * 86_400
"""Seconds for which a job without any limit is planned, as Slurm's backfill does."""

MOST_STARTS = 50_000
"""More starts are not planned, whatever the scheduler is said to do."""

_MOST_KINDS = 2000
"""So many kinds of jobs are remembered."""


def planned_starts(snapshot: Snapshot, bookings: Iterable[Booking] = (), *, now: int) -> tuple[PlannedJob, ...]:
    """Plan the starts of the waiting jobs as the snapshot's scheduler does, from ``now`` (POSIX seconds) on.

    Each job is taken to use its whole limit: its own, else that of its partition, else UNLIMITED. Put the result into
    ``Snapshot.planned``; timelines then have it taken. What ``Snapshot.planned`` has already is not looked at.

    Not planned, and in nobody's way, is a job that

    - is held, or waits for others;
    - runs inside a reservation that it names: that is taken already;
    - is of a session that has a booking or a reservation: that counts;
    - can never start: it wants more than the nodes that are up have, a partition, feature, device or licence that
      there is not or that takes no work, or longer than each of its partitions allows;
    - the scheduler does not look at (``depth``, ``per_user``, ``per_partition``, ``per_array``), or that starts beyond
      its ``window``; with EASY backfill all but those that can start now and each partition's first, with greedy
      backfill all but those that can start now.

    With ``begin`` in the future a job starts then at the earliest; where the order is strict, or only heads of the
    queue are planned, nobody waits for it meanwhile.
    """
    return Planner(snapshot, tuple(bookings), now).plan()


class Planner:
    """Places jobs one after another on a table of what is free, as a snapshot's scheduler would.

    ``known`` are the snapshot's nodes, ``last`` is the last start that the scheduler looks at.
    """

    def __init__(self, snapshot: Snapshot, bookings: tuple[Booking, ...], now: int) -> None:
        """Begin on a table with what runs, is reserved and booked; ``now`` in POSIX seconds."""
        timeline = Timeline.of(replace(snapshot, planned=()), bookings)
        self.known: Inventory = timeline.inventory
        self.last = NEVER - 1
        self._snapshot = snapshot
        self._scheduler = snapshot.scheduler or Scheduler()
        self._now = now
        self._resolution = max(self._scheduler.resolution, 1)
        if self._scheduler.window is not None:
            self.last = now + self._scheduler.window
        self._table = Table(timeline)
        self._partitions = {partition.name: partition for partition in snapshot.partitions}
        self._sessions = {booking.session for booking in bookings}
        self._sessions |= {each.session for each in snapshot.reservations if each.session is not None}
        self._kinds: dict[tuple[object, ...], Kind] = {}
        self._alike: dict[tuple[object, ...], _Alike] = {}
        self._able: dict[tuple[object, ...], Integers] = {}
        # Of each partition the head of its queue, or when the last of its jobs starts
        self._heads: set[str | None] = set()
        self._frontier: dict[str | None, int] = {}

    def begin_on(self, table: Table, heads: Iterable[str | None] = ()) -> None:
        """Forget what was placed, and go on with another table; in the partitions ``heads`` somebody waits already."""
        self._table = table
        self._kinds.clear()
        self._alike.clear()
        self._heads = set(heads)
        self._frontier = {}

    def plan(self) -> tuple[PlannedJob, ...]:
        planned: list[PlannedJob] = []
        for job in self._looked_at():
            ends: list[int] = []
            for _ in range(max(job.tasks, 1) if self._scheduler.per_array is None else self._tasks(job)):
                begin = max(job.begin or self._now, self._now)
                if job.at_once is not None and len(ends) >= max(job.at_once, 1):
                    begin = max(begin, ends[0])
                found = self.place(job, begin)
                if found is None:
                    # Another of the same kind would not start either
                    break
                planned.append(found)
                if len(planned) >= MOST_STARTS:
                    return tuple(planned)
                if job.at_once is not None:
                    (heappush if len(ends) < max(job.at_once, 1) else heappushpop)(ends, found.end)
        return tuple(planned)

    def _tasks(self, job: WaitingJob) -> int:
        assert self._scheduler.per_array is not None
        return min(max(job.tasks, 1), max(self._scheduler.per_array, 1))

    def _looked_at(self) -> Iterator[WaitingJob]:
        scheduler = self._scheduler
        of_users: Counter[str | None] = Counter()
        of_partitions: Counter[str | None] = Counter()
        looked_at = 0
        for job in self._snapshot.waiting:
            if job.held or job.dependent or job.reservation is not None:
                continue
            if job.session is not None and job.session in self._sessions:
                continue
            if scheduler.depth is not None and looked_at >= scheduler.depth:
                return
            first = job.partitions[0] if job.partitions else None
            if scheduler.per_user is not None and of_users[job.user] >= scheduler.per_user:
                continue
            if scheduler.per_partition is not None and of_partitions[first] >= scheduler.per_partition:
                continue
            looked_at += 1
            of_users[job.user] += 1
            of_partitions[first] += 1
            yield job

    def place(self, job: WaitingJob, begin: int) -> PlannedJob | None:
        """Take the earliest start of a job, from ``begin`` on, in any of its partitions; None: there is none."""
        best: tuple[int, Integers, Kind, str | None] | None = None
        for name, limit in self.pools(job):
            kind = self.kind(job, name, limit)
            if kind is None:
                continue
            first, last = begin, self.last
            easy, greedy = self._scheduler.backfill == "easy", self._scheduler.backfill == "greedy"
            if greedy or (easy and (name in self._heads or begin > self._now)):
                last = self._now
            if self._scheduler.backfill == "none":
                first = max(begin, self._frontier.get(name, self._now))
            found = find(self._table, kind, begin=first, last=last, now=self._now, resolution=self._resolution)
            if found is not None and (best is None or found[0] < best[0]):
                best = *found, kind, name
        if best is None:
            return None
        start, chosen, kind, name = best
        if start > self._now:
            self._heads.add(name)
        if begin <= self._now:
            self._frontier[name] = start
        places = kind.places[chosen]
        end = min(start + kind.lasting, FOREVER)
        self._table.take(places.tolist(), kind.share(chosen), kind.licences, start, end)
        return PlannedJob(
            id=job.id,
            start=start,
            end=end,
            shape=job.shape,
            nodes=tuple(self.known.nodes[place].name for place in places.tolist()),
            whole=job.exclusive,
            licences=job.licences,
            session=job.session,
        )

    def pools(self, job: WaitingJob) -> Iterator[tuple[str | None, int]]:
        """Yield the partitions in which a job may start, and for how many seconds it is planned there."""
        if not self._partitions:
            if not job.partitions:
                yield None, UNLIMITED if job.time_limit is None else max(job.time_limit, 1)
            return
        names: Iterable[str] = job.partitions or (
            partition.name for partition in self._snapshot.partitions if partition.default
        )
        for name in names:
            partition: Partition | None = self._partitions.get(name)
            if partition is None or not partition.open:
                continue
            if partition.time_limit is not None and (job.time_limit or 0) > partition.time_limit:
                continue
            limit = partition.time_limit if job.time_limit is None else job.time_limit
            yield name, UNLIMITED if limit is None else max(limit, 1)

    def kind(self, job: WaitingJob, partition: str | None, lasting: int) -> Kind | None:
        """Return what jobs like this want in a partition; None: more than there is. Jobs that are alike share one."""
        known = self.known
        shape = job.shape
        if any(count > 0 and device not in known.device_columns for device, count in shape.devices.items()):
            return None
        if any(count > max(known.snapshot.licences.get(name, 0), 0) for name, count in job.licences.items()):
            return None
        amounts, licences = known.amounts(shape), known.licence_amounts(job.licences)
        need = max(job.nodes, len(set(job.required)), 1)
        where = (partition, job.features, job.required, job.excluded, job.exclusive, amounts)
        key = (where, need, lasting, licences)
        if (kind := self._kinds.get(key)) is not None:
            return kind
        places = self._places(job, partition, amounts)
        required = np.isin(places, [known.index.get(name, -1) for name in job.required])
        if len(places) < need or np.count_nonzero(required) < len(set(job.required)):
            return None
        wanted = np.array(amounts, dtype=np.int64)[:, np.newaxis]
        if job.exclusive:
            wanted = known.capacities[:, places]
        kind = Kind(places, required, wanted, need, licences, lasting, self._now)
        if not job.exclusive and not job.required:
            self._learn(kind, (places.tobytes(), licences), amounts)
        if len(self._kinds) >= _MOST_KINDS:
            self._kinds.pop(next(iter(self._kinds)))
        self._kinds[key] = kind
        return kind

    def _learn(self, kind: Kind, where: tuple[object, ...], amounts: Amounts) -> None:
        """Begin with what is known of the kind that wants no more of the same nodes and starts last."""
        alike = self._alike.setdefault(where, _Alike())
        alike.inform(kind, (*amounts, kind.need, kind.lasting))

    def _places(self, job: WaitingJob, partition: str | None, amounts: Amounts) -> Integers:
        """Return the nodes that could take the job if they were empty, those with the least unwanted first."""
        known = self.known
        key = (partition, job.features, job.excluded, amounts)
        if (places := self._able.get(key)) is not None:
            return places
        able: NDArray[np.bool_] = known.usable.copy()
        if partition is not None:
            able &= known.members[partition]
        for feature in job.features:
            able &= known.features.get(feature, np.zeros(len(able), dtype=bool))
        for name in job.excluded:
            if (place := known.index.get(name)) is not None:
                able[place] = False
        able &= (known.capacities >= np.array(amounts, dtype=np.int64)[:, np.newaxis]).all(axis=0)
        unwanted = tuple(column for column, wanted in enumerate(amounts) if column > 1 and not wanted)
        places = able.nonzero()[0]
        places = places[known.rank(unwanted)[places].argsort(kind="stable")]
        if len(self._able) >= _MOST_KINDS:
            self._able.pop(next(iter(self._able)))
        self._able[key] = places
        return places


class _Alike:
    """Kinds that may use the same nodes."""

    def __init__(self) -> None:
        self.kinds: list[Kind] = []
        self.wants: list[tuple[int, ...]] = []
        self.array: Integers = np.zeros((0, 0), dtype=np.int64)

    def inform(self, kind: Kind, wants: tuple[int, ...]) -> None:
        """Tell a new kind what is known of those that want no more than it, and remember it."""
        if self.kinds:
            if len(self.wants) - len(self.array) > len(self.array) // 16:
                self.array = np.array(self.wants, dtype=np.int64)
            smaller = np.flatnonzero((self.array <= np.array(wants)).all(axis=1))
            if len(smaller):
                best = max((self.kinds[index] for index in smaller.tolist()), key=lambda one: one.first)
                kind.first, kind.bounds = best.first, best.bounds
        if len(self.kinds) >= _MOST_KINDS:
            del self.kinds[: _MOST_KINDS // 2], self.wants[: _MOST_KINDS // 2]
            self.array = np.zeros((0, 0), dtype=np.int64)
        self.kinds.append(kind)
        self.wants.append(wants)
