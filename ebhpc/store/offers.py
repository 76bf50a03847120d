"""Offer sets: booked whole or not at all, accepted one, expired."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from enum import StrEnum
from itertools import chain, repeat

from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import Connection, bindparam, func, select, update

from ebhpc.model import Allocation, Message, Phase
from ebhpc.planning import Booking
from ebhpc.planning.queue import Outlook
from ebhpc.store.audit import AuditEntry, add_audit
from ebhpc.store.engine import Store
from ebhpc.store.inserting import insert_numbered, insert_rows
from ebhpc.store.ledger import (
    Changes,
    changes_since,
    expire_due,
    free,
    lock_platform,
    locked,
    moves,
    record_moves,
    settle,
    to_release,
)
from ebhpc.store.records import Approval, OfferSetRecord, SessionRecord, Wants, json_text
from ebhpc.store.sessions import get_session, select_sessions
from ebhpc.store.tables import bookings, events, offersets, sessions
from ebhpc.store.waking import wake


class NewOffer(Struct, frozen=True, kw_only=True):
    """An offer to be booked; ``document`` is the fixed part of the session as wire JSON.

    Where it is not ``firm`` nothing is booked; ``promised`` is what was said of its start.
    """

    uuid: str
    platform: str
    expires: int
    start: int
    latest: int
    finish: int
    duration: int
    firm: bool
    allocations: tuple[Allocation, ...]
    wants: Wants = Wants()
    promised: Outlook | None = None
    approval: Approval | None = None
    document: bytes
    messages: tuple[Message, ...] = ()
    booked_from: int | None = None
    """when its booking begins, where another session's still has the time before; None: at its start"""
    holding: bool = False
    """its platform is asked to reserve it before it is accepted"""


_NOTHING = Wants()


class Booked(StrEnum):
    """What became of an attempt to book an offer set."""

    DONE = "done"
    CONFLICT = "conflict"
    TOO_MANY = "too many outstanding offers"


_OUTSTANDING = (
    select(func.count())
    .select_from(sessions)
    .where(
        sessions.c.owner == bindparam("owner"),
        sessions.c.phase == Phase.OFFERED,
        sessions.c.expires > bindparam("now"),
    )
)

Replan = Callable[[Mapping[str, Changes]], tuple[OfferSetRecord, Sequence[NewOffer]]]
"""Plans an offer set again with what changed on each platform since."""


def book_offers(
    store: Store,
    offerset: OfferSetRecord,
    offers: Sequence[NewOffer],
    known: Mapping[str, int],
    still_fit: Callable[[str, Changes], bool],
    *,
    now: float,
    most_outstanding: int | None = None,
    accept_first: bool = False,
    replan: Replan | None = None,
    check: Callable[[Connection, NewOffer], None] | None = None,
    audit: AuditEntry | None = None,
    allowed: Callable[[Connection, Sequence[NewOffer]], bool] | None = None,
) -> Booked:
    """Book all offers of a set in one transaction, or none.

    ``known`` has for each platform of the offers the revision that they were planned with. Under the platform's lock,
    after its due offers were expired, ``still_fit(platform, changes)`` is asked with what happened since. Where it
    says False for one platform, ``replan`` is asked, still under the locks and with the changes of all these platforms,
    for the offer set and the offers to book instead, on these platforms and no others; without ``replan`` everything is
    undone (CONFLICT), and the caller plans anew. The changes are committed only with DONE, so the caller must not keep
    them otherwise. ``most_outstanding`` bounds the owner's offers, these included. ``accept_first`` accepts the first
    offer, if there is one, and rejects the others at once; ``check`` and ``audit`` then as for ``accept``.
    ``allowed`` is asked last, under the locks, whether the site still lets the offers be made: False is CONFLICT.
    """
    with store.write("book_offers", offerset.uuid, durable=accept_first) as tx:
        revisions, changes = _lock_all(tx, offers, known, now)
        if not all(still_fit(platform, changes[platform]) for platform in changes):
            if replan is None:
                tx.rollback()
                return Booked.CONFLICT
            offerset, offers = replan(changes)
        if allowed is not None and not allowed(tx, offers):
            tx.rollback()
            return Booked.CONFLICT
        if offers and most_outstanding is not None:
            open_after = _outstanding(tx, offerset.owner, now) + len(offers)
            if open_after > most_outstanding:
                tx.rollback()
                return Booked.TOO_MANY
        _insert(tx, [_rows(offerset, offers, now)], revisions)
        if accept_first and offers:
            if check is not None:
                check(tx, offers[0])
            if audit is not None:
                add_audit(tx, [replace(audit, object=offers[0].uuid)])
            _accept(tx, offers[0].uuid, [offer.uuid for offer in offers[1:]], revisions, offers, now)
    if accept_first and offers:
        wake(store)
    return Booked.DONE


