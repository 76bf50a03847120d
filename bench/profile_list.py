"""The yardstick: a planner as one writes it first, plain Python over a list of steps for each node."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from heapq import heappop, heappush

from ebhpc.model import Demand, Shape
from ebhpc.planning import Booking, NodeState, Snapshot

FOREVER = 2**61


class ProfileList:
    """For each node the instants at which what is free changes, and what is free from each on.

    Jobs past their limit, reservations, licences, and what the broker's own jobs and bookings share are left out.
    """

    def __init__(self, snapshot: Snapshot, bookings: tuple[Booking, ...]) -> None:
        self.snapshot = snapshot
        self.devices = sorted({device for node in snapshot.nodes for device in node.devices})
        self.nodes = {node.name: node for node in snapshot.nodes}
        self.times: dict[str, list[int]] = {}
        self.free: dict[str, list[list[int]]] = {}
        for node in snapshot.nodes:
            self.times[node.name] = [-FOREVER]
            self.free[node.name] = [
                self.amounts(node) if node.state is NodeState.UP else self.amounts(Shape(cores=0, memory=0))
            ]
        for job in snapshot.running:
            for share in job.allocations:
                self.take(share.node, -FOREVER, FOREVER if job.ends is None else job.ends, self.amounts(share))
        for booking in bookings:
            self.take(booking.node, booking.start, booking.end, self.amounts(booking))

    def amounts(self, share: object) -> list[int]:
        """Return cores, memory and devices as one list."""
        devices = share.devices  # type: ignore[attr-defined]
        return [share.cores, share.memory, *(devices.get(device, 0) for device in self.devices)]  # type: ignore[attr-defined]

    def take(self, node: str, start: int, end: int, amounts: list[int]) -> None:
        """Take amounts of a node from ``start`` to ``end``."""
        times, free = self.times[node], self.free[node]
        for time in (start, end):
            place = bisect_left(times, time)
            if time < FOREVER and (place == len(times) or times[place] != time):
                times.insert(place, time)
                free.insert(place, list(free[place - 1]))
        for place in range(bisect_left(times, start), bisect_left(times, end)):
            free[place] = [there - taken for there, taken in zip(free[place], amounts, strict=True)]

    def members(self, demand: Demand) -> list[list[str]]:
        """Return the nodes of each partition that may be used."""
        found = []
        for partition in self.snapshot.partitions:
            short = partition.time_limit is not None and demand.duration > partition.time_limit
            if partition.open and demand.partition in (None, partition.name) and not short:
                wanted = set(demand.features)
                found.append([name for name in partition.nodes if wanted <= set(self.nodes[name].features)])
        return found

    def earliest(self, demand: Demand, now: int, lifetime: int) -> int | None:
        """Return the earliest start of the least share, or None."""
        first, last = max(now, demand.earliest), demand.latest
        settled = min(now + lifetime, last)
        wanted = self.amounts(demand.least)
        starts = []
        for names in self.members(demand):
            intervals = []
            for name in names:
                intervals += self.intervals(name, wanted, demand.duration, first, last, settled)
            start = self.common(intervals, demand.nodes)
            if start is not None:
                starts.append(start)
        return min(starts, default=None)

    def intervals(
        self, name: str, wanted: list[int], duration: int, first: int, last: int, settled: int
    ) -> list[tuple[int, int]]:
        """Return in which intervals a share may start on a node."""
        times, free = self.times[name], self.free[name]
        found = []
        place = bisect_right(times, first) - 1
        while place < len(times) and times[place] <= last:
            if all(there >= amount for there, amount in zip(free[place], wanted, strict=True) if amount):
                begin = max(times[place], first)
                while place < len(times) and all(
                    there >= amount for there, amount in zip(free[place], wanted, strict=True) if amount
                ):
                    place += 1
                end = times[place] if place < len(times) else FOREVER
                if end - duration >= max(begin, settled):
                    found.append((begin, end - duration))
            else:
                place += 1
        return found

    def common(self, intervals: list[tuple[int, int]], count: int) -> int | None:
        """Return the first instant that lies in so many intervals."""
        closing: list[int] = []
        for begin, close in sorted(intervals):
            heappush(closing, close)
            while closing[0] < begin:
                heappop(closing)
            if len(closing) >= count:
                return begin
        return None
