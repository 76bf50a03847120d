"""A platform's snapshot as a queue: nodes become pools of cores, memory and devices.

A pool is a set of nodes that some job may use: those of its partitions, with its features, large enough. What a job
takes from a pool that shares only some of its nodes is taken to be in proportion. Within a pool amounts are added
up over the nodes, so that a job that finds no single node with enough free is thought to start too early; how much this
matters at a site is part of what the estimator learns.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from msgspec import Struct
from msgspec.structs import replace
from numpy.typing import NDArray

from ebhpc.model.sessions import Allocation, Demand, Shape
from ebhpc.planning.booking import Booking
from ebhpc.planning.inventory import Inventory, inventory
from ebhpc.planning.queue.grid import Group
from ebhpc.planning.queue.placement import Floats
from ebhpc.planning.queue.runtimes import Asked
from ebhpc.planning.queue.state import QueueState, Runs, Waits
from ebhpc.planning.snapshot import FinishedJob, Partition, Reservation, RunningJob, Scheduler, Snapshot, WaitingJob

ASKING = "\0asking"
"""The id of the job that is asked for: no batch system gives such a one."""

UNLIMITED = 7 * 86_400
"""Seconds that stand for the limit of a job that has none."""

MOST_WAITING = 10_000
"""So many waiting jobs are looked at, the first in the batch system's order."""

MOST_POOLS = 24
"""Of pools that no waiting job asks for, so many are kept in mind for new jobs, with those that are asked for."""

NodeSet = NDArray[np.bool_]


class Wish(Struct, frozen=True, kw_only=True):
    """A waiting job, or a demand, in one form. ``key`` orders: the priority of its partition, then its own.

    Not ``reserved``: the scheduler plans no start for it, being one of many in an array.
    """

    id: str
    nodes: int
    shape: Shape
    limit: int
    submitted: int
    begin: int | None
    partitions: tuple[str, ...]
    features: tuple[str, ...]
    user: str | None = None
    account: str | None = None
    required: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    exclusive: bool = False
    key: tuple[int, int] = (0, 0)
    reserved: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class PlatformQueue:
    """A snapshot's queue, and how it was made: the pools, and the waiting jobs in order as they asked."""

    state: QueueState
    flat: Flat
    members: Members
    wishes: tuple[Wish, ...]


def queue_of(
    snapshot: Snapshot,
    demand: Demand | None = None,
    *,
    bookings: Iterable[Booking] = (),
    user: str | None = None,
    account: str | None = None,
) -> tuple[QueueState, int | None]:
    """Return the queue at the instant of the snapshot, and the place of the demand in it (None without one).

    The demand stands behind all waiting jobs but those whose partition has a lower priority. ``user`` and
    ``account`` are whose it would be. Held and dependent jobs, and those inside a reservation, are left out.
    ``bookings`` count where the batch system does not know their session yet.
    """
    members = Members(inventory(snapshot), snapshot.partitions)
    wishes = waiting_wishes(snapshot)
    place = None
    if demand is not None:
        own = (members.tier(() if demand.partition is None else (demand.partition,)), 0)
        place = next((place for place, wish in enumerate(wishes) if wish.key[0] < own[0]), len(wishes))
        wishes.insert(place, wish_of(demand, snapshot.taken, user, account))
    return _queue(snapshot, members, wishes, [], bookings).state, place


def platform_queue(snapshot: Snapshot, *, bookings: Iterable[Booking] = ()) -> PlatformQueue:
    """Return the queue at the instant of the snapshot, with pools for jobs that may come: of each partition."""
    members = Members(inventory(snapshot), snapshot.partitions)
    more = [members.known.usable, members.of(Shape(cores=0, memory=0), (), ())]
    for partition in snapshot.partitions:
        more.append(members.of(Shape(cores=0, memory=0), (partition.name,), ()))
        more += [
            members.of(Shape(cores=0, memory=0, devices={device: 1}), (partition.name,), ())
            for device in members.known.device_columns
        ]
    return _queue(snapshot, members, waiting_wishes(snapshot), more, bookings)


