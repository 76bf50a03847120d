"""``/sessions`` and ``/sessions/{uuid}``: looking at sessions and changing them."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlencode
from uuid import UUID

import falcon
from msgspec import Struct

from ebhpc.api.access import Access, Readable, check_owner, check_reader
from ebhpc.api.answers import SessionPage
from ebhpc.api.broker import Broker
from ebhpc.api.problems import Problem, malformed, not_found
from ebhpc.api.rendering import Moves, phase_options, session_document
from ebhpc.api.wire import answer, base_url, checked, read_body
from ebhpc.model import EnumUpdate, MessageKind, Phase, Update, message
from ebhpc.store import (
    Answer,
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
        wish = _listing(req)
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
            sessions=[session_document(session, base, moves.get(session.uuid)) for session in page.sessions]
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
        check_reader(
            req.context.identity,
            session.owner,
            f"the session {uuid}",
            public_reads=broker.config.api.public_reads,
        )
        answer(req, resp, session_document(session, base_url(req, broker.config.api), moves))

    def on_post(self, req: falcon.Request, resp: falcon.Response, uuid: str) -> None:
        """Accept, reject or cancel it."""
        broker = self._broker
        session, _ = fresh_session(broker, uuid)
        check_owner(req.context.identity, session.owner, f"the session {uuid}")
        wanted = wanted_phase(checked(broker.kinds.update(read_body(req, broker.config.api))))
        if wanted is None:
            raise _conflict(session, "that update")
        moved(broker, session, wanted)
        changed, moves = fresh_session(broker, uuid)
        answer(req, resp, session_document(changed, base_url(req, broker.config.api), moves))


def wanted_phase(update: Update) -> Phase | None:
    """Return the phase that an update asks for; None: it asks for something that is never possible."""
    if isinstance(update, EnumUpdate) and update.path in ("phase", "/phase"):
        for phase in (Phase.ACCEPTED, Phase.REJECTED, Phase.CANCELLED):
            if update.value == phase:
                return phase
    return None


def moved(broker: Broker, session: SessionRecord, wanted: Phase) -> None:
    """Move a session to the phase that its owner wants; it may be there already.

    Raises:
        Problem: 409, that is not possible now.
    """
    now = broker.clock()
    decided: Answer | None
    match wanted:
        case Phase.CANCELLED:
            after = cancel(broker.store, session.uuid, now=now, cause="cancelled by its owner")
            decided = Answer(session=after, done=after.phase is Phase.CANCELLED) if after else None
        case Phase.ACCEPTED:
            decided = accept(broker.store, session.uuid, now=now)
        case _:
            decided = reject(broker.store, session.uuid, now=now)
    if decided is None:
        raise not_found(f"session {session.uuid}")
    if not decided.done:
        raise _conflict(decided.session, f"becoming {wanted}")
    broker.measures.decided(decided.session.platform, wanted)


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


def _listing(req: falcon.Request) -> _Listing:
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
    if wish.everybody and not req.context.identity.admin:
        raise Problem(403, "only administrators see everybody's sessions")
    return wish
