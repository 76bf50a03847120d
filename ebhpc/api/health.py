"""``/health/live``, ``/health/ready`` and ``/metrics``: for those who watch the broker."""

from __future__ import annotations

import logging

import falcon
from sqlalchemy.exc import SQLAlchemyError

from ebhpc.api.access import Access, Readable
from ebhpc.api.answers import Health
from ebhpc.api.broker import Broker
from ebhpc.api.wire import answer
from ebhpc.store import compare_schema, current_revision, get_platforms, list_drivers

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
        """Answer whether the broker can be used, and what is wrong.

        503 where the database does not answer or must be upgraded, and until a driver has asked each platform for its
        state once. What only narrows what can be offered, a platform or all drivers that are silent, is told and is
        no reason to send clients elsewhere: all workers see it alike.
        """
        broker = self._broker
        health = look(broker, broker.clock())
        if health.status == "not ready":
            resp.status = 503
        answer(req, resp, health)


def look(broker: Broker, now: float) -> Health:
    """Look at the database, its schema, the drivers and the platforms; ``now`` in POSIX seconds."""
    try:
        present = current_revision(broker.store)
        records = get_platforms(broker.store)
        drivers = list_drivers(broker.store)
    except SQLAlchemyError:
        log.exception("the database does not answer")
        reason = "the database does not answer"
        return Health(status="not ready", reason=reason, checks={"database": reason})
    schema = compare_schema(present)
    alive = [one for one in drivers if now - one.heartbeat < broker.config.driver.lease]
    checks = {
        "database": "answers",
        "schema": f"revision {present or 'none'}" + ("" if schema == "same" else f", {schema} than this version's"),
        "drivers": f"{len(alive)} of {len(drivers)} alive" if drivers else "none",
    }
    wrong: list[str] = []
    if schema == "older":
        wrong.append("the database has to be upgraded: ebhpc db upgrade")
        return Health(status="not ready", reason="; ".join(wrong), checks=checks)
    usable = {name: broker.timelines.why_unavailable(name, records.get(name), now) is None for name in broker.platforms}
    unseen = [name for name in usable if name not in records or records[name].looked is None]
    if unseen:
        reason = "no driver has asked these platforms for their state yet: " + ", ".join(unseen)
        return Health(status="not ready", reason=reason, checks=checks, platforms=usable)
    if not alive:
        wrong.append("no driver gives a sign of life: what is accepted waits for one")
    silent = [name for name, one in usable.items() if not one]
    if silent:
        wrong.append("nothing can be offered from: " + ", ".join(silent))
    return Health(
        status="degraded" if wrong else "ready", reason="; ".join(wrong) or None, checks=checks, platforms=usable
    )


class Metrics(Readable):
    """``/metrics``."""

    access = Access.EVERYBODY
    form = False

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer the measures of all workers in the text form of Prometheus."""
        resp.data, resp.content_type = self._broker.measures.text()