def asked_of_finished(job: FinishedJob) -> Asked:
    """Return what a finished job had asked for, as :func:`queue_of` tells it of waiting and running ones."""
    return Asked(
        size=max(job.cores, 1),
        limit=_limit(job.time_limit),
        user=job.user,
        account=job.account,
        partition=job.partition,
    )


def waiting_wishes(snapshot: Snapshot) -> list[Wish]:
    """Return what waits and may start by itself, in order; each task of an array that may run as one of its own."""
    partitions = {partition.name: partition for partition in snapshot.partitions}
    per_array = None if snapshot.scheduler is None else snapshot.scheduler.per_array
    wishes: list[Wish] = []
    for job in snapshot.waiting:
        if job.held or job.dependent or job.reservation is not None:
            continue
        wish = _waiting(job, partitions)
        tasks = max(min(job.tasks, job.tasks if job.at_once is None else job.at_once), 1)
        wishes.append(wish)
        planned = tasks if per_array is None else max(per_array, 1)
        wishes += [
            replace(wish, id=f"{wish.id}+{task}", reserved=task < planned)
            for task in range(1, min(tasks, MOST_WAITING - len(wishes)))
        ]
        if len(wishes) >= MOST_WAITING:
            break
    return wishes[:MOST_WAITING]


def wish_of(demand: Demand, now: int, user: str | None, account: str | None) -> Wish:
    """Return a demand as a waiting job; ``now`` in POSIX seconds."""
    return Wish(
        id=ASKING,
        nodes=max(demand.nodes, 1),
        shape=demand.least,
        limit=max(demand.duration, 1),
        submitted=now,
        begin=demand.earliest,
        partitions=() if demand.partition is None else (demand.partition,),
        features=demand.features,
        user=user,
        account=account,
        exclusive=demand.exclusive,
    )


class Members:
    """Which nodes jobs may use; what was found is kept, as thousands of jobs ask alike."""

    def __init__(self, known: Inventory, partitions: Iterable[Partition]) -> None:
        self.known = known
        self.partitions = {partition.name: partition for partition in partitions}
        self.default = tuple(name for name, each in self.partitions.items() if each.default)
        self._named: dict[str, NodeSet] = {}
        self._featured: dict[str, NodeSet] = {}
        self._found: dict[Hashable, NodeSet] = {}

    def of(
        self,
        shape: Shape,
        partitions: tuple[str, ...],
        features: tuple[str, ...],
        required: tuple[str, ...] = (),
        excluded: tuple[str, ...] = (),
    ) -> NodeSet:
        """Return the nodes that a job may use, of shape ``(nodes,)``; without a partition the default one's, or all."""
        amounts = self.known.amounts(shape)
        key = (amounts, partitions, features, required, excluded)
        found = self._found.get(key)
        if found is None:
            found = self._found[key] = self._of(np.array(amounts), partitions or self.default, features)
            if required:
                found &= self._listed(required)
            if excluded:
                found &= ~self._listed(excluded)
        return found

    def tier(self, partitions: tuple[str, ...]) -> int:
        """Return the priority of the partitions, the highest; without one, of the default partition."""
        return _tier(partitions, self.partitions)

    def _of(self, amounts: NDArray[np.int64], partitions: tuple[str, ...], features: tuple[str, ...]) -> NodeSet:
        able: NodeSet = self.known.usable & (self.known.capacities >= amounts[:, np.newaxis]).all(axis=0)
        if partitions:
            able &= np.logical_or.reduce([self._partition(name) for name in partitions])
        for feature in features:
            if feature not in self._featured:
                self._featured[feature] = np.array([feature in node.features for node in self.known.nodes], dtype=bool)
            able &= self._featured[feature]
        return able

    def _partition(self, name: str) -> NodeSet:
        if name not in self._named:
            self._named[name] = self._listed(self.partitions[name].nodes if name in self.partitions else ())
        return self._named[name]

    def _listed(self, names: Iterable[str]) -> NodeSet:
        listed = np.zeros(len(self.known.nodes), dtype=bool)
        listed[[self.known.index[name] for name in names if name in self.known.index]] = True
        return listed


