"""Inventory: a snapshot made ready for planning, without the broker's bookings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ebhpc.model.sessions import Allocation, Shape
from ebhpc.planning.booking import Booking
from ebhpc.planning.pauses import PORTION, Pause, no_pause
from ebhpc.planning.profile import (
    FOREVER,
    LARGEST_AMOUNT,
    PAST,
    Amounts,
    Integers,
    Piece,
    Pieces,
    amount,
    in_arrays,
    instant,
)
from ebhpc.planning.snapshot import Node, NodeState, PlannedJob, Reservation, RunningJob, Snapshot

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
    ``device_columns``; ``usable`` tells which nodes are UP, ``members`` which a partition has, ``features`` which have
    a feature. ``plain`` is taken of nodes, and ``plain_licences`` of the licences, whatever the broker books;
    ``natives`` belongs to owners, of each of whom the greatest of jobs, reservations and bookings counts.
    """

    snapshot: Snapshot
    nodes: tuple[Node, ...]
    index: Mapping[str, int]
    device_columns: Mapping[str, int]
    licence_columns: Mapping[str, int]
    no_devices: Amounts
    capacities: Integers
    usable: NDArray[np.bool_]
    members: Mapping[str, NDArray[np.bool_]]
    features: Mapping[str, NDArray[np.bool_]]
    plain: tuple[Pieces, ...]
    plain_licences: tuple[Piece, ...]
    natives: Mapping[Owner, Natives]
    _ranks: dict[tuple[int, ...], Integers] = field(default_factory=dict)

    def amounts(self, share: Shape | Allocation | Booking | Node) -> Amounts:
        """Return a share of a node as amounts by column, without device types that no node has."""
        if not share.devices:
            return amount(share.cores), amount(share.memory), *self.no_devices
        row = [amount(share.cores), amount(share.memory), *self.no_devices]
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

    def rank(self, columns: tuple[int, ...]) -> Integers:
        """Return each node's place in the order of how little it has of those columns, then of the snapshot.

        Kept from the first time on; no node's capacities ever change here.
        """
        if (known := self._ranks.get(columns)) is not None:
            return known
        order = self.capacities[list(columns)].sum(axis=0).argsort(kind="stable")
        rank = np.empty(len(order), dtype=np.int64)
        rank[order] = np.arange(len(order))
        rank.setflags(write=False)
        self._ranks[columns] = rank
        return rank

    def booked(self, booking: Booking, gap: int = 0) -> Iterator[Taken]:
        """Yield what a booking takes, and where; nothing for a node that the platform has no more.

        ``gap`` is how many seconds longer than it says it lasts, if it lasts at all.
        """
        start = instant(booking.start)
        end = instant(booking.end + gap) if booking.start < booking.end else start
        if (place := self.index.get(booking.node)) is not None:
            yield place, Piece(start, end, self.amounts(booking))
        if booking.licences:
            yield LICENCES, Piece(start, end, self.licence_amounts(booking.licences))

    def booked_at_once(self, bookings: Sequence[Booking], gap: int) -> Pieces:
        """Return what many bookings take of nodes, as :meth:`booked` does one by one.

        Raises:
            OverflowError: some number in them is too large for an array.
        """
        known = [booking for booking in bookings if booking.node in self.index]
        starts = np.array([booking.start for booking in known], dtype=np.int64)
        ends = np.array([booking.end for booking in known], dtype=np.int64)
        amounts = np.zeros((len(known), len(self.capacities)), dtype=np.int64)
        amounts[:, 0] = [booking.cores for booking in known]
        amounts[:, 1] = [booking.memory for booking in known]
        for row, booking in enumerate(known):
            if booking.devices:
                amounts[row] = self.amounts(booking)
        return Pieces(
            np.array([self.index[booking.node] for booking in known], dtype=np.int64),
            np.clip(starts, PAST, FOREVER),
            np.clip(np.where(starts < ends, np.minimum(ends, FOREVER) + gap, starts), PAST, FOREVER),
            np.clip(amounts, 0, LARGEST_AMOUNT),
        )

    def ending(self, limit: int) -> int:
        """Return until when something that runs in the snapshot is taken to run, by its limit.

        Past its limit: as long again as it has been over it, and GRACE at least.
        """
        taken = self.snapshot.taken
        return limit if limit > taken else taken + max(GRACE, taken - limit)


