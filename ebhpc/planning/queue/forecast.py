"""The queue simulated once for each snapshot, in a form from which a worker answers a new request in a millisecond.

The driver places all waiting jobs in many samples of how long jobs run, and publishes what is left then: behind all of
them, and at marks where a new job may go ahead of others (partitions of higher priority, users of higher
priority). A worker places the new job into each sample, and corrects the waits by what was learned.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct, field

from ebhpc.model.sessions import Demand
from ebhpc.planning.queue.estimator import StartEstimator
from ebhpc.planning.queue.grid import GRID, Profile, reach_of
from ebhpc.planning.queue.placement import Floats
from ebhpc.planning.queue.platform_queue import PlatformQueue
from ebhpc.planning.queue.simulation import Simulated
from ebhpc.planning.snapshot import Scheduler, Snapshot

MOST_TIERS = 4
"""So many priorities of partitions have marks of their own, the highest; those below share the last."""

_QUARTERS = 4

_MOST_USERS = 2000

LOWEST = -(2**62)


class ForecastUnreadableError(ValueError):
    """The bytes are no forecast that this version of ebhpc has made; the driver's next one will be."""


class NodeClass(Struct, frozen=True, array_like=True):
    """Nodes that are alike in all that a job can ask for; only those that are UP. Memory in MiB."""

    count: int
    amounts: tuple[int, ...]
    features: tuple[str, ...]
    partitions: tuple[str, ...]


class Mark(Struct, frozen=True, array_like=True):
    """A place in the queue, behind ``place`` jobs; ``below`` is the order (the priority of the partition, then its own)
    of the job behind it, LOWEST where there is none. ``work`` is what waits before it, in seconds of the machine.
    """

    place: int
    below: tuple[int, int]
    work: float


class Expected(Struct, frozen=True, array_like=True):
    """When a waiting job is expected to start, POSIX seconds."""

    earliest: int
    median: int
    latest: int


class Forecast(Struct, frozen=True, kw_only=True):
    """What becomes of the queue of one snapshot, ``taken`` (POSIX seconds).

    ``left`` are the profiles as bytes, one for each of ``marks``, and ``kept`` those of what something is kept free
    for, empty where that is all; their numbers have the shape ``(quantities, samples, instants)`` with so many
    ``samples``, of which the first is the plan on limits. ``shares`` tell which part of each class of nodes is in each
    pool, ``(pools, classes)``. ``bounds`` have for each mark the groups of jobs that are full: when the next of them is
    looked at.
    """

    platform: str
    taken: int
    classes: tuple[NodeClass, ...]
    devices: tuple[str, ...]
    tiers: dict[str, int]
    default: tuple[str, ...]
    scheduler: Scheduler | None
    capacity: tuple[float, ...]
    free: tuple[float, ...]
    running: int
    waiting: int
    work_running: float
    samples: int
    shares: bytes
    marks: tuple[Mark, ...]
    left: tuple[bytes, ...]
    kept: tuple[bytes, ...] = ()
    bounds: tuple[tuple[tuple[tuple[str, str], int, bytes], ...], ...] = ()
    priorities: dict[str, int] = field(default_factory=dict)
    """of each user, that of his waiting job that came last; empty where jobs stand in the order of submission"""

    sessions: dict[str, Expected] = field(default_factory=dict)
    """when the broker's own waiting jobs are expected to start, by session"""


_PROFILE = np.float32


def forecast_of(
    snapshot: Snapshot,
    queue: PlatformQueue,
    simulated: Simulated,
    estimator: StartEstimator,
    marks: tuple[int, ...],
) -> Forecast:
    """Return the forecast of a simulation with those ``marks`` (see :func:`marks_of`)."""
    state = queue.state
    classes, shares = _classes(queue)
    own = {job.id: job.session for job in snapshot.waiting if job.session is not None}
    sessions = {}
    for index, wish in enumerate(queue.wishes):
        if (session := own.get(wish.id)) is not None:
            answer = estimator.expect_from(state, simulated, index)
            if answer is not None:
                sessions[session] = Expected(
                    state.now + answer.earliest, state.now + answer.median, state.now + answer.latest
                )
    profiles = [simulated.profiles[mark] for mark in marks]
    return Forecast(
        platform=snapshot.platform,
        taken=snapshot.taken,
        classes=classes,
        devices=tuple(queue.members.known.device_columns),
        tiers={name: partition.priority for name, partition in queue.members.partitions.items()},
        default=queue.members.default,
        scheduler=snapshot.scheduler,
        capacity=tuple(state.capacity.tolist()),
        free=tuple(state.free.tolist()),
        running=len(state.running),
        waiting=len(state.waiting),
        work_running=simulated.running,
        samples=profiles[0].samples,
        shares=shares.astype(_PROFILE).tobytes(),
        marks=tuple(
            Mark(
                place,
                queue.wishes[place].key if place < len(queue.wishes) else (LOWEST, LOWEST),
                float(simulated.waiting[place - 1]) if place else 0.0,
            )
            for place in marks
        ),
        left=tuple(each.left.astype(_PROFILE).tobytes() for each in profiles),
        kept=tuple(b"" if each.kept is None else each.kept.astype(_PROFILE).tobytes() for each in profiles),
        bounds=tuple(_bounds(each, snapshot.scheduler) for each in profiles),
        priorities=_priorities(queue, snapshot),
        sessions=sessions,
    )