class Flat:
    """Amounts on nodes as amounts in pools: all quantities of the first pool, then of the second, and so on."""

    def __init__(self, known: Inventory, pools: Sequence[NodeSet]) -> None:
        self.known = known
        self.pools = np.array(pools) & known.usable
        self.quantities = len(known.capacities)
        self.capacity: Floats = (self.pools @ known.capacities.T).astype(float).ravel()
        self.counts = self.pools.sum(axis=1)
        self._on = [np.flatnonzero(column) for column in self.pools.T]
        self._parts: dict[bytes, Floats] = {}

    def held(self, allocations: Sequence[Allocation | Booking], *, whole: bool = False) -> Floats:
        """Return what is held on named nodes; ``whole``: all of each node."""
        found = np.zeros((len(self.pools), self.quantities))
        for allocation in allocations:
            place = self.known.index.get(allocation.node)
            if place is not None:
                found[self._on[place]] += self.known.capacities[:, place] if whole else self.known.amounts(allocation)
        return found.ravel()

    def spread(self, each: Floats, nodes: int, members: NodeSet) -> Floats:
        """Return what so many nodes' shares take from each pool when they may lie on any of ``members``."""
        key = members.tobytes()
        parts = self._parts.get(key)
        if parts is None:
            count = max(int((members & self.known.usable).sum()), 1)
            parts = self._parts[key] = (self.pools & members).sum(axis=1) / count
        taken: Floats = (parts[:, np.newaxis] * each * nodes).ravel()
        return taken

    def waits(self, wish: Wish, members: NodeSet, pool: int, scheduler: Scheduler | None) -> Waits:
        """Return a waiting job that may use ``members``, which are the pool of that number."""
        each = np.array(self.known.amounts(wish.shape), dtype=float)
        if wish.exclusive and self.counts[pool]:
            own = self.capacity.reshape(-1, self.quantities)[pool] / self.counts[pool]
            each = np.maximum(each, own)
        needs = np.zeros((len(self.pools), self.quantities))
        needs[pool] = each * wish.nodes
        if self.counts[pool] < wish.nodes or any(
            count > 0 and device not in self.known.device_columns for device, count in wish.shape.devices.items()
        ):
            needs[pool, 0] = np.inf
        groups, head = rules(wish, scheduler)
        return Waits(
            id=wish.id,
            asked=Asked(
                size=max(wish.nodes * wish.shape.cores, 1),
                limit=wish.limit,
                user=wish.user,
                account=wish.account,
                partition=wish.partitions[0] if wish.partitions else None,
            ),
            submitted=wish.submitted,
            needs=tuple(needs.ravel().tolist()),
            takes=tuple(self.spread(each, wish.nodes, members).tolist()),
            begin=wish.begin,
            groups=groups,
            head_of=head,
            reserved=wish.reserved,
        )


def rules(wish: Wish, scheduler: Scheduler | None) -> tuple[tuple[Group, ...], Hashable]:
    """Return the groups among whose first a job must be to be looked at, and whose head it can be."""
    partition = wish.partitions[0] if wish.partitions else ""
    if scheduler is None:
        return (), partition
    if scheduler.backfill == "none":
        return ((("order", partition), 1),), partition
    limits = (
        (("all", ""), scheduler.depth),
        (("user", wish.user or ""), scheduler.per_user),
        (("partition", partition), scheduler.per_partition),
    )
    return tuple((group, max(depth, 1)) for group, depth in limits if depth is not None), partition


