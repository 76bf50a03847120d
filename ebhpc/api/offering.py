"""From a request to booked offers.

Each platform is asked on its own threads whether it can run the request and what the site's rules are; those that can
are planned on the timelines in memory; what was planned is booked in one transaction, which looks again at what other
workers have booked meanwhile and, where that is in the way, plans anew under the lock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from math import ceil

from msgspec import Struct
from msgspec.structs import replace

from ebhpc.api.broker import Broker
from ebhpc.api.consulting import Asking, Willing, willing_platforms
from ebhpc.api.drafting import session_draft
from ebhpc.api.placing import Planned, expiry, plan, plan_anew
from ebhpc.api.timelines import Known
from ebhpc.model import Message, MessageKind, Metadata, OfferSet, ScheduledSession, Window, message
from ebhpc.model.times import utc
from ebhpc.planning import fits
from ebhpc.plugins import Platform
from ebhpc.store import Booked, Changes, NewOffer, OfferSetRecord, book_offers, book_together

MOST_TRIES = 20
"""How often an offer set is planned again because others booked meanwhile, where a plugin plans or quotes."""


class Offered(Struct, frozen=True, kw_only=True):
    """An offer set as booked: its record, its offers with their documents, and all its messages."""

    record: OfferSetRecord
    offers: tuple[NewOffer, ...]
    messages: tuple[Message, ...]


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
        willing, messages = willing_platforms(broker, asking)
        messages = (*asking.warnings, *messages)
        pure = all(_is_pure(one.platform) for one in willing)
        if willing and pure and not direct:
            offered = _book_with_others(broker, _Entry(asking=asking, willing=willing, messages=messages))
            if offered is not None:
                return offered
        with broker.planning if pure else nullcontext():
            planned, reasons = plan(broker, asking, willing, direct=direct)
            messages = (*messages, *reasons)
            if not planned:
                break
            offered = _book(broker, asking, willing, planned, messages, direct=direct)
        if offered is None:
            continue
        return offered
    else:
        messages = (*messages, _crowded())
    return refused(broker, owner, messages, now, stored=not direct)


# --- together with other requests of this worker ---------------------------------------------------------------------


class _Entry(Struct, kw_only=True):
    """A request that waits to be booked, and what came of it; neither ``offered`` nor ``failure``: book it alone."""

    asking: Asking
    willing: Sequence[Willing]
    messages: tuple[Message, ...]
    settled: bool = False
    offered: Offered | None = None
    too_many: bool = False
    failure: Exception | None = None


def _book_with_others(broker: Broker, mine: _Entry) -> Offered | None:
    """Book a request in one transaction with all those that wait in this worker; None: that could not be done.

    A transaction costs more than planning, so under load it is shared: the first thread to get ``broker.planning``
    serves all that queued for it ("flat combining": D. Hendler and others, SPAA 2010).
    """
    broker.waiting.append(mine)
    with broker.planning:
        if not mine.settled:
            batch = [broker.waiting.popleft() for _ in range(len(broker.waiting))]
            try:
                _serve(broker, batch)
            finally:
                for entry in batch:
                    entry.settled = True
    if mine.failure is not None:
        raise mine.failure
    if mine.too_many:
        return refused(broker, mine.asking.identity.uuid, (*mine.messages, _too_many(broker)), mine.asking.now)
    return mine.offered


def _serve(broker: Broker, batch: Sequence[_Entry]) -> None:
    """Plan the entries one after another, each seeing those before it, and book them."""
    now = max(entry.asking.now for entry in batch)
    known = {name: one for name, one in broker.timelines.current(now).items() if isinstance(one, Known)}
    timelines = {name: one.timeline for name, one in known.items()}
    made: list[tuple[_Entry, Offered]] = []
    windows: dict[str, list[Window]] = {name: [] for name in known}
    for entry in batch:
        if any(one.platform.name not in known for one in entry.willing):
            continue  # a platform has become unavailable since: by itself it finds out why
        current = [
            replace(one, known=replace(known[one.platform.name], timeline=timelines[one.platform.name]))
            for one in entry.willing
        ]
        try:
            planned, reasons = plan(broker, entry.asking, current, direct=False)
            offered = _offered(broker, entry.asking, planned, (*entry.messages, *reasons))
        except Exception as failure:  # noqa: BLE001  # it is raised in the thread whose request it is
            entry.failure = failure
            continue
        made.append((entry, offered))
        for item in planned:
            name = item.platform.name
            windows[name].append(item.window)
            timelines[name] = timelines[name].with_windows([item.window])

    def still_fit(name: str, changes: Changes) -> bool:
        timeline = known[name].timeline.with_bookings(changes.present, changes.gone)
        return fits(timeline, windows[name])

    if not made:
        return
    outcomes = book_together(
        broker.store,
        [(offered.record, offered.offers) for _, offered in made],
        {name: one.revision for name, one in known.items()},
        still_fit,
        now=now,
        most_outstanding=broker.config.api.max_outstanding_offers,
    )
    for (entry, offered), outcome in zip(made, outcomes or (), strict=outcomes is not None):
        if outcome is Booked.DONE:
            entry.offered = offered
        else:
            entry.too_many = True


# --- alone -----------------------------------------------------------------------------------------------------------


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
        again, reasons = plan_anew(broker, asking, now_known, direct=direct)
        made = _offered(broker, asking, again, (*messages, *reasons))
        return made.record, made.offers

    pure = all(_is_pure(by_name[name].platform) for name in ours)
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
            return refused(broker, asking.identity.uuid, (*messages, _too_many(broker)), asking.now)
    return None


def _too_many(broker: Broker) -> Message:
    return message(
        MessageKind.POLICY_REFUSED,
        "you have as many offers open as one user may have ({limit}): accept or reject some, or wait until they expire",
        limit=broker.config.api.max_outstanding_offers,
    )


def _is_pure(platform: Platform) -> bool:
    """Whether planning and quoting for a platform is computing alone, and calls no plugin that could hang."""
    return not platform.implements("ebhpc_windows") and not platform.implements("ebhpc_costs")


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
        expires=expiry(broker, item.platform, window, now),
        start=window.start,
        latest=window.latest,
        finish=window.end,
        duration=window.duration,
        firm=window.firm,
        allocations=window.allocations,
        licences=window.licences,
        document=broker.kinds.to_json(session),
    )


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
