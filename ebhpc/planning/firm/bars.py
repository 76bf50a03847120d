"""When a site's rules bar firm time, and which starts that leaves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from ebhpc.config.firm_time import FirmRules
from ebhpc.model.messages import Message
from ebhpc.planning.firm import refusals
from ebhpc.planning.firm.calendar import Interval, closed_times, outside_hours, weeks
from ebhpc.planning.firm.promised import NEARLY, above, level, promises_of, used_in
from ebhpc.planning.firm.rules import HOUR, Site
from ebhpc.planning.profile import FOREVER, PAST

_REGULAR = 800 * 86_400
"""Seconds: weeks are alike, so what the rules of so long a time let pass they let pass for ever."""


class Bar(Struct, frozen=True, kw_only=True, gc=False):
    """No block may touch what lies between ``start`` and ``end``.

    ``end`` may be before ``start``: then a block may lie between them, and must not reach over both.
    """

    start: int
    end: int
    refusal: Message


def general_bars(site: Site, first: int, until: int, duration: int, nodes: float) -> list[Bar]:
    """Return what bars a block of so many nodes anywhere on the platform, between two instants."""
    rules = site.rules
    bars = []
    regular = min(until, first + _REGULAR)
    if rules.hours is not None:
        refusal = refusals.out_of_hours(site)
        bars += [
            Bar(start=each.start, end=each.end, refusal=refusal)
            for each in outside_hours(rules.hours, site.zone, first, regular)
        ]
    for when, closed in closed_times(rules.closed or (), site.zone):
        if when.start < until and when.end > first:
            bars.append(Bar(start=when.start, end=when.end, refusal=refusals.is_closed(site, when, closed)))
    if rules.node_hours_per_week is not None:
        bars += _weekly(site, rules.node_hours_per_week, first, regular, duration, nodes)
    return bars


def _weekly(site: Site, most: float, first: int, until: int, duration: int, nodes: float) -> Iterable[Bar]:
    for week in weeks(site.zone, first, until):
        used = used_in(week, site.has)
        left = int((most * HOUR - used + NEARLY) / nodes) if nodes > 0 else FOREVER
        left = max(left, 0)
        if left < min(duration, week.end - week.start):
            refusal = refusals.used_up(site, week, used / HOUR, nodes * duration / HOUR)
            yield Bar(start=week.start + left, end=week.end - left, refusal=refusal)


def has_partition_rules(rules: FirmRules) -> bool:
    """Whether something is barred from some partitions and not from others."""
    return rules.share is not None or rules.during_maintenance is False


def partition_bars(
    site: Site, name: str | None, members: NDArray[np.bool_], first: int, until: int, nodes: float
) -> list[Bar]:
    """Return what bars a block of so many nodes from a partition; ``name`` None: of the platform without any."""
    bars: list[Bar] = []
    if site.rules.during_maintenance is False:
        bars += [
            Bar(start=when.start, end=when.end, refusal=refusals.in_maintenance(site, when, name))
            for when in maintenance_of(site, members)
            if when.start < until and when.end > first
        ]
    if site.rules.share is not None:
        count = int(np.count_nonzero(members))
        room = site.rules.share * count - nodes
        instants, levels = level(promises_of(site), members)
        refusal = refusals.shared_out(site, name, count, _least(instants, levels, first, until), nodes)
        if room < -NEARLY:
            bars.append(Bar(start=PAST, end=FOREVER, refusal=refusal))
        else:
            bars += [Bar(start=each.start, end=each.end, refusal=refusal) for each in above(instants, levels, room)]
    return bars


def _least(instants: NDArray[np.int64], levels: NDArray[np.float64], first: int, until: int) -> float:
    """Return the least that is promised at any instant of [``first``, ``until``)."""
    before = int(instants.searchsorted(first, "right"))
    last = int(instants.searchsorted(until, "left"))
    inside = [*([0.0] if before == 0 else []), *levels[max(before - 1, 0) : last].tolist()]
    return max(min(inside, default=0.0), 0.0)


def partitions_of(site: Site) -> dict[str | None, NDArray[np.bool_]]:
    """Return the nodes of each partition; of the platform, under the name None, where it has no partitions."""
    known = site.timeline.inventory
    if not known.members:
        return {None: np.ones(len(known.nodes), dtype=bool)}
    found: dict[str | None, NDArray[np.bool_]] = {}
    found.update(known.members)
    return found


def maintenance_of(site: Site, members: NDArray[np.bool_]) -> list[Interval]:
    """Return when some of the nodes are in maintenance."""
    index = site.timeline.inventory.index
    return [
        Interval(each.start, each.end)
        for each in site.timeline.snapshot.reservations
        if each.maintenance and any(members[index[share.node]] for share in each.allocations if share.node in index)
    ]


def starts_left(
    first: int, last: int, duration: int, bars: Sequence[Bar], *, settled: int = PAST
) -> list[tuple[int, int]]:
    """Return the intervals of starts, ends included, at which a block keeps to all bars.

    A block that starts at ``start`` lasts from then to ``max(start, settled) + duration``.
    """
    left = [(first, last)] if first <= last else []
    for bar in bars:
        # Starts after ``low`` and before ``high`` are barred
        low, high = bar.start - duration, bar.end
        if settled > low:
            low = PAST
        if low >= high:
            continue
        left = [
            piece
            for begin, end in left
            for piece in ((begin, min(end, low)), (max(begin, high), end))
            if piece[0] <= piece[1]
        ]
        left = sorted(set(left))
    return left


def why_none(first: int, last: int, duration: int, bars: Sequence[Bar], *, settled: int = PAST) -> tuple[Message, ...]:
    """Return the refusals of those bars that some start of the interval meets, of each rule the first."""
    told: dict[str, Message] = {}
    for bar in bars:
        rule = (bar.refusal.values or {}).get("rule", "")
        if rule not in told and starts_left(first, last, duration, [bar], settled=settled) != [(first, last)]:
            told[rule] = bar.refusal
    return tuple(told.values())
