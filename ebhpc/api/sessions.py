"""``/sessions`` and ``/sessions/{uuid}``: looking at sessions and changing them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from urllib.parse import urlencode
from uuid import UUID

import falcon
from msgspec import Struct
from sqlalchemy import Connection

from ebhpc.api.access import Access, Readable
from ebhpc.api.answers import SessionPage
from ebhpc.api.broker import Broker
from ebhpc.api.permission import check_may
from ebhpc.api.problems import Problem, malformed, not_found
from ebhpc.api.rendering import Moves, phase_options, session_document
from ebhpc.api.wire import answer, base_url, checked, read_body
from ebhpc.model import EnumUpdate, Identity, MessageKind, Phase, Update, message
from ebhpc.policy import LimitReached
from ebhpc.store import (
    Answer,
    NewOffer,
    OfferSetRecord,
    SessionRecord,
    accept,
    cancel,
    expire_offers,
    get_offerset,
    get_session,
    list_sessions,
    moves_of_sessions,
    reject,
)

_DEEDS = {Phase.ACCEPTED: "accept", Phase.REJECTED: "reject", Phase.CANCELLED: "cancel"}
_PHASES = frozenset(map(str, Phase))
LARGEST_PAGE = 200
_PAGE = 50

_MOVED = frozenset(Phase) - {Phase.INITIAL, Phase.OFFERED, Phase.REJECTED, Phase.EXPIRED, Phase.ACCEPTED}
"""Phases of sessions in whose life something has happened that their schedule should tell."""


class Sessions(Readable):
    """``/sessions``."""

    access = Access.ACCOUNTS

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """List the caller's own sessions, newest first, page by page; an administrator may ask for everybody's."""
        broker = self._broker
        wish = _listing(broker, req)
        with broker.store.read() as tx:
            page = list_sessions(
                tx,
                owner=None if wish.everybody else req.context.identity.uuid,
                phases=wish.phases,
                platform=wish.platform,
                after=wish.after,
                size=wish.limit,
            )
            moves = moves_of_sessions(tx, _moved(page.sessions))
        base = base_url(req, broker.config.api)
        document = SessionPage(
            sessions=[
                session_document(session, base, moves.get(session.uuid), now=broker.clock())
                for session in page.sessions
            ]
        )
        if page.following is not None:
            kept = [(name, value) for name, value in _parameters(req) if name != "after"]
            following = f"{base}/sessions?{urlencode([*kept, ('after', page.following)])}"
            document.next = following
            resp.append_link(following, "next")
        answer(req, resp, document)


class Session(Readable):
    """``/sessions/{uuid}``."""

    access = Access.READERS

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def on_get(self, req: falcon.Request, resp: falcon.Response, uuid: str) -> None:
        """Answer the session as it is now."""
        broker = self._broker
        session, moves = fresh_session(broker, uuid)
        check_may(broker, req, session.owner, f"the session {uuid}", "see", session.platform)
        answer(req, resp, session_document(session, base_url(req, broker.config.api), moves, now=broker.clock()))

    def on_post(self, req: falcon.Request, resp: falcon.Response, uuid: str) -> None:
        """Accept, reject or cancel it."""
        broker = self._broker
        changed, moves = updated(broker, req, uuid), None
        if changed.phase in _MOVED:
            changed, moves = fresh_session(broker, uuid)
        document = session_document(changed, base_url(req, broker.config.api), moves, now=broker.clock())
        answer(req, resp, document)


def updated(broker: Broker, req: falcon.Request, uuid: str) -> SessionRecord:
    """Accept, reject or cancel a session, as the body of a request says; return it as it is then.

    Raises:
        Problem: 400, 403, 404, 408, 409, 413 or 415.
    """
    session, _ = fresh_session(broker, uuid)
    check_may(broker, req, session.owner, f"the session {uuid}", "end", session.platform)
    wanted = wanted_phase(checked(broker.kinds.update(read_body(req, broker.config.api))))
    if wanted is None:
        raise _conflict(session, "that update")
    return moved(broker, session, wanted, by=req)


def wanted_phase(update: Update) -> Phase | None:
    """Return the phase that an update asks for; None: it asks for something that is never possible."""
    if isinstance(update, EnumUpdate) and update.path in ("phase", "/phase"):
        for phase in (Phase.ACCEPTED, Phase.REJECTED, Phase.CANCELLED):
            if update.value == phase:
                return phase
    return None


def moved(broker: Broker, session: SessionRecord, wanted: Phase, *, by: falcon.Request | None = None) -> SessionRecord:
    """Move a session to the phase that its owner wants; it may be there already. ``by``: for the audit trail.

    Return it as it is then.

    Raises:
        Problem: 409, that is not possible now; 403, the site's rules allow no more.
    """
    now = broker.clock()
    entry = broker.audit.entry(by, _DEEDS[wanted], "session", session.uuid)
    decided: Answer | None
    match wanted:
        case Phase.CANCELLED:
            own = entry.actor in (None, session.owner)
            cause = "cancelled by its owner" if own else f"cancelled by {entry.username}"
            after = cancel(broker.store, session.uuid, now=now, cause=cause, audit=entry)
            decided = Answer(session=after, done=after.phase is Phase.CANCELLED) if after else None
        case Phase.ACCEPTED:
            check = acceptance_check(broker, session.owner, by, now) if broker.rules.counts else None
            try:
                decided = accept(broker.store, session.uuid, now=now, check=check, audit=entry)
            except LimitReached as reached:
                broker.audit.note(by, "accept", "session", session.uuid, result="refused", detail=str(reached.why))
                raise Problem(403, str(reached), messages=[reached.why]) from None
        case _:
            decided = reject(broker.store, session.uuid, now=now, audit=entry)
    if decided is None:
        raise not_found(f"session {session.uuid}")
    if not decided.done:
        raise _conflict(decided.session, f"becoming {wanted}")
    broker.measures.decided(decided.session.platform, wanted)
    return decided.session


def acceptance_check(
    broker: Broker, owner: str, by: falcon.Request | None, now: float
) -> Callable[[Connection, SessionRecord | NewOffer], None]:
    """Return what counts, in the transaction that accepts, whether the site's rules leave its owner room."""
    asking: Identity | None = getattr(by.context, "identity", None) if by is not None else None
    who = asking if asking is not None and asking.uuid == owner else broker.accounts.recall(owner)

    def check(tx: Connection, one: SessionRecord | NewOffer) -> None:
        if who is not None:
            broker.rules.check_acceptance(tx, who, one.platform, one.allocations, one.duration, now)

    return check


