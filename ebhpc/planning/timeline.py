"""Timeline: free cores, memory, devices and licences over time, from a snapshot and the broker's bookings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from ebhpc.model.sessions import Shape, Window
from ebhpc.planning.booking import Booking
from ebhpc.planning.inventory import LICENCES, Inventory, Natives, inventory
from ebhpc.planning.pauses import Pause, no_pause
from ebhpc.planning.profile import FOREVER, Piece, Profile, in_arrays, instant, taking_everywhere, united
from ebhpc.planning.rows import Rows, licences_of, rows_of, rows_of_profiles
from ebhpc.planning.snapshot import Snapshot

_BUCKET = 8
"""Bookings lie in buckets of 2**8 neighbouring ids: a change copies a few small dicts and not a large one."""

_MOST_CHANGED = 64
"""So many nodes' profiles may differ from the rows that timelines share, until new rows are made."""

_MANY_NODES = 8
"""On so many nodes the same is better taken at once."""

_FEW_SEGMENTS = 4096
"""So many segments are copied at each change without a thought."""


class Timeline:
    """What is free on each node over time. Never changes: what alters it makes another that shares the rest.

    It is as true as its snapshot: of each node all that it has, less running jobs until their limits (for
    ever without one; some time longer when they are past it), less reservations, less bookings. A node that
    is DRAINED or DOWN has nothing free.

    What the batch system tells of a session of the broker's own is not added to the session's bookings: on
    each node and at each instant the greatest of its jobs, its reservations and its bookings counts. A job of
    its own without a limit counts until the end of its bookings, when the broker ends it.

    ``gap``: bookings and windows are taken to last so many seconds longer than they say: batch systems need them to
    end a job. Window.end and Booking.end are without it. What ``snapshot.planned`` says of waiting jobs is taken, too,
    unless ``delay_queue``: the site lets windows delay them.
    """

    __slots__ = ("_booked", "_changed", "_licences", "_owned", "_parts", "_rows", "delay_queue", "gap", "inventory")

    def __init__(
        self,
        known: Inventory,
        rows: Rows,
        changed: Mapping[int, Profile],
        licences: Profile,
        booked: Mapping[int, Mapping[int, Booking]],
        owned: Mapping[str, Mapping[int, Booking]],
        gap: int,
        delay_queue: bool,
    ) -> None:
        """Use :meth:`of`."""
        self.inventory = known
        self.delay_queue = delay_queue
        self.gap = gap
        self._rows = rows
        self._changed = changed
        self._licences = licences
        self._booked = booked
        self._owned = owned
        self._parts: tuple[tuple[Rows, tuple[int, ...]], ...] | None = None

    @classmethod
    def of(
        cls,
        snapshot: Snapshot,
        bookings: Iterable[Booking] = (),
        *,
        gap: int = 0,
        delay_queue: bool = False,
        pause: Pause = no_pause,
    ) -> Timeline:
        """Make the timeline of a snapshot and all live bookings (of equal ids the last counts).

        ``pause`` is called now and then: of a large snapshot that takes long.
        """
        live = {booking.id: booking for booking in bookings}.values()
        return cls._of(snapshot, live, gap, delay_queue, pause)

    @classmethod
    def _of(
        cls, snapshot: Snapshot, bookings: Iterable[Booking], gap: int, delay_queue: bool, pause: Pause = no_pause
    ) -> Timeline:
        known = inventory(snapshot, delay_queue=delay_queue, pause=pause)
        taken = [(LICENCES, piece) for piece in known.plain_licences]
        booked: dict[int, dict[int, Booking]] = {}
        owned: dict[str, dict[int, Booking]] = {}
        apart: list[Booking] = []
        for booking in bookings:
            booked.setdefault(booking.id >> _BUCKET, {})[booking.id] = booking
            if ("session", booking.session) in known.natives:
                owned.setdefault(booking.session, {})[booking.id] = booking
            elif booking.licences:
                taken.extend(known.booked(booking, gap))
            else:
                apart.append(booking)
        for (kind, name), natives in known.natives.items():
            bookings_of = owned.get(name, {}) if kind == "session" else {}
            for place, pieces in _claims(known, natives, bookings_of, gap).items():
                taken.extend((place, piece) for piece in pieces)
        capacities = np.where(known.usable, known.capacities, 0)
        quantities = len(capacities)
        try:
            at_once = known.booked_at_once(apart, gap)
        except OverflowError:
            taken.extend(found for booking in apart for found in known.booked(booking, gap))
            at_once = in_arrays([], [], quantities)
        on_nodes = [(place, piece) for place, piece in taken if place != LICENCES]
        singly = in_arrays([place for place, _ in on_nodes], [piece for _, piece in on_nodes], quantities)
        rows = rows_of(capacities, [*known.plain, singly, at_once])
        licences = licences_of(
            known.licence_amounts(known.snapshot.licences), [piece for place, piece in taken if place == LICENCES]
        )
        return cls(known, rows, {}, licences, booked, owned, gap, delay_queue)

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
        if place == LICENCES:
            return self._licences
        changed = self._changed.get(place)
        return self._rows.profile(place) if changed is None else changed

    def free(self, node: str, start: int, end: int) -> Shape:
        """Return what is free on a node throughout [``start``, ``end``), which must not be empty.

        Raises:
            KeyError: no node has that name.
        """
        place = self.inventory.index[node]
        cores, memory, *counts = (max(amount, 0) for amount in self.profile(place).least(start, end))
        devices = dict(zip(self.inventory.device_columns, counts, strict=True))
        return Shape(cores=cores, memory=memory, devices={name: count for name, count in devices.items() if count})

    def parts(self) -> tuple[tuple[Rows, tuple[int, ...]], ...]:
        """Return rows that together have every node's segments, each with the places that do not count there.

        Rows are shared by many timelines; what differs of this one is in the first, if anything does.
        """
        if self._parts is None:
            self._parts = ((self._rows, ()),)
            if self._changed:
                changed = rows_of_profiles(self._changed, len(self.inventory.capacities))
                everything = len(self._changed) == len(self.inventory.nodes)
                self._parts = ((changed, ()),) + (() if everything else ((self._rows, tuple(self._changed)),))
        return self._parts

    def with_snapshot(self, snapshot: Snapshot, *, gap: int | None = None) -> Timeline:
        """Return the timeline of a newer snapshot and the same bookings; ``gap`` None: the same, too."""
        return self._of(snapshot, self.bookings(), self.gap if gap is None else gap, self.delay_queue)

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
                    for place, piece in known.booked(booking, self.gap):
                        changes.setdefault(place, []).append(piece.reverted() if back else piece)
        for session in touched:
            before = owned.get(session, {})
            after = {number: booking for number, booking in before.items() if number not in gone}
            after.update((number, booking) for number, booking in come.items() if booking.session == session)
            natives = known.natives["session", session]
            for place, pieces in _claims(known, natives, before, self.gap).items():
                changes.setdefault(place, []).extend(piece.reverted() for piece in pieces)
            for place, pieces in _claims(known, natives, after, self.gap).items():
                changes.setdefault(place, []).extend(pieces)
            owned[session] = after
        changed, licences = self._taking(changes)
        rows = self._rows
        most = _FEW_SEGMENTS + len(rows.times) // 4
        if len(changed) > _MOST_CHANGED or sum(len(one.times) for one in changed.values()) > most:
            rows, changed = rows.spliced(changed), {}
        return Timeline(known, rows, changed, licences, booked, owned, self.gap, self.delay_queue)

    def with_windows(self, windows: Iterable[Window]) -> Timeline:
        """Return the timeline with the windows taken too, as bookings without an id would be.

        Raises:
            KeyError: a window names a node that there is not.
        """
        changes: dict[int, list[Piece]] = {}
        for window in windows:
            for place, piece in self.claimed(window):
                changes.setdefault(place, []).append(piece)
        changed, licences = self._taking(changes)
        return Timeline(
            self.inventory, self._rows, changed, licences, self._booked, self._owned, self.gap, self.delay_queue
        )

    def claimed(self, window: Window) -> Iterator[tuple[int, Piece]]:
        """Yield what a window takes, and at which place.

        Raises:
            KeyError: it names a node that there is not.
        """
        known = self.inventory
        start = instant(window.start)
        end = instant(window.end + self.gap) if window.start < window.end else start
        for allocation in window.allocations:
            yield known.index[allocation.node], Piece(start, end, known.amounts(allocation))
        if window.licences:
            yield LICENCES, Piece(start, end, known.licence_amounts(window.licences))

    def _taking(self, changes: Mapping[int, list[Piece]]) -> tuple[dict[int, Profile], Profile]:
        changed = dict(self._changed)
        licences = self._licences
        places = [place for place in changes if place != LICENCES]
        first = changes[places[0]] if len(places) >= _MANY_NODES else []
        if len(first) == 1 and all(changes[place] == first for place in places):
            # The window of a job on many nodes
            after_all = taking_everywhere([self.profile(place) for place in places], first[0])
            changed.update(zip(places, after_all, strict=True))
            changes = {place: pieces for place, pieces in changes.items() if place == LICENCES}
        for place, pieces in changes.items():
            before = self.profile(place)
            after = before.taking(pieces)
            if place == LICENCES:
                licences = after
            elif after is not before:
                changed[place] = after
        return changed, licences


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


def _claims(known: Inventory, natives: Natives, bookings: Mapping[int, Booking], gap: int) -> dict[int, list[Piece]]:
    """Return what an owner takes at each place: the greatest of jobs, reservations and bookings."""
    booked: dict[int, list[Piece]] = {}
    for booking in bookings.values():
        for place, piece in known.booked(booking, gap):
            booked.setdefault(place, []).append(piece)
    ends = FOREVER
    if bookings:
        ends = instant(known.ending(max(booking.end for booking in bookings.values()) + gap))
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
