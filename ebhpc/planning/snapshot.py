"""A platform's state as its batch system tells it.

Times are POSIX seconds, durations seconds, memory MiB. A job or reservation of the broker's own carries the
session's UUID in ``session``, so that it is not counted beside the broker's booking.

Of nodes and jobs there may be a hundred thousand. They refer to nothing that refers to them, so the garbage collector
need not look at them (``gc=False``).
"""

from __future__ import annotations

import zlib
from enum import StrEnum
from typing import Literal

import msgspec
from msgspec import Struct, field
from msgspec.structs import replace

from ebhpc.model.sessions import Allocation, Shape
from ebhpc.planning.pauses import PORTION, Pause, no_pause


class NodeState(StrEnum):
    """UP takes work; DRAINED finishes what runs and takes no more; DOWN runs nothing."""

    UP = "UP"
    DRAINED = "DRAINED"
    DOWN = "DOWN"


class Node(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A node and all that it has, whether free or not."""

    name: str
    cores: int
    memory: int
    devices: dict[str, int] = field(default_factory=dict)
    features: tuple[str, ...] = ()
    state: NodeState = NodeState.UP


class Partition(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A named set of nodes with a time limit (None: unlimited)."""

    name: str
    nodes: tuple[str, ...]
    time_limit: int | None = None
    default: bool = False
    priority: int = 0
    open: bool = True


class RunningJob(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
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


class WaitingJob(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A job that waits; the snapshot lists them in the order of the batch system. ``begin``: not before.

    - ``held``: it waits for someone to let it go. ``dependent``: it waits for other jobs. Neither starts by itself,
      so neither is in anybody's way.
    - ``tasks``: as many jobs of this kind wait in its place (an array's tasks); ``at_once``: so many of them may run
      at the same time (None: any).
    - ``partitions``: it runs in one of them, whichever lets it start first; none: in the default one.
    - ``features``: each of its nodes has all of them. ``required``: its nodes are these, or these and others;
      ``excluded``: nodes that it does not take.
    - ``exclusive``: it takes its nodes whole, whatever ``shape`` says.
    - ``reservation``: it runs inside that one and takes from that, not from what is free.
    - ``session``: it is the broker's own.
    """

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
    dependent: bool = False
    tasks: int = 1
    at_once: int | None = None
    reservation: str | None = None
    required: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    exclusive: bool = False


class Reservation(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Resources kept for someone, or for maintenance, from ``start`` to ``end``."""

    name: str
    start: int
    end: int
    allocations: tuple[Allocation, ...]
    session: str | None = None
    maintenance: bool = False
    licences: dict[str, int] = field(default_factory=dict)


class FinishedJob(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
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


class PlannedJob(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """When and where a waiting job is planned to start: from ``start`` to ``end``, its limit.

    It takes ``shape`` of each of ``nodes``, or all of each (``whole``).
    """

    id: str
    start: int
    end: int
    shape: Shape
    nodes: tuple[str, ...]
    whole: bool = False
    licences: dict[str, int] = field(default_factory=dict)
    session: str | None = None


class Scheduler(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How the batch system's scheduler plans the waiting jobs. The names in brackets are Slurm's (slurm.conf(5),
    SchedulerParameters), which says minutes where this says seconds, and 0 where this says None.

    - ``backfill``: ``conservative``: each waiting job that is looked at gets a planned start, which later ones do not
      push back (sched/backfill). ``easy``: only the first that cannot start at once, of each partition. ``greedy``:
      none, whatever fits starts, and nothing is kept free for what does not (HTCondor's negotiator). ``none``: in
      strict order, no job starts before another that stands before it in its partition (sched/builtin).
    - ``window`` [bf_window]: seconds from now to the last start that is planned; None: no end.
    - ``depth`` [bf_max_job_test]: how many waiting jobs are looked at; ``per_user`` [bf_max_job_user] and
      ``per_partition`` [bf_max_job_part]: of one user, and of one partition; None: all.
    - ``per_array`` [bf_max_job_array_resv]: of how many of an array's tasks starts are planned; None: of all.
    - ``resolution`` [bf_resolution]: later starts are planned in multiples of so many seconds.
    - ``gap``: how many seconds a node's share must stay free after what the broker books there: jobs end late.
    - ``limit_step``: jobs' time limits are multiples of so many seconds (60 where they are minutes).
    - ``whole_nodes``: what spans several nodes takes them whole, because no share of each can be reserved.
    """

    backfill: Literal["conservative", "easy", "greedy", "none"] = "conservative"
    window: int | None = None
    depth: int | None = None
    per_user: int | None = None
    per_partition: int | None = None
    per_array: int | None = None
    resolution: int = 1
    gap: int = 0
    limit_step: int = 1
    whole_nodes: bool = False


class Flavor(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A fixed shape that a platform hands out, and the licences that it costs, as a project's quota."""

    name: str
    shape: Shape
    licences: dict[str, int] = field(default_factory=dict)


class StorageLicences(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How storage counts where it is made for each session, as volumes of a cloud are: an element whose least size is
    asked for takes one of the licences ``count``, and of ``gib`` as many as that size in GiB.
    """

    count: str
    gib: str


class Snapshot(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All of it, at the instant ``taken``. ``scheduler`` None: not known, taken for conservative without limits.

    ``flavors``: the only shapes that the platform hands out (None: any). ``stored``: the licences that storage takes
    (None: none).

    ``planned`` are starts of waiting jobs as :func:`ebhpc.planning.planned_starts` plans them; no plugin fills it.
    """

    platform: str
    taken: int
    nodes: tuple[Node, ...]
    partitions: tuple[Partition, ...] = ()
    running: tuple[RunningJob, ...] = ()
    waiting: tuple[WaitingJob, ...] = ()
    reservations: tuple[Reservation, ...] = ()
    finished: tuple[FinishedJob, ...] = ()
    licences: dict[str, int] = field(default_factory=dict)
    scheduler: Scheduler | None = None
    planned: tuple[PlannedJob, ...] = ()
    flavors: tuple[Flavor, ...] | None = None
    stored: StorageLicences | None = None


class SnapshotUnreadableError(ValueError):
    """The bytes are no snapshot that this version of ebhpc has written; the driver's next one will be."""


_FORM = b"S2"
"""The first bytes of an encoded snapshot; another number whenever the Structs above change beyond new fields."""

_LISTS: dict[str, type[Struct]] = {
    "nodes": Node,
    "running": RunningJob,
    "waiting": WaitingJob,
    "reservations": Reservation,
    "finished": FinishedJob,
    "planned": PlannedJob,
}
_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(tuple[bytes, dict[str, list[bytes]]])
_HEAD = msgspec.msgpack.Decoder(Snapshot)
_ITEMS = {name: msgspec.msgpack.Decoder(list[item]) for name, item in _LISTS.items()}  # type: ignore[valid-type]


def encode_snapshot(snapshot: Snapshot) -> bytes:
    """Return the compact form of a snapshot, for the database."""
    lists = {name: getattr(snapshot, name) for name in _LISTS}
    head = _ENCODER.encode(replace(snapshot, **dict.fromkeys(_LISTS, ())))
    portions = {
        name: [_ENCODER.encode(items[first : first + PORTION]) for first in range(0, len(items), PORTION)]
        for name, items in lists.items()
    }
    return _FORM + zlib.compress(_ENCODER.encode((head, portions)), level=1)


def decode_snapshot(encoded: bytes, *, pause: Pause = no_pause) -> Snapshot:
    """Return the snapshot of a compact form; ``pause`` is called now and then.

    Raises:
        SnapshotUnreadableError: the bytes are damaged, or of another version of ebhpc.
    """
    if not encoded.startswith(_FORM):
        raise SnapshotUnreadableError("the snapshot is none, or of another version of ebhpc")
    try:
        head, portions = _DECODER.decode(zlib.decompress(encoded[len(_FORM) :]))
        lists = {name: _items(decoder, portions[name], pause) for name, decoder in _ITEMS.items()}
        return replace(_HEAD.decode(head), **lists)
    except (zlib.error, msgspec.DecodeError, KeyError) as error:
        raise SnapshotUnreadableError(f"the snapshot is damaged: {error}") from error


def _items(decoder: msgspec.msgpack.Decoder[list[Struct]], portions: list[bytes], pause: Pause) -> tuple[Struct, ...]:
    items: list[Struct] = []
    for portion in portions:
        items += decoder.decode(portion)
        pause()
    return tuple(items)
