"""Refusal: why a demand fits nowhere, in words that a person understands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta

import isodate
import msgspec
import numpy as np
from numpy.typing import NDArray

from ebhpc.model.cluster import asked_at
from ebhpc.model.messages import Message, MessageKind, message
from ebhpc.model.sessions import Demand, Limits
from ebhpc.planning.inventory import Inventory
from ebhpc.planning.question import (
    CORES,
    GIB,
    MEMORY,
    NO_LIMITS,
    Pool,
    Question,
    asked,
    featured,
    large_enough,
    pools_of,
    rounded_duration,
    small_enough,
    terms_of,
    upper_bounds,
    whole_bounds,
)
from ebhpc.planning.search import LAST_INSTANT, Search, Terms, Wanted
from ebhpc.planning.timeline import Timeline

_START = "/schedule/requested/start"
_DURATION = "/schedule/requested/duration"


def why_never(demand: Demand, timeline: Timeline, *, limits: Limits = NO_LIMITS, granularity: int = 1) -> list[Message]:
    """Return all reasons why a demand can never run on this platform, whatever the time; none: it may.

    Drained and downed nodes count as nodes here. The messages' values have ``path``, the JSON pointer of what
    is asked too much, and where they apply ``wanted`` and ``most``.
    """
    known = timeline.inventory
    contradictions = list(_contradictions(demand, known))
    if contradictions:
        return contradictions
    partition = _partition(demand, known)
    if partition is not None:
        return [partition]
    pools = pools_of(demand, known)
    inside = np.logical_or.reduce([pool.members for pool in pools])
    if not inside.any():
        return [_limit(known, "/compute", "{platform} has no nodes.", {})]
    members = inside & featured(demand, known)
    if not members.any():
        template = "No node of {platform} has all of the features {wanted}."
        return [_limit(known, "/compute/features", template, {"wanted": ", ".join(demand.features)})]
    reasons = [*_sizes(demand, known, limits, members), *_licences(demand, known)]
    if not reasons:
        reasons += _together(demand, known, limits, pools, members)
    reasons += _durations(demand, known, limits, pools, granularity)
    return reasons


def why_not(
    demand: Demand,
    timeline: Timeline,
    *,
    now: int,
    limits: Limits = NO_LIMITS,
    offer_lifetime: int = 300,
    lead: int = 0,
    granularity: int = 1,
) -> Message:
    """Return the reason why :func:`ebhpc.planning.windows`, given the same, finds nothing.

    ``urn:resource-limit`` and the like where it could never run (the first of :func:`why_never`); else
    ``urn:no-window``, with what is in the way and, as the value ``start``, when it could start if the start
    interval allowed it.
    """
    never = why_never(demand, timeline, limits=limits, granularity=granularity)
    if never:
        return msgspec.structs.replace(never[0], time=_moment(now))
    known = timeline.inventory
    values: dict[str, object] = {"path": _START}
    if not _usable_nodes(demand, known, limits):
        template = "The nodes of {platform} that could run this are down or drained."
        return _message(MessageKind.NO_WINDOW, template, known, {"path": "/compute"}, now)
    terms = terms_of(demand, now=now, limits=limits, offer_lifetime=offer_lifetime, lead=lead)
    if terms.first > terms.last:
        values |= {"latest": _time(terms.last), "start": _time(terms.first)}
        if limits.horizon is not None and demand.earliest > now + limits.horizon:
            template = "On {platform} nothing can be planned to start after {latest}."
        else:
            template = "The start interval ends at {latest}; {platform} can start nothing before {start}."
        return _message(MessageKind.NO_WINDOW, template, known, values, now)
    question = asked(
        msgspec.structs.replace(demand, latest=LAST_INSTANT),
        known,
        now=now,
        limits=msgspec.structs.replace(limits, horizon=None),
        offer_lifetime=offer_lifetime,
        lead=lead,
        longest=None,
        granularity=granularity,
    )
    if question is None:
        return _message(MessageKind.NO_WINDOW, "This cannot be planned on {platform}.", known, values, now)
    template = "For a start between {first} and {last}, {platform} has {obstacle} for {duration}"
    values |= {
        "first": _time(terms.first),
        "last": _time(terms.last),
        "duration": _lasting(question.duration),
        "obstacle": _obstacle(question, timeline, terms),
    }
    maintenance = _maintenance(question, known, terms)
    if maintenance is not None:
        template += "; {maintenance} is in the way"
        values["maintenance"] = maintenance
    start = _earliest(question, timeline, question.terms, question.least)
    if start is None:
        template += ". It is not known when that changes."
    elif _earliest(question, timeline, terms, question.least) is not None:
        # The caller looked at an older timeline.
        template = "{platform} could start this at {start} after all: something became free. Ask again."
        values["start"] = _time(start)
    else:
        template += ". The earliest start would be {start}."
        values["start"] = _time(start)
    return _message(MessageKind.NO_WINDOW, template, known, values, now)


def _contradictions(demand: Demand, known: Inventory) -> Iterator[Message]:
    if demand.nodes < 1:
        template = "{wanted} nodes were asked for; it must be one at least."
        values = {"path": "/compute/nodes/min", "wanted": demand.nodes}
        yield _message(MessageKind.INVALID_VALUE, template, known, values)
    for column, (upper, _) in enumerate(upper_bounds(demand, known, NO_LIMITS)):
        wanted = _wanted(demand, known, column)
        if upper < wanted:
            yield _message(
                MessageKind.INVALID_VALUE,
                "The minimum, {wanted} {quantity}, is above the maximum, {most}.",
                known,
                {
                    "path": _path(known, column),
                    "quantity": _name(known, column),
                    "wanted": _shown(column, wanted),
                    "most": _shown(column, upper),
                },
            )


def _partition(demand: Demand, known: Inventory) -> Message | None:
    """Say what is wrong with the partition asked for, or with all of them."""
    if pools_of(demand, known):
        return None
    names = sorted(partition.name for partition in known.snapshot.partitions)
    values = {"path": "/compute/partition", "partition": demand.partition, "most": ", ".join(names) or "none"}
    if demand.partition is None:
        kind, template = MessageKind.NO_WINDOW, "No partition of {platform} takes work now."
    elif demand.partition in names:
        kind, template = MessageKind.NO_WINDOW, "Partition {partition} of {platform} takes no work now."
    else:
        kind = MessageKind.RESOURCE_NOT_FOUND
        template = "{platform} has no partition {partition}; it has: {most}."
    return _message(kind, template, known, values)


def _sizes(demand: Demand, known: Inventory, limits: Limits, members: NDArray[np.bool_]) -> Iterator[Message]:
    """Compare each quantity with the largest node, and with the site's limit."""
    largest = known.capacities[:, members].max(axis=1, initial=0)
    for column, (_, limit) in enumerate(upper_bounds(demand, known, limits)):
        wanted, there = _wanted(demand, known, column), int(largest[column])
        if wanted > there:
            template = "{wanted} {quantity} on a node were asked for; {platform} has {most} at most."
        elif limit is not None and wanted > limit:
            template = "{wanted} {quantity} on a node were asked for; {platform} allows {most} at most."
        else:
            continue
        most = there if limit is None else min(there, limit)
        values = {"quantity": _name(known, column), "wanted": _shown(column, wanted), "most": _shown(column, most)}
        yield _limit(known, _path(known, column), template, values)
    for device, count in demand.least.devices.items():
        if count > 0 and device not in known.device_columns:
            template = "{wanted} {quantity} on a node were asked for; {platform} has none."
            yield _limit(known, asked_at(device), template, {"quantity": device, "wanted": count, "most": 0})


