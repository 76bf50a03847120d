"""The broker's own record that resources are taken."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from msgspec import Struct, field

from ebhpc.model.sessions import Window


class Booking(Struct, frozen=True, kw_only=True, gc=False):
    """A share of one node kept for a session from ``start`` to ``end`` (POSIX seconds, half open).

    ``expires``: the offer that it belongs to is free again from then (POSIX seconds); None once accepted.
    ``licences`` are the session's, not the node's: of several bookings of a window the first alone has them.
    """

    id: int
    session: str
    node: str
    start: int
    end: int
    cores: int
    memory: int
    devices: dict[str, int] = field(default_factory=dict)
    licences: dict[str, int] = field(default_factory=dict)
    expires: int | None = None


def bookings_of(window: Window, *, session: str, ids: Iterable[int], expires: int | None = None) -> tuple[Booking, ...]:
    """Return what to book for a window: one booking for each of its allocations, its licences on the first.

    ``ids`` gives an id to each.

    Raises:
        ValueError: ``ids`` has too few.
    """
    numbers = list(islice(ids, len(window.allocations)))
    return tuple(
        Booking(
            id=number,
            session=session,
            node=allocation.node,
            start=window.start,
            end=window.end,
            cores=allocation.cores,
            memory=allocation.memory,
            devices=allocation.devices,
            licences={} if order else window.licences,
            expires=expires,
        )
        for order, (number, allocation) in enumerate(zip(numbers, window.allocations, strict=True))
    )
