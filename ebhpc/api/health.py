"""``/health/live``, ``/health/ready`` and ``/metrics``: for those who watch the broker."""

from __future__ import annotations

import logging

import falcon
from sqlalchemy.exc import SQLAlchemyError

from ebhpc.api.access import Access, Readable
from ebhpc.api.answers import Health
from ebhpc.api.broker import Broker
from ebhpc.api.wire import answer
from ebhpc.store import get_platforms

log = logging.getLogger(__name__)


class Live(Readable):
    """``/health/live``."""

    access = Access.EVERYBODY

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer that this worker lives."""
        answer(req, resp, Health(status="live"))


class Ready(Readable):
    """``/health/ready``."""

    access = Access.EVERYBODY

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer whether the broker can be used: 503 until a driver has asked each platform for its state once.

        ``platforms`` says from which of them something can be offered now.
        """
        broker = self._broker
        now = broker.clock()
        try:
            records = get_platforms(broker.store)
        except SQLAlchemyError:
            log.exception("the database does not answer")
            resp.status = 503
            answer(req, resp, Health(status="not ready", reason="the database does not answer"))
            return
        usable = {
            name: broker.timelines.why_unavailable(name, records.get(name), now) is None for name in broker.platforms
        }
        unseen = [name for name in usable if name not in records or records[name].looked is None]
        if unseen:
            resp.status = 503
            reason = "no driver has asked these platforms for their state yet: " + ", ".join(unseen)
            answer(req, resp, Health(status="not ready", reason=reason, platforms=usable))
            return
        answer(req, resp, Health(status="ready", platforms=usable))


class Metrics(Readable):
    """``/metrics``."""

    access = Access.EVERYBODY
    form = False

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer the measures of all workers in the text form of Prometheus."""
        resp.data, resp.content_type = self._broker.measures.text()
