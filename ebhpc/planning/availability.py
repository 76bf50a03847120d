"""Availability: what is free between two instants, as plain data to show."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from msgspec import Struct, field

from ebhpc.planning.inventory import LICENCES
from ebhpc.planning.profile import Integers, Profile
from ebhpc.planning.snapshot import NodeState
from ebhpc.planning.timeline import Timeline


class Step(Struct, frozen=True, kw_only=True):
    """What is free from ``start`` (POSIX seconds) until the next step: cores, memory (MiB), devices by type."""

    start: int
    cores: int
    memory: int
    devices: dict[str, int] = field(default_factory=dict)


class NodeAvailability(Struct, frozen=True, kw_only=True):
    """A node, all that it has, and what of it is free in steps."""

    name: str
    state: NodeState
    cores: int
    memory: int
    devices: dict[str, int] = field(default_factory=dict)
    steps: tuple[Step, ...] = ()


class LicenceStep(Struct, frozen=True, kw_only=True):
    """The licences free from ``start`` (POSIX seconds) until the next step."""

    start: int
    free: dict[str, int]


class Availability(Struct, frozen=True, kw_only=True):
    """What is free on a platform from ``start`` to ``end``, by a snapshot of the instant ``taken``.

    ``total`` are the steps of all nodes together. The first step of each list is at ``start``.
    """

    platform: str
    taken: int
    start: int
    end: int
    total: tuple[Step, ...]
    nodes: tuple[NodeAvailability, ...]
    licences: tuple[LicenceStep, ...] = ()


def occupancy(timeline: Timeline, start: int, end: int) -> Availability:
    """Return what is free between two instants (POSIX seconds), node by node and in total.

    Less than nothing is shown as nothing. An empty or reversed interval has no steps.
    """
    known = timeline.inventory
    devices = known.device_columns
    nodes = []
    pieces = []
    for place, node in enumerate(known.nodes):
        times, free = _between(timeline.profile(place), start, end)
        pieces.append((times, free))
        nodes.append(
            NodeAvailability(
                name=node.name,
                state=node.state,
                cores=node.cores,
                memory=node.memory,
                devices=node.devices,
                steps=_steps(times, free, devices),
            )
        )
    licence_times, licence_free = _between(timeline.profile(LICENCES), start, end)
    return Availability(
        platform=timeline.snapshot.platform,
        taken=timeline.snapshot.taken,
        start=start,
        end=end,
        total=_steps(*_summed(pieces, len(known.capacities)), devices),
        nodes=tuple(nodes),
        licences=tuple(
            LicenceStep(start=time, free=dict(zip(known.licence_columns, column, strict=True)))
            for time, column in zip(licence_times.tolist(), licence_free.T.tolist(), strict=True)
            if known.licence_columns
        ),
    )


def _between(profile: Profile, start: int, end: int) -> tuple[Integers, Integers]:
    """Cut a profile to an interval, with nothing below zero."""
    segments = profile.segments(start, end)
    times = np.maximum(profile.times[segments], start)
    return _without_repeats(times, np.maximum(profile.free[:, segments], 0))


def _summed(pieces: list[tuple[Integers, Integers]], quantities: int) -> tuple[Integers, Integers]:
    """Add up step functions that all begin at the same instant."""
    begun = [(times, free) for times, free in pieces if len(times)]
    if not begun:
        return np.empty(0, np.int64), np.empty((quantities, 0), np.int64)
    times = np.concatenate([times for times, _ in begun])
    changes = np.concatenate(
        [np.diff(free, axis=1, prepend=np.zeros((quantities, 1), np.int64)) for _, free in begun], axis=1
    )
    instants, index = np.unique(times, return_inverse=True)
    total = np.zeros((quantities, len(instants)), np.int64)
    for quantity in range(quantities):
        np.add.at(total[quantity], index, changes[quantity])
    return _without_repeats(instants, total.cumsum(axis=1))


def _without_repeats(times: Integers, free: Integers) -> tuple[Integers, Integers]:
    differs = np.ones(len(times), dtype=bool)
    differs[1:] = (free[:, 1:] != free[:, :-1]).any(axis=0)
    return times[differs], free[:, differs]


def _steps(times: Integers, free: Integers, device_columns: Mapping[str, int]) -> tuple[Step, ...]:
    steps = []
    for time, (cores, memory, *counts) in zip(times.tolist(), free.T.tolist(), strict=True):
        devices = dict(zip(device_columns, counts, strict=True))
        steps.append(Step(start=time, cores=cores, memory=memory, devices=devices))
    return tuple(steps)
