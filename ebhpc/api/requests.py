"""``/requests``, ``/direct`` and ``/offersets/{uuid}``: asking for offers."""

from __future__ import annotations

import falcon
import msgspec
from msgspec.structs import replace

from ebhpc.api.access import Access, Readable
from ebhpc.api.broker import Broker
from ebhpc.api.consulting import Asking
from ebhpc.api.extending import replaced_session
from ebhpc.api.holding import offers_that_stand
from ebhpc.api.offering import Offered, make_offers, refused
from ebhpc.api.permission import check_may
from ebhpc.api.problems import not_found
from ebhpc.api.rendering import offered_document, offerset_document, session_document, time_text
from ebhpc.api.sessions import acceptance_check, fresh_family, is_uuid
from ebhpc.api.wire import answer, base_url, checked, read_body
from ebhpc.model import ExecutionRequest, Identity, Message, Phase, kinds
from ebhpc.model.reading import RequestLimits, read_request
from ebhpc.policy import LimitReached
from ebhpc.store import get_session


class Requests:
    """``/requests``."""

    access = Access.ACCOUNTS

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer a request with an offer set, which says NO where nothing can be offered: 303, also as body."""
        broker = self._broker
        offered = asked(broker, req)
        base = base_url(req, broker.config.api)
        offers = [
            offered_document(offer, draft, offered.record.created, base)
            for offer, draft in zip(offered.offers, offered.drafts, strict=True)
        ]
        resp.status = 303
        resp.location = f"{base}/offersets/{offered.record.uuid}"
        answer(req, resp, offerset_document(offered.record, offers, base))


class Direct:
    """``/direct``."""

    access = Access.ACCOUNTS

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer a request with a session that is accepted already: 303; 400 with the reasons where it cannot run."""
        broker = self._broker
        offered = asked(broker, req, direct=True)
        base = base_url(req, broker.config.api)
        if not offered.offers:
            resp.status = 400
            answer(req, resp, rejected_document(offered.messages, offered.record.created))
            return
        with broker.store.read() as tx:
            session = get_session(tx, offered.offers[0].uuid)
        assert session is not None
        resp.status = 303
        resp.location = f"{base}/sessions/{session.uuid}"
        answer(req, resp, session_document(session, base))


class OfferSets(Readable):
    """``/offersets/{uuid}``."""

    access = Access.READERS

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def on_get(self, req: falcon.Request, resp: falcon.Response, uuid: str) -> None:
        """Answer the offer set as it is now."""
        broker = self._broker
        found = fresh_family(broker, uuid) if is_uuid(uuid) else None
        if found is None:
            raise not_found(f"offer set {uuid}")
        record, members = found
        check_may(broker, req, record.owner, f"the offer set {uuid}", "see")
        base = base_url(req, broker.config.api)
        answer(
            req,
            resp,
            offerset_document(record, [session_document(member, base, moves) for member, moves in members], base),
        )


def asked(broker: Broker, req: falcon.Request, *, direct: bool = False) -> Offered:
    """Read the request in a body and make offers for it.

    Raises:
        Problem: 400, 408, 413 or 415.
    """
    now, identity = broker.clock(), req.context.identity
    decoded = broker.kinds.request(read_body(req, broker.config.api))
    asking, problems = asking_of(broker, checked(decoded), identity, now, decoded.warnings)
    if asking is not None:
        if direct:
            asking = replace(
                asking,
                check=acceptance_check(broker, identity.uuid, req, now) if broker.rules.counts else None,
                audit=broker.audit.entry(req, "accept", "session", detail="at once"),
            )
        try:
            offered = make_offers(broker, asking, direct=True) if direct else offers_that_stand(broker, asking)
        except LimitReached as reached:  # counted in the transaction that accepts at once
            broker.audit.note(req, "accept", "session", result="refused", detail=str(reached))
            offered = refused(broker, identity.uuid, (*decoded.warnings, reached.why), now, stored=False)
    else:
        offered = refused(broker, identity.uuid, (*decoded.warnings, *problems), now, stored=not direct)
    broker.measures.offered(offered.offers, offered.messages)
    return offered


def asking_of(
    broker: Broker, document: ExecutionRequest, identity: Identity, now: float, warnings: tuple[Message, ...]
) -> tuple[Asking | None, tuple[Message, ...]]:
    """Return what somebody asks for, or None and all reasons why the broker cannot make sense of it."""
    limits = RequestLimits(elements=broker.config.api.max_elements)
    reading = read_request(document, now=int(now), new_uuid=broker.new_uuid, limits=limits)
    if reading.request is None:
        return None, reading.problems
    replaced, problems = replaced_session(broker, reading.request, identity.uuid)
    if problems:
        return None, problems
    asking = Asking(request=reading.request, identity=identity, now=now, warnings=warnings, replaced=replaced)
    return asking, ()


def rejected_document(messages: tuple[Message, ...], now: float) -> dict[str, object]:
    """Return the shape of a session that says why there is none."""
    return {
        "kind": kinds.SCHEDULED_SESSION,
        "meta": {"created": time_text(now), "messages": msgspec.to_builtins(messages)},
        "phase": Phase.REJECTED,
    }
