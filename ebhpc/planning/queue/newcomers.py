"""Jobs that come after a forecast was made: where they would start in it.

The same is asked for a request, and, to learn from, for each job that has come since: for those that started at once
too, which no snapshot ever shows waiting. An estimator that learned from the others alone would think that everybody
waits.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from msgspec import Struct

from ebhpc.model.sessions import Demand, Shape
from ebhpc.planning.queue.estimator import StartEstimator, situation
from ebhpc.planning.queue.forecast import Outlooks
from ebhpc.planning.queue.grid import Place, fit
from ebhpc.planning.queue.placement import Floats
from ebhpc.planning.queue.platform_queue import UNLIMITED, rules, wish_of
from ebhpc.planning.snapshot import FinishedJob, Snapshot

_MOST = 300
"""So many jobs that came between two snapshots are learned from."""


class Placed(Struct, frozen=True):
    """A new job's waits in the samples of a forecast (seconds from its snapshot, ascending), that on limits, and its
    situation, as an estimator learns it.
    """

    simulated: Floats
    planned: float
    situation: tuple[float, ...]


def placed_in(
    outlooks: Outlooks,
    demand: Demand,
    *,
    begin: int,
    now: int,
    user: str | None,
    account: str | None,
) -> Placed | None:
    """Place a demand that may not begin before ``begin`` (POSIX seconds) into a forecast; None: no nodes can run it."""
    forecast = outlooks.forecast
    wish = wish_of(demand, now, user, account)
    members = able_classes(outlooks, demand)
    counts = np.array([one.count for one in forecast.classes], dtype=float)
    if not members.any() or (members * counts).sum() < wish.nodes:
        return None
    number = outlooks.mark(demand, user)
    mark, profile = forecast.marks[number], outlooks.profiles[number]
    each = np.array(_amounts(forecast.devices, demand.least), dtype=float) * wish.nodes
    pool, part = _pool(outlooks.shares * counts, members * counts)
    shaped = np.zeros((len(outlooks.shares), len(each)))
    # Of a pool that has other nodes as well, as much must be free as leaves enough on these
    shaped[pool] = each / part
    needs = shaped.ravel()
    groups, head = rules(wish, forecast.scheduler)
    delay = max(float(begin - forecast.taken), 0.0)
    place = Place.of(needs, np.zeros(needs.size), float(wish.limit), begin=delay, groups=groups, head_of=head)
    found = fit(profile, place)
    size = float((needs / np.maximum(outlooks.capacity, 1.0)).max())
    run = outlooks.estimator.run_times.mean_ratio(user) * wish.limit
    told = situation(
        needs=needs,
        limit=wish.limit,
        capacity=outlooks.capacity,
        free=outlooks.free,
        place=mark.place,
        running=forecast.running,
        work_running=forecast.work_running,
        work_waiting=mark.work + size * run,
        now=now,
    )
    return Placed(np.sort(found[1:]), float(found[0]), told)


def promise_newcomers(
    estimator: StartEstimator, before: Outlooks, snapshot: Snapshot, ended: Iterable[FinishedJob]
) -> None:
    """Promise starts, as of the forecast ``before``, to jobs that came after it: waiting, running or ended by now."""
    known, room = estimator.known_jobs(), _MOST
    taken = before.forecast.taken
    for id, demand, user, account in _newcomers(snapshot, ended, taken):
        if id in known or id in estimator.finished:
            continue
        placed = placed_in(before, demand, begin=taken, now=taken, user=user, account=account)
        if placed is not None:
            estimator.promise_placed(id, taken, placed.simulated, placed.planned, placed.situation, user)
            room -= 1
        if room == 0:
            return


def _newcomers(
    snapshot: Snapshot, ended: Iterable[FinishedJob], since: int
) -> Iterable[tuple[str, Demand, str | None, str | None]]:
    for done in ended:
        if done.started > 0 and done.submitted >= since:
            cores = max(done.cores // max(done.nodes, 1), 1)
            shape = Shape(cores=cores, memory=0)
            yield done.id, _demand(shape, done.nodes, done.time_limit, done.partition), done.user, done.account
    for runs in snapshot.running:
        if runs.allocations and runs.reservation is None and runs.started >= since:
            first = runs.allocations[0]
            shape = Shape(cores=first.cores, memory=first.memory, devices=first.devices)
            limit = None if runs.ends is None else runs.ends - runs.started
            yield runs.id, _demand(shape, len(runs.allocations), limit, runs.partition), runs.user, runs.account
    for waits in snapshot.waiting:
        held = waits.held or waits.dependent or waits.reservation is not None or waits.tasks > 1
        if not held and waits.begin is None and waits.submitted >= since:
            partition = waits.partitions[0] if waits.partitions else None
            demand = _demand(waits.shape, waits.nodes, waits.time_limit, partition, waits.features)
            yield waits.id, demand, waits.user, waits.account


def _demand(
    shape: Shape, nodes: int, limit: int | None, partition: str | None, features: tuple[str, ...] = ()
) -> Demand:
    duration = UNLIMITED if limit is None else max(limit, 1)
    return Demand(
        least=shape,
        duration=duration,
        earliest=0,
        latest=0,
        nodes=max(nodes, 1),
        partition=partition,
        features=features,
    )


def able_classes(outlooks: Outlooks, demand: Demand) -> Floats:
    """Return 1 for each class of nodes that the demand may use, else 0."""
    forecast = outlooks.forecast
    names = set(forecast.default if demand.partition is None else (demand.partition,))
    wanted = set(demand.features)
    if any(count > 0 and device not in forecast.devices for device, count in demand.least.devices.items()):
        return np.zeros(len(forecast.classes))
    amounts = _amounts(forecast.devices, demand.least)
    return np.array(
        [
            float(
                all(has >= asked for has, asked in zip(one.amounts, amounts, strict=True))
                and (not names or not names.isdisjoint(one.partitions))
                and wanted.issubset(one.features)
            )
            for one in forecast.classes
        ]
    )


def _amounts(devices: tuple[str, ...], share: Shape) -> tuple[int, ...]:
    return (share.cores, share.memory, *(share.devices.get(device, 0) for device in devices))


def _pool(pools: Floats, wanted: Floats) -> tuple[int, float]:
    """Return the smallest pool that has all the nodes that are wanted, and which part of it they are."""
    covers = (np.minimum(pools, wanted) >= wanted - 1e-3).all(axis=1)
    sizes = np.where(covers, pools.sum(axis=1), np.inf)
    pool = int(sizes.argmin())
    return pool, min(float(wanted.sum()) / max(float(pools[pool].sum()), 1.0), 1.0)