def inventory(snapshot: Snapshot, *, delay_queue: bool = False, pause: Pause = no_pause) -> Inventory:
    """Sort out a snapshot. Of nodes with one name the first counts; unknown nodes in jobs are ignored.

    ``delay_queue``: what waiting jobs are planned to take counts as free. ``pause`` is called now and then.
    """
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
    index = {node.name: place for place, node in enumerate(nodes)}
    result = Inventory(
        snapshot=snapshot,
        nodes=nodes,
        index=index,
        device_columns=device_columns,
        licence_columns={licence: column for column, licence in enumerate(sorted(snapshot.licences))},
        no_devices=(0,) * len(devices),
        capacities=np.ascontiguousarray(capacities.T),
        usable=np.array([node.state is NodeState.UP for node in nodes], dtype=bool),
        members={
            partition.name: _marked([index[name] for name in partition.nodes if name in index], len(nodes))
            for partition in snapshot.partitions
        },
        features=_featured(nodes),
        plain=(),
        plain_licences=(),
        natives={},
    )
    plain = _Plain(2 + len(devices), pause)
    natives: dict[Owner, Natives] = {}
    reservations = {reservation.name: reservation for reservation in snapshot.reservations}
    for job in snapshot.running:
        owner = _owner_of_job(job, reservations)
        for place, piece in _running(job, result):
            if owner is None:
                plain.add(place, piece)
            else:
                group = natives.setdefault(owner, Natives({}, {}))
                group.jobs.setdefault(place, []).append(piece)
    for planned in () if delay_queue else snapshot.planned:
        for place, piece in _planned(planned, result):
            if planned.session is None:
                plain.add(place, piece)
            else:
                group = natives.setdefault(("session", planned.session), Natives({}, {}))
                group.jobs.setdefault(place, []).append(piece)
    inhabited = set(natives)
    for reservation in snapshot.reservations:
        owner = _owner_of_reservation(reservation)
        for place, piece in _reserved(reservation, result):
            if reservation.session is None and owner not in inhabited:
                plain.add(place, piece)
            else:
                group = natives.setdefault(owner, Natives({}, {}))
                group.reservations.setdefault(place, []).append(piece)
    return replace(result, plain=plain.arrays(), plain_licences=tuple(plain.licences), natives=natives)


class _Plain:
    """Collects what is taken whatever the broker books. Of nodes as arrays, made of a portion at a time."""

    def __init__(self, quantities: int, pause: Pause) -> None:
        self.licences: list[Piece] = []
        self._quantities = quantities
        self._pause = pause
        self._places: list[int] = []
        self._pieces: list[Piece] = []
        self._full: list[Pieces] = []

    def add(self, place: int, piece: Piece) -> None:
        if place == LICENCES:
            self.licences.append(piece)
            return
        self._places.append(place)
        self._pieces.append(piece)
        if len(self._places) == PORTION:
            self._put_away()

    def arrays(self) -> tuple[Pieces, ...]:
        if self._places:
            self._put_away()
        return tuple(self._full)

    def _put_away(self) -> None:
        self._full.append(in_arrays(self._places, self._pieces, self._quantities))
        self._places, self._pieces = [], []
        self._pause()


def _marked(places: list[int], count: int) -> NDArray[np.bool_]:
    marked = np.zeros(count, dtype=bool)
    marked[places] = True
    marked.setflags(write=False)
    return marked


def _featured(nodes: tuple[Node, ...]) -> dict[str, NDArray[np.bool_]]:
    having: dict[str, list[int]] = {}
    for place, node in enumerate(nodes):
        for feature in node.features:
            having.setdefault(feature, []).append(place)
    return {feature: _marked(places, len(nodes)) for feature, places in having.items()}


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


def _planned(job: PlannedJob, known: Inventory) -> Iterator[Taken]:
    start, end = instant(job.start), instant(job.end)
    amounts = known.amounts(job.shape)
    for name in job.nodes:
        if (place := known.index.get(name)) is not None:
            yield place, Piece(start, end, known.amounts(known.nodes[place]) if job.whole else amounts)
    if job.licences:
        yield LICENCES, Piece(start, end, known.licence_amounts(job.licences))


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