def _queue(
    snapshot: Snapshot,
    members: Members,
    wishes: Sequence[Wish],
    more: Sequence[NodeSet],
    bookings: Iterable[Booking],
) -> PlatformQueue:
    sets = [members.of(wish.shape, wish.partitions, wish.features, wish.required, wish.excluded) for wish in wishes]
    pools = {each.tobytes(): each for each in sets}
    for each in more:
        if len(pools) < MOST_POOLS or each is members.known.usable:
            pools.setdefault(each.tobytes(), each)
    flat = Flat(members.known, list(pools.values()) or [members.known.usable])
    numbers = {key: number for number, key in enumerate(pools)}
    scheduler = snapshot.scheduler
    waiting = tuple(
        flat.waits(wish, each, numbers[each.tobytes()], scheduler) for wish, each in zip(wishes, sets, strict=True)
    )
    running, free, times, amounts = _held(snapshot, flat, list(bookings))
    state = QueueState(
        now=snapshot.taken,
        capacity=flat.capacity,
        free=free,
        running=running,
        waiting=waiting,
        known_times=times,
        known_amounts=amounts,
        backfill="conservative" if scheduler is None else scheduler.backfill,
        window=None if scheduler is None else scheduler.window,
    )
    return PlatformQueue(state, flat, members, tuple(wishes))


def _held(snapshot: Snapshot, flat: Flat, bookings: list[Booking]) -> tuple[tuple[Runs, ...], Floats, Floats, Floats]:
    """Return the running jobs, what is free now, and when what is known to change (seconds from now)."""
    now = snapshot.taken
    reserved = {reservation.name for reservation in snapshot.reservations if reservation.start <= now < reservation.end}
    sessions = {job.session for job in snapshot.running} | {job.session for job in snapshot.waiting}
    sessions |= {reservation.session for reservation in snapshot.reservations}
    owners = {each.session for each in snapshot.reservations if each.session is not None and each.name in reserved}
    free = flat.capacity.copy()
    runs = []
    for job in snapshot.running:
        # A job in a reservation takes from that, not beside it
        if job.reservation in reserved or job.session in owners:
            continue
        takes = flat.held(job.allocations)
        free -= takes
        runs.append(_runs(job, takes))
    times: list[float] = []
    amounts: list[Floats] = []
    spans: list[tuple[int, int, Floats]] = [
        (each.start, each.end, _reserved(each, flat)) for each in snapshot.reservations if each.end > now
    ]
    spans += [
        (each.start, each.end, flat.held([each]))
        for each in bookings
        if each.end > now and each.session not in sessions
    ]
    for start, end, taken in spans:
        if not taken.any():
            continue
        if start <= now:
            free -= taken
        else:
            times.append(float(start - now))
            amounts.append(-taken)
        times.append(float(end - now))
        amounts.append(taken)
    return tuple(runs), free, np.array(times), np.array(amounts).reshape(len(times), len(flat.capacity))


def _runs(job: RunningJob, takes: Floats) -> Runs:
    return Runs(
        id=job.id,
        asked=Asked(
            size=max(sum(allocation.cores for allocation in job.allocations), 1),
            limit=_limit(None if job.ends is None else job.ends - job.started),
            user=job.user,
            account=job.account,
            partition=job.partition,
        ),
        started=job.started,
        takes=tuple(takes.tolist()),
    )


def _reserved(reservation: Reservation, flat: Flat) -> Floats:
    return flat.held(reservation.allocations, whole=reservation.maintenance)


def _waiting(job: WaitingJob, partitions: Mapping[str, Partition]) -> Wish:
    return Wish(
        id=job.id,
        nodes=max(job.nodes, 1),
        shape=job.shape,
        limit=_limit(job.time_limit, *(partitions[name].time_limit for name in job.partitions if name in partitions)),
        submitted=job.submitted,
        begin=job.begin,
        partitions=job.partitions,
        features=job.features,
        user=job.user,
        account=job.account,
        required=job.required,
        excluded=job.excluded,
        exclusive=job.exclusive,
        key=(_tier(job.partitions, partitions), job.priority),
    )


def _limit(asked: int | None, *others: int | None) -> int:
    known = [asked] if asked is not None else [limit for limit in others if limit is not None]
    return max(min(known, default=UNLIMITED), 1)


def _tier(names: tuple[str, ...], partitions: Mapping[str, Partition]) -> int:
    """The batch system tries jobs of partitions with higher priority first."""
    found = [partitions[name].priority for name in names if name in partitions]
    return max(found or [each.priority for each in partitions.values() if each.default] or [0])
