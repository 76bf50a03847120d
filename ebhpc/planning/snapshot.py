"""A platform's state as its batch system tells it.

Times are POSIX seconds, durations seconds, memory MiB. A job or reservation of the broker's own carries the
session's UUID in ``session``, so that it is not counted beside the broker's booking.
"""

from __future__ import annotations

import zlib
from enum import StrEnum

import msgspec
from msgspec import Struct, field

from ebhpc.model.sessions import Allocation, Shape


class NodeState(StrEnum):
    """UP takes work; DRAINED finishes what runs and takes no more; DOWN runs nothing."""

    UP = "UP"
    DRAINED = "DRAINED"
    DOWN = "DOWN"


class Node(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A node and all that it has, whether free or not."""

    name: str
    cores: int
    memory: int
    devices: dict[str, int] = field(default_factory=dict)
    features: tuple[str, ...] = ()
    state: NodeState = NodeState.UP


class Partition(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A named set of nodes with a time limit (None: unlimited)."""

    name: str
    nodes: tuple[str, ...]
    time_limit: int | None = None
    default: bool = False
    priority: int = 0
    open: bool = True


class RunningJob(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A job that runs; ``ends`` is its limit (None: it has none).

    ``reservation`` names the reservation that it runs in, so that the two are not added up.
    """

    id: str
    allocations: tuple[Allocation, ...]
    started: int
    ends: int | None = None
    session: str | None = None
    reservation: str | None = None
    user: str | None = None
    account: str | None = None
    partition: str | None = None
    licences: dict[str, int] = field(default_factory=dict)


class WaitingJob(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A job that waits; the snapshot lists them in the order of the batch system. ``begin``: not before."""

    id: str
    nodes: int = 1
    shape: Shape
    time_limit: int | None = None
    submitted: int = 0
    begin: int | None = None
    priority: int = 0
    partitions: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    held: bool = False
    session: str | None = None
    user: str | None = None
    account: str | None = None
    licences: dict[str, int] = field(default_factory=dict)


class Reservation(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Resources kept for someone, or for maintenance, from ``start`` to ``end``."""

    name: str
    start: int
    end: int
    allocations: tuple[Allocation, ...]
    session: str | None = None
    maintenance: bool = False
    licences: dict[str, int] = field(default_factory=dict)


class FinishedJob(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A job that ended since the last look: what it asked for and how long it ran."""

    id: str
    nodes: int
    cores: int
    time_limit: int | None
    submitted: int
    started: int
    ended: int
    user: str | None = None
    account: str | None = None
    partition: str | None = None


class Snapshot(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All of it, at the instant ``taken``."""

    platform: str
    taken: int
    nodes: tuple[Node, ...]
    partitions: tuple[Partition, ...] = ()
    running: tuple[RunningJob, ...] = ()
    waiting: tuple[WaitingJob, ...] = ()
    reservations: tuple[Reservation, ...] = ()
    finished: tuple[FinishedJob, ...] = ()
    licences: dict[str, int] = field(default_factory=dict)


class SnapshotUnreadableError(ValueError):
    """The bytes are no snapshot that this version of ebhpc has written; the driver's next one will be."""


_FORM = b"S1"
"""The first bytes of an encoded snapshot; another number whenever the Structs above change beyond new fields."""

_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Snapshot)


def encode_snapshot(snapshot: Snapshot) -> bytes:
    """Return the compact form of a snapshot, for the database."""
    return _FORM + zlib.compress(_ENCODER.encode(snapshot), level=1)


def decode_snapshot(encoded: bytes) -> Snapshot:
    """Return the snapshot of a compact form.

    Raises:
        SnapshotUnreadableError: the bytes are damaged, or of another version of ebhpc.
    """
    if not encoded.startswith(_FORM):
        raise SnapshotUnreadableError("the snapshot is none, or of another version of ebhpc")
    try:
        return _DECODER.decode(zlib.decompress(encoded[len(_FORM) :]))
    except (zlib.error, msgspec.DecodeError) as error:
        raise SnapshotUnreadableError(f"the snapshot is damaged: {error}") from error