def _licences(demand: Demand, known: Inventory) -> Iterator[Message]:
    for licence, count in demand.licences.items():
        there = known.snapshot.licences.get(licence, 0)
        if count > max(there, 0):
            template = "{wanted} licences of {quantity} were asked for; {platform} has {most}."
            path = f"/compute/licences/{_escaped(licence)}"
            if (taken := known.snapshot.stored) is not None and licence in (taken.count, taken.gib):
                template = "Storage takes {wanted} of {quantity}; {platform} has {most}."
                path = "/storage"
            yield _limit(known, path, template, {"quantity": licence, "wanted": count, "most": there})


def _together(
    demand: Demand, known: Inventory, limits: Limits, pools: list[Pool], members: NDArray[np.bool_]
) -> Iterator[Message]:
    """Say where each quantity is there, but not all on one node, or not on as many nodes."""
    least = known.amounts(demand.least)
    able = members & large_enough(least, known)
    if not able.any():
        most = max(tuple(known.capacities[:, place].tolist()) for place in np.flatnonzero(members))
        template = "No node of {platform} has {wanted} together; its largest has {most}."
        yield _limit(known, "/compute", template, {"wanted": _share(known, least), "most": _share(known, most)})
        return
    if demand.exclusive:
        small = able & small_enough(demand, known, limits)
        if not small.any():
            yield _too_large(demand, known, limits, able)
            return
        able = small
    most_nodes = max(int(np.count_nonzero(pool.members & able)) for pool in pools)
    if demand.nodes > most_nodes:
        template = "{wanted} nodes were asked for; {platform} has {most} such nodes"
        template += " in one partition." if known.snapshot.partitions else "."
        yield _limit(known, "/compute/nodes/min", template, {"wanted": demand.nodes, "most": most_nodes})


