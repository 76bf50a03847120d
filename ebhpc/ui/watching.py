"""What most looks of most browsers are answered: nothing has changed.

A page that watches a session asks again and again with the mark of what it has seen. One statement tells whose browser
it is and whether that mark still holds; where it does, nothing else of the page's application is needed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import RowMapping, and_, bindparam, select

from ebhpc.api.broker import Broker
from ebhpc.api.sessions import is_uuid
from ebhpc.store.tables import identities, sessions, visits
from ebhpc.ui.visits import COOKIE, mark_of

WATCHED = "/ui/data/sessions/"
"""What stands before a session's UUID in the address that its page watches."""

_TEMPLATE = f"{WATCHED}{{uuid}}"

# Made once: each look of each watching browser asks this
_SEEN = (
    select(sessions.c.modified, sessions.c.phase, sessions.c.expires, sessions.c.started)
    .join(visits, visits.c.identity == sessions.c.owner)
    .join(identities, and_(identities.c.uuid == sessions.c.owner, identities.c.barred.is_(None)))
    .where(
        sessions.c.uuid == bindparam("uuid"), visits.c.mark == bindparam("mark"), visits.c.expires > bindparam("now")
    )
)


def session_tag(row: RowMapping, now: float) -> str:
    """Return what changes whenever a session's owner would see something else of it."""
    past = row["expires"] is not None and row["expires"] <= now
    return f"{row['modified']}-{row['phase']}-{row['started']}-{past}"


class Watching:
    """Answers looks at what has not changed."""

    def __init__(self, broker: Broker, monotonic: Callable[[], float] = time.perf_counter) -> None:
        self._broker = broker
        self._monotonic = monotonic

    def unchanged(self, environ: dict[str, Any]) -> str | None:
        """Return the mark of a session that its owner's browser has seen already as it is; None: all else."""
        known = environ.get("HTTP_IF_NONE_MATCH")
        path = environ["PATH_INFO"]
        if not known or environ["REQUEST_METHOD"] != "GET" or not path.startswith(WATCHED):
            return None
        uuid, cookie = path[len(WATCHED) :], _cookie(environ.get("HTTP_COOKIE", ""))
        if cookie is None or not is_uuid(uuid):
            return None
        began, now = self._monotonic(), self._broker.clock()
        with self._broker.store.read() as tx:
            row = tx.execute(_SEEN, {"uuid": uuid, "mark": mark_of(cookie), "now": now}).one_or_none()
        if row is None:
            return None
        tag = f'"{session_tag(row._mapping, now)}"'
        if tag not in known:
            return None
        self._broker.measures.answered("GET", _TEMPLATE, 304, self._monotonic() - began)
        return tag


def _cookie(header: str) -> str | None:
    for part in header.split(";"):
        name, _, value = part.strip().partition("=")
        if name == COOKIE:
            return value
    return None
