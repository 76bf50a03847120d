"""How much users have: of sessions, and of core hours, for the limits of the site's rules."""

from __future__ import annotations

import msgspec
from msgspec import Struct
from sqlalchemy import ColumnElement, Connection, func, or_, select, true

from ebhpc.model import LIVE, Allocation, Phase
from ebhpc.store.engine import Store
from ebhpc.store.tables import identities, memberships, sessions

DAY = 86400

_NEVER_ACCEPTED = (Phase.INITIAL, Phase.OFFERED, Phase.REJECTED, Phase.EXPIRED)
_allocations = msgspec.json.Decoder(tuple[Allocation, ...])


class Whose(Struct, frozen=True, kw_only=True):
    """Whose sessions are counted: one owner's; or all those of a group, by what issuers said, and by username."""

    owner: str | None = None
    group: str | None = None
    usernames: tuple[str, ...] = ()


class Counted(Struct, frozen=True, kw_only=True):
    """What somebody has: ``live`` sessions that have not ended, and of 24 hours the sessions and core hours."""

    live: int
    in_a_day: int
    core_hours: float


def count_usage(tx: Connection, whose: Whose, platforms: tuple[str, ...], *, now: float) -> Counted:
    """Count the sessions that were accepted, on some platforms or, where none are named, on all.

    A session counts its cores for the duration that was booked; once it has ended, for the time that it ran.
    """
    mine = _owned(whose)
    there: ColumnElement[bool] = sessions.c.platform.in_(platforms) if platforms else true()
    live = tx.execute(select(func.count()).select_from(sessions).where(mine, there, sessions.c.phase.in_(LIVE)))
    rows = tx.execute(
        select(
            sessions.c.phase,
            sessions.c.allocations,
            sessions.c.duration,
            sessions.c.started,
            sessions.c.ended,
        ).where(mine, there, sessions.c.created >= now - DAY, sessions.c.phase.not_in(_NEVER_ACCEPTED))
    ).all()
    seconds = sum(
        _cores(row.allocations) * _occupied(Phase(row.phase), row.duration, row.started, row.ended) for row in rows
    )
    return Counted(live=int(live.scalar_one()), in_a_day=len(rows), core_hours=seconds / 3600)


def core_hours_of(allocations: tuple[Allocation, ...], duration: float) -> float:
    """The core hours of resources for a duration in seconds."""
    return sum(share.cores for share in allocations) * duration / 3600


def hold_owner(store: Store, tx: Connection, owner: str) -> None:
    """Let nobody else accept for this owner until the transaction's end, so that two do not exceed a limit together."""
    if not store.sqlite:  # there writers take turns anyway
        tx.execute(select(identities.c.uuid).where(identities.c.uuid == owner).with_for_update()).one_or_none()


def _owned(whose: Whose) -> ColumnElement[bool]:
    if whose.owner is not None:
        return sessions.c.owner == whose.owner
    members = select(memberships.c.identity).where(memberships.c.name == whose.group)
    named = select(identities.c.uuid).where(identities.c.username.in_(whose.usernames))
    return or_(sessions.c.owner.in_(members), sessions.c.owner.in_(named))


def _cores(text: str) -> int:
    return sum(share.cores for share in _allocations.decode(text))


def _occupied(phase: Phase, duration: float, started: float | None, ended: float | None) -> float:
    """The seconds for which a session counts."""
    if ended is not None:
        return max(0.0, ended - started) if started is not None else 0.0
    if phase in LIVE:
        return duration
    return 0.0 if started is None else duration  # ended in a way that left no time
