"""Firm windows under a site's rules: found, told what they cost the others, the cheapest first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import ceil, floor

import numpy as np
from msgspec import Struct
from msgspec.structs import replace
from numpy.typing import NDArray

from ebhpc.model.messages import Message
from ebhpc.model.sessions import Demand, Limits, Window
from ebhpc.planning.firm import refusals
from ebhpc.planning.firm.bars import (
    Bar,
    general_bars,
    has_partition_rules,
    partition_bars,
    partitions_of,
    starts_left,
    why_none,
)
from ebhpc.planning.firm.candidates import Candidate, candidates, licensed, stretches
from ebhpc.planning.firm.harm import Harm, Holes, QueuePlan, idle_before, planned_on, with_idle
from ebhpc.planning.firm.promised import least_nodes, nodes_of, with_bookings_read
from ebhpc.planning.firm.rules import Site
from ebhpc.planning.offers import window_of, windows
from ebhpc.planning.question import Pool, Question, asked
from ebhpc.planning.search import Placement
from ebhpc.planning.timeline import Timeline, fits

MOST_AHEAD = 400 * 86_400
"""Seconds: under rules, no start is offered that is further ahead, whatever is asked."""

_MORE = 5
"""So many windows more than are wanted are looked at for the delay that they cause."""


class Priced(Struct, frozen=True, kw_only=True):
    """A window, what it does to others, and what it breaks up of free time: node-hours, below 0 if it fills holes."""

    window: Window
    harm: Harm
    broken: float

    @property
    def burden(self) -> float:
        """What the window costs the others, in node-hours: the less the better."""
        return self.broken + self.harm.node_delay


class Asked(Struct, frozen=True, kw_only=True):
    """What is asked of a platform: as the arguments of :func:`ebhpc.planning.windows`."""

    demand: Demand
    limit: int = 3
    limits: Limits = Limits()
    offer_lifetime: int = 300
    lead: int = 0
    longest: int | None = None
    granularity: int = 1
    apart: int = 60


class Found(Struct, frozen=True, kw_only=True):
    """Windows, the cheapest first; where there are none, the rules that stand against them (none: no place is free)."""

    windows: tuple[Priced, ...] = ()
    refusals: tuple[Message, ...] = ()


def firm_windows(asking: Asked, site: Site) -> Found:
    """Find windows that keep to the site's rules, and tell what each costs the others.

    One of them is labelled ``earliest``, and the one that costs the others least ``cheapest``, where they differ.
    """
    site = with_bookings_read(site)
    within = _within(asking, site)
    if isinstance(within, Found):
        return within
    question = _question(within, site)
    if question is None:
        return Found()
    search = _Search(within, site, question)
    found = search.candidates()
    if not found:
        return Found(refusals=search.why_none())
    return _chosen(within, site, question, found, Pricing(site.timeline, site.now, search.with_plan))


def broken_rules(window: Window, site: Site) -> tuple[Message, ...]:
    """Return the refusals of a window that is not allowed by what is promised now. Harm is not looked at."""
    rules, now, known = site.rules, site.now, site.timeline.inventory
    told: list[Message] = []
    if rules.least_notice is not None and window.start < now + floor(rules.least_notice):
        told.append(refusals.too_soon(site, window.start))
    if rules.horizon is not None and window.start > now + ceil(rules.horizon):
        told.append(refusals.too_far(site, window.start))
    if rules.longest is not None and window.duration > rules.longest:
        told.append(refusals.too_long(site, window.duration))
    shares = [share for share in window.allocations if share.node in known.index]
    nodes = nodes_of(window.allocations, known)
    bars = general_bars(site, window.start, window.end, window.duration, nodes)
    if has_partition_rules(rules):
        for name, members in partitions_of(site).items():
            inside = [share for share in shares if members[known.index[share.node]]]
            if inside:
                bars += partition_bars(site, name, members, window.start, window.end, nodes_of(inside, known))
    told += why_none(window.start, window.start, window.duration, bars, settled=window.latest)
    return tuple(told)


def _within(asking: Asked, site: Site) -> Asked | Found:
    """Narrow what is asked to the rules that need no look at the platform; refuse what none of it is left of."""
    rules, demand, now = site.rules, asking.demand, site.now
    earliest = max(demand.earliest, now + asking.lead)
    if rules.longest is not None:
        if demand.duration > rules.longest:
            return Found(refusals=(refusals.too_long(site, demand.duration),))
        longest = floor(rules.longest)
        asking = replace(asking, longest=longest if asking.longest is None else min(asking.longest, longest))
    latest = min(demand.latest, now + MOST_AHEAD)
    if rules.least_notice is not None and now + ceil(rules.least_notice) > earliest:
        earliest = now + ceil(rules.least_notice)
        if earliest > latest:
            return Found(refusals=(refusals.too_soon(site, latest),))
    if rules.horizon is not None and now + floor(rules.horizon) < latest:
        latest = now + floor(rules.horizon)
        if earliest > latest:
            return Found(refusals=(refusals.too_far(site, earliest),))
    return replace(asking, demand=replace(demand, earliest=earliest, latest=latest))


def _question(asking: Asked, site: Site) -> Question | None:
    return asked(
        asking.demand,
        site.timeline.inventory,
        now=site.now,
        limits=asking.limits,
        offer_lifetime=asking.offer_lifetime,
        lead=asking.lead,
        longest=asking.longest,
        granularity=asking.granularity,
    )


class _Search:
    """One search: where the least share fits, by pool, and what bars it."""

    def __init__(self, asking: Asked, site: Site, question: Question) -> None:
        self.site = site
        self.with_plan = planned_on(site.timeline) if _may_delay(site.timeline) else None
        self.question = question
        self.gap = site.timeline.gap
        self.holes = Holes.of(site.timeline.snapshot)
        self._bars: list[Bar] = []
        terms = question.terms
        self.until = terms.latest(terms.last) + question.duration

    def candidates(self) -> list[Candidate]:
        """Return candidates in all pools, the earliest first."""
        found: list[Candidate] = []
        for pool in self.question.pools:
            for members, bars in self._ways(pool):
                self._bars += bars
                if self.with_plan is None:
                    found += self._in(self.site.timeline, members, bars, self.site.prefer_cheap)
                    continue
                found += self._in(self.with_plan, members, bars, self.site.prefer_cheap)
                found += [
                    one._replace(delays=True)
                    for one in self._in(self.site.timeline, members, bars, self.site.prefer_cheap)
                ]
        return sorted(found, key=lambda one: (one.start, one.delays, one.broken))

    def why_none(self) -> tuple[Message, ...]:
        """Return the rules because of which there is no candidate; none where there would be none without them."""
        terms, question = self.question.terms, self.question
        if not self._bars:
            return ()
        free = [one for pool in question.pools for one in self._in(self.site.timeline, pool.members, [], cheap=False)]
        if not free:
            return ()
        told = [
            item
            for one in (free[0], free[len(free) // 2], free[-1])
            for item in why_none(one.start, one.start, question.duration, self._bars, settled=terms.latest(one.start))
        ]
        return tuple({(item.values or {}).get("rule", ""): item for item in reversed(told)}.values())[::-1]

    def _ways(self, pool: Pool) -> Iterator[tuple[NDArray[np.bool_], list[Bar]]]:
        """Yield node sets of a pool, and the bars for each: the pool, and it without partitions that are barred."""
        site, first = self.site, self.question.terms.first
        known, least = site.timeline.inventory, self.question.least
        nodes = least_nodes(least, pool.members, known)
        general = general_bars(site, first, self.until, self.question.duration, nodes)
        if not has_partition_rules(site.rules):
            yield pool.members, general
            return
        rest, bars = pool.members, list(general)
        kept = list(general)
        for name, members in partitions_of(site).items():
            if not (members & pool.members).any():
                continue
            barred = partition_bars(site, name, members, first, self.until, nodes)
            bars += barred
            if barred and not members[pool.members].all():
                rest = rest & ~members
            else:
                kept += barred
        yield pool.members, bars
        if rest is not pool.members and np.count_nonzero(rest) >= least.nodes:
            yield rest, kept

    def _in(self, timeline: Timeline, members: NDArray[np.bool_], bars: list[Bar], cheap: bool) -> list[Candidate]:
        question, site = self.question, self.site
        terms, least = question.terms, question.least
        starts = starts_left(terms.first, terms.last, question.duration, bars, settled=terms.settled)
        if not starts:
            return []
        licences = licensed(timeline, least.licences) if any(least.licences) else None
        return candidates(
            stretches(timeline, least, members),
            starts,
            need=least.nodes,
            duration=question.duration,
            gap=self.gap,
            settled=terms.settled,
            now=site.now,
            part=least_nodes(least, members, timeline.inventory) / least.nodes,
            holes=self.holes,
            rank=question.rank,
            cheap=cheap,
            licences=licences,
        )


def _may_delay(timeline: Timeline) -> bool:
    return timeline.delay_queue and bool(timeline.snapshot.planned)


class Pricing:
    """Tells what windows on a timeline do to the others."""

    def __init__(self, timeline: Timeline, now: int, with_plan: Timeline | None = None) -> None:
        """``with_plan``: as for :class:`QueuePlan`."""
        self._timeline = timeline
        self._with_plan = with_plan
        self._now = now
        self._holes = Holes.of(timeline.snapshot)
        self._plan: QueuePlan | None = None

    def harm(self, window: Window) -> Harm:
        """Return the harm of one window; where it may delay the queue, the first takes longer than the others."""
        timeline = self._timeline
        if _may_delay(timeline):
            if self._plan is None:
                self._plan = QueuePlan(timeline, self._now, self._with_plan)
            return self._plan.harm(window, self._holes)
        known = timeline.inventory
        return with_idle(Harm(), idle_before(timeline, known, window, self._now), self._holes, window, known)


def _chosen(asking: Asked, site: Site, question: Question, found: Sequence[Candidate], pricing: Pricing) -> Found:
    """Choose windows that fit beside one another, do no more harm than is accepted, and differ."""
    able, refused = _priced(asking, site, question, found, pricing)
    if not able:
        return Found(refusals=refused)
    earliest = min(able, key=lambda one: (one.window.start, one.burden))
    if site.prefer_cheap:
        able.sort(key=lambda one: (one.burden, one.window.start))
    order = dict.fromkeys([id(able[0]), id(earliest), *map(id, able)])
    by_id = {id(one): one for one in able}
    chosen: list[Priced] = []
    for one in map(by_id.__getitem__, order):
        if len(chosen) < asking.limit and _beside(one.window, site, chosen):
            chosen.append(one)
    if (largest := _largest(asking, site, question, chosen, pricing)) is not None:
        chosen = [*chosen[: asking.limit - 1], largest]
    return Found(windows=_labelled(chosen, site.prefer_cheap))


def _priced(
    asking: Asked, site: Site, question: Question, found: Sequence[Candidate], pricing: Pricing
) -> tuple[list[Priced], tuple[Message, ...]]:
    """Price candidates that differ; return those that do no more harm than is accepted, or why there are none."""
    order = sorted(found, key=lambda one: (one.delays, one.broken, one.start)) if site.prefer_cheap else found
    most = asking.limit + (_MORE if site.timeline.delay_queue or site.rules.most_idle is not None else 0)
    # A block of its own each, where there is time for that; but the earliest in any case
    span = found[-1].start - found[0].start
    apart = max(asking.apart, min(question.duration, span // max(asking.limit, 1)))
    able: list[Priced] = []
    looked_at: list[int] = []
    least: Harm | None = None
    for one in (order[0], found[0], *order):
        if len(looked_at) >= most:
            break
        least_apart = asking.apart if one is found[0] else apart
        if any(abs(one.start - other) < least_apart for other in looked_at):
            continue
        placement = Placement(one.start, question.duration, one.places)
        window = window_of(question, site.timeline.inventory, placement, question.least.amounts, "later")
        if broken_rules(window, site):
            continue  # the search counts nodes that differ as if they were alike
        looked_at.append(one.start)
        harm = pricing.harm(window)
        # What is broken up was measured without those who wait, where they may be planned
        priced = Priced(window=window, harm=harm, broken=harm.idle if one.delays else one.broken)
        if refusals.too_harmful(site, priced.harm):
            if least is None or _order_of(priced.harm) < _order_of(least):
                least = priced.harm
        else:
            able.append(priced)
    return able, () if least is None else refusals.too_harmful(site, least)


def _order_of(harm: Harm) -> tuple[float, float]:
    return harm.delay, harm.idle


def _beside(window: Window, site: Site, chosen: Sequence[Priced]) -> bool:
    """Whether a window fits, and is allowed, beside others."""
    others = tuple(one.window for one in chosen)
    if not others:
        return True
    return fits(site.timeline, [*others, window]) and not broken_rules(window, replace(site, beside=others))


def _largest(
    asking: Asked, site: Site, question: Question, chosen: Sequence[Priced], pricing: Pricing
) -> Priced | None:
    """Return the window with the largest share, where more than the least was asked for."""
    if question.most == question.least.amounts or asking.limit < 2:
        return None
    found = windows(
        asking.demand,
        site.timeline,
        now=site.now,
        limit=3,
        limits=asking.limits,
        offer_lifetime=asking.offer_lifetime,
        lead=asking.lead,
        longest=asking.demand.duration,
        granularity=asking.granularity,
    )
    beside = chosen[: asking.limit - 1]
    for window in found:
        if window.label == "largest" and not broken_rules(window, site) and _beside(window, site, beside):
            harm = pricing.harm(window)
            if not refusals.too_harmful(site, harm):
                return Priced(window=window, harm=harm, broken=harm.idle)
    return None


def _labelled(chosen: Sequence[Priced], cheap: bool) -> tuple[Priced, ...]:
    """Put windows in order, and say what is special about them."""
    key = (lambda one: (one.burden, one.window.start)) if cheap else (lambda one: one.window.start)
    ordered = sorted(chosen, key=key)
    earliest = min(ordered, key=lambda one: one.window.start)
    labelled = []
    for place, one in enumerate(ordered):
        label = one.window.label
        if label != "largest":
            label = "earliest" if one is earliest else "cheapest" if cheap and not place else "later"
        labelled.append(replace(one, window=replace(one.window, label=label)))
    return tuple(labelled)
