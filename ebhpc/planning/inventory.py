"""Inventory: a snapshot made ready for planning, without the broker's bookings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ebhpc.model.sessions import Allocation, Shape
from ebhpc.planning.booking import Booking
from ebhpc.planning.profile import FOREVER, PAST, Amounts, Integers, Piece, amount, instant
from ebhpc.planning.snapshot import Node, NodeState, Reservation, RunningJob, Snapshot

LICENCES = -1
"""The place of the licences; nodes are places from 0 on."""

GRACE = 120
"""Seconds for which a job past its limit is taken to run on, at least: batch systems look for such jobs every
half minute and give them as much again to end."""

Owner: TypeAlias = tuple[str, str]
"""Whose a job or reservation is, where that matters: ("session" or "reservation", name)."""

Taken: TypeAlias = tuple[int, Piece]
"""A piece and its place."""


@dataclass(frozen=True, slots=True)
class Natives:
    """What one owner has in the batch system, by place: its jobs, and its reservations."""

    jobs: dict[int, list[Piece]]
    reservations: dict[int, list[Piece]]

    def places(self) -> set[int]:
        """Return the places that it touches."""
        return {*self.jobs, *self.reservations}


@dataclass(frozen=True, slots=True, eq=False)
class Inventory:
    """Nodes by place, what they have, and what is taken of it by others than the broker.

    ``capacities`` has shape ``(2 + devices, nodes)``: cores, memory (MiB), then each device type of
    ``device_columns``; ``usable`` tells which nodes are UP. ``plain`` is taken whatever the broker books;
    ``natives`` belongs to owners, of each of whom the greatest of jobs, reservations and bookings counts.
    """

    snapshot: Snapshot
    nodes: tuple[Node, ...]
    index: Mapping[str, int]
    device_columns: Mapping[str, int]
    licence_columns: Mapping[str, int]
    capacities: Integers
    usable: NDArray[np.bool_]
    plain: tuple[Taken, ...]
    natives: Mapping[Owner, Natives]

    def amounts(self, share: Shape | Allocation | Booking | Node) -> Amounts:
        """Return a share of a node as amounts by column, without device types that no node has."""
        row = [amount(share.cores), amount(share.memory), *([0] * len(self.device_columns))]
        for device, count in share.devices.items():
            if (column := self.device_columns.get(device)) is not None:
                row[column] = amount(count)
        return tuple(row)

    def licence_amounts(self, licences: Mapping[str, int]) -> Amounts:
        """Return licences as amounts by column, without those that the platform has not."""
        row = [0] * len(self.licence_columns)
        for licence, count in licences.items():
            if (column := self.licence_columns.get(licence)) is not None:
                row[column] = amount(count)
        return tuple(row)

    def booked(self, booking: Booking) -> Iterator[Taken]:
        """Yield what a booking takes, and where; nothing for a node that the platform has no more."""
        start, end = instant(booking.start), instant(booking.end)
        if (place := self.index.get(booking.node)) is not None:
            yield place, Piece(start, end, self.amounts(booking))
        if booking.licences:
            yield LICENCES, Piece(start, end, self.licence_amounts(booking.licences))

    def ending(self, limit: int) -> int:
        """Return until when something that runs in the snapshot is taken to run, by its limit.

        Past its limit: as long again as it has been over it, and GRACE at least.
        """
        taken = self.snapshot.taken
        return limit if limit > taken else taken + max(GRACE, taken - limit)


def inventory(snapshot: Snapshot) -> Inventory:
    """Sort out a snapshot. Of nodes with one name the first counts; unknown nodes in jobs are ignored."""
    nodes = tuple({node.name: node for node in reversed(snapshot.nodes)}.values())[::-1]
    devices = sorted({device for node in nodes for device in node.devices})
    device_columns = {device: 2 + column for column, device in enumerate(devices)}
    capacities = np.array(
        [
            [
                amount(node.cores),
                amount(node.memory),
                *(amount(node.devices.get(device, 0)) for device in devices),
            ]
            for node in nodes
        ],
        dtype=np.int64,
    ).reshape(len(nodes), 2 + len(devices))
    result = Inventory(
        snapshot=snapshot,
        nodes=nodes,
        index={node.name: place for place, node in enumerate(nodes)},
        device_columns=device_columns,
        licence_columns={licence: column for column, licence in enumerate(sorted(snapshot.licences))},
        capacities=np.ascontiguousarray(capacities.T),
        usable=np.array([node.state is NodeState.UP for node in nodes], dtype=bool),
        plain=(),
        natives={},
    )
    plain: list[Taken] = []
    natives: dict[Owner, Natives] = {}
    reservations = {reservation.name: reservation for reservation in snapshot.reservations}
    for job in snapshot.running:
        owner = _owner_of_job(job, reservations)
        for place, piece in _running(job, result):
            if owner is None:
                plain.append((place, piece))
            else:
                group = natives.setdefault(owner, Natives({}, {}))
                group.jobs.setdefault(place, []).append(piece)
    inhabited = set(natives)
    for reservation in snapshot.reservations:
        owner = _owner_of_reservation(reservation)
        for place, piece in _reserved(reservation, result):
            if reservation.session is None and owner not in inhabited:
                plain.append((place, piece))
            else:
                group = natives.setdefault(owner, Natives({}, {}))
                group.reservations.setdefault(place, []).append(piece)
    return replace(result, plain=tuple(plain), natives=natives)


def _owner_of_reservation(reservation: Reservation) -> Owner:
    if reservation.session is not None:
        return ("session", reservation.session)
    return ("reservation", reservation.name)


def _owner_of_job(job: RunningJob, reservations: Mapping[str, Reservation]) -> Owner | None:
    """A job takes from the reservation that it runs in, not beside it."""
    if job.session is not None:
        return ("session", job.session)
    if job.reservation is not None and (reservation := reservations.get(job.reservation)) is not None:
        return _owner_of_reservation(reservation)
    return None


def _running(job: RunningJob, known: Inventory) -> Iterator[Taken]:
    """A job holds its share already, whatever the clock says; its start is of no interest."""
    end = FOREVER if job.ends is None else instant(known.ending(job.ends))
    for allocation in job.allocations:
        if (place := known.index.get(allocation.node)) is not None:
            yield place, Piece(PAST, end, known.amounts(allocation))
    if job.licences:
        yield LICENCES, Piece(PAST, end, known.licence_amounts(job.licences))


def _reserved(reservation: Reservation, known: Inventory) -> Iterator[Taken]:
    """Maintenance takes the whole of each of its nodes, whatever share the batch system names."""
    start, end = instant(reservation.start), instant(reservation.end)
    for allocation in reservation.allocations:
        if (place := known.index.get(allocation.node)) is not None:
            amounts = known.amounts(allocation)
            if reservation.maintenance:
                amounts = tuple(map(max, amounts, known.amounts(known.nodes[place])))
            yield place, Piece(start, end, amounts)
    if reservation.licences:
        yield LICENCES, Piece(start, end, known.licence_amounts(reservation.licences))
