"""Question: a demand, the site's limits and the platform's nodes and partitions brought together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ebhpc.model.sessions import Demand, Limits
from ebhpc.planning.inventory import Inventory
from ebhpc.planning.profile import PAST, Amounts, Integers
from ebhpc.planning.search import LAST_INSTANT, Terms, Wanted

GIB = 1024
"""MiB. Memory grows in whole GiB, because the standard tells it so."""

CORES, MEMORY = 0, 1

NO_LIMITS = Limits()


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """Nodes among which all of a window's must be: a partition's, or all where there are no partitions.

    ``members`` has shape ``(nodes,)``; ``time_limit`` seconds, None: unlimited.
    """

    name: str | None
    members: NDArray[np.bool_]
    time_limit: int | None


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """What to search for.

    ``pools`` hold only nodes that could take ``least`` if they were empty. ``duration`` is rounded up to
    ``granularity``; ``longest`` is what the site allows (None: anything). ``rank`` has shape ``(nodes,)``: of
    nodes that all would do, those of lowest rank are taken. ``counted_in``: columns of devices of a model, and of all
    models, of which equally many are wanted.
    """

    demand: Demand
    terms: Terms
    duration: int
    granularity: int
    longest: int | None
    least: Wanted
    most: Amounts
    counted_in: tuple[tuple[int, int], ...]
    pools: tuple[Pool, ...]
    rank: Integers

    def even(self, amounts: Amounts) -> Amounts:
        """Lower a share so that it has as many devices of all models as it has of the model that is wanted."""
        return _even(amounts, self.counted_in)

    def cap(self, pool: Pool) -> int | None:
        """Return the longest duration that a window in the pool may have; None: any."""
        caps = [cap for cap in (self.longest, pool.time_limit) if cap is not None]
        return min(caps) if caps else None


def asked(
    demand: Demand,
    known: Inventory,
    *,
    now: int,
    limits: Limits,
    offer_lifetime: int,
    lead: int,
    longest: int | None,
    granularity: int,
) -> Question | None:
    """Bring together what :func:`ebhpc.planning.windows` is asked; None where nothing can ever be found."""
    duration = rounded_duration(demand, granularity)
    terms = terms_of(demand, now=now, limits=limits, offer_lifetime=offer_lifetime, lead=lead)
    if terms.first > terms.last or duration > LAST_INSTANT or demand.nodes < 1 or not expressible(demand, known):
        return None
    least = known.amounts(demand.least)
    able = known.usable & large_enough(least, known)
    if demand.features:
        able &= featured(demand, known)
    if demand.exclusive:
        able &= small_enough(demand, known, limits)
    pools = []
    for pool in pools_of(demand, known):
        members = pool.members & able
        if np.count_nonzero(members) >= demand.nodes and (pool.time_limit is None or duration <= pool.time_limit):
            pools.append(Pool(pool.name, members, pool.time_limit))
    caps = [cap for cap in (limits.duration, longest) if cap is not None]
    if not pools or (limits.duration is not None and duration > limits.duration):
        return None
    most = _most(demand, known, limits, pools)
    if any(upper < lower for upper, lower in zip(most, least, strict=True)):
        return None
    licences = known.licence_amounts(demand.licences)
    return Question(
        demand=demand,
        terms=terms,
        duration=duration,
        granularity=max(granularity, 1),
        longest=min(caps) if caps else None,
        least=Wanted(least, demand.nodes, licences, whole=demand.exclusive),
        most=most,
        counted_in=_counted_in(demand, known),
        pools=tuple(pools),
        rank=_rank(known, most),
    )


def rounded_duration(demand: Demand, granularity: int) -> int:
    """Return the duration rounded up to a multiple of ``granularity`` (seconds), one at least."""
    step = max(granularity, 1)
    return max(-(-demand.duration // step), 1) * step


def terms_of(demand: Demand, *, now: int, limits: Limits, offer_lifetime: int, lead: int) -> Terms:
    """Return when the start may be. ``first`` after ``last``: never."""
    first = max(now + lead, demand.earliest)
    last = min(demand.latest, LAST_INSTANT)
    if limits.horizon is not None:
        last = min(last, now + limits.horizon)
    return Terms(max(first, PAST), last, min(now + offer_lifetime + lead, last))


def expressible(demand: Demand, known: Inventory) -> bool:
    """Whether the platform has every device type and licence that is wanted."""
    return all(device in known.device_columns for device, count in demand.least.devices.items() if count > 0) and all(
        licence in known.licence_columns for licence, count in demand.licences.items() if count > 0
    )


def featured(demand: Demand, known: Inventory) -> NDArray[np.bool_]:
    """Return which nodes have all the features; shape ``(nodes,)``."""
    if not demand.features:
        return np.ones(len(known.nodes), dtype=bool)
    none = np.zeros(len(known.nodes), dtype=bool)
    having: NDArray[np.bool_] = np.logical_and.reduce([known.features.get(name, none) for name in demand.features])
    return having


def large_enough(least: Amounts, known: Inventory) -> NDArray[np.bool_]:
    """Return which nodes could take a share if they were empty; shape ``(nodes,)``."""
    lacking = known.capacities < np.array(least, dtype=np.int64)[:, np.newaxis]
    return np.logical_not(lacking.any(axis=0))


def small_enough(demand: Demand, known: Inventory, limits: Limits) -> NDArray[np.bool_]:
    """Return which nodes have no more than the demand's most and the site's limits; shape ``(nodes,)``.

    It matters for nodes that are taken whole.
    """
    able = np.ones(len(known.nodes), dtype=bool)
    for column, most in enumerate(whole_bounds(demand, known, limits)):
        if most is not None:
            able &= known.capacities[column] <= most
    return able


def whole_bounds(demand: Demand, known: Inventory, limits: Limits) -> list[int | None]:
    """Return for each column what a node that is taken whole has at most; None: anything."""
    devices = [(demand.most_devices.get(device), limits.devices.get(device)) for device in known.device_columns]
    both = [(demand.most_cores, limits.cores), (demand.most_memory, limits.memory), *devices]
    return [min((bound for bound in pair if bound is not None), default=None) for pair in both]


def pools_of(demand: Demand, known: Inventory) -> list[Pool]:
    """Return the pools in the order in which they are preferred: the named partition, or all open ones.

    Without a name the default partition comes first, then those of higher priority.
    """
    partitions = known.snapshot.partitions
    if not partitions and demand.partition is None:
        return [Pool(None, np.ones(len(known.nodes), dtype=bool), None)]
    return [
        Pool(partition.name, known.members[partition.name], partition.time_limit)
        for partition in sorted(partitions, key=lambda each: (not each.default, -each.priority))
        if partition.open and demand.partition in (None, partition.name)
    ]


def upper_bounds(demand: Demand, known: Inventory, limits: Limits) -> list[tuple[int, int | None]]:
    """Return for each column what the demand's maximum is, and what the site's limit is (None: no limit)."""
    least = demand.least
    most_cores = least.cores if demand.most_cores is None else demand.most_cores
    most_memory = least.memory if demand.most_memory is None else demand.most_memory
    return [
        (most_cores, limits.cores),
        (most_memory, limits.memory),
        *(
            (demand.most_devices.get(device, least.devices.get(device, 0)), limits.devices.get(device))
            for device in known.device_columns
        ),
    ]


def _most(demand: Demand, known: Inventory, limits: Limits, pools: list[Pool]) -> Amounts:
    """Lower each maximum to the site's limit and to what as many nodes as are wanted have."""
    most = []
    least = known.amounts(demand.least)
    if demand.exclusive:
        return least
    able: NDArray[np.bool_] | None = None
    for column, (upper, limit) in enumerate(upper_bounds(demand, known, limits)):
        if upper > least[column]:
            if able is None:
                able = np.logical_or.reduce([pool.members for pool in pools])
            there = np.sort(known.capacities[column, able])
            upper = min(upper, int(there[-demand.nodes]))
        most.append(upper if limit is None else min(upper, limit))
    most[MEMORY] = min(most[MEMORY], max(least[MEMORY], most[MEMORY] // GIB * GIB))
    return _even(tuple(most), _counted_in(demand, known))


def _counted_in(demand: Demand, known: Inventory) -> tuple[tuple[int, int], ...]:
    devices, columns = demand.least.devices, known.device_columns
    return tuple(
        (columns[device], columns[of_all])
        for device in devices
        if (of_all := device.partition(":")[0]) != device and devices.get(of_all) == devices[device]
        if device in columns and of_all in columns
    )


def _even(amounts: Amounts, counted_in: tuple[tuple[int, int], ...]) -> Amounts:
    if not counted_in:
        return amounts
    row = list(amounts)
    for model, of_all in counted_in:
        row[model] = row[of_all] = min(row[model], row[of_all])
    return tuple(row)


def _rank(known: Inventory, most: Amounts) -> Integers:
    """Prefer nodes with the fewest devices that are not wanted, then the order of the snapshot."""
    return known.rank(tuple(column for column, upper in enumerate(most) if not upper and column > MEMORY))