class Seen(Struct, frozen=True, kw_only=True):
    """What a plan was made with: the version of a platform's snapshot, and the revision of its bookings.

    ``expire``: offers that are due expire before anything is booked.
    """

    version: int
    revision: int
    expire: bool = True


class Together(Struct, frozen=True, kw_only=True):
    """What became of sets that were booked together: of each, and with each platform's bookings.

    ``changes`` are what others did since the plan was made, ``added`` what was booked now; both are in the database.
    """

    outcomes: tuple[Booked, ...]
    changes: dict[str, Changes]
    added: dict[str, tuple[Booking, ...]]


OfferSets = Sequence[tuple[OfferSetRecord, Sequence[NewOffer]]]


def book_together(
    store: Store,
    sets: OfferSets,
    seen: Mapping[str, Seen],
    still_fit: Callable[[str, Changes], bool],
    replan: Callable[[Mapping[str, Changes]], OfferSets],
    *,
    now: float,
    most_outstanding: int | Mapping[str, int],
) -> Together | None:
    """Book the offers of several sets in one transaction, each set whole or not at all.

    As ``book_offers`` for each of them, but that ``still_fit`` is asked for all sets at once, and ``replan`` for all
    of them, as many and in the same order. ``most_outstanding`` is of every owner, or of each. A set that would be
    TOO_MANY for its owner is left out alone. None: a platform has a newer snapshot, or answers no more; nothing was
    booked, and the caller plans anew.
    """
    outcomes: list[Booked] = []
    kept: list[_Rows] = []
    # Before the lock is taken: others wait for it
    rows = [_rows(record, offers, now) for record, offers in sets]
    with store.write("book_together", sets[0][0].uuid, durable=False) as tx:
        platforms = {offer.platform for _, offers in sets for offer in offers}
        holds = {name: locked(tx, name) for name in sorted(platforms)}
        if any(not hold.answers or hold.version != seen[name].version for name, hold in holds.items()):
            tx.rollback()
            return None
        revisions = {name: hold.revision for name, hold in holds.items()}
        known = {name: seen[name].revision for name in holds}
        changes = _changes(tx, revisions, known, now, {name for name in holds if seen[name].expire})
        if not all(still_fit(name, changed) for name, changed in changes.items()):
            sets = replan(changes)
            rows = [_rows(record, offers, now) for record, offers in sets]
        outstanding: dict[str, int] = {}
        for (record, offers), those in zip(sets, rows, strict=True):
            if offers:
                if record.owner not in outstanding:
                    outstanding[record.owner] = _outstanding(tx, record.owner, now)
                most = most_outstanding if isinstance(most_outstanding, int) else most_outstanding[record.owner]
                if outstanding[record.owner] + len(offers) > most:
                    outcomes.append(Booked.TOO_MANY)
                    continue
                outstanding[record.owner] += len(offers)
            outcomes.append(Booked.DONE)
            kept.append(those)
        added = _insert(tx, kept, revisions)
    return Together(outcomes=tuple(outcomes), changes=changes, added=added)


def _lock_all(
    tx: Connection, offers: Sequence[NewOffer], known: Mapping[str, int], now: float
) -> tuple[dict[str, int], dict[str, Changes]]:
    """Lock the platforms of the offers and expire what is due there; return their revisions, and what changed."""
    revisions = {platform: lock_platform(tx, platform) for platform in sorted({offer.platform for offer in offers})}
    return revisions, _changes(tx, revisions, known, now, revisions)


def _changes(
    tx: Connection, revisions: Mapping[str, int], known: Mapping[str, int], now: float, expire: Collection[str]
) -> dict[str, Changes]:
    """Expire what is due on locked platforms; return what changed on each since the revision that was known."""
    changes = {}
    for platform, revision in revisions.items():
        expired = expire_due(tx, platform, revision, now) if platform in expire else 0
        if not expired and known[platform] == revision - 1:
            changes[platform] = Changes(revision=revision, present=(), gone=())
        else:
            changes[platform] = changes_since(tx, platform, known[platform], now=revision)
    return changes


def _outstanding(tx: Connection, owner: str, now: float) -> int:
    """How many offers an owner has open."""
    return int(tx.execute(_OUTSTANDING, {"owner": owner, "now": now}).scalar_one())


class _Rows(Struct, frozen=True):
    """An offer set and its offers as rows, but for the bookings: their revision is known under the lock."""

    offers: Sequence[NewOffer]
    offerset: dict[str, object]
    sessions: list[dict[str, object]]
    moves: list[dict[str, object]]


