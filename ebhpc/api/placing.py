"""When a request can run on the platforms that can run it, and what that costs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil

from msgspec import Struct
from msgspec.structs import replace

from ebhpc.api.broker import Broker
from ebhpc.api.consulting import Asking, Willing, of_platform, unavailable
from ebhpc.api.extending import extension_windows, taken
from ebhpc.api.firm_time import Ruled
from ebhpc.api.quoting import completed, quote_of
from ebhpc.api.timelines import Known
from ebhpc.model import Demand, Limits, Message, MessageKind, Quote, Request, ReservedTime, Window, message
from ebhpc.model.reading import constraints_allow
from ebhpc.model.times import duration_text, instant_text
from ebhpc.planning import Timeline, fits, flavored, storable, stored, why_never, why_no_flavor, why_not, windows
from ebhpc.planning.firm import Asked
from ebhpc.planning.queue import Outlooks, expected_windows, outlook_message, why_not_expected
from ebhpc.plugins import Platform, PlatformUnavailable
from ebhpc.store import Approval

_OLD = 60
"""Seconds: of a state that is older, and that should be newer, the answer says so."""


class Planned(Struct, frozen=True, kw_only=True):
    """A window that a platform offers for a demand, its price, and what there is to say of it.

    ``order`` is its place among the platform's windows where they are in order of what they cost the others.
    """

    platform: Platform
    demand: Demand
    window: Window
    quote: Quote
    messages: tuple[Message, ...] = ()
    approval: Approval | None = None
    order: int = 0
    takes: Window | None = None

    @property
    def taken(self) -> Window:
        """What it takes of what is free; of a window that goes on with other reserved time, less than all of it."""
        return self.window if self.takes is None else self.takes


def computes_alone(platform: Platform) -> bool:
    """Whether planning and quoting for a platform is computing alone, quick enough for ``Broker.planning``.

    A plugin that plans or quotes by itself could hang, and under rules for firm time the queue is planned twice.
    """
    if platform.config.firm is not None:
        return False
    return not platform.implements("ebhpc_windows") and not platform.implements("ebhpc_costs")


def plan(
    broker: Broker, asking: Asking, willing: Sequence[Willing], *, direct: bool
) -> tuple[list[Planned], tuple[Message, ...]]:
    """Find windows on each platform; return them in the order of their starts, and why platforms have none."""
    planned: list[Planned] = []
    messages: list[Message] = []
    several = len(broker.platforms) > 1
    for one in willing:
        try:
            with broker.measures.planning(one.platform.name):
                found, reasons = _plan_one(broker, asking, one, one.known.timeline)
        except PlatformUnavailable as error:
            found, reasons = [], (unavailable(broker, error),)
        if found and (age := _age(one, asking.now)) is not None:
            reasons = (*reasons, age)
        planned += found
        messages += [of_platform(one.platform.name, item) if several else item for item in reasons]
    planned.sort(key=lambda item: (item.order, item.window.start, item.window.latest))
    return (planned[:1] if direct else planned), tuple(messages)


def _age(one: Willing, now: float) -> Message | None:
    """Tell how old a platform's state is, where offers are made from an old one."""
    taken, config = one.known.timeline.snapshot.taken, one.platform.config
    age = int(now) - taken
    if age <= max(_OLD, 2 * config.refresh):
        return None
    return message(
        MessageKind.PROGRESS,
        "the offers of {platform} are planned from its state of {age} ago, at {taken}",
        level="INFO",
        platform=one.platform.name,
        age=duration_text(age),
        taken=instant_text(taken),
    )


def _plan_one(
    broker: Broker, asking: Asking, one: Willing, timeline: Timeline
) -> tuple[list[Planned], tuple[Message, ...]]:
    """Find a platform's windows on a timeline.

    Raises:
        PlatformUnavailable: the platform plans or quotes by itself, and failed.
    """
    config = one.platform.config
    ruled = Ruled(broker, asking, one, timeline) if config.firm is not None else None
    found = _windows(broker, asking, one, timeline, ruled)
    if not found:
        fresh = broker.timelines.without_expired([one.platform.name], asking.now).get(one.platform.name)
        if isinstance(fresh, Known):
            timeline = fresh.timeline
            ruled = Ruled(broker, asking, one, timeline) if config.firm is not None else None
            found = _windows(broker, asking, one, timeline, ruled)
    if not found:
        if ruled is not None and ruled.refusals:
            return [], ruled.refusals
        return [], tuple(_why_not(broker, asking, one, timeline))
    if one.platform.implements("ebhpc_costs"):
        calls = [("ebhpc_costs", {"request": asking.request, "window": window}) for window in found]
        given = one.platform.call_each(calls)
        quotes = [completed(quote, config, window) for quote, window in zip(given, found, strict=True)]
    else:
        quotes = [quote_of(config, window) for window in found]
    if ruled is not None:
        quotes = [ruled.quote(quote, window) for quote, window in zip(quotes, found, strict=True)]
    kept, reasons = _affordable(asking, one, zip(found, quotes, strict=True))
    if ruled is None:
        return kept, reasons
    # Why nothing is kept, where there is but a place in the queue
    reasons = (*reasons, *(replace(item, level="INFO") for item in ruled.refusals))
    return [
        replace(
            item,
            messages=(*item.messages, *ruled.messages(item.window)),
            approval=ruled.approval(item.window),
            order=place if ruled.site.prefer_cheap else 0,
        )
        for place, item in enumerate(kept)
    ], reasons


