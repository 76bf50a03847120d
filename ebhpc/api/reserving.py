"""Reserved time in requests, offers and sessions: what a site allows of it, what is stored, what is told."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any

import msgspec

from ebhpc.config import PlatformConfig
from ebhpc.model import (
    LIVE,
    JobInside,
    Message,
    MessageKind,
    Phase,
    Request,
    ReservedTime,
    SimpleMetric,
    Usage,
    kinds,
    message,
)
from ebhpc.model.structure import pointer, shown
from ebhpc.model.times import instant_text, parse_duration
from ebhpc.store import SessionRecord, Wants

_HOUR = 3600
_TELL = frozenset({Phase.AVAILABLE, Phase.RUNNING, Phase.RELEASING, Phase.COMPLETED, Phase.FAILED, Phase.CANCELLED})


def reserved_time_refusals(request: Request, config: PlatformConfig, promises: Sequence[str]) -> list[Message]:
    """Return why a platform does not keep time for its user; nothing for any other request."""
    wanted = request.executable
    if not isinstance(wanted, ReservedTime):
        return []
    rules = config.reserved_time
    found = []
    if not rules.offered:
        found.append(_refusal("/executable/kind", "This platform offers no reserved time."))
    if "reservation" not in promises:
        text = "This platform keeps no start: its jobs wait in a queue, so there is no time to reserve."
        found.append(_refusal("/executable/kind", text))
    if wanted.users and not rules.users:
        found.append(_refusal("/executable/users", "Reserved time is not shared with other users here."))
    for place, account in enumerate(wanted.accounts or ()):
        if account not in rules.accounts:
            found.append(
                _refusal(
                    pointer("/executable/accounts", place),
                    "Reserved time is not shared with the account {account} here; it may be with {allowed}.",
                    account=shown(account),
                    allowed=", ".join(rules.accounts) or "none",
                )
            )
    return found


def _refusal(path: str, template: str, **values: object) -> Message:
    return message(MessageKind.POLICY_REFUSED, template, level="ERROR", time=None, path=path, **values)


def reserved_wants(
    wants: Wants, request: Request, config: PlatformConfig, *, extends: SessionRecord | None = None
) -> Wants:
    """Return what an offer asks of its platform, with what reserved time asks beside.

    ``extends`` is the session with whose nodes it goes on.
    """
    executable = request.executable
    if not isinstance(executable, ReservedTime):
        return wants
    asked = None if executable.idle_release is None else parse_duration(executable.idle_release)
    site = None if config.reserved_time.idle_release is None else int(config.reserved_time.idle_release)
    idle = min((one for one in (asked, site) if one is not None), default=None)
    return msgspec.structs.replace(
        wants,
        reserved=True,
        idle=idle,
        replaces=executable.replaces,
        extends=None if extends is None else extends.held,
    )


# --- told ------------------------------------------------------------------------------------------------------------


def core_hours(record: SessionRecord, now: float) -> tuple[float, float]:
    """Return how many core-hours of reserved time were used up to ``now`` (POSIX seconds), and how many were not."""
    end = min(now, record.finish, inf if record.ended is None else record.ended)
    begin = record.finish - record.duration
    kept = sum(share.cores for share in record.allocations) * max(0.0, end - begin) / _HOUR
    used = (record.usage or Usage()).core_hours(end, begin)
    return used, max(0.0, kept - used)


def tell_use(document: dict[str, Any], record: SessionRecord, now: float) -> None:
    """Put into a session's document what ran in its reserved time, and how much of that was used up to ``now``."""
    if record.phase not in _TELL:
        return
    usage = record.usage or Usage()
    end = min(now, inf if record.ended is None else record.ended) if record.phase not in LIVE else now
    if usage.jobs:
        document["executable"]["jobs"] = [
            msgspec.to_builtins(
                JobInside(
                    id=job.id,
                    name=job.name or None,
                    user=job.user or None,
                    nodes=job.nodes,
                    cores=job.cores,
                    state=job.state or None,
                    started=instant_text(int(job.started)),
                    ended=None if job.ended is None else instant_text(int(job.ended)),
                    exit_code=job.exit_code,
                    core_hours=round(job.core_hours(end), 4),
                )
            )
            for job in usage.jobs
        ]
    used, unused = core_hours(record, now)
    told = [
        msgspec.to_builtins(SimpleMetric(type=kind, min=amount, max=amount))
        for kind, amount in (
            (kinds.CORE_HOURS_USED, round(used, 4)),
            (kinds.CORE_HOURS_UNUSED, round(unused, 4)),
        )
    ]
    for part in (document, document["compute"]):
        part["metrics"] = [*part.get("metrics", ()), *told]