def _rows(record: OfferSetRecord, offers: Sequence[NewOffer], now: float) -> _Rows:
    return _Rows(
        offers,
        {
            "uuid": record.uuid,
            "owner": record.owner,
            "created": record.created,
            "expires": record.expires,
            "document": record.document.decode(),
        },
        [
            {
                "uuid": offer.uuid,
                "offerset": record.uuid,
                "position": position,
                "owner": record.owner,
                "platform": offer.platform,
                "phase": Phase.OFFERED.value,
                "created": record.created,
                "modified": record.created,
                "expires": offer.expires,
                "start": offer.start,
                "latest": offer.latest,
                "finish": offer.finish,
                "duration": offer.duration,
                "firm": offer.firm,
                "allocations": json_text(offer.allocations),
                "document": offer.document.decode(),
                "messages": json_text(offer.messages),
                "unfinished": False,
                "submitting": offer.holding,
                "attempt": 0,
                "due": record.created,
                "promised": json_text(offer.promised) if offer.promised is not None else None,
                "wants": json_text(offer.wants) if offer.wants != _NOTHING else None,
                "approval": json_text(offer.approval) if offer.approval is not None else None,
            }
            for position, offer in enumerate(offers)
        ],
        moves([offer.uuid for offer in offers], Phase.INITIAL, Phase.OFFERED, "offered", now),
    )


def _insert(tx: Connection, sets: Sequence[_Rows], revisions: Mapping[str, int]) -> dict[str, tuple[Booking, ...]]:
    """Insert offer sets and their offers; return the bookings of each platform."""
    insert_rows(tx, offersets, [one.offerset for one in sets])
    insert_rows(tx, sessions, [row for one in sets for row in one.sessions])
    insert_rows(tx, events, [row for one in sets for row in one.moves])
    return _book(tx, [offer for one in sets for offer in one.offers], revisions)


def _book(tx: Connection, offers: Sequence[NewOffer], revisions: Mapping[str, int]) -> dict[str, tuple[Booking, ...]]:
    """Book what is offered; return the bookings of each platform."""
    shares = [
        (offer, allocation, offer.wants.licences if first else {})
        for offer in offers
        if offer.firm
        for first, allocation in zip(chain([True], repeat(False)), offer.allocations, strict=False)
    ]
    ids = insert_numbered(
        tx,
        bookings,
        [
            {
                "session": offer.uuid,
                "platform": offer.platform,
                "node": share.node,
                "start": offer.start if offer.booked_from is None else offer.booked_from,
                "finish": offer.finish,
                "cores": share.cores,
                "memory": share.memory,
                "devices": json_text(share.devices) if share.devices else "{}",
                "licences": json_text(licences) if licences else "{}",
                "expires": offer.expires,
                "changed": revisions[offer.platform],
                "freed": None,
            }
            for offer, share, licences in shares
        ],
    )
    booked: dict[str, list[Booking]] = {}
    for number, (offer, share, licences) in zip(ids, shares, strict=True):
        booked.setdefault(offer.platform, []).append(
            Booking(
                id=number,
                session=offer.uuid,
                node=share.node,
                start=offer.start if offer.booked_from is None else offer.booked_from,
                end=offer.finish,
                cores=share.cores,
                memory=share.memory,
                devices=share.devices,
                licences=licences,
                expires=offer.expires,
            )
        )
    return {platform: tuple(those) for platform, those in booked.items()}


def _accept(
    tx: Connection,
    uuid: str,
    siblings: list[str],
    revisions: Mapping[str, int],
    platforms_of: Sequence[NewOffer] | Sequence[SessionRecord],
    now: float,
) -> None:
    platform = {one.uuid: one.platform for one in platforms_of}
    tx.execute(
        update(sessions)
        .where(sessions.c.uuid == uuid)
        .values(
            phase=Phase.ACCEPTED,
            modified=now,
            expires=None,
            unfinished=True,
            attempt=0,
            due=now,
        )
    )
    settle(tx, uuid, revisions[platform[uuid]])
    record_moves(tx, [uuid], Phase.OFFERED, Phase.ACCEPTED, "accepted", now)
    _reject(tx, siblings, platform, revisions, f"offer {uuid} of the same set was accepted", now)


def _reject(
    tx: Connection,
    uuids: list[str],
    platform: Mapping[str, str],
    revisions: Mapping[str, int],
    cause: str,
    now: float,
) -> None:
    if not uuids:
        return
    tx.execute(
        update(sessions).where(sessions.c.uuid.in_(uuids)).values(phase=Phase.REJECTED, modified=now, **to_release(now))
    )
    for name, revision in revisions.items():
        free(tx, [uuid for uuid in uuids if platform[uuid] == name], revision, now)
    record_moves(tx, uuids, Phase.OFFERED, Phase.REJECTED, cause, now)


class Answer(Struct, frozen=True, kw_only=True):
    """What became of an update: the session as it is now, and whether the update holds."""

    session: SessionRecord
    done: bool


