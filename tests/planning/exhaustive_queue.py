"""An independent scheduler for small cases: tries every second and every choice of nodes for each waiting job.

It shares no code with ebhpc.planning. It says when a job could start at the earliest beside those placed before; which
of several choices of nodes is taken, it is told.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from math import inf

from ebhpc.model import Window
from ebhpc.planning import Booking, NodeState, PlannedJob, Scheduler, Snapshot, WaitingJob
from tests.planning.exhaustive import Platform, amount, quantities

HORIZON = 150
"""Nothing is looked at that starts later."""

YEAR = 365 * 86_400


class Waiting:
    """A platform with the waiting jobs placed so far."""

    def __init__(self, snapshot: Snapshot, bookings: Sequence[Booking], now: int) -> None:
        self.snapshot = snapshot
        self.now = now
        self.scheduler = snapshot.scheduler or Scheduler()
        self.sessions = {booking.session for booking in bookings} | {each.session for each in snapshot.reservations}
        platform = Platform(snapshot, bookings)
        self.times = range(now, HORIZON + 1)
        self.free = {
            (node.name, quantity): {time: platform.free(node.name, time, quantity) for time in self.times}
            for node in snapshot.nodes
            for quantity in quantities(snapshot)
        }
        self.licences = {
            licence: {time: there - platform.used(None, time, licence) for time in self.times}
            for licence, there in snapshot.licences.items()
        }
        self.heads: set[str | None] = set()
        self.last: dict[str | None, int] = {}

    def looked_at(self) -> Iterator[WaitingJob]:
        """The jobs that the scheduler tries to place."""
        kept = [
            job
            for job in self.snapshot.waiting
            if not (job.held or job.dependent or job.reservation or (job.session and job.session in self.sessions))
        ]
        seen: list[WaitingJob] = []
        for job in kept:
            partition = job.partitions[:1]
            same_user = sum(other.user == job.user for other in seen)
            same_partition = sum(other.partitions[:1] == partition for other in seen)
            if self.scheduler.depth is not None and len(seen) >= self.scheduler.depth:
                return
            if self.scheduler.per_user is not None and same_user >= self.scheduler.per_user:
                continue
            if self.scheduler.per_partition is not None and same_partition >= self.scheduler.per_partition:
                continue
            seen.append(job)
            yield job

    def pools(self, job: WaitingJob) -> Iterator[tuple[str | None, list[str], int]]:
        """Partitions, their nodes that are up, and how long the job lasts there."""
        up = [node.name for node in self.snapshot.nodes if node.state is NodeState.UP]
        if not self.snapshot.partitions:
            if not job.partitions:
                yield None, up, YEAR if job.time_limit is None else max(job.time_limit, 1)
            return
        by_name = {partition.name: partition for partition in self.snapshot.partitions}
        for name in job.partitions or [each.name for each in self.snapshot.partitions if each.default]:
            partition = by_name.get(name)
            if partition is None or not partition.open:
                continue
            limit = job.time_limit
            if limit is None:
                limit = partition.time_limit if partition.time_limit is not None else YEAR
            elif partition.time_limit is not None and limit > partition.time_limit:
                continue
            yield name, [node for node in up if node in partition.nodes], max(limit, 1)

    def takes(self, job: WaitingJob, node: str, quantity: str) -> int:
        there = next(each for each in self.snapshot.nodes if each.name == node)
        return amount(there if job.exclusive else job.shape, quantity)

    def able(self, job: WaitingJob, node: str, start: int, lasting: int) -> bool:
        there = next(each for each in self.snapshot.nodes if each.name == node)
        if node in job.excluded or not set(job.features) <= set(there.features):
            return False
        names = {*quantities(self.snapshot), *job.shape.devices}
        if any(amount(there, quantity) < amount(job.shape, quantity) for quantity in names):
            return False
        return all(
            self.free[node, quantity][time] >= wanted
            for quantity in quantities(self.snapshot)
            if (wanted := self.takes(job, node, quantity)) > 0
            for time in range(start, min(start + lasting, HORIZON + 1))
        )

    def licensed(self, job: WaitingJob, start: int, lasting: int) -> bool:
        return all(
            self.licences[licence][time] >= count if licence in self.licences else count <= 0
            for licence, count in job.licences.items()
            if count > 0
            for time in range(start, min(start + lasting, HORIZON + 1))
        )

    def choices(self, job: WaitingJob, nodes: list[str], start: int, lasting: int) -> Iterator[tuple[str, ...]]:
        """Every choice of nodes on which the job can start."""
        need = max(job.nodes, len(job.required), 1)
        if self.licensed(job, start, lasting):
            able = [node for node in nodes if self.able(job, node, start, lasting)]
            for chosen in combinations(able, need):
                if set(job.required) <= set(chosen):
                    yield chosen

    def earliest(self, job: WaitingJob, begin: int) -> tuple[float, dict[str | None, int]]:
        """The earliest start, and the partitions in which there is one, with how long the job lasts there."""
        step = self.scheduler.resolution
        best, where = inf, {}
        for name, nodes, lasting in self.pools(job):
            last = HORIZON - 30
            if self.scheduler.window is not None:
                last = min(last, self.now + self.scheduler.window)
            first = begin
            if self.scheduler.backfill == "greedy" or (
                self.scheduler.backfill == "easy" and (name in self.heads or begin > self.now)
            ):
                last = self.now
            if self.scheduler.backfill == "none":
                first = max(begin, self.last.get(name, self.now))
            for start in range(first, last + 1):
                if start > self.now and start % step:
                    continue
                if next(self.choices(job, nodes, start, lasting), None) is not None:
                    if start < best:
                        best, where = start, {}
                    if start == best:
                        where[name] = lasting
                    break
        return best, where

    def place(self, job: WaitingJob, planned: PlannedJob, partition: str | None, begin: int) -> None:
        """Take what a job is planned to take."""
        for time in range(planned.start, min(planned.end, HORIZON + 1)):
            for node in planned.nodes:
                for quantity in quantities(self.snapshot):
                    self.free[node, quantity][time] -= self.takes(job, node, quantity)
            for licence, count in job.licences.items():
                if licence in self.licences:
                    self.licences[licence][time] -= count
        if begin <= self.now:
            if planned.start > self.now:
                self.heads.add(partition)
            self.last[partition] = planned.start


def taken_by(planned: PlannedJob, snapshot: Snapshot) -> Window:
    """A planned job as the window that takes the same."""
    from ebhpc.model import Allocation

    by_name = {node.name: node for node in snapshot.nodes}
    return Window(
        start=planned.start,
        latest=planned.start,
        end=planned.end,
        duration=planned.end - planned.start,
        allocations=tuple(
            Allocation(node=name, cores=share.cores, memory=share.memory, devices=share.devices)
            for name in planned.nodes
            for share in [by_name[name] if planned.whole else planned.shape]
        ),
        licences=planned.licences,
    )