def _affordable(
    asking: Asking, one: Willing, priced: Iterable[tuple[Window, Quote]]
) -> tuple[list[Planned], tuple[Message, ...]]:
    kept = [
        Planned(
            platform=one.platform,
            demand=_asked(asking, one),
            window=window,
            quote=quote,
            messages=_told(asking, one, window),
            takes=None if asking.replaced is None else taken(asking, one, window),
        )
        for window, quote in priced
        if constraints_allow(asking.request, quote)
    ]
    if kept:
        return kept, ()
    return [], (
        message(
            MessageKind.NO_WINDOW,
            "what {platform} could offer costs more, or performs less, than the request's costs and metrics allow",
            platform=one.platform.name,
        ),
    )


def _told(asking: Asking, one: Willing, window: Window) -> tuple[Message, ...]:
    """What a user must know of a window that is not kept."""
    if window.firm or one.known.outlooks is None:
        return ()
    return (outlook_message(one.known.outlooks, window, now=int(asking.now)),)


def _windows(
    broker: Broker, asking: Asking, one: Willing, timeline: Timeline, ruled: Ruled | None = None
) -> list[Window]:
    """Find windows of each promise that the platform makes; where it makes both, one place is kept for the queue."""
    config, promises = one.platform.config, one.platform.promises
    now = int(asking.now)
    if _lacks_flavor(asking, one):
        return []
    limit = config.offers_per_platform or broker.config.offers.per_platform
    expected = _expected(broker, asking, one, limit if "reservation" not in promises else 1)
    firm = _firm(broker, asking, one, timeline, limit - len(expected), ruled) if "reservation" in promises else []
    if asking.replaced is not None:
        own = extension_windows(broker, asking, one, timeline, _asked(asking, one))
        firm = [*(own if ruled is None else ruled.kept(own)), *firm][: max(limit, 1)]
    return [window for window in (*firm, *expected) if expiry(broker, one.platform, window, now) > now]


def _expected(broker: Broker, asking: Asking, one: Willing, limit: int) -> list[Window]:
    outlooks, config = _outlooks(one, asking.now), one.platform.config
    if isinstance(asking.request.executable, ReservedTime):
        return []  # what waits in a queue is kept for nobody
    if outlooks is None or one.platform.implements("ebhpc_windows"):
        return []
    demand = _asked(asking, one)
    if not storable(demand, one.known.timeline.snapshot):
        return []  # forecasts know of nodes alone
    return expected_windows(
        outlooks,
        demand,
        now=int(asking.now),
        limit=limit,
        limits=one.limits,
        offer_lifetime=ceil(broker.config.offers.lifetime),
        lead=ceil(config.lead),
        user=asking.identity.username,
    )


def _outlooks(one: Willing, now: float) -> Outlooks | None:
    """What is expected of a platform's queue, unless that is too old to tell of."""
    outlooks = one.known.outlooks
    if outlooks is None or now - outlooks.forecast.taken > one.platform.config.stale:
        return None
    return outlooks


def _lacks_flavor(asking: Asking, one: Willing) -> bool:
    """Whether the platform hands out fixed shapes, none of which lies within what is asked and allowed."""
    flavors = one.known.timeline.snapshot.flavors
    return flavors is not None and flavored(_allowed_most(asking.request.demand, one.limits), flavors) is None


def _allowed_most(demand: Demand, limits: Limits) -> Demand:
    return replace(
        demand,
        most_cores=_lower(demand.most_cores, limits.cores),
        most_memory=_lower(demand.most_memory, limits.memory),
    )