def _too_large(demand: Demand, known: Inventory, limits: Limits, able: NDArray[np.bool_]) -> Message:
    """Say of which quantity every node that is large enough has more than a node taken whole may have."""
    for column, most in enumerate(whole_bounds(demand, known, limits)):
        there = int(known.capacities[column, able].min())
        if most is not None and there > most:
            values = {"quantity": _name(known, column), "most": _shown(column, most), "there": _shown(column, there)}
            template = "Each node of {platform} that could be taken whole has {there} {quantity} or more, not {most}."
            return _limit(known, _path(known, column).replace("/min", "/max"), template, values)
    return _limit(known, "/compute/exclusive", "No node of {platform} is small enough to be taken whole.", {})


def _durations(
    demand: Demand, known: Inventory, limits: Limits, pools: list[Pool], granularity: int
) -> Iterator[Message]:
    able = _suitable(demand, known, limits)
    caps: list[int] = [LAST_INSTANT if limits.duration is None else limits.duration]
    of_pools = [pool.time_limit for pool in pools if np.count_nonzero(pool.members & able) >= demand.nodes]
    if of_pools and None not in of_pools:
        caps.append(max(limit for limit in of_pools if limit is not None))
    duration = rounded_duration(demand, granularity)
    if duration > min(caps):
        template = "A duration of {wanted} was asked for; {platform} allows {most} at most."
        yield _limit(known, _DURATION, template, {"wanted": _lasting(duration), "most": _lasting(min(caps))})


def _suitable(demand: Demand, known: Inventory, limits: Limits) -> NDArray[np.bool_]:
    """Return which nodes could take a share if they were empty and up; shape ``(nodes,)``."""
    able = featured(demand, known) & large_enough(known.amounts(demand.least), known)
    return able & small_enough(demand, known, limits) if demand.exclusive else able


def _usable_nodes(demand: Demand, known: Inventory, limits: Limits) -> bool:
    able = known.usable & _suitable(demand, known, limits)
    return any(np.count_nonzero(pool.members & able) >= demand.nodes for pool in pools_of(demand, known))


def _earliest(question: Question, timeline: Timeline, terms: Terms, wanted: Wanted) -> int | None:
    starts = [
        placement.start
        for pool in question.pools
        if (placement := Search(timeline, pool.members, question.rank, terms).earliest(wanted, question.duration))
        is not None
    ]
    return min(starts, default=None)


