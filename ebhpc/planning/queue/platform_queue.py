"""A platform's snapshot as a queue: nodes become pools of cores, memory and devices.

A pool is a set of nodes that some job may use: those of its partitions, with its features, large enough. What a job
takes from a pool that shares only some of its nodes is taken to be in proportion. Within a pool amounts are added
up over the nodes, so that a job that finds no single node with enough free is thought to start too early; how much this
matters at a site is part of what the estimator learns.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from ebhpc.model.sessions import Allocation, Demand, Shape
from ebhpc.planning.booking import Booking
from ebhpc.planning.inventory import Inventory, inventory
from ebhpc.planning.queue.placement import Floats
from ebhpc.planning.queue.runtimes import Asked
from ebhpc.planning.queue.state import QueueState, Runs, Waits
from ebhpc.planning.snapshot import FinishedJob, Partition, Reservation, RunningJob, Snapshot, WaitingJob

ASKING = "\0asking"
"""The id of the job that is asked for: no batch system gives such a one."""

UNLIMITED = 7 * 86_400
"""Seconds that stand for the limit of a job that has none."""

MOST_WAITING = 2000
"""So many waiting jobs are looked at, the first in the batch system's order."""

_Nodes = NDArray[np.bool_]


class _Wish(Struct, frozen=True, kw_only=True):
    """A waiting job, or a demand, in one form."""

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
    ``account`` are whose it would be. Held jobs are left out. ``bookings`` count where the batch system does
    not know their session yet.
    """
    known = inventory(snapshot)
    partitions = {partition.name: partition for partition in snapshot.partitions}
    wishes = [_waiting(job, partitions) for job in snapshot.waiting if not job.held][:MOST_WAITING]
    place = None
    if demand is not None:
        place = _place(wishes, demand, partitions)
        wishes.insert(place, _asked(demand, snapshot.taken, user, account))
    sets = [_members(wish, known, partitions) for wish in wishes]
    pools = list({members.tobytes(): members for members in sets}.values()) or [known.usable]
    numbers = {members.tobytes(): number for number, members in enumerate(pools)}
    flat = _Flat(known, np.array(pools))
    waiting = tuple(
        _waits(wish, flat, members, numbers[members.tobytes()]) for wish, members in zip(wishes, sets, strict=True)
    )
    running, free, times, amounts = _held(snapshot, known, flat, list(bookings))
    return (
        QueueState(
            now=snapshot.taken,
            capacity=flat.capacity,
            free=free,
            running=running,
            waiting=waiting,
            known_times=times,
            known_amounts=amounts,
        ),
        place,
    )


def asked_of_finished(job: FinishedJob) -> Asked:
    """Return what a finished job had asked for, as :func:`queue_of` tells it of waiting and running ones."""
    return Asked(
        size=max(job.cores, 1),
        limit=_limit(job.time_limit),
        user=job.user,
        account=job.account,
        partition=job.partition,
    )


class _Flat:
    """Amounts on nodes as amounts in pools: all quantities of the first pool, then of the second, and so on."""

    def __init__(self, known: Inventory, pools: NDArray[np.bool_]) -> None:
        self.known = known
        self.pools = pools & known.usable
        self.quantities = len(known.capacities)
        self.capacity: Floats = (self.pools @ known.capacities.T).astype(float).ravel()
        self.counts = self.pools.sum(axis=1)

    def held(self, allocations: Sequence[Allocation | Booking], *, whole: bool = False) -> Floats:
        """Return what is held on named nodes; ``whole``: all of each node."""
        found = np.zeros((len(self.pools), self.quantities))
        for allocation in allocations:
            place = self.known.index.get(allocation.node)
            if place is not None:
                taken = self.known.capacities[:, place] if whole else np.array(self.known.amounts(allocation))
                found[self.pools[:, place]] += taken
        return found.ravel()

    def spread(self, each: Floats, nodes: int, members: _Nodes) -> Floats:
        """Return what so many nodes' shares take from each pool when they may lie on any of ``members``."""
        count = max(int((members & self.known.usable).sum()), 1)
        parts = (self.pools & members).sum(axis=1) / count
        taken: Floats = (parts[:, np.newaxis] * each * nodes).ravel()
        return taken


def _waits(wish: _Wish, flat: _Flat, members: _Nodes, pool: int) -> Waits:
    each = np.array(flat.known.amounts(wish.shape), dtype=float)
    needs = np.zeros((len(flat.pools), flat.quantities))
    needs[pool] = each * wish.nodes
    if flat.counts[pool] < wish.nodes or any(
        count > 0 and device not in flat.known.device_columns for device, count in wish.shape.devices.items()
    ):
        needs[pool, 0] = np.inf
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
        takes=tuple(flat.spread(each, wish.nodes, members).tolist()),
        begin=wish.begin,
    )


def _held(
    snapshot: Snapshot, known: Inventory, flat: _Flat, bookings: list[Booking]
) -> tuple[tuple[Runs, ...], Floats, Floats, Floats]:
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


def _reserved(reservation: Reservation, flat: _Flat) -> Floats:
    return flat.held(reservation.allocations, whole=reservation.maintenance)


def _waiting(job: WaitingJob, partitions: Mapping[str, Partition]) -> _Wish:
    return _Wish(
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
    )


def _asked(demand: Demand, now: int, user: str | None, account: str | None) -> _Wish:
    return _Wish(
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
    )


def _limit(asked: int | None, *others: int | None) -> int:
    known = [asked] if asked is not None else [limit for limit in others if limit is not None]
    return max(min(known, default=UNLIMITED), 1)


def _place(wishes: Sequence[_Wish], demand: Demand, partitions: Mapping[str, Partition]) -> int:
    """The batch system tries jobs of partitions with higher priority first."""

    def priority(names: tuple[str, ...]) -> int:
        found = [partitions[name].priority for name in names if name in partitions]
        return max(found or [each.priority for each in partitions.values() if each.default] or [0])

    own = priority(() if demand.partition is None else (demand.partition,))
    return next((place for place, wish in enumerate(wishes) if priority(wish.partitions) < own), len(wishes))


def _members(wish: _Wish, known: Inventory, partitions: Mapping[str, Partition]) -> _Nodes:
    """Return the nodes that a job may use; without a partition the default one's, or all."""
    names = wish.partitions or tuple(name for name, each in partitions.items() if each.default)
    able = known.usable.copy()
    able &= (known.capacities >= np.array(known.amounts(wish.shape))[:, np.newaxis]).all(axis=0)
    if names:
        named = np.zeros(len(known.nodes), dtype=bool)
        for name in names:
            members = partitions[name].nodes if name in partitions else ()
            named[[known.index[node] for node in members if node in known.index]] = True
        able &= named
    if wish.features:
        wanted = frozenset(wish.features)
        able &= np.array([wanted.issubset(node.features) for node in known.nodes], dtype=bool)
    return able
