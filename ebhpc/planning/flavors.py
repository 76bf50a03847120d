"""Flavors: where a platform hands out nothing but fixed shapes, the one that a demand gets; what its storage takes."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from ebhpc.model.cluster import SCRATCH
from ebhpc.model.elements import SimpleStorage, Storage
from ebhpc.model.messages import Message, MessageKind, message
from ebhpc.model.sessions import Demand, Shape
from ebhpc.planning.snapshot import Flavor, Snapshot

_GIB = 1024


def flavored(demand: Demand, flavors: Sequence[Flavor]) -> Demand | None:
    """Return the demand for the smallest flavor that meets every minimum and exceeds no maximum; None: there is none.

    Smallest by cores, then memory, then devices. A flavor with devices that nobody asked for, scratch
    excluded, is none.
    """
    found = min((one for one in flavors if _meets(demand, one.shape)), key=_size, default=None)
    if found is None:
        return None
    shape = found.shape
    return replace(
        demand,
        least=shape,
        most_cores=shape.cores,
        most_memory=shape.memory,
        most_devices=dict(shape.devices),
        licences={**demand.licences, **found.licences},
    )


def stored(demand: Demand, storage: Sequence[Storage], snapshot: Snapshot) -> Demand:
    """Return the demand with the licences that its storage takes on a platform, of those that are limited there."""
    if snapshot.stored is None:
        return demand
    sizes = [one.size.min for one in storage if isinstance(one, SimpleStorage) and one.size and one.size.min]
    taken = {snapshot.stored.count: len(sizes), snapshot.stored.gib: sum(sizes)}
    limited = {name: count for name, count in taken.items() if count and name in snapshot.licences}
    return replace(demand, licences={**demand.licences, **limited}) if limited else demand


def storable(demand: Demand, snapshot: Snapshot) -> bool:
    """Whether the platform has, free or not, the licences that a demand's storage takes (:func:`stored`)."""
    if snapshot.stored is None:
        return True
    return all(
        demand.licences.get(name, 0) <= snapshot.licences.get(name, demand.licences.get(name, 0))
        for name in (snapshot.stored.count, snapshot.stored.gib)
    )


def why_no_flavor(demand: Demand, flavors: Sequence[Flavor], *, platform: str) -> Message:
    """Say that no flavor lies within what was asked, and which there are."""
    named = ", ".join(f"{one.name} ({_told(one.shape)})" for one in sorted(flavors, key=_size)[:20])
    return message(
        MessageKind.RESOURCE_LIMIT,
        "No flavor of {platform} has at least {least} and at most {most}. It has: {flavors}.",
        platform=platform,
        least=_told(demand.least),
        most=_most(demand),
        flavors=named or "none",
        path="/compute",
    )


def _meets(demand: Demand, shape: Shape) -> bool:
    least = demand.least
    kinds = {*least.devices, *shape.devices}
    return (
        least.cores <= shape.cores <= (demand.most_cores if demand.most_cores is not None else shape.cores)
        and least.memory <= shape.memory <= (demand.most_memory if demand.most_memory is not None else shape.memory)
        and all(
            least.devices.get(kind, 0)
            <= shape.devices.get(kind, 0)
            <= demand.most_devices.get(kind, shape.devices.get(kind, 0))
            for kind in kinds
        )
        and all(kind == SCRATCH or not count or least.devices.get(kind) for kind, count in shape.devices.items())
    )


def _size(flavor: Flavor) -> tuple[int, int, int, str]:
    shape = flavor.shape
    return shape.cores, shape.memory, sum(shape.devices.values()), flavor.name


def _told(shape: Shape) -> str:
    devices = "".join(f", {count} {kind}" for kind, count in sorted(shape.devices.items()) if count)
    return f"{shape.cores} cores, {shape.memory / _GIB:g} GiB{devices}"


def _most(demand: Demand) -> str:
    cores = "any number of cores" if demand.most_cores is None else f"{demand.most_cores} cores"
    memory = "any memory" if demand.most_memory is None else f"{demand.most_memory / _GIB:g} GiB"
    return f"{cores}, {memory}"