def _obstacle(question: Question, timeline: Timeline, terms: Terms) -> str:
    """Name the quantities that are in the way: each of those without which it would fit."""
    known, least = timeline.inventory, question.least
    fewer: list[tuple[str, Wanted]] = []
    for column, amount in enumerate(least.amounts):
        if amount:
            amounts = (*least.amounts[:column], 0, *least.amounts[column + 1 :])
            fewer.append((_name(known, column), Wanted(amounts, least.nodes, least.licences)))
    if least.whole:
        fewer = [("whole nodes", Wanted(least.amounts, least.nodes, least.licences))]
    if any(least.licences):
        none = tuple(0 for _ in least.licences)
        fewer.append(("licences", Wanted(least.amounts, least.nodes, none, least.whole)))
    names = [name for name, wanted in fewer if _earliest(question, timeline, terms, wanted) is not None]
    return f"too few {' and '.join(names)} free" if names else "too little free"


def _maintenance(question: Question, known: Inventory, terms: Terms) -> str | None:
    """Name the first maintenance that touches the nodes concerned while the session could run."""
    end = terms.latest(terms.last) + question.duration
    able = np.logical_or.reduce([pool.members for pool in question.pools])
    reservations = [
        reservation
        for reservation in known.snapshot.reservations
        if reservation.maintenance
        and reservation.start < end
        and reservation.end > terms.first
        and any(able[known.index[a.node]] for a in reservation.allocations if a.node in known.index)
    ]
    if not reservations:
        return None
    first = min(reservations, key=lambda reservation: reservation.start)
    return f"maintenance from {_time(first.start)} to {_time(first.end)}"


def _message(
    kind: MessageKind, template: str, known: Inventory, values: Mapping[str, object], now: int | None = None
) -> Message:
    time = None if now is None else _moment(now)
    given = {"platform": known.snapshot.platform, **values}
    return message(kind, template, level="ERROR", time=time, **given)


def _limit(known: Inventory, path: str, template: str, values: Mapping[str, object]) -> Message:
    return _message(MessageKind.RESOURCE_LIMIT, template, known, {"path": path, **values})


def _wanted(demand: Demand, known: Inventory, column: int) -> int:
    """Return the minimum as it was asked for, however large."""
    if column == CORES:
        return demand.least.cores
    return demand.least.memory if column == MEMORY else demand.least.devices.get(_device(known, column), 0)


def _name(known: Inventory, column: int) -> str:
    """Return a quantity's name with its unit."""
    return {CORES: "cores", MEMORY: "GiB of memory"}.get(column) or _device(known, column)


def _device(known: Inventory, column: int) -> str:
    return list(known.device_columns)[column - MEMORY - 1]


def _path(known: Inventory, column: int) -> str:
    if column in (CORES, MEMORY):
        return f"/compute/{'cores' if column == CORES else 'memory'}/min"
    return asked_at(_device(known, column))


def _escaped(name: str) -> str:
    """Return a name as a reference token of a JSON pointer (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1")


def _shown(column: int, amount: int) -> str:
    return f"{amount / GIB:.10g}" if column == MEMORY else str(amount)


def _share(known: Inventory, amounts: tuple[int, ...]) -> str:
    parts = [f"{_shown(column, amount)} {_name(known, column)}" for column, amount in enumerate(amounts) if amount]
    return ", ".join(parts)


def _moment(time: int) -> datetime:
    return datetime.fromtimestamp(0, UTC) + timedelta(seconds=min(max(time, 0), LAST_INSTANT))


def _time(time: int) -> str:
    return _moment(time).isoformat().replace("+00:00", "Z")


def _lasting(seconds: int) -> str:
    return str(isodate.duration_isoformat(timedelta(seconds=min(max(seconds, 0), LAST_INSTANT))))
