"""From a request to booked offers.

Each platform is asked on its own threads whether it can run the request and what the site's rules are; those that can
are planned on the timelines in memory; what was planned is booked in one transaction, which looks again at what other
workers have booked meanwhile and, where that is in the way, plans anew under the lock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from math import ceil

from msgspec import Struct
from msgspec.structs import replace

from ebhpc.api.broker import Broker
from ebhpc.api.drafting import session_draft
from ebhpc.api.quoting import completed, quote_of
from ebhpc.api.timelines import Known
from ebhpc.model import (
    Identity,
    Limits,
    Message,
    MessageKind,
    Metadata,
    OfferSet,
    Quote,
    Request,
    ScheduledSession,
    Window,
    message,
)
from ebhpc.model.reading import constraints_allow
from ebhpc.model.times import utc
from ebhpc.planning import Timeline, fits, why_never, why_not, windows
from ebhpc.plugins import Platform, PlatformUnavailable, merge_policies
from ebhpc.store import Booked, Changes, NewOffer, OfferSetRecord, book_offers

ASK_TIMEOUT = 5.0
"""Seconds that a platform has for saying whether it can run a request, where its own timeout is not shorter."""

MOST_TRIES = 20
"""How often an offer set is planned again because others booked meanwhile, where a plugin plans or quotes."""


class Willing(Struct, frozen=True, kw_only=True):
    """A platform that can run a request, within ``limits``, by what is ``known`` of it."""

    platform: Platform
    limits: Limits
    known: Known


class Planned(Struct, frozen=True, kw_only=True):
    """A window that a platform offers, and its price."""

    platform: Platform
    window: Window
    quote: Quote


class Offered(Struct, frozen=True, kw_only=True):
    """An offer set as booked: its record, its offers with their documents, and all its messages."""

    record: OfferSetRecord
    offers: tuple[NewOffer, ...]
    messages: tuple[Message, ...]


class Asking(Struct, frozen=True, kw_only=True):
    """Who asks for what, when (POSIX seconds), and how many offers are wanted at most (None: as configured)."""

    request: Request
    identity: Identity
    now: float
    warnings: tuple[Message, ...] = ()
    most: int | None = None


def refused(broker: Broker, owner: str, messages: Sequence[Message], now: float, *, stored: bool = True) -> Offered:
    """Return the offer set that says NO; ``stored``: so that it can be looked at again."""
    record = _record(broker, owner, messages, (), now)
    if stored:
        book_offers(broker.store, record, (), {}, lambda platform, changes: True, now=now)
    return Offered(record=record, offers=(), messages=tuple(messages))


def make_offers(broker: Broker, asking: Asking, *, direct: bool = False) -> Offered:
    """Find, book and return offers for a request; ``direct`` takes the first one at once, and stores no NO.

    Nothing found, or more offers open than one user may have, is an offer set that says NO and why.
    """
    owner, now = asking.identity.uuid, asking.now
    for _ in range(MOST_TRIES):
        willing, messages = _willing(broker, asking)
        planned, reasons = _plan(broker, asking, willing, direct=direct)
        messages = (*asking.warnings, *messages, *reasons)
        if not planned:
            break
        offered = _book(broker, asking, willing, planned, messages, direct=direct)
        if offered is None:
            continue
        return offered
    else:
        messages = (*messages, _crowded())
    return refused(broker, owner, messages, now, stored=not direct)


# --- who can ---------------------------------------------------------------------------------------------------------


def _willing(broker: Broker, asking: Asking) -> tuple[list[Willing], tuple[Message, ...]]:
    """Ask all platforms at the same time; return those that can run the request, and why the others cannot."""
    timelines = broker.timelines.current(asking.now)
    names = list(broker.platforms)

    def consult(name: str) -> tuple[Willing | None, tuple[Message, ...]]:
        return _consult(broker, asking, broker.platforms[name], timelines[name])

    if len(names) > 1:
        with ThreadPoolExecutor(len(names)) as threads:
            answers = list(threads.map(consult, names))
    else:
        answers = [consult(name) for name in names]
    messages = [
        _of_platform(name, item) if len(names) > 1 else item
        for name, (_, told) in zip(names, answers, strict=True)
        for item in told
    ]
    if not names:
        messages.append(message(MessageKind.PLATFORM_UNAVAILABLE, "this broker has no platform"))
    return [willing for willing, _ in answers if willing is not None], tuple(messages)


def _consult(
    broker: Broker, asking: Asking, platform: Platform, known: Known | PlatformUnavailable
) -> tuple[Willing | None, tuple[Message, ...]]:
    if isinstance(known, PlatformUnavailable):
        return None, (_unavailable(broker, known),)
    try:
        refusals, own = platform.call_each(
            [
                ("ebhpc_refuses", {"request": asking.request}),
                (
                    "ebhpc_policy",
                    {"request": asking.request, "identity": asking.identity, "platform": platform.name},
                ),
            ],
            timeout=min(platform.config.timeout, ASK_TIMEOUT),
        )
        site = broker.policies.site(asking.request, asking.identity, platform.name)
    except PlatformUnavailable as error:
        return None, (_unavailable(broker, error),)
    policy = merge_policies([own, site])
    if refusals or policy.refusals:
        never = why_never(asking.request.demand, known.timeline, limits=policy.limits)
        return None, (*refusals, *policy.refusals, *never)
    return Willing(platform=platform, limits=policy.limits, known=known), ()


def _unavailable(broker: Broker, error: PlatformUnavailable) -> Message:
    broker.measures.platform_failed(error.platform)
    return message(
        MessageKind.PLATFORM_UNAVAILABLE,
        "the platform {platform} is not available now: {reason}",
        platform=error.platform,
        reason=error.reason,
    )


def _of_platform(name: str, item: Message) -> Message:
    """Name the platform that a message is from, unless it does so itself."""
    values = item.values or {}
    if values.get("platform") == name:
        return item
    return replace(
        item,
        template="{platform}: " + (item.template or ""),
        values={**values, "platform": name},
        filled=f"{name}: {item}",
    )


# --- when ------------------------------------------------------------------------------------------------------------


def _plan(
    broker: Broker, asking: Asking, willing: Sequence[Willing], *, direct: bool
) -> tuple[list[Planned], tuple[Message, ...]]:
    """Find windows on each platform; return them in the order of their starts, and why platforms have none."""
    planned: list[Planned] = []
    messages: list[Message] = []
    several = len(broker.platforms) > 1
    for one in willing:
        try:
            found, reasons = _plan_one(broker, asking, one, one.known.timeline)
        except PlatformUnavailable as error:
            found, reasons = [], (_unavailable(broker, error),)
        planned += found
        messages += [_of_platform(one.platform.name, item) if several else item for item in reasons]
    planned.sort(key=lambda item: (item.window.start, item.window.latest))
    return (planned[:1] if direct else planned), tuple(messages)


def _plan_one(
    broker: Broker, asking: Asking, one: Willing, timeline: Timeline
) -> tuple[list[Planned], tuple[Message, ...]]:
    """Find a platform's windows on a timeline.

    Raises:
        PlatformUnavailable: the platform plans or quotes by itself, and failed.
    """
    found = _windows(broker, asking, one, timeline)
    if not found:
        fresh = broker.timelines.without_expired([one.platform.name], asking.now).get(one.platform.name)
        if isinstance(fresh, Known):
            found = _windows(broker, asking, one, timeline := fresh.timeline)
    if not found:
        return [], tuple(_why_not(broker, asking, one, timeline))
    config = one.platform.config
    if one.platform.implements("ebhpc_costs"):
        calls = [("ebhpc_costs", {"request": asking.request, "window": window}) for window in found]
        given = one.platform.call_each(calls)
        quotes = [completed(quote, config, window) for quote, window in zip(given, found, strict=True)]
    else:
        quotes = [quote_of(config, window) for window in found]
    return _affordable(asking, one, zip(found, quotes, strict=True))


def _affordable(
    asking: Asking, one: Willing, priced: Iterable[tuple[Window, Quote]]
) -> tuple[list[Planned], tuple[Message, ...]]:
    kept = [
        Planned(platform=one.platform, window=window, quote=quote)
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


def _windows(broker: Broker, asking: Asking, one: Willing, timeline: Timeline) -> list[Window]:
    config = one.platform.config
    now = int(asking.now)
    limit = config.offers_per_platform or broker.config.offers.per_platform
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
    else:
        found = windows(
            asking.request.demand,
            timeline,
            now=now,
            limit=limit,
            limits=one.limits,
            offer_lifetime=ceil(broker.config.offers.lifetime),
            lead=ceil(config.lead),
            longest=int(config.longest) if config.longest is not None else None,
        )
    return [window for window in found if _expiry(broker, one.platform, window, now) > now]


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
    demand, config = asking.request.demand, one.platform.config
    return why_never(demand, timeline, limits=one.limits) or [
        why_not(
            demand,
            timeline,
            now=int(asking.now),
            limits=one.limits,
            offer_lifetime=ceil(broker.config.offers.lifetime),
            lead=ceil(config.lead),
        )
    ]


# --- booked ----------------------------------------------------------------------------------------------------------


def _book(
    broker: Broker,
    asking: Asking,
    willing: Sequence[Willing],
    planned: Sequence[Planned],
    messages: tuple[Message, ...],
    *,
    direct: bool,
) -> Offered | None:
    """Book what was planned; None: others were faster, and a plugin has to plan anew."""
    made = _offered(broker, asking, planned, messages)
    by_name = {one.platform.name: one for one in willing}
    known = {name: one.known for name, one in by_name.items()}
    ours = {item.platform.name for item in planned}

    def still_fit(name: str, changes: Changes) -> bool:
        if not changes.present:
            return True  # what others gave back is in nobody's way
        timeline = known[name].timeline.with_bookings(changes.present, changes.gone)
        return fits(timeline, [item.window for item in planned if item.platform.name == name])

    def replan(changes: Mapping[str, Changes]) -> tuple[OfferSetRecord, Sequence[NewOffer]]:
        nonlocal made
        now_known = [
            replace(
                by_name[name],
                known=replace(
                    known[name],
                    timeline=known[name].timeline.with_bookings(changed.present, changed.gone),
                ),
            )
            for name, changed in changes.items()
        ]
        again, reasons = _plan_locked(broker, asking, now_known, direct=direct)
        made = _offered(broker, asking, again, (*messages, *reasons))
        return made.record, made.offers

    pure = not any(
        by_name[name].platform.implements(hook) for name in ours for hook in ("ebhpc_windows", "ebhpc_costs")
    )
    outcome = book_offers(
        broker.store,
        made.record,
        made.offers,
        {name: known[name].revision for name in ours},
        still_fit,
        now=asking.now,
        most_outstanding=None if direct else broker.config.api.max_outstanding_offers,
        accept_first=direct,
        replan=replan if pure else None,
    )
    match outcome:
        case Booked.DONE:
            return made
        case Booked.TOO_MANY:
            too_many = message(
                MessageKind.POLICY_REFUSED,
                "you have as many offers open as one user may have ({limit}): accept or reject some, or wait until"
                " they expire",
                limit=broker.config.api.max_outstanding_offers,
            )
            return refused(broker, asking.identity.uuid, (*messages, too_many), asking.now)
    return None


def _plan_locked(
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


def _offered(broker: Broker, asking: Asking, planned: Sequence[Planned], messages: tuple[Message, ...]) -> Offered:
    """Make the records to book."""
    now = int(asking.now)
    offers = []
    for item in planned:
        session = session_draft(
            asking.request,
            item.window,
            item.quote,
            now=now,
            lead=ceil(item.platform.config.lead),
            new_uuid=broker.new_uuid,
        )
        offers.append(_new_offer(broker, item, session, now))
    record = _record(broker, asking.identity.uuid, messages, offers, asking.now)
    return Offered(record=record, offers=tuple(offers), messages=messages)


def _new_offer(broker: Broker, item: Planned, session: ScheduledSession, now: int) -> NewOffer:
    window = item.window
    assert session.meta is not None
    assert session.meta.uuid is not None
    return NewOffer(
        uuid=session.meta.uuid,
        platform=item.platform.name,
        expires=_expiry(broker, item.platform, window, now),
        start=window.start,
        latest=window.latest,
        finish=window.end,
        duration=window.duration,
        firm=window.firm,
        allocations=window.allocations,
        licences=window.licences,
        document=broker.kinds.to_json(session),
    )


def _expiry(broker: Broker, platform: Platform, window: Window, now: int) -> int:
    """Return when an offer ends: in time for the platform to prepare the latest start."""
    return min(now + ceil(broker.config.offers.lifetime), window.latest - ceil(platform.config.lead))


def _record(
    broker: Broker, owner: str, messages: Sequence[Message], offers: Sequence[NewOffer], now: float
) -> OfferSetRecord:
    uuid = broker.new_uuid()
    document = OfferSet(
        meta=Metadata(uuid=uuid, created=utc(round(now, 3)), messages=list(messages) or None),
        result="YES" if offers else "NO",
    )
    return OfferSetRecord(
        uuid=uuid,
        owner=owner,
        created=now,
        expires=max((offer.expires for offer in offers), default=int(now)),
        document=broker.kinds.to_json(document),
    )


def _crowded() -> Message:
    return message(MessageKind.NO_WINDOW, "others booked what was free while it was planned: ask again in a moment")
