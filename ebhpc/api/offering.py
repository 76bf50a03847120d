"""From a request to booked offers.

Each platform is asked on its own threads whether it can run the request and what the site's rules are; those that can
are planned on the timelines in memory; what was planned is booked in one transaction, which looks again at what other
workers have booked meanwhile and, where that is in the way, plans anew under the lock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from math import ceil

from msgspec import Struct
from msgspec.structs import replace

from ebhpc import tracing
from ebhpc.api.broker import Broker
from ebhpc.api.consulting import Asking, Willing, willing_platforms
from ebhpc.api.drafting import session_draft
from ebhpc.api.extending import EXTENSION, booked_from, held_before_shown
from ebhpc.api.firm_time import still_allowed
from ebhpc.api.placing import Planned, computes_alone, expiry, plan, plan_anew
from ebhpc.api.reserving import reserved_wants
from ebhpc.api.timelines import Known
from ebhpc.model import Message, MessageKind, Metadata, OfferSet, ScheduledSession, Window, message
from ebhpc.model.times import utc
from ebhpc.planning import fits
from ebhpc.planning.queue import outlook_of
from ebhpc.plugins import PlatformUnavailable
from ebhpc.store import (
    Booked,
    Changes,
    NewOffer,
    OfferSetRecord,
    OfferSets,
    Seen,
    Wants,
    book_offers,
    book_together,
)

_LOOKS = 3
"""How often requests are booked together with what was known, where new snapshots come meanwhile."""

MOST_TRIES = 20
"""How often an offer set is planned again because others booked meanwhile, where a plugin plans or quotes."""


class Offered(Struct, frozen=True, kw_only=True):
    """An offer set as booked: its record, its offers and the documents they were drafted as, and all its messages."""

    record: OfferSetRecord
    offers: tuple[NewOffer, ...]
    drafts: tuple[ScheduledSession, ...] = ()
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
    for attempt in range(MOST_TRIES):
        willing, messages = willing_platforms(broker, asking, again=attempt > 0)
        messages = (*asking.warnings, *messages)
        pure = all(computes_alone(one.platform) for one in willing)
        if willing and pure and not direct:
            with tracing.span("booking"):
                offered = _book_with_others(broker, _Entry(asking=asking, willing=willing, messages=messages))
            if offered is not None:
                return offered
        with broker.planning if pure else nullcontext():
            planned, reasons = plan(broker, asking, willing, direct=direct)
            messages = (*messages, *reasons)
            if not planned:
                break
            with tracing.span("booking"):
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
    offered: Offered | None = None
    too_many: bool = False
    failure: Exception | None = None


def _book_with_others(broker: Broker, mine: _Entry) -> Offered | None:
    """Book a request in one transaction with all those that wait in this worker; None: that could not be done.

    A transaction costs more than planning, so under load it is shared.
    """
    if broker.together.leads(mine):
        try:
            with broker.planning:
                _serve(broker)
        finally:
            broker.together.leave()
    if mine.failure is not None:
        raise mine.failure
    if mine.too_many:
        return refused(
            broker, mine.asking.identity.uuid, (*mine.messages, _too_many(broker, mine.asking)), mine.asking.now
        )
    return mine.offered


def _serve(broker: Broker) -> None:
    """Take all that wait, plan them one after another, each seeing those before it, and book them.

    An entry that cannot be booked so is left as it was: by itself it finds out why.
    """
    batch: list[_Entry] = broker.together.take()
    now = max(entry.asking.now for entry in batch)
    plans = _Plans(broker, broker.timelines.newest(now))
    plans.add(batch)

    def more() -> bool:
        come = broker.together.take()
        batch.extend(come)
        plans.add(come)
        return bool(come)

    # While another worker books, more come here, and those are all served then: fewer transactions, less to look at
    # again. Planning is quick where it is done together (``computes_alone``); a second look is not done in our turn.
    with broker.store.turn(meanwhile=more):
        more()
        if _booked(broker, plans, now):
            return
    for _ in range(_LOOKS - 1):
        plans = _Plans(broker, broker.timelines.current(now))
        plans.add(batch)
        if _booked(broker, plans, now):
            return


class _Plans:
    """Offer sets for requests on what is known of the platforms: each sees the windows of those before it.

    ``made`` are the offer sets, ``windows`` what they take of each platform. A request one of whose platforms does not
    answer has none. ``locked``: under the platforms' locks, by nothing but computing. Otherwise an entry whose planning
    fails has its ``failure``, and no offer set.
    """

    def __init__(
        self, broker: Broker, known: Mapping[str, Known | PlatformUnavailable], *, locked: bool = False
    ) -> None:
        self.known = known
        self.made: list[tuple[_Entry, Offered]] = []
        self.windows: dict[str, list[Window]] = {}
        self._broker = broker
        self._plan = plan_anew if locked else plan
        self._locked = locked
        self._left = {name: one for name, one in known.items() if isinstance(one, Known)}
        self._untaken: dict[str, list[Window]] = {}

    def add(self, batch: Iterable[_Entry]) -> None:
        """Plan some more."""
        for entry in batch:
            if self._locked or all(isinstance(self.known[one.platform.name], Known) for one in entry.willing):
                self._add(entry)

    def _add(self, entry: _Entry) -> None:
        willing = [self._with_what_is_left(one) for one in entry.willing if one.platform.name in self._left]
        entry.failure = None
        try:
            planned, reasons = self._plan(self._broker, entry.asking, willing, direct=False)
            offered = _offered(self._broker, entry.asking, planned, (*entry.messages, *reasons))
        except Exception as failure:
            if self._locked:
                raise
            entry.failure = failure  # it is raised in the thread whose request it is
            return
        self.made.append((entry, offered))
        for item in planned:
            if item.taken.firm:
                self.windows.setdefault(item.platform.name, []).append(item.taken)
                self._untaken.setdefault(item.platform.name, []).append(item.taken)

    def _with_what_is_left(self, one: Willing) -> Willing:
        name = one.platform.name
        if taken := self._untaken.pop(name, None):
            known = self._left[name]
            self._left[name] = replace(known, timeline=known.timeline.with_windows(taken))
        return replace(one, known=self._left[name])


def _booked(broker: Broker, plans: _Plans, now: float) -> bool:
    """Book what is planned; False: there are newer snapshots by now."""
    if any(not offered.offers for _, offered in plans.made):
        # Nobody is told NO from what may have changed since
        fresh = broker.timelines.current(now)
        if any(fresh[name] is not one for name, one in plans.known.items()):
            batch = [entry for entry, _ in plans.made]
            plans = _Plans(broker, fresh)
            plans.add(batch)
    if not plans.made:
        return True

    made, known, windows = plans.made, plans.known, plans.windows
    with_changes: dict[str, Known] = {}

    def updated(name: str, changes: Changes) -> Known:
        if name not in with_changes:
            one = known[name]
            assert isinstance(one, Known)
            with_changes[name] = one.changed(changes, now)
        return with_changes[name]

    def still_fit(name: str, changes: Changes) -> bool:
        return not changes.present or fits(updated(name, changes).timeline, windows.get(name, ()))

    def replan(changes: Mapping[str, Changes]) -> OfferSets:
        nonlocal made
        anew = _Plans(broker, {name: updated(name, changed) for name, changed in changes.items()}, locked=True)
        anew.add(entry for entry, _ in made)
        made = anew.made
        return [(offered.record, offered.offers) for _, offered in made]

    booked = book_together(
        broker.store,
        [(offered.record, offered.offers) for _, offered in made],
        {
            name: Seen(version=one.newest, revision=one.revision, expire=broker.timelines.expires(name, now))
            for name, one in known.items()
            if isinstance(one, Known)
        },
        still_fit,
        replan,
        now=now,
        most_outstanding={
            entry.asking.identity.uuid: broker.rules.most_open(entry.asking.identity) for entry, _ in made
        },
    )
    if booked is None:
        return False
    for name, changes in booked.changes.items():
        one = updated(name, changes)
        broker.timelines.adopt(name, one.added(booked.added.get(name, ())))
    for (entry, offered), outcome in zip(made, booked.outcomes, strict=True):
        if outcome is Booked.DONE:
            entry.offered = offered
        else:
            entry.too_many = True
    return True


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
    latest = {name: one.timeline for name, one in known.items()}

    def still_fit(name: str, changes: Changes) -> bool:
        if not changes.present:
            return True  # what others gave back is in nobody's way
        latest[name] = timeline = known[name].timeline.with_bookings(changes.present, changes.gone)
        return fits(timeline, [item.taken for item in planned if item.platform.name == name and item.window.firm])

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

    pure = all(computes_alone(by_name[name].platform) for name in ours)
    outcome = book_offers(
        broker.store,
        made.record,
        made.offers,
        {name: known[name].revision for name in ours},
        still_fit,
        now=asking.now,
        most_outstanding=None if direct else broker.rules.most_open(asking.identity),
        accept_first=direct,
        replan=replan if pure else None,
        check=asking.check,
        audit=asking.audit,
        allowed=still_allowed(broker, asking, {name: by_name[name].platform.config for name in ours}, latest),
    )
    match outcome:
        case Booked.DONE:
            return made
        case Booked.TOO_MANY:
            return refused(broker, asking.identity.uuid, (*messages, _too_many(broker, asking)), asking.now)
    return None


def _too_many(broker: Broker, asking: Asking) -> Message:
    return message(
        MessageKind.POLICY_REFUSED,
        "you have as many offers open as one user may have ({limit}): accept or reject some, or wait until they expire",
        limit=broker.rules.most_open(asking.identity),
    )


def _offered(broker: Broker, asking: Asking, planned: Sequence[Planned], messages: tuple[Message, ...]) -> Offered:
    """Make the records to book."""
    now = int(asking.now)
    drafts = [
        session_draft(
            asking.request,
            item.window,
            item.quote,
            now=now,
            lead=ceil(item.platform.config.lead),
            new_uuid=broker.new_uuid,
        )
        for item in planned
    ]
    offers = [_new_offer(broker, asking, item, draft) for item, draft in zip(planned, drafts, strict=True)]
    record = _record(broker, asking.identity.uuid, messages, offers, asking.now)
    return Offered(record=record, offers=tuple(offers), drafts=tuple(drafts), messages=messages)


def _new_offer(broker: Broker, asking: Asking, item: Planned, session: ScheduledSession) -> NewOffer:
    window, demand, now = item.window, item.demand, int(asking.now)
    assert session.meta is not None
    assert session.meta.uuid is not None
    return NewOffer(
        uuid=session.meta.uuid,
        platform=item.platform.name,
        expires=expiry(broker, item.platform, window, now),
        start=window.start if window.firm else max(now, demand.earliest),
        latest=window.latest if window.firm else window.end - window.duration,
        finish=window.end,
        duration=window.duration,
        firm=window.firm,
        allocations=window.allocations,
        wants=reserved_wants(
            Wants(
                licences=window.licences or demand.licences,
                features=demand.features,
                partition=demand.partition,
                exclusive=demand.exclusive,
                sources=broker.rules.sources(asking.identity, item.platform.name),
            ),
            asking.request,
            item.platform.config,
            extends=asking.replaced if window.label == EXTENSION else None,
        ),
        promised=None if window.firm else outlook_of(window, now=now),
        approval=item.approval,
        messages=item.messages,
        document=broker.kinds.to_json(session),
        booked_from=None if asking.replaced is None else booked_from(asking, item.window),
        holding=held_before_shown(item.platform, item.window),
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
