"""What operators look at: health, drivers, sessions by phase, what happened last."""

from __future__ import annotations

import falcon
from sqlalchemy import select

from ebhpc.api.access import Access, Readable
from ebhpc.api.broker import Broker
from ebhpc.api.wire import answer
from ebhpc.store import count_phases, get_platforms
from ebhpc.store.audit import AuditQuestion, read_audit
from ebhpc.store.tables import drivers, events, identities, sessions

_LAST = 100


class Operations(Readable):
    """``/ui/data/operations``."""

    access = Access.ADMINISTRATORS

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer how the broker is."""
        broker = self._broker
        now = broker.clock()
        records = get_platforms(broker.store)
        moves = (
            select(
                events.c.time,
                events.c.session,
                events.c.previous,
                events.c.phase,
                events.c.cause,
                sessions.c.platform,
                identities.c.username,
            )
            .join(sessions, sessions.c.uuid == events.c.session)
            .join(identities, identities.c.uuid == sessions.c.owner)
            .order_by(events.c.id.desc())
            .limit(_LAST)
        )
        trail = read_audit(broker.store, AuditQuestion(most=_LAST))
        with broker.store.read() as tx:
            phases = count_phases(tx)
            present = tx.execute(select(drivers).order_by(drivers.c.name)).all()
            last = tx.execute(moves).all()
        answer(
            req,
            resp,
            {
                "now": now,
                "platforms": [
                    {
                        "name": name,
                        "taken": records[name].taken if name in records else None,
                        "looked": records[name].looked if name in records else None,
                        "reason": broker.timelines.why_unavailable(name, records.get(name), now),
                    }
                    for name in broker.platforms
                ],
                "phases": [
                    {"platform": platform, "phase": phase, "count": count}
                    for (platform, phase), count in sorted(phases.items())
                ],
                "drivers": [
                    {"name": row.name, "host": row.host, "pid": row.pid, "heartbeat": row.heartbeat} for row in present
                ],
                "audit": [
                    {
                        "time": entry.time,
                        "user": entry.username,
                        "address": entry.address,
                        "action": entry.action,
                        "object": f"{entry.kind} {entry.object}".strip(),
                        "result": entry.result,
                        "detail": entry.detail,
                        "count": entry.count,
                    }
                    for _, entry in reversed(trail)
                ],
                "events": [
                    {
                        "time": row.time,
                        "session": row.session,
                        "from": row.previous,
                        "to": row.phase,
                        "cause": row.cause,
                        "platform": row.platform,
                        "user": row.username,
                    }
                    for row in last
                ],
            },
        )