def accept(
    store: Store,
    uuid: str,
    *,
    now: float,
    check: Callable[[Connection, SessionRecord], None] | None = None,
    audit: AuditEntry | None = None,
) -> Answer | None:
    """Accept an offer; its siblings are rejected and their bookings freed in the same transaction.

    An offer that is due expires here instead. Done too where it was accepted before and has not been ended.
    None: no such session. ``check`` is asked in the transaction, and undoes it by what it raises; ``audit`` is written
    where something was changed.
    """
    answer = _decide(store, uuid, Phase.ACCEPTED, now, check, audit)
    if answer is not None and answer.done:
        wake(store)
    return answer


def reject(store: Store, uuid: str, *, now: float, audit: AuditEntry | None = None) -> Answer | None:
    """Reject one offer and free its booking. Done too where it was rejected before. None: no such session."""
    return _decide(store, uuid, Phase.REJECTED, now, None, audit)


def _decide(
    store: Store,
    uuid: str,
    wish: Phase,
    now: float,
    check: Callable[[Connection, SessionRecord], None] | None,
    audit: AuditEntry | None,
) -> Answer | None:
    with store.write("accept" if wish is Phase.ACCEPTED else "reject", uuid) as tx:
        siblings_of = select(sessions.c.offerset).where(sessions.c.uuid == uuid).scalar_subquery()
        found = tx.execute(select(sessions.c.offerset, sessions.c.platform).where(sessions.c.offerset == siblings_of))
        places = found.all()
        if not places:
            return None
        revisions = {}
        for platform in sorted({row.platform for row in places}):
            revisions[platform] = lock_platform(tx, platform)
            expire_due(tx, platform, revisions[platform], now)
        family = select_sessions(tx, sessions.c.offerset == places[0].offerset)
        session = next(member for member in family if member.uuid == uuid)
        if session.phase is not Phase.OFFERED:
            settled = session.phase is Phase.REJECTED if wish is Phase.REJECTED else _was_accepted(session)
            return Answer(session=session, done=settled)
        if audit is not None:
            add_audit(tx, [audit])
        if wish is Phase.ACCEPTED:
            if check is not None:
                check(tx, session)
            siblings = [member.uuid for member in family if member.phase is Phase.OFFERED and member.uuid != uuid]
            _accept(tx, uuid, siblings, revisions, family, now)
        else:
            platform_of = {uuid: session.platform}
            _reject(tx, [uuid], platform_of, revisions, "rejected", now)
        changed = get_session(tx, uuid)
        assert changed is not None
    return Answer(session=changed, done=True)


def _was_accepted(session: SessionRecord) -> bool:
    """Whether accepting again may answer "it is": so in every phase that acceptance led to, but for CANCELLED."""
    return session.phase not in (Phase.REJECTED, Phase.EXPIRED, Phase.CANCELLED)


def expire_offers(store: Store, platform: str, *, now: float) -> int:
    """Turn the offers of a platform that are due into EXPIRED; return how many."""
    with store.read() as tx:
        due = tx.execute(
            select(sessions.c.uuid)
            .where(
                sessions.c.platform == platform,
                sessions.c.phase == Phase.OFFERED,
                sessions.c.expires <= now,
            )
            .limit(1)
        ).first()
    if due is None:
        return 0
    with store.write("expire", platform, durable=False) as tx:
        revision = lock_platform(tx, platform)
        return expire_due(tx, platform, revision, now)


def get_offerset(tx: Connection, uuid: str) -> tuple[OfferSetRecord, list[SessionRecord]] | None:
    """An offer set and its sessions in the order in which they were offered."""
    row = tx.execute(select(offersets).where(offersets.c.uuid == uuid)).one_or_none()
    if row is None:
        return None
    record = OfferSetRecord(
        uuid=row.uuid,
        owner=row.owner,
        created=row.created,
        expires=row.expires,
        document=row.document.encode(),
    )
    members = select_sessions(tx, sessions.c.offerset == uuid)
    return record, sorted(members, key=lambda member: member.position)


def moves_of(tx: Connection, uuid: str) -> list[tuple[float, Phase, Phase, str]]:
    """The phase moves of a session, oldest first: time, from, to, cause."""
    rows = tx.execute(
        select(events.c.time, events.c.previous, events.c.phase, events.c.cause)
        .where(events.c.session == uuid)
        .order_by(events.c.id)
    )
    return [(row.time, Phase(row.previous), Phase(row.phase), row.cause) for row in rows]


def moves_of_sessions(tx: Connection, uuids: Sequence[str]) -> dict[str, dict[Phase, float]]:
    """When each of some sessions came into each of its phases."""
    moves: dict[str, dict[Phase, float]] = {}
    if uuids:
        rows = tx.execute(select(events.c.session, events.c.phase, events.c.time).where(events.c.session.in_(uuids)))
        for row in rows:
            moves.setdefault(row.session, {})[Phase(row.phase)] = row.time
    return moves
