"""Asking: a preview that books nothing, the offers themselves, and what a dropped file says."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import falcon
import msgspec

from ebhpc import media
from ebhpc.api.access import Access, Readable
from ebhpc.api.broker import Broker
from ebhpc.api.consulting import willing_platforms
from ebhpc.api.permission import check_may
from ebhpc.api.placing import computes_alone, plan
from ebhpc.api.problems import not_found
from ebhpc.api.requests import asked, asking_of
from ebhpc.api.sessions import fresh_family, is_uuid
from ebhpc.api.wire import answer, base_url, read_body
from ebhpc.model import Message
from ebhpc.model import OfferSet as OfferSetDocument
from ebhpc.ui.facts import message_facts, messages_facts, session_facts, window_facts


class Preview:
    """``/ui/data/preview``: where a request would fit. Nothing is booked, and nothing is kept."""

    access = Access.ACCOUNTS

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer windows, or all reasons why there are none, and the request as YAML to copy."""
        broker = self._broker
        now = broker.clock()
        body = read_body(req, broker.config.api)
        found: dict[str, Any] = {"now": now, "windows": [], "problems": [], "messages": []}
        found["yaml"] = media.encode(body, media.YAML).decode()
        decoded = broker.kinds.request(body)
        if decoded.document is None:
            found["problems"] = messages_facts(decoded.problems)
            answer(req, resp, found)
            return
        asking, problems = asking_of(broker, decoded.document, req.context.identity, now, decoded.warnings)
        if asking is None:
            found["problems"] = messages_facts(problems)
            found["messages"] = messages_facts(decoded.warnings)
            answer(req, resp, found)
            return
        willing, messages = willing_platforms(broker, asking)
        alone = all(computes_alone(one.platform) for one in willing)
        with broker.planning if alone else nullcontext():
            planned, reasons = plan(broker, asking, willing, direct=False)
        told = (*decoded.warnings, *messages, *reasons)
        found["windows"] = [window_facts(one) for one in planned]
        found["messages"] = messages_facts(told)
        found["problems"] = [] if planned else [message_facts(one) for one in told if _has_path(one)]
        answer(req, resp, found)


def _has_path(message: Message) -> bool:
    return bool((message.values or {}).get("path"))


class Ask:
    """``/ui/data/requests``: as ``POST /requests``, without the redirection, which a script could not follow."""

    access = Access.ACCOUNTS

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Make offers, and say where they are."""
        offered = asked(self._broker, req)
        answer(
            req,
            resp,
            {
                "uuid": offered.record.uuid,
                "result": "YES" if offered.offers else "NO",
                "messages": messages_facts(offered.messages),
            },
        )


class OfferSet(Readable):
    """``/ui/data/offersets/UUID``."""

    access = Access.ACCOUNTS

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def on_get(self, req: falcon.Request, resp: falcon.Response, uuid: str) -> None:
        """Answer its offers as they are now."""
        broker = self._broker
        found = fresh_family(broker, uuid) if is_uuid(uuid) else None
        if found is None:
            raise not_found(f"offer set {uuid}")
        record, members = found
        check_may(broker, req, record.owner, f"the offer set {uuid}", "see")
        base = base_url(req, broker.config.api)
        document = msgspec.json.decode(record.document, type=OfferSetDocument)
        answer(
            req,
            resp,
            {
                "uuid": record.uuid,
                "created": record.created,
                "result": document.result,
                "messages": messages_facts((document.meta.messages or ()) if document.meta else ()),
                "offers": [session_facts(member, base, moves) for member, moves in members],
            },
        )


class FormOfFile:
    """``/ui/data/form``: a request in a file, as plain data for the form; it is judged when it is previewed."""

    access = Access.ACCOUNTS

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer what a YAML or JSON document says."""
        answer(req, resp, {"request": read_body(req, self._broker.config.api)})
