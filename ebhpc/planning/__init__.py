"""Planning: when does a request fit. Pure functions of data: no I/O, no clock of their own.

A :class:`Snapshot` and the live :class:`Booking` records make a :class:`Timeline`; :func:`windows` finds
where a demand fits on it, :func:`why_not` says why it does nowhere, :func:`fits` checks windows again before
they are booked, :func:`occupancy` shows what is free, :func:`bookings_of` tells what to book for a window.
:func:`planned_starts` plans the waiting jobs, so that windows keep out of their way.
"""

from ebhpc.model.apart import take_apart
from ebhpc.planning.availability import Availability, LicenceStep, NodeAvailability, Step, occupancy
from ebhpc.planning.booking import Booking, bookings_of
from ebhpc.planning.flavors import flavored, storable, stored, why_no_flavor
from ebhpc.planning.offers import windows
from ebhpc.planning.planned import planned_starts
from ebhpc.planning.refusal import why_never, why_not
from ebhpc.planning.snapshot import (
    FinishedJob,
    Flavor,
    Node,
    NodeState,
    Partition,
    PlannedJob,
    Reservation,
    RunningJob,
    Scheduler,
    Snapshot,
    SnapshotUnreadableError,
    StorageLicences,
    WaitingJob,
    decode_snapshot,
    encode_snapshot,
)
from ebhpc.planning.timeline import Timeline, fits

take_apart("ebhpc.planning")

__all__ = [
    "Availability",
    "Booking",
    "FinishedJob",
    "Flavor",
    "LicenceStep",
    "Node",
    "NodeAvailability",
    "NodeState",
    "Partition",
    "PlannedJob",
    "Reservation",
    "RunningJob",
    "Scheduler",
    "Snapshot",
    "SnapshotUnreadableError",
    "Step",
    "StorageLicences",
    "Timeline",
    "WaitingJob",
    "bookings_of",
    "decode_snapshot",
    "encode_snapshot",
    "fits",
    "flavored",
    "occupancy",
    "planned_starts",
    "storable",
    "stored",
    "why_never",
    "why_no_flavor",
    "why_not",
    "windows",
]
