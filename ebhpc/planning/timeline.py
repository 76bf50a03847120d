"""Timeline: free cores, memory, devices and licences over time, from a snapshot and the broker's bookings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from ebhpc.model.sessions import Shape, Window
from ebhpc.planning.booking import Booking
from ebhpc.planning.inventory import LICENCES, Inventory, Natives, inventory
from ebhpc.planning.profile import FOREVER, Integers, Piece, Profile, built, instant, united
from ebhpc.planning.snapshot import Snapshot

_BUCKET = 8
"""Bookings lie in buckets of 2**8 neighbouring ids: a change copies a few small dicts and not a large one."""


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """All nodes' profiles in a row: segment ``k``, of node ``owner[k]``, from ``times[k]`` to ``ends[k]``.

    ``times``, ``ends``, ``owner`` have shape ``(K,)``, ``free`` has ``(quantities, K)``. A node's segments
    are neighbours, in the order of time.
    """

    times: Integers
    ends: Integers
    owner: Integers
    free: Integers


class Timeline:
    """What is free on each node over time. Never changes: what alters it makes another that shares the rest.

    It is as true as its snapshot: of each node all that it has, less running jobs until their limits (for
    ever without one; some time longer when they are past it), less reservations, less bookings. A node that
    is DRAINED or DOWN has nothing free.

    What the batch system tells of a session of the broker's own is not added to the session's bookings: on
    each node and at each instant the greatest of its jobs, its reservations and its bookings counts. A job of
    its own without a limit counts until the end of its bookings, when the broker ends it.
    """

    __slots__ = ("_booked", "_licences", "_owned", "_profiles", "_rows", "inventory")

    def __init__(
        self,
        known: Inventory,
        profiles: tuple[Profile, ...],
        licences: Profile,
        booked: Mapping[int, Mapping[int, Booking]],
        owned: Mapping[str, Mapping[int, Booking]],
    ) -> None:
        """Use :meth:`of`."""
        self.inventory = known
        self._profiles = profiles
        self._licences = licences
        self._booked = booked
        self._owned = owned
        self._rows: Rows | None = None

    @classmethod
    def of(cls, snapshot: Snapshot, bookings: Iterable[Booking] = ()) -> Timeline:
        """Make the timeline of a snapshot and all live bookings (of equal ids the last counts)."""
        return cls._of(inventory(snapshot), {booking.id: booking for booking in bookings}.values())

    @classmethod
    def _of(cls, known: Inventory, bookings: Iterable[Booking]) -> Timeline:
        taken = list(known.plain)
        booked: dict[int, dict[int, Booking]] = {}
        owned: dict[str, dict[int, Booking]] = {}
        for booking in bookings:
            booked.setdefault(booking.id >> _BUCKET, {})[booking.id] = booking
            if ("session", booking.session) in known.natives:
                owned.setdefault(booking.session, {})[booking.id] = booking
            else:
                taken.extend(known.booked(booking))
        for (kind, name), natives in known.natives.items():
            bookings_of = owned.get(name, {}) if kind == "session" else {}
            for place, pieces in _claims(known, natives, bookings_of).items():
                taken.extend((place, piece) for piece in pieces)
        capacities = np.where(known.usable, known.capacities, 0)
        on_nodes = [(place, piece) for place, piece in taken if place != LICENCES]
        profiles = built(capacities, [place for place, _ in on_nodes], [piece for _, piece in on_nodes])
        of_licences = [piece for place, piece in taken if place == LICENCES]
        totals = np.array([known.licence_amounts(known.snapshot.licences)], dtype=np.int64).T
        licences = built(totals, [0] * len(of_licences), of_licences)[0]
        return cls(known, tuple(profiles), licences, booked, owned)

    @property
    def snapshot(self) -> Snapshot:
        """The snapshot that it was made of."""
        return self.inventory.snapshot

    def bookings(self) -> Iterator[Booking]:
        """Yield the bookings that it counts."""
        for bucket in self._booked.values():
            yield from bucket.values()

    def profile(self, place: int) -> Profile:
        """Return the profile of a node by its place in ``inventory.nodes``, or of the LICENCES."""
        return self._licences if place == LICENCES else self._profiles[place]

    def free(self, node: str, start: int, end: int) -> Shape:
        """Return what is free on a node throughout [``start``, ``end``), which must not be empty.

        Raises:
            KeyError: no node has that name.
        """
        cores, memory, *counts = (
            max(amount, 0) for amount in self._profiles[self.inventory.index[node]].least(start, end)
        )
        devices = dict(zip(self.inventory.device_columns, counts, strict=True))
        return Shape(cores=cores, memory=memory, devices={name: count for name, count in devices.items() if count})

    def rows(self) -> Rows:
        """Return all nodes' profiles in a row, made when first asked for."""
        if self._rows is None:
            lengths = [len(profile.times) for profile in self._profiles]
            if len(lengths) == 1:
                times, free = self._profiles[0].times, self._profiles[0].free
            else:
                times = np.concatenate([np.empty(0, np.int64), *(profile.times for profile in self._profiles)])
                empty = np.empty((len(self.inventory.capacities), 0), np.int64)
                free = np.concatenate([empty, *(profile.free for profile in self._profiles)], axis=1)
            ends = np.empty_like(times)
            ends[:-1] = times[1:]
            ends[np.cumsum(lengths, dtype=np.int64) - 1] = FOREVER
            self._rows = Rows(times, ends, np.repeat(np.arange(len(lengths)), lengths), free)
        return self._rows

    def with_snapshot(self, snapshot: Snapshot) -> Timeline:
        """Return the timeline of a newer snapshot and the same bookings."""
        return self._of(inventory(snapshot), self.bookings())

    def with_bookings(self, added: Iterable[Booking] = (), removed: Iterable[int] = ()) -> Timeline:
        """Return the timeline without the bookings ``removed``, and with those ``added``.

        ``removed`` are ids; unknown ones are ignored. An added booking takes the place of one with the same
        id. The cost is that of the nodes concerned.
        """
        known = self.inventory
        booked = dict(self._booked)
        owned = dict(self._owned)
        gone: dict[int, Booking] = {}
        come: dict[int, Booking] = {}
        for number in removed:
            if (booking := self._booked.get(number >> _BUCKET, {}).get(number)) is not None:
                gone[number] = booking
        for booking in added:
            if (old := self._booked.get(booking.id >> _BUCKET, {}).get(booking.id)) is not None:
                gone[booking.id] = old
            come[booking.id] = booking
        opened: dict[int, dict[int, Booking]] = {}
        for number in (*gone, *come):
            key = number >> _BUCKET
            if key not in opened:
                opened[key] = dict(booked.get(key, {}))
        for number in gone:
            del opened[number >> _BUCKET][number]
        for number, booking in come.items():
            opened[number >> _BUCKET][number] = booking
        booked.update(opened)
        for key in [key for key, bucket in opened.items() if not bucket]:
            del booked[key]
        changes: dict[int, list[Piece]] = {}
        touched: set[str] = set()
        for bookings, back in ((gone, True), (come, False)):
            for number, booking in bookings.items():
                if ("session", booking.session) in known.natives:
                    touched.add(booking.session)
                elif number not in gone or number not in come or not _same_share(gone[number], come[number]):
                    for place, piece in known.booked(booking):
                        changes.setdefault(place, []).append(piece.reverted() if back else piece)
        for session in touched:
            before = owned.get(session, {})
            after = {number: booking for number, booking in before.items() if number not in gone}
            after.update((number, booking) for number, booking in come.items() if booking.session == session)
            natives = known.natives["session", session]
            for place, pieces in _claims(known, natives, before).items():
                changes.setdefault(place, []).extend(piece.reverted() for piece in pieces)
            for place, pieces in _claims(known, natives, after).items():
                changes.setdefault(place, []).extend(pieces)
            owned[session] = after
        profiles, licences = self._taking(changes)
        return Timeline(known, profiles, licences, booked, owned)

    def with_windows(self, windows: Iterable[Window]) -> Timeline:
        """Return the timeline with the windows taken too, as bookings without an id would be.

        Raises:
            KeyError: a window names a node that there is not.
        """
        changes: dict[int, list[Piece]] = {}
        for window in windows:
            for place, piece in self.claimed(window):
                changes.setdefault(place, []).append(piece)
        profiles, licences = self._taking(changes)
        return Timeline(self.inventory, profiles, licences, self._booked, self._owned)

    def claimed(self, window: Window) -> Iterator[tuple[int, Piece]]:
        """Yield what a window takes, and at which place.

        Raises:
            KeyError: it names a node that there is not.
        """
        known = self.inventory
        start, end = instant(window.start), instant(window.end)
        for allocation in window.allocations:
            yield known.index[allocation.node], Piece(start, end, known.amounts(allocation))
        if window.licences:
            yield LICENCES, Piece(start, end, known.licence_amounts(window.licences))

    def _taking(self, changes: Mapping[int, list[Piece]]) -> tuple[tuple[Profile, ...], Profile]:
        profiles = list(self._profiles)
        licences = self._licences
        for place, pieces in changes.items():
            if place == LICENCES:
                licences = licences.taking(pieces)
            else:
                profiles[place] = profiles[place].taking(pieces)
        return tuple(profiles), licences