def _conflict(session: SessionRecord, wanted: str) -> Problem:
    return Problem(
        409,
        "the session is {phase}: {wanted} is not possible now; its phase can be changed to: {options}",
        path="phase",
        phase=session.phase,
        wanted=wanted,
        options=", ".join(phase_options(session.phase)) or "nothing",
    )


# --- found -----------------------------------------------------------------------------------------------------------


def is_uuid(text: str) -> bool:
    """Whether a text is a UUID as we write it."""
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False


def fresh_session(broker: Broker, uuid: str) -> tuple[SessionRecord, Moves]:
    """Return a session as it is now, an offer that is due expired, and when it moved.

    Raises:
        Problem: 404.
    """
    if is_uuid(uuid):
        while True:
            with broker.store.read() as tx:
                session = get_session(tx, uuid)
                moves = moves_of_sessions(tx, _moved([session])) if session else {}
            if session is None:
                break
            if not _expired(broker, [session]):
                return session, moves.get(uuid, {})
    raise not_found(f"session {uuid}")


def fresh_family(broker: Broker, uuid: str) -> tuple[OfferSetRecord, list[tuple[SessionRecord, Moves]]] | None:
    """Return an offer set and its sessions as they are now, offers that are due expired; None: there is none."""
    while True:
        with broker.store.read() as tx:
            found = get_offerset(tx, uuid)
            moves = moves_of_sessions(tx, _moved(found[1])) if found else {}
        if found is None:
            return None
        if not _expired(broker, found[1]):
            break
    record, members = found
    return record, [(member, moves.get(member.uuid, {})) for member in members]


def _expired(broker: Broker, sessions: Sequence[SessionRecord]) -> bool:
    """Let offers that are due expire in the database; whether there were any."""
    now = broker.clock()
    due = {
        session.platform
        for session in sessions
        if session.phase is Phase.OFFERED and session.expires is not None and session.expires <= now
    }
    for platform in sorted(due):
        expire_offers(broker.store, platform, now=now)
    return bool(due)


def _moved(sessions: Sequence[SessionRecord]) -> list[str]:
    return [session.uuid for session in sessions if session.phase in _MOVED]


# --- listed ----------------------------------------------------------------------------------------------------------


def _parameters(req: falcon.Request) -> list[tuple[str, str]]:
    return [
        (name, value)
        for name, values in req.params.items()
        for value in (values if isinstance(values, list) else [values])
    ]


class _Listing(Struct):
    """What a listing shall hold."""

    limit: int = _PAGE
    phases: frozenset[Phase] = frozenset()
    platform: str | None = None
    after: str | None = None
    everybody: bool = False


def _listing(broker: Broker, req: falcon.Request) -> _Listing:
    """Read the query of a listing.

    Raises:
        Problem: 400, with a message for each parameter that cannot be used.
    """
    wish = _Listing()
    problems = []
    for name, value in _parameters(req):
        expected = None
        match name:
            case "limit" if value.isdecimal() and value.isascii() and 1 <= int(value[:9]) <= LARGEST_PAGE:
                wish.limit = int(value)
            case "limit":
                expected = f"a number from 1 to {LARGEST_PAGE}"
            case "phase" if value in _PHASES:
                wish.phases |= {Phase(value)}
            case "phase":
                expected = "one of " + ", ".join(Phase)
            case "platform" if value.isprintable():
                wish.platform = value
            case "platform":
                expected = "a platform's name"
            case "after" if is_uuid(value):
                wish.after = value
            case "after":
                expected = "the UUID of a session"
            case "everybody" if value in ("true", "false"):
                wish.everybody = value == "true"
            case "everybody":
                expected = "true or false"
            case _:
                expected = "one of the parameters after, everybody, limit, phase, platform"
        if expected is not None:
            problems.append(
                message(
                    MessageKind.INVALID_VALUE,
                    "the query parameter {path} cannot be used: expected {expected}",
                    path=name,
                    expected=expected,
                )
            )
    if problems:
        raise malformed(problems)
    if wish.everybody:
        identity: Identity = req.context.identity
        if not identity.admin and broker.rules.may_others(identity, "see", wish.platform, None) is None:
            broker.audit.note(req, "see", "sessions", "everybody's", result="refused")
            raise Problem(403, "only administrators see everybody's sessions")
        broker.audit.note(req, "see", "sessions", "everybody's")
    return wish