def _asked(asking: Asking, one: Willing) -> Demand:
    """The demand as the batch system can express it: as a flavor, in the steps of its limits, several nodes whole where
    it must.
    """
    demand, scheduler = asking.request.demand, one.known.timeline.snapshot.scheduler
    if (flavors := one.known.timeline.snapshot.flavors) is not None:
        demand = flavored(_allowed_most(demand, one.limits), flavors) or demand
    demand = stored(demand, asking.request.storage, one.known.timeline.snapshot)
    if scheduler is None:
        return demand
    if scheduler.whole_nodes and demand.nodes > 1:
        demand = replace(demand, exclusive=True, most_cores=None, most_memory=None, most_devices={})
    step = scheduler.limit_step
    return replace(demand, duration=-(-demand.duration // step) * step)


def _step(one: Willing) -> int:
    scheduler = one.known.timeline.snapshot.scheduler
    return scheduler.limit_step if scheduler is not None else 1


def _firm(
    broker: Broker, asking: Asking, one: Willing, timeline: Timeline, limit: int, ruled: Ruled | None
) -> list[Window]:
    config = one.platform.config
    now = int(asking.now)
    if limit < 1:
        return []
    if one.platform.implements("ebhpc_windows"):
        given = one.platform.call(
            "ebhpc_windows",
            request=_within(asking.request, one.limits, now),
            timeline=timeline,
            now=now,
            limit=limit,
        )
        found = [window for window in given if _allowed(window, one.limits)]
        if not fits(timeline, found):
            raise PlatformUnavailable(one.platform.name, "ebhpc_windows", "it planned more than is free")
        return found if ruled is None else ruled.kept(found)
    if ruled is not None:
        return ruled.windows(
            Asked(
                demand=_asked(asking, one),
                limit=limit,
                limits=one.limits,
                offer_lifetime=ceil(broker.config.offers.lifetime),
                lead=ceil(config.lead),
                longest=int(config.longest) if config.longest is not None else None,
                granularity=_step(one),
            )
        )
    return windows(
        _asked(asking, one),
        timeline,
        now=now,
        limit=limit,
        limits=one.limits,
        offer_lifetime=ceil(broker.config.offers.lifetime),
        lead=ceil(config.lead),
        longest=int(config.longest) if config.longest is not None else None,
        granularity=_step(one),
    )


def _within(request: Request, limits: Limits, now: int) -> Request:
    """Return the request with the site's limits as its own maxima, for a plugin that plans by itself."""
    demand = request.demand
    return replace(
        request,
        demand=replace(
            demand,
            most_cores=_lower(demand.most_cores, limits.cores),
            most_memory=_lower(demand.most_memory, limits.memory),
            latest=demand.latest if limits.horizon is None else min(demand.latest, now + limits.horizon),
        ),
    )


def _lower(one: int | None, other: int | None) -> int | None:
    return min((value for value in (one, other) if value is not None), default=None)


def _allowed(window: Window, limits: Limits) -> bool:
    """Whether a plugin's window keeps to the site's limits."""
    return (limits.duration is None or window.duration <= limits.duration) and all(
        (limits.cores is None or share.cores <= limits.cores)
        and (limits.memory is None or share.memory <= limits.memory)
        and all(count <= limits.devices.get(device, count) for device, count in share.devices.items())
        for share in window.allocations
    )


def _why_not(broker: Broker, asking: Asking, one: Willing, timeline: Timeline) -> Sequence[Message]:
    """Return all reasons why it can never run there, or the one why not now."""
    demand, config = _asked(asking, one), one.platform.config
    flavors = timeline.snapshot.flavors
    if flavors is not None and _lacks_flavor(asking, one):
        allowed = _allowed_most(demand, one.limits)
        return [why_no_flavor(allowed, flavors, platform=one.platform.name)]
    if never := why_never(demand, timeline, limits=one.limits):
        return never
    reasons = []
    if "reservation" in one.platform.promises:
        reasons.append(
            why_not(
                demand,
                timeline,
                now=int(asking.now),
                limits=one.limits,
                offer_lifetime=ceil(broker.config.offers.lifetime),
                lead=ceil(config.lead),
            )
        )
    if "queue" in one.platform.promises:
        outlooks = _outlooks(one, asking.now)
        if outlooks is None:
            reasons.append(
                message(
                    MessageKind.NO_WINDOW,
                    "nothing is known yet, or no more, of when jobs start in the queue of {platform}",
                    platform=one.platform.name,
                )
            )
        else:
            reasons.append(
                why_not_expected(
                    outlooks,
                    demand,
                    now=int(asking.now),
                    limits=one.limits,
                    lead=ceil(config.lead),
                    user=asking.identity.username,
                )
            )
    return reasons


def plan_anew(
    broker: Broker, asking: Asking, willing: Sequence[Willing], *, direct: bool
) -> tuple[list[Planned], list[Message]]:
    """Plan under the lock: nothing but computing."""
    planned: list[Planned] = []
    reasons: list[Message] = []
    for one in willing:
        timeline = one.known.timeline
        found = _windows(broker, asking, one, timeline)
        quotes = [quote_of(one.platform.config, window) for window in found]
        kept, told = _affordable(asking, one, zip(found, quotes, strict=True)) if found else ([], ())
        planned += kept
        reasons += told if found else _why_not(broker, asking, one, timeline)
    planned.sort(key=lambda item: (item.window.start, item.window.latest))
    return (planned[:1] if direct else planned), reasons


def expiry(broker: Broker, platform: Platform, window: Window, now: int) -> int:
    """Return when an offer ends: in time for the platform to prepare the latest start."""
    latest = window.latest if window.firm else window.end - window.duration
    return min(now + ceil(broker.config.offers.lifetime), latest - ceil(platform.config.lead))