def fits(timeline: Timeline, windows: Iterable[Window]) -> bool:
    """Tell whether all the windows together fit on the timeline; looks only at the nodes that they name."""
    known = timeline.inventory
    claims: dict[int, list[Piece]] = {}
    for window in windows:
        for allocation in window.allocations:
            place = known.index.get(allocation.node)
            if place is None or not known.usable[place]:
                return False
            if any(count > 0 and device not in known.device_columns for device, count in allocation.devices.items()):
                return False
        if any(count > 0 and licence not in known.licence_columns for licence, count in window.licences.items()):
            return False
        for place, piece in timeline.claimed(window):
            if piece.start < piece.end:
                claims.setdefault(place, []).append(piece)
    return all(_takes(timeline.profile(place), pieces) for place, pieces in claims.items())


def _takes(profile: Profile, pieces: list[Piece]) -> bool:
    """Look at the quantities wanted only: what is overcommitted does no harm to those who want none of it."""
    if len(pieces) == 1:
        piece = pieces[0]
        free = profile.least(piece.start, piece.end)
        return all(free[quantity] >= wanted for quantity, wanted in enumerate(piece.amounts) if wanted)
    left = profile.taking(pieces)
    return all(
        left.least(piece.start, piece.end)[quantity] >= 0
        for piece in pieces
        for quantity, wanted in enumerate(piece.amounts)
        if wanted
    )


def _claims(known: Inventory, natives: Natives, bookings: Mapping[int, Booking]) -> dict[int, list[Piece]]:
    """Return what an owner takes at each place: the greatest of jobs, reservations and bookings."""
    booked: dict[int, list[Piece]] = {}
    for booking in bookings.values():
        for place, piece in known.booked(booking):
            booked.setdefault(place, []).append(piece)
    ends = FOREVER
    if bookings:
        ends = instant(known.ending(max(booking.end for booking in bookings.values())))
    claims = {}
    for place in natives.places() | set(booked):
        jobs = [
            Piece(piece.start, ends, piece.amounts) if piece.end == FOREVER else piece
            for piece in natives.jobs.get(place, [])
        ]
        claims[place] = united([jobs, natives.reservations.get(place, []), booked.get(place, [])])
    return claims


def _same_share(one: Booking, other: Booking) -> bool:
    """Whether two bookings take the same, as before and after an offer is accepted."""
    return (
        one.session == other.session
        and (one.node, one.start, one.end) == (other.node, other.start, other.end)
        and (one.cores, one.memory, one.devices) == (other.cores, other.memory, other.devices)
        and one.licences == other.licences
    )
