"""``/sessions/calendar`` and ``/sessions/calendar.ics``: one's reserved time in any calendar program (RFC 5545).

Calendar programs give no password, so a calendar has an address of its own that nobody can guess. Only its hash is
kept; whoever has lost it, or shown it to somebody, makes a new one.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import falcon
import msgspec

from ebhpc import __version__
from ebhpc.api.access import Access, Readable
from ebhpc.api.answers import CalendarAddress
from ebhpc.api.broker import Broker
from ebhpc.api.problems import Problem
from ebhpc.api.wire import answer, base_url
from ebhpc.model import Phase
from ebhpc.model.times import utc
from ebhpc.store import SessionRecord, calendar_owner, drop_calendar, reserved_sessions, set_calendar

if TYPE_CHECKING:
    from icalendar import Event

KEPT = 30 * 86_400
"""Seconds for which reserved time that is over stays in the calendar."""

_LONGEST_KEY = 200
_OVER = frozenset({Phase.CANCELLED, Phase.FAILED})


class CalendarKey:
    """``/sessions/calendar``: the address of one's calendar."""

    access = Access.ACCOUNTS

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Make a new address; one that was made before leads nowhere from now on."""
        broker = self._broker
        key = secrets.token_urlsafe(32)
        set_calendar(broker.store, req.context.identity.uuid, _hash(key), now=broker.clock())
        broker.audit.note(req, "make", "calendar", req.context.identity.uuid)
        resp.status = 201
        resp.cache_control = ["no-store"]
        answer(req, resp, CalendarAddress(url=f"{base_url(req, broker.config.api)}/sessions/calendar.ics?key={key}"))

    def on_delete(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Take the address away. It is no error that there is none."""
        drop_calendar(self._broker.store, req.context.identity.uuid)
        self._broker.audit.note(req, "remove", "calendar", req.context.identity.uuid)
        resp.status = 204


class CalendarFile(Readable):
    """``/sessions/calendar.ics``."""

    access = Access.EVERYBODY
    form = False

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer the reserved time of the user whose calendar's address this is."""
        broker = self._broker
        key = req.get_param("key", default="")
        owner = calendar_owner(broker.store, _hash(key)) if 0 < len(key) <= _LONGEST_KEY else None
        if owner is None or broker.accounts.recall(owner) is None:
            raise Problem(404, "this is no calendar's address, or not any more; POST /sessions/calendar makes one")
        now = broker.clock()
        found = reserved_sessions(broker.store, owner, since=now - KEPT)
        resp.data = calendar_text(found, base_url(req, broker.config.api), now)
        resp.content_type = "text/calendar; charset=utf-8"
        resp.cache_control = ["private", "max-age=60"]


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()


def calendar_text(sessions: Iterable[SessionRecord], base: str, now: float) -> bytes:
    """Return sessions as a calendar; ``now`` (POSIX seconds) stands in it as when it was written."""
    from icalendar import Calendar  # some megabytes, and few ask for one

    calendar = Calendar()
    calendar.add("prodid", f"-//ebhpc//ebhpc {__version__}//EN")
    calendar.add("version", "2.0")
    calendar.add("method", "PUBLISH")
    calendar.add("x-wr-calname", "Reserved time")
    for record in sessions:
        calendar.add_component(_event(record, base, now))
    return bytes(calendar.to_ical())


def _event(record: SessionRecord, base: str, now: float) -> Event:
    from icalendar import Event, vUri

    # Near now it is booked for the latest start; once it is held its begin is what was asked for before its end
    begin = record.start if record.held is None else record.finish - record.duration
    end = record.finish if record.ended is None else min(record.finish, max(int(record.ended), begin + 1))
    event = Event()
    event.add("uid", f"{record.uuid}@ebhpc")
    event.add("dtstamp", utc(int(now)))
    event.add("dtstart", utc(begin))
    event.add("dtend", utc(end))
    event.add("last-modified", utc(int(record.modified)))
    event.add("summary", _summary(record))
    event.add("location", record.platform)
    event.add("description", "\n".join(_description(record)))
    event["url"] = vUri(f"{base}/sessions/{record.uuid}")
    event.add("status", _status(record))
    return event


def _status(record: SessionRecord) -> str:
    if record.phase in _OVER:
        return "CANCELLED"
    undecided = record.approval is not None and record.approval.approved is None
    return "TENTATIVE" if undecided or record.phase is Phase.ACCEPTED else "CONFIRMED"


def _summary(record: SessionRecord) -> str:
    nodes = len(record.allocations)
    cores = sum(share.cores for share in record.allocations)
    what = f"{nodes} nodes" if nodes > 1 else f"{cores} core{'' if cores == 1 else 's'}"
    return f"{_name(record) or 'Reserved time'}: {what} on {record.platform}"


def _name(record: SessionRecord) -> str | None:
    meta: Any = msgspec.json.decode(record.document).get("meta") or {}
    name = meta.get("name")
    return name if isinstance(name, str) else None


def _description(record: SessionRecord) -> Iterable[str]:
    yield f"Session {record.uuid}, {record.phase}"
    yield "Nodes: " + ", ".join(share.node for share in record.allocations)
    for connector in record.connectors or ():
        yield from connector.commands or ()
