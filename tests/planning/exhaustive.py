"""An independent planner for small cases: looks at every second, every start, every choice of nodes.

It shares no code with ebhpc.planning and is written to be obviously right. Quantities are "cores", "memory" (MiB),
or a device type.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations, product
from math import inf
from typing import TypeAlias

from ebhpc.model import Allocation, Demand, Limits, Shape, Window
from ebhpc.planning import Booking, Node, NodeState, Partition, Snapshot, Step

GRACE = 120

Share: TypeAlias = Shape | Allocation | Booking | Node | Step


def amount(share: Share, quantity: str) -> int:
    if quantity == "cores":
        return share.cores
    if quantity == "memory":
        return share.memory
    return share.devices.get(quantity, 0)


def quantities(snapshot: Snapshot) -> list[str]:
    return ["cores", "memory", *sorted({device for node in snapshot.nodes for device in node.devices})]


class Platform:
    """A snapshot and bookings, asked second by second."""

    def __init__(self, snapshot: Snapshot, bookings: Sequence[Booking]) -> None:
        self.snapshot = snapshot
        self.bookings = list(bookings)
        self.windows: list[Window] = []

    def job_end(self, session: str | None, ends: int | None) -> float:
        booked = [booking.end for booking in self.bookings if booking.session == session]
        if ends is None and session is not None and booked:
            ends = max(booked)
        if ends is None:
            return inf
        taken = self.snapshot.taken
        return ends if ends > taken else taken + max(GRACE, taken - ends)

    def used(self, node: str | None, time: int, quantity: str) -> int:
        """What is taken of a node, or of a licence (node None)."""
        by_owner: dict[tuple[str, str], list[int]] = {}

        def count(owner: tuple[str, str], layer: int, taken: int) -> None:
            by_owner.setdefault(owner, [0, 0, 0])[layer] += taken

        sessions = {reservation.name: reservation.session for reservation in self.snapshot.reservations}
        for job in self.snapshot.running:
            whose = job.session
            owner = ("job", job.id)
            if job.reservation in sessions:
                owner = ("reservation", job.reservation)
                whose = whose or sessions[job.reservation]
            if whose is not None:
                owner = ("session", whose)
            if time < self.job_end(whose, job.ends):
                count(owner, 0, self.of(job.allocations, job.licences, node, quantity))
        for reservation in self.snapshot.reservations:
            owner = ("reservation", reservation.name)
            if reservation.session is not None:
                owner = ("session", reservation.session)
            if reservation.start <= time < reservation.end:
                taken = self.of(reservation.allocations, reservation.licences, node, quantity)
                if reservation.maintenance and node in {each.node for each in reservation.allocations}:
                    taken = 0
                    for each in reservation.allocations:
                        if each.node == node:
                            taken += max(amount(each, quantity), amount(self.node(node), quantity))
                count(owner, 1, taken)
        for booking in self.bookings:
            if booking.start <= time < booking.end:
                taken = booking.licences.get(quantity, 0) if node is None else 0
                if booking.node == node:
                    taken = amount(booking, quantity)
                count(("session", booking.session), 2, taken)
        for number, window in enumerate(self.windows):
            if window.start <= time < window.end:
                count(("window", str(number)), 0, self.of(window.allocations, window.licences, node, quantity))
        return sum(max(layers) for layers in by_owner.values())

    def of(self, allocations: Iterable[Allocation], licences: dict[str, int], node: str | None, quantity: str) -> int:
        if node is None:
            return licences.get(quantity, 0)
        return sum(amount(each, quantity) for each in allocations if each.node == node)

    def node(self, name: str) -> Node:
        return next(node for node in self.snapshot.nodes if node.name == name)

    def free(self, node: str, time: int, quantity: str) -> int:
        """What is free; may be below zero."""
        there = self.node(node)
        capacity = amount(there, quantity) if there.state is NodeState.UP else 0
        return capacity - self.used(node, time, quantity)

    def holds(self, node: str, shape: Share, start: int, end: int) -> bool:
        """Whether a node can take a share throughout."""
        if self.node(node).state is not NodeState.UP:
            return False
        wanted = [
            (quantity, amount(shape, quantity))
            for quantity in {"cores", "memory", *shape.devices}
            if amount(shape, quantity) > 0
        ]
        return all(
            self.free(node, time, quantity) >= needed for time in range(start, end) for quantity, needed in wanted
        )

    def licensed(self, licences: dict[str, int], start: int, end: int) -> bool:
        return all(
            self.snapshot.licences.get(licence, 0) - self.used(None, time, licence) >= count
            for licence, count in licences.items()
            for time in range(start, end)
            if count > 0
        )


class Asked:
    """A demand with everything that :func:`ebhpc.planning.windows` is told beside it."""

    def __init__(
        self,
        demand: Demand,
        now: int,
        limits: Limits,
        offer_lifetime: int,
        lead: int,
        longest: int | None,
        granularity: int,
        gap: int = 0,
    ) -> None:
        self.gap = gap
        self.demand = demand
        self.limits = limits
        self.longest = longest
        self.granularity = granularity
        self.duration = granularity
        while self.duration < demand.duration:
            self.duration += granularity
        self.first = max(now + lead, demand.earliest)
        self.last = demand.latest
        if limits.horizon is not None:
            self.last = min(self.last, now + limits.horizon)
        self.settled = now + offer_lifetime + lead

    def latest(self, start: int) -> int:
        """The latest start of a window that starts at ``start``."""
        return start if start >= self.settled else min(self.last, max(start, self.settled))

    def pools(self, snapshot: Snapshot) -> Iterator[tuple[list[str], int | None]]:
        """Nodes that may be used together, and the longest duration on them."""
        everything = Partition(name="", nodes=tuple(node.name for node in snapshot.nodes))
        partitions = snapshot.partitions
        if not partitions and self.demand.partition is None:
            partitions = (everything,)
        for partition in partitions:
            if partition.open and self.demand.partition in (None, partition.name):
                members = [
                    node.name
                    for node in snapshot.nodes
                    if node.name in partition.nodes and set(self.demand.features) <= set(node.features)
                ]
                caps = (partition.time_limit, self.limits.duration)
                yield members, min((cap for cap in caps if cap is not None), default=None)

    def upper(self, snapshot: Snapshot, quantity: str) -> int:
        """The maximum that was asked for and that the site allows."""
        lower = amount(self.demand.least, quantity)
        if quantity == "cores":
            asked, limit = self.demand.most_cores, self.limits.cores
        elif quantity == "memory":
            asked, limit = self.demand.most_memory, self.limits.memory
        else:
            asked, limit = self.demand.most_devices.get(quantity), self.limits.devices.get(quantity)
        upper = lower if asked is None else asked
        return upper if limit is None else min(upper, limit)

    def allowed(self, snapshot: Snapshot) -> bool:
        """Whether the site's limits leave anything."""
        return all(
            self.upper(snapshot, quantity) >= amount(self.demand.least, quantity) for quantity in quantities(snapshot)
        )

    def placements(self, platform: Platform, shape: Shape, duration: int) -> Iterator[tuple[int, tuple[str, ...]]]:
        """Every start, in order, with every choice of nodes that can take it."""
        demand = self.demand
        if not self.allowed(platform.snapshot):
            return
        for start in range(self.first, self.last + 1):
            end = self.latest(start) + duration + self.gap
            if not platform.licensed(demand.licences, start, end):
                continue
            for members, cap in self.pools(platform.snapshot):
                if cap is not None and duration > cap:
                    continue
                able = [node for node in members if platform.holds(node, shape, start, end)]
                for nodes in combinations(able, demand.nodes):
                    yield start, nodes

    def earliest(self, platform: Platform) -> int | None:
        for start, _ in self.placements(platform, self.demand.least, self.duration):
            return start
        return None

    def longest_duration(self, platform: Platform, beyond: int) -> int | None:
        """The longest duration above the one asked for; ``beyond`` is one for which nothing changes any more."""
        cap = beyond if self.longest is None else min(beyond, self.longest)
        best = None
        duration = self.duration + self.granularity
        while duration <= cap:
            if next(self.placements(platform, self.demand.least, duration), None) is None:
                break
            best = duration
            duration += self.granularity
        return best

    def largest(self, platform: Platform) -> tuple[Shape, int] | None:
        """The largest share as offers.py defines it, and its earliest start; None if it is the least."""
        snapshot, least = platform.snapshot, self.demand.least
        names = quantities(snapshot)
        ranges = []
        able = set()
        for members, cap in self.pools(snapshot):
            fit = [
                node
                for node in members
                if platform.node(node).state is NodeState.UP
                and all(amount(platform.node(node), name) >= amount(least, name) for name in names)
            ]
            if len(fit) >= self.demand.nodes and (cap is None or self.duration <= cap):
                able.update(fit)
        if len(able) < self.demand.nodes:
            return None
        for name in names:
            lower = amount(least, name)
            there = sorted(amount(platform.node(node), name) for node in able)[-self.demand.nodes]
            upper = min(self.upper(snapshot, name), there)
            steps = [lower, *(x for x in range(lower + 1, upper + 1) if name != "memory" or x % 1024 == 0)]
            ranges.append(steps)
        best = None
        for values in product(*ranges):
            share = 0
            for candidate in range(17):
                goals = [
                    steps[0] + (steps[-1] - steps[0]) * candidate // 16
                    if name != "memory"
                    else max(steps[0], (steps[0] + (steps[-1] - steps[0]) * candidate // 16) // 1024 * 1024)
                    for name, steps in zip(names, ranges, strict=True)
                ]
                if all(value >= goal for value, goal in zip(values, goals, strict=True)):
                    share = candidate
            key = (share, *values[2:], values[0], values[1])
            if best is not None and key <= best[0]:
                continue
            devices = {name: value for name, value in zip(names[2:], values[2:], strict=True) if value}
            shape = Shape(cores=values[0], memory=values[1], devices=devices)
            found = next(self.placements(platform, shape, self.duration), None)
            if found is not None:
                best = (key, shape, found[0])
        if best is None or all(amount(best[1], name) == amount(least, name) for name in names):
            return None
        return best[1], best[2]
