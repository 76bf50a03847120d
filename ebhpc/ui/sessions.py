"""A user's sessions: listed, watched, changed, asked for again."""

from __future__ import annotations

from typing import Any

import falcon
import msgspec
from sqlalchemy import select

from ebhpc.api.access import Access, Readable
from ebhpc.api.broker import Broker
from ebhpc.api.permission import check_may
from ebhpc.api.problems import Problem
from ebhpc.api.sessions import fresh_session, is_uuid, updated
from ebhpc.api.wire import answer, base_url
from ebhpc.model import LIVE, Phase
from ebhpc.store import list_sessions, moves_of_sessions
from ebhpc.store.tables import sessions
from ebhpc.ui.facts import session_facts
from ebhpc.ui.watching import session_tag

_PAGE = 50
_GROUPS = {
    "live": LIVE,
    "offers": frozenset({Phase.OFFERED}),
    "ended": frozenset({Phase.COMPLETED, Phase.FAILED, Phase.CANCELLED}),
    "all": LIVE | {Phase.COMPLETED, Phase.FAILED, Phase.CANCELLED},
    "over": frozenset({Phase.REJECTED, Phase.EXPIRED}),
}
"""What a listing can be narrowed to."""


class SessionList(Readable):
    """``/ui/data/sessions``."""

    access = Access.ACCOUNTS

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """List the user's own, newest first; ``of`` narrows it, ``after`` goes on, ``everybody`` is for operators."""
        broker, identity = self._broker, req.context.identity
        wanted = _GROUPS.get(req.get_param("of") or "all")
        after = req.get_param("after")
        everybody = req.get_param("everybody") == "true"
        if wanted is None or (after is not None and not is_uuid(after)):
            raise Problem(400, "the address of this listing is wrong")
        if everybody and not identity.admin:
            raise Problem(403, "only operators see everybody's sessions")
        with broker.store.read() as tx:
            page = list_sessions(tx, owner=None if everybody else identity.uuid, phases=wanted, after=after, size=_PAGE)
            moves = moves_of_sessions(tx, [one.uuid for one in page.sessions])
        base = base_url(req, broker.config.api)
        answer(
            req,
            resp,
            {
                "sessions": [session_facts(one, base, moves.get(one.uuid)) for one in page.sessions],
                "following": page.following,
            },
        )


class WatchedSession(Readable):
    """``/ui/data/sessions/UUID``."""

    access = Access.ACCOUNTS

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def on_get(self, req: falcon.Request, resp: falcon.Response, uuid: str) -> None:
        """Answer it as it is now; ``Watching`` answers those who have seen that already."""
        broker = self._broker
        tag = self._tag(uuid, req.context.identity.uuid)
        if tag is not None:
            resp.etag = tag
        record, moves = fresh_session(broker, uuid)
        check_may(broker, req, record.owner, f"the session {uuid}", "see", record.platform)
        answer(req, resp, session_facts(record, base_url(req, broker.config.api), moves))

    def on_post(self, req: falcon.Request, resp: falcon.Response, uuid: str) -> None:
        """Accept, reject or cancel it, as ``POST /sessions/UUID`` does."""
        broker = self._broker
        updated(broker, req, uuid)
        changed, moves = fresh_session(broker, uuid)
        answer(req, resp, session_facts(changed, base_url(req, broker.config.api), moves))

    def _tag(self, uuid: str, identity: str) -> str | None:
        """Return what changes whenever the owner would see something else; None: not the owner, or not known."""
        seen = (sessions.c.owner, sessions.c.modified, sessions.c.phase, sessions.c.expires, sessions.c.started)
        with self._broker.store.read() as tx:
            row = tx.execute(select(*seen).where(sessions.c.uuid == uuid)).one_or_none()
        return None if row is None or row.owner != identity else session_tag(row._mapping, self._broker.clock())


class RequestAgain(Readable):
    """``/ui/data/sessions/UUID/request``: the request that would ask for the same again."""

    access = Access.ACCOUNTS

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def on_get(self, req: falcon.Request, resp: falcon.Response, uuid: str) -> None:
        """Answer it."""
        record, _ = fresh_session(self._broker, uuid)
        check_may(self._broker, req, record.owner, f"the session {uuid}", "see", record.platform, private=True)
        document: dict[str, Any] = msgspec.json.decode(record.document)
        answer(req, resp, {"request": _asked_again(document, record.duration)})


_KEPT_META = ("name", "description")
_LEFT_OUT = ("phase", "schedule", "costs", "metrics", "jobs")


def _asked_again(document: dict[str, Any], duration: int) -> dict[str, Any]:
    """Return a request without what the broker added; elements that others name keep a name."""
    names: dict[str, str] = {}
    for item in (*(document.get("storage") or ()), *(document.get("data") or ())):
        meta = item.get("meta") or {}
        if "uuid" in meta:
            names[meta["uuid"]] = meta.setdefault("name", meta["uuid"])
    request: dict[str, Any] = {"schedule": {"requested": {"duration": f"PT{duration}S"}}}
    for part in ("executable", "compute", "storage", "data"):
        value = document.get(part)
        if isinstance(value, list):
            request[part] = [_bare(item, names) for item in value]
        elif value:
            request[part] = _bare(value, names)
    return request


def _bare(element: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    kept = {key: value for key, value in element.items() if key not in _LEFT_OUT}
    meta = {key: value for key, value in (kept.pop("meta", None) or {}).items() if key in _KEPT_META}
    if meta:
        kept["meta"] = meta
    for key in ("storage", "resource"):
        if isinstance(kept.get(key), str):
            kept[key] = names.get(kept[key], kept[key])
    if isinstance(kept.get("data"), list):
        kept["data"] = [names.get(one, one) for one in kept["data"]]
    if isinstance(kept.get("volumes"), list):
        kept["volumes"] = [_bare(one, names) for one in kept["volumes"]]
    for port in (kept.get("network") or {}).get("ports") or ():
        port.pop("external", None)
    return kept
