"""How much is promised: nodes, parts of them included, over time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from ebhpc.model.sessions import Allocation, Window
from ebhpc.planning.booking import Booking
from ebhpc.planning.firm.calendar import Interval, joined
from ebhpc.planning.firm.rules import HOUR, Site, Span
from ebhpc.planning.inventory import Inventory
from ebhpc.planning.profile import FOREVER, Amounts, Integers
from ebhpc.planning.search import Wanted

Floats = NDArray[np.float64]

NEARLY = 1e-6
"""Shares of nodes are sums of fractions: so much more than allowed is no more."""


def shares_of_nodes(amounts: Amounts, known: Inventory) -> Floats:
    """Return what part of each node a share is: of that which it takes most of. Shape ``(nodes,)``; 1 at most."""
    wanted = np.array(amounts, dtype=float)[:, np.newaxis]
    # Of what a node has not it cannot give a part: such nodes are never chosen
    parts = np.where(wanted > 0, wanted / np.maximum(known.capacities, 1), 0.0)
    found: Floats = np.minimum(parts.max(axis=0), 1.0)
    return found


def share_of_node(share: Allocation | Booking, known: Inventory) -> float:
    """Return what part of its node an allocation is; 1 where the platform has no such node any more."""
    place = known.index.get(share.node)
    if place is None:
        return 1.0
    capacities = known.capacities[:, place].tolist()
    parts = [
        wanted / capacity for wanted, capacity in zip(known.amounts(share), capacities, strict=True) if capacity > 0
    ]
    return min(max(parts, default=0.0), 1.0)


def nodes_of(allocations: Iterable[Allocation], known: Inventory) -> float:
    """Return how many nodes allocations are, parts of them included."""
    return sum(share_of_node(each, known) for each in allocations)


def least_nodes(wanted: Wanted, members: NDArray[np.bool_], known: Inventory) -> float:
    """Return how many nodes, parts included, a placement on some of ``members`` is at least."""
    if wanted.whole:
        return float(wanted.nodes)
    parts = shares_of_nodes(wanted.amounts, known)[members]
    return wanted.nodes * float(parts.min(initial=1.0))


def node_hours(window: Window, known: Inventory) -> float:
    """Return the node-hours of a window."""
    return nodes_of(window.allocations, known) * window.duration / HOUR


class Promises(NamedTuple):
    """What is promised at each of several places: arrays of the bookings that count."""

    places: Integers
    starts: Integers
    ends: Integers
    nodes: Floats


def with_bookings_read(site: Site) -> Site:
    """Return a site that has its timeline's bookings as arrays, so that they are read once for many questions."""
    if site.booked is not None or site.rules.share is None:
        return site
    known = site.timeline.inventory
    return replace(site, booked=_promises([(each.start, each.end, each) for each in site.timeline.bookings()], known))


def promises_of(site: Site) -> Promises:
    """Return what is promised: the bookings of the timeline, and the windows beside them."""
    known = site.timeline.inventory
    booked: Promises = with_bookings_read(site).booked
    if not site.beside:
        return booked
    more = _promises(
        [(window.start, window.end, share) for window in site.beside for share in window.allocations], known
    )
    return Promises(*(np.concatenate(both) for both in zip(booked, more, strict=True)))


def _promises(shares: Iterable[tuple[int, int, Allocation | Booking]], known: Inventory) -> Promises:
    kept = [each for each in shares if each[2].node in known.index]
    return Promises(
        np.array([known.index[share.node] for _, _, share in kept], dtype=np.int64),
        np.array([start for start, _, _ in kept], dtype=np.int64),
        np.array([min(end, FOREVER) for _, end, _ in kept], dtype=np.int64),
        np.array([share_of_node(share, known) for _, _, share in kept], dtype=float),
    )


def level(promises: Promises, members: NDArray[np.bool_]) -> tuple[Integers, Floats]:
    """Return from which instants on how many of the members are promised; before the first, none."""
    mine = members[promises.places] if len(promises.places) else np.zeros(0, dtype=bool)
    times = np.concatenate([promises.starts[mine], promises.ends[mine]])
    changes = np.concatenate([promises.nodes[mine], -promises.nodes[mine]])
    instants, where = np.unique(times, return_inverse=True)
    summed = np.zeros(len(instants))
    np.add.at(summed, where, changes)
    return instants, summed.cumsum()


def above(instants: Integers, levels: Floats, most: float) -> list[Interval]:
    """Return when more than ``most`` is promised."""
    if not len(instants):
        return []
    ends = [*instants.tolist()[1:], FOREVER]
    return joined(
        Interval(start, end)
        for start, end, there in zip(instants.tolist(), ends, levels.tolist(), strict=True)
        if there > most + NEARLY
    )


def used_in(week: Interval, has: Sequence[Span]) -> float:
    """Return the node-seconds of a week that somebody has; of spans that belong together, the largest."""
    sums: dict[str, float] = {}
    for number, each in enumerate(has):
        amount = max(min(each.end, week.end) - max(each.start, week.start), 0) * each.nodes
        key = each.together or f"#{number}"
        sums[key] = max(sums.get(key, 0.0), amount)
    return sum(sums.values())
