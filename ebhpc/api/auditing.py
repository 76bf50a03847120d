"""The audit trail's entries as the API makes them.

What accepts, rejects or cancels a session writes its entry in the same transaction. All else goes to a queue, which a
thread empties in batches, so that nobody waits for it; who sends the same again and again makes one entry with a count.
"""

from __future__ import annotations

import atexit
import ipaddress
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Literal, TypedDict, Unpack

import falcon
from msgspec.structs import replace
from sqlalchemy.exc import SQLAlchemyError

from ebhpc.config import Api, Audit
from ebhpc.model import Identity
from ebhpc.store import AuditEntry, Store, write_audit

log = logging.getLogger(__name__)
trail = logging.getLogger("ebhpc.audit")

Result = Literal["done", "refused", "failed"]


class _About(TypedDict, total=False):
    """What else an entry tells."""

    result: Result
    detail: str
    username: str | None


MOST_WAITING = 2000
"""Entries that wait to be written; more than that in a moment is somebody's flood, and is told as one number."""


class Auditing:
    """Writes the audit trail of one worker. ``clock`` gives POSIX seconds, ``pause`` seconds gather entries."""

    def __init__(
        self, store: Store, settings: Audit, api: Api, *, clock: Callable[[], float] = time.time, pause: float = 0.25
    ) -> None:
        self._store = store
        self._settings = settings
        self._api = api
        self._clock = clock
        self._pause = pause
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._waiting: OrderedDict[AuditEntry, int] = OrderedDict()
        self._dropped = 0
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()

    def entry(
        self, req: falcon.Request | None, action: str, kind: str = "", object: str = "", **more: Unpack[_About]
    ) -> AuditEntry:
        """Make an entry about what a request does, for whoever writes it in a transaction of its own.

        ``result`` is done where nothing is said, ``username`` that of who asks.
        """
        result, detail, username = more.get("result", "done"), more.get("detail", ""), more.get("username")
        identity: Identity | None = getattr(req.context, "identity", None) if req is not None else None
        made = AuditEntry(
            time=self._clock(),
            action=action,
            actor=identity.uuid if identity is not None else None,
            username=username if username is not None else identity.username if identity is not None else "",
            address=client_address(req, self._api) if req is not None else "",
            kind=kind,
            object=object,
            result=result,
            detail=detail,
        )
        if self._settings.log:
            trail.info(
                "%s %s %s %s by %a from %s: %s", action, kind, object, result, made.username, made.address, detail
            )
        return made

    def note(
        self, req: falcon.Request | None, action: str, kind: str = "", object: str = "", **more: Unpack[_About]
    ) -> None:
        """Add an entry about what a request did; it is written within a moment."""
        self.add(self.entry(req, action, kind, object, **more))

    def add(self, entry: AuditEntry) -> None:
        """Add an entry; it is written within a moment."""
        key = replace(entry, time=float(int(entry.time)))
        with self._lock:
            if key in self._waiting:
                self._waiting[key] += 1
            elif len(self._waiting) < MOST_WAITING:
                self._waiting[key] = 1
            else:
                self._dropped += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._write_on, name="audit", daemon=True)
                self._thread.start()
                atexit.register(self.flush)
        self._wake.set()

    def flush(self) -> None:
        """Write what waits, now."""
        with self._writing:
            with self._lock:
                waiting, self._waiting = self._waiting, OrderedDict()
                dropped, self._dropped = self._dropped, 0
            entries = [replace(entry, count=count) for entry, count in waiting.items()]
            if dropped:
                entries.append(AuditEntry(time=self._clock(), action="flood", detail="entries left out", count=dropped))
            try:
                write_audit(self._store, entries)
            except SQLAlchemyError as error:
                log.error("%d entries of the audit trail are lost: %s", len(entries), error)

    def _write_on(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            time.sleep(self._pause)
            self.flush()


def client_address(req: falcon.Request, api: Api) -> str:
    """Return the address that a request comes from; behind trusted proxies, the one that they were asked from."""
    known: str | None = getattr(req.context, "address", None)
    if known is None:
        known = req.context.address = _address(req, api)
    return known


def _address(req: falcon.Request, api: Api) -> str:
    peer = str(req.env.get("REMOTE_ADDR") or "")
    if not api.trusted_proxies:
        return peer
    # Each proxy adds whom it was asked by at the end: the first from there that is no proxy of ours is the client
    told = [part.strip() for part in (req.get_header("X-Forwarded-For") or "").split(",") if part.strip()]
    for address in (peer, *reversed(told)):
        plain = address.strip("[]")
        if not _is_proxy(plain, api):
            return plain[:64]
    return (told[0] if told else peer)[:64]


def _is_proxy(address: str, api: Api) -> bool:
    if not address:
        return "unix" in api.trusted_proxies
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(proxy != "unix" and parsed in proxy.range for proxy in api.trusted_proxies)