def marks_of(queue: PlatformQueue, snapshot: Snapshot) -> tuple[int, ...]:
    """Return the places in the queue where a new job may stand: behind all, and where priorities change."""
    wishes = queue.wishes
    found = {len(wishes)}
    tiers = sorted({partition.priority for partition in snapshot.partitions}, reverse=True)
    for tier in tiers[:MOST_TIERS]:
        found.add(next((place for place, wish in enumerate(wishes) if wish.key[0] < tier), len(wishes)))
    if not _in_order_of_submission(queue):
        found |= {len(wishes) * quarter // _QUARTERS for quarter in range(_QUARTERS)}
    return tuple(sorted(found))


def encode_forecast(forecast: Forecast) -> bytes:
    """Return the compact form of a forecast, for the database."""
    return _FORM + zlib.compress(_ENCODER.encode(forecast), level=1)


def decode_forecast(packed: bytes) -> Forecast:
    """Return the forecast of a compact form.

    Raises:
        ForecastUnreadableError: the bytes are damaged, or of another version of ebhpc.
    """
    if not packed.startswith(_FORM):
        raise ForecastUnreadableError("it is none, or of another version of ebhpc")
    try:
        return _DECODER.decode(zlib.decompress(packed[len(_FORM) :]))
    except (zlib.error, msgspec.MsgspecError) as error:
        raise ForecastUnreadableError(f"it is damaged: {error}") from error


_FORM = b"F2"
_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Forecast)


@dataclass(frozen=True, slots=True, eq=False)
class Outlooks:
    """A forecast made ready for questions, and what was learned: a worker keeps the newest of each platform."""

    forecast: Forecast
    estimator: StartEstimator
    capacity: Floats
    free: Floats
    shares: Floats
    profiles: tuple[Profile, ...]

    @classmethod
    def of(cls, forecast: Forecast, estimator: StartEstimator) -> Outlooks:
        """Make one.

        Raises:
            ForecastUnreadableError: its parts do not fit together.
        """
        rows = len(forecast.capacity)
        scheduler = forecast.scheduler or Scheduler()
        reach = 1 if scheduler.backfill in ("easy", "greedy") else reach_of(scheduler.window)

        def array(packed: bytes) -> Floats:
            flat = np.frombuffer(packed, dtype=_PROFILE)
            return flat.reshape(rows, forecast.samples, len(GRID))  # type: ignore[return-value]

        try:
            profiles = tuple(
                Profile(
                    array(left),
                    reach,
                    array(forecast.kept[number]) if forecast.kept[number] else None,
                    bounds={
                        (group, depth): (0, np.frombuffer(bound)) for group, depth, bound in forecast.bounds[number]
                    },
                )
                for number, left in enumerate(forecast.left)
            )
            shares = np.frombuffer(forecast.shares, dtype=_PROFILE).reshape(-1, len(forecast.classes))
        except (ValueError, IndexError) as error:
            raise ForecastUnreadableError(f"its parts do not fit together: {error}") from error
        capacity, free = np.array(forecast.capacity), np.array(forecast.free)
        return cls(forecast, estimator, capacity, free, shares.astype(np.float64), profiles)

    def mark(self, demand: Demand, user: str | None) -> int:
        """Return the number of the mark at which a new job stands."""
        forecast = self.forecast
        names = forecast.default if demand.partition is None else (demand.partition,)
        own = (
            max((forecast.tiers[name] for name in names if name in forecast.tiers), default=0),
            forecast.priorities.get(user or "", LOWEST),
        )
        return next((number for number, mark in enumerate(forecast.marks) if mark.below < own), len(forecast.marks) - 1)


def _classes(queue: PlatformQueue) -> tuple[tuple[NodeClass, ...], Floats]:
    known = queue.members.known
    partitions: list[list[str]] = [[] for _ in known.nodes]
    for name, partition in queue.members.partitions.items():
        for member in partition.nodes:
            if member in known.index:
                partitions[known.index[member]].append(name)
    found: dict[tuple[Any, ...], list[int]] = {}
    for place, node in enumerate(known.nodes):
        if known.usable[place]:
            amounts = tuple(known.capacities[:, place].tolist())
            found.setdefault((amounts, tuple(sorted(node.features)), tuple(partitions[place])), []).append(place)
    shares = np.zeros((len(queue.flat.pools), len(found)))
    for column, places in enumerate(found.values()):
        shares[:, column] = queue.flat.pools[:, places].mean(axis=1)
    return tuple(NodeClass(len(places), *key) for key, places in found.items()), shares


def _bounds(profile: Profile, scheduler: Scheduler | None) -> tuple[tuple[tuple[str, str], int, bytes], ...]:
    """Return which groups are full: when the next of their jobs is looked at, by sample."""
    if scheduler is None:
        return ()
    strict = scheduler.backfill == "none"
    depths = {"all": scheduler.depth, "user": scheduler.per_user, "partition": scheduler.per_partition}
    found = []
    for group in profile.started:
        depth = 1 if group[0] == "order" else None if strict else depths.get(group[0])
        bound = None if depth is None else profile.bound(group, max(depth, 1))
        if depth is not None and bound is not None:
            found.append((group, max(depth, 1), bound.tobytes()))
    return tuple(found[:_MOST_USERS])


def _in_order_of_submission(queue: PlatformQueue) -> bool:
    """Whether within each priority of partitions jobs stand as they came, so that a new one stands last."""
    last: dict[int, int] = {}
    for wish in queue.wishes:
        if wish.submitted < last.get(wish.key[0], wish.submitted):
            return False
        last[wish.key[0]] = wish.submitted
    return True


def _priorities(queue: PlatformQueue, snapshot: Snapshot) -> dict[str, int]:
    if _in_order_of_submission(queue):
        return {}
    newest: dict[str, tuple[int, int]] = {}
    for job in snapshot.waiting:
        if job.user is not None and job.priority > 0:
            newest[job.user] = max(newest.get(job.user, (0, 0)), (job.submitted, job.priority))
    chosen = sorted(newest.items(), key=lambda item: item[1], reverse=True)[:_MOST_USERS]
    return {user: priority for user, (_, priority) in chosen}
