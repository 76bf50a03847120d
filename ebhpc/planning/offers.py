"""Offers: windows for one demand that differ from one another and fit all together."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ebhpc.model.sessions import Allocation, Demand, Limits, Window
from ebhpc.planning.inventory import Inventory
from ebhpc.planning.profile import Amounts
from ebhpc.planning.question import CORES, GIB, MEMORY, NO_LIMITS, Pool, Question, asked
from ebhpc.planning.search import Placement, Search, Terms, Wanted
from ebhpc.planning.timeline import Timeline

_SHARES = 16
"""'Largest' first grows all quantities by the same share of their ranges, in steps of a sixteenth."""


def windows(
    demand: Demand,
    timeline: Timeline,
    *,
    now: int,
    limit: int = 3,
    limits: Limits = NO_LIMITS,
    offer_lifetime: int = 300,
    lead: int = 0,
    longest: int | None = None,
    granularity: int = 1,
    apart: int = 60,
) -> list[Window]:
    """Find up to ``limit`` windows for a demand, each of which fits beside those before it.

    They are, where there are such, told apart by their ``label``:

    - ``earliest``: the least share, as early as it can start. It is not grown: it is the cheapest, too;
    - ``longest``: the least share for as long as possible, if that is longer than was asked;
    - ``largest``: the share as near to the maximum as possible, if that is more than the least: all
      quantities grown by the same part of their ranges, as far as that goes, then what else there is of
      devices, cores, memory;
    - ``later``: the least share at starts spread over the interval;
    - ``elsewhere``: the least share on nodes that no other window names.

    A start lies in the demand's interval and not before ``now + lead``. From ``now + offer_lifetime + lead``
    on a start is exact; an earlier one is the begin of an interval that ends then, or with the demand's
    interval: the resources are kept for a start anywhere in it.

    Args:
        demand: what is wanted; a quantity without a maximum gets its minimum.
        timeline: what is free.
        now: POSIX seconds; the timeline's snapshot may be older, or newer.
        limit: how many windows at most.
        limits: the site's, ``cores``, ``memory`` and ``devices`` for each node.
        offer_lifetime: seconds that the user has to accept.
        lead: seconds that the platform needs to prepare.
        longest: the longest duration worth offering unasked, seconds; None: anything that the limits allow.
            Where nothing at all limits the duration there is no ``longest``.
        granularity: the duration is a multiple of it, seconds; rounded up from what is asked.
        apart: seconds between the starts of ``later`` windows, at least.

    Returns:
        The windows in the order of the list above; none where nothing fits (:func:`why_not` says why).
    """
    question = asked(
        demand,
        timeline.inventory,
        now=now,
        limits=limits,
        offer_lifetime=offer_lifetime,
        lead=lead,
        longest=longest,
        granularity=granularity,
    )
    if question is None or limit < 1:
        return []
    choice = _Choice(question, timeline)
    for label, found in _candidates(choice, limit, max(apart, 1)):
        if found is not None:
            choice.take(label, *found)
        if len(choice.windows) >= limit:
            break
    return choice.windows


class _Choice:
    """The windows chosen so far, and the timeline with them taken."""

    def __init__(self, question: Question, timeline: Timeline) -> None:
        self.question = question
        self.windows: list[Window] = []
        self._timeline = timeline
        self._taken = 0

    @property
    def timeline(self) -> Timeline:
        """The timeline with the windows chosen so far taken."""
        if self._taken < len(self.windows):
            self._timeline = self._timeline.with_windows(self.windows[self._taken :])
            self._taken = len(self.windows)
        return self._timeline

    def take(self, label: str, placement: Placement, amounts: Amounts) -> None:
        """Add a window, unless there is one like it."""
        window = window_of(self.question, self._timeline.inventory, placement, amounts, label)
        if not any(_alike(window, other) for other in self.windows):
            self.windows.append(window)

    def searches(
        self, terms: Terms | None = None, without: NDArray[np.bool_] | None = None, *, endless: bool = False
    ) -> Iterator[tuple[Pool, Search]]:
        """Yield a search for each pool; ``endless``: not only for what lasts as long as was asked."""
        question = self.question
        terms = terms or question.terms
        until = None if endless else terms.latest(terms.last) + question.duration
        for pool in question.pools:
            eligible = pool.members if without is None else pool.members & ~without
            if np.count_nonzero(eligible) >= question.least.nodes:
                yield pool, Search(self.timeline, eligible, question.rank, terms, until)

    def named(self) -> NDArray[np.bool_]:
        """Return which nodes the windows name; shape ``(nodes,)``."""
        index = self._timeline.inventory.index
        named = np.zeros(len(index), dtype=bool)
        named[[index[allocation.node] for window in self.windows for allocation in window.allocations]] = True
        return named


def _candidates(choice: _Choice, limit: int, apart: int) -> Iterator[tuple[str, tuple[Placement, Amounts] | None]]:
    """Yield finds one after the other, each looked for when those before are taken."""
    earliest = _earliest(choice)
    if earliest is None:
        return
    yield "earliest", earliest
    yield "longest", _longest(choice)
    yield "largest", _largest(choice)
    terms = choice.question.terms
    begin = start = earliest[0].start
    parts = limit - len(choice.windows) + 1
    for part in range(1, parts):
        later = _not_before(choice, max(begin + (terms.last - begin) * part // parts, start + apart))
        if later is not None:
            start = later[0].start
        yield "later", later
    if start == begin:
        yield "later", _not_before(choice, begin + apart)
    while (elsewhere := _earliest(choice, without=choice.named())) is not None:
        yield "elsewhere", elsewhere


def _earliest(
    choice: _Choice, terms: Terms | None = None, without: NDArray[np.bool_] | None = None
) -> tuple[Placement, Amounts] | None:
    question = choice.question
    found = [
        placement
        for _, search in choice.searches(terms, without)
        if (placement := search.earliest(question.least, question.duration)) is not None
    ]
    if not found:
        return None
    return min(found, key=lambda placement: placement.start), question.least.amounts


def _not_before(choice: _Choice, first: int) -> tuple[Placement, Amounts] | None:
    terms = choice.question.terms
    if first > terms.last:
        return None
    return _earliest(choice, Terms(first, terms.last, terms.settled))


def _longest(choice: _Choice) -> tuple[Placement, Amounts] | None:
    question = choice.question
    least = question.duration + question.granularity
    found = []
    for pool, search in choice.searches(endless=True):
        cap = question.cap(pool)
        if cap is None or cap >= least:
            placement = search.longest(question.least, least, cap, question.granularity)
            if placement is not None:
                found.append(placement)
    if not found:
        return None
    return min(found, key=lambda placement: (-placement.duration, placement.start)), question.least.amounts


def _largest(choice: _Choice) -> tuple[Placement, Amounts] | None:
    question = choice.question
    if question.most == question.least.amounts:
        return None
    found = [grown for _, search in choice.searches() if (grown := _grown(question, search)) is not None]
    if not found:
        return None
    _, placement, amounts = max(found, key=lambda grown: (grown[0], _in_order(grown[2]), -grown[1].start))
    return (placement, amounts) if amounts != question.least.amounts else None


def _grown(question: Question, search: Search) -> tuple[int, Placement, Amounts] | None:
    """Find the largest share in a pool: how many sixteenths of every range, where, and the share."""
    least, most = question.least.amounts, question.most

    def wanted(amounts: Amounts) -> Wanted:
        return Wanted(amounts, question.least.nodes, question.least.licences)

    if (placement := search.earliest(wanted(most), question.duration)) is not None:
        return _SHARES, placement, most
    able = search.fitting(wanted(least), question.duration)
    if able is None:
        return None
    amounts, share, failed = least, 0, _SHARES
    while failed - share > 1:
        middle = (share + failed) // 2
        shared = _shared(least, most, middle)
        if (narrower := able.fitting(wanted(shared), question.duration)) is not None:
            able, amounts, share = narrower, shared, middle
        else:
            failed = middle
    for column in (*range(MEMORY + 1, len(most)), CORES, MEMORY):
        unit = GIB if column == MEMORY else 1
        good, failed = amounts[column] // unit, min(most[column], able.most_free(column)) // unit + 1
        # Mostly all that is free at some time can be had
        middle = failed - 1
        while failed - good > 1:
            more = (*amounts[:column], middle * unit, *amounts[column + 1 :])
            if (narrower := able.fitting(wanted(more), question.duration)) is not None:
                able, amounts, good = narrower, more, middle
            else:
                failed = middle
            middle = (good + failed) // 2
    amounts = question.even(amounts)
    placement = able.earliest(wanted(amounts), question.duration)
    assert placement is not None, "what fits has a place"
    return share, placement, amounts


def _shared(least: Amounts, most: Amounts, share: int) -> Amounts:
    grown = [lower + (upper - lower) * share // _SHARES for lower, upper in zip(least, most, strict=True)]
    grown[MEMORY] = max(least[MEMORY], grown[MEMORY] // GIB * GIB)
    return tuple(grown)


def _in_order(amounts: Amounts) -> Amounts:
    """Put devices before cores before memory."""
    return (*amounts[MEMORY + 1 :], amounts[CORES], amounts[MEMORY])


def window_of(question: Question, known: Inventory, placement: Placement, amounts: Amounts, label: str) -> Window:
    """Make the window of a placement."""
    latest = question.terms.latest(placement.start)
    return Window(
        start=placement.start,
        latest=latest,
        end=latest + placement.duration,
        duration=placement.duration,
        allocations=tuple(
            _allocation(known, place, known.amounts(known.nodes[place]) if question.least.whole else amounts)
            for place in placement.places
        ),
        licences={name: count for name, count in question.demand.licences.items() if count > 0},
        label=label,
    )


def _allocation(known: Inventory, place: int, amounts: Amounts) -> Allocation:
    devices = {device: amounts[column] for device, column in known.device_columns.items() if amounts[column]}
    return Allocation(node=known.nodes[place].name, cores=amounts[CORES], memory=amounts[MEMORY], devices=devices)


def _alike(one: Window, other: Window) -> bool:
    return (one.start, one.latest, one.duration) == (other.start, other.latest, other.duration) and (
        one.allocations == other.allocations
    )
