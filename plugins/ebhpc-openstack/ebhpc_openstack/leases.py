"""Blazar's leases as data: what is asked for, what is told, and what they are in a snapshot. Pure functions.

A lease of ours is named as the session's server is. It has one reservation, of one server's cores, memory and disk on
one hypervisor, which the planner has chosen. Blazar knows whole minutes, UTC.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from ebhpc.model import SCRATCH, Allocation, Session
from ebhpc.planning import Node, Reservation, RunningJob, Scheduler, Snapshot
from ebhpc_openstack import records
from ebhpc_openstack.settings import LeaseSettings

MINUTE = 60

INSTANCE, HOST = "virtual:instance", "physical:host"

OVER = frozenset({"TERMINATING", "TERMINATED", "ERROR", "DELETING", "DELETED"})
"""The states of a lease in which it gives nothing any more (blazar/status.py)."""

COMING = "CREATING"
"""That of a lease which is being made: what it will be is not told yet."""

_FREE = frozenset({"TERMINATED", "DELETED"})
"""Those in which it takes nothing any more."""


class Lease(Struct, frozen=True, kw_only=True):
    """A lease, times POSIX seconds, as far as its first reservation tells.

    ``reservation`` is the reservation's ID, and that of the flavor which it makes; ``host`` the hypervisor that it was
    asked for (None: any); ``amount`` how many hypervisors it takes a share of, ``whole`` whether all of each.
    """

    id: str
    name: str
    status: str
    start: int
    end: int
    created: int = 0
    reservation: str = ""
    host: str | None = None
    cores: int = 0
    memory: int = 0
    disk: int = 0
    amount: int = 1
    whole: bool = False


class Wanted(Struct, frozen=True, kw_only=True):
    """A lease to ask for: ``start`` and ``end`` are whole minutes (POSIX seconds)."""

    name: str
    host: str
    start: int
    end: int
    cores: int
    memory: int
    disk: int


def lease(body: Mapping[str, Any]) -> Lease | None:
    """Return a lease of a list; None: it is none that takes hypervisors."""
    reservations = [one for one in body.get("reservations") or () if isinstance(one, Mapping)]
    kept = [one for one in reservations if one.get("resource_type") in (INSTANCE, HOST)]
    if reservations and not kept:
        return None
    told: Mapping[str, Any] = kept[0] if kept else {}
    whole = told.get("resource_type") == HOST
    return Lease(
        id=str(body["id"]),
        name=str(body.get("name") or ""),
        status=str(body.get("status") or "").upper(),
        start=int(records.instant(body.get("start_date")) or 0),
        end=int(records.instant(body.get("end_date")) or 0),
        created=int(records.instant(body.get("created_at")) or 0),
        reservation=str(told.get("id") or ""),
        host=_pinned(told.get("resource_properties")),
        cores=_count(told.get("vcpus")),
        memory=_count(told.get("memory_mb")),
        disk=_count(told.get("disk_gb")),
        amount=_count(told.get("max" if whole else "amount")) or 1,
        whole=whole,
    )


def leases(bodies: Iterable[Mapping[str, Any]]) -> list[Lease]:
    """Return the leases of a list that take hypervisors."""
    return [found for body in bodies if (found := lease(body)) is not None]


def wanted(session: Session, name: str, settings: LeaseSettings) -> Wanted:
    """Return the lease of a session: it begins earlier and ends later, as the settings say, on whole minutes."""
    share = session.allocations[0]
    start, end = session.start - int(settings.before), session.end + int(settings.after)
    return Wanted(
        name=name,
        host=share.node,
        start=start - start % MINUTE,
        end=end + -end % MINUTE,
        cores=share.cores,
        memory=share.memory,
        disk=share.devices.get(SCRATCH, 0),
    )


def body(one: Wanted, *, now: float) -> dict[str, Any]:
    """Return what Blazar is asked for; a lease that should have begun begins with the minute that it is there."""
    return {
        "name": one.name,
        "start_date": "now" if one.start <= now else _minute(one.start),
        "end_date": _minute(one.end),
        "reservations": [
            {
                "resource_type": INSTANCE,
                "amount": 1,
                "vcpus": one.cores,
                "memory_mb": one.memory,
                "disk_gb": one.disk,
                "affinity": None,
                "resource_properties": _pin(one.host),
            }
        ],
        "events": [],
    }


def serves(one: Lease, asked: Wanted, *, now: float) -> bool:
    """Whether a lease that is there is what was asked for."""
    return (
        one.status not in OVER
        and (one.host, one.cores, one.memory, one.disk) == (asked.host, asked.cores, asked.memory, asked.disk)
        and one.start <= max(asked.start, now)
        and one.end >= asked.end
    )


def crowding(mine: Lease, known: Iterable[Lease], capacity: Mapping[str, int]) -> list[Lease]:
    """Return the leases, none younger, with which a lease of ours is too much for its hypervisor; none: there is room.

    Blazar gives the same room twice where it is asked for it twice at the same time. ``capacity``: of resource classes.
    """
    others = [one for one in known if one.name != mine.name and one.status not in _FREE]
    rivals = [
        one
        for one in others
        if one.created <= mine.created
        and one.host in (None, mine.host)
        and one.start < mine.end
        and mine.start < one.end
    ]
    for moment in sorted({max(one.start, mine.start) for one in rivals}):
        there = [one for one in rivals if one.start <= moment < one.end]
        # What is being made tells nothing of its size yet
        unknown = any(one.whole or (one.status == COMING and not one.cores) for one in there)
        taken = (
            ("VCPU", sum(one.cores for one in there) + mine.cores),
            ("MEMORY_MB", sum(one.memory for one in there) + mine.memory),
            ("DISK_GB", sum(one.disk for one in there) + mine.disk),
        )
        if unknown or any(kind in capacity and amount > capacity[kind] for kind, amount in taken):
            return there
    return []


def gap(settings: LeaseSettings) -> int:
    """Return how many seconds must lie between two sessions in one place, so that their leases do not overlap."""
    return int(settings.before) + int(settings.after) + 2 * MINUTE


def session_of(name: str, prefix: str) -> str | None:
    """Return the session that a lease of this name is of; None: it is none of ours."""
    head, _, uuid = name.partition("-")
    return uuid if head == prefix and uuid else None


# --- snapshots


def leased(snapshot: Snapshot, look: records.Look, settings: LeaseSettings, prefix: str) -> Snapshot:
    """Return what of a cloud is given by leases: the hypervisors of the pool, with the leases as reservations.

    Of a lease whose hypervisor nobody tells, each is taken to have its share: none is promised twice.
    """
    nodes = tuple(node for node in snapshot.nodes if node.name in settings.hosts)
    known = leases(look.leases)
    flavors = {one.id: one.flavor.name for one in look.servers}
    by_flavor = {f"reservation:{one.reservation}": one.id for one in known if one.reservation}
    running = tuple(
        replace(job, reservation=by_flavor[flavors[job.id]]) if flavors.get(job.id) in by_flavor else job
        for job in _on(snapshot.running, {node.name for node in nodes})
    )
    given = tuple(one for one in snapshot.flavors or () if set(one.shape.devices) <= {SCRATCH})
    scheduler = replace(snapshot.scheduler or Scheduler(), gap=gap(settings))
    return replace(
        snapshot,
        nodes=nodes,
        running=running,
        reservations=tuple(
            _reservation(one, nodes, settings, prefix)
            for one in known
            if one.status not in _FREE and one.start < one.end
        ),
        flavors=given,
        scheduler=scheduler,
    )


def left(snapshot: Snapshot, settings: LeaseSettings) -> Snapshot:
    """Return what of a cloud is not given by leases: the hypervisors outside of the pool."""
    nodes = tuple(node for node in snapshot.nodes if node.name not in settings.hosts)
    return replace(snapshot, nodes=nodes, running=tuple(_on(snapshot.running, {node.name for node in nodes})))


def _on(running: Iterable[RunningJob], names: set[str]) -> Iterable[RunningJob]:
    """Yield the jobs as they are on these nodes; a quota counts wherever they are."""
    for job in running:
        shares = tuple(share for share in job.allocations if share.node in names)
        if shares or job.licences:
            yield replace(job, allocations=shares)


def _reservation(one: Lease, nodes: Sequence[Node], settings: LeaseSettings, prefix: str) -> Reservation:
    session = session_of(one.name, prefix)
    places = [node for node in nodes if one.host in (None, node.name)]
    # Ours may begin and end anew on each side of it
    before, after = (0, 0) if session is not None else (int(settings.after) + MINUTE, int(settings.before) + MINUTE)
    return Reservation(
        name=one.id,
        start=one.start - before,
        end=one.end + after,
        allocations=tuple(_share(one, node) for node in places),
        session=session,
    )


def _share(one: Lease, node: Node) -> Allocation:
    if one.whole:
        return Allocation(node=node.name, cores=node.cores, memory=node.memory, devices=dict(node.devices))
    disk = {SCRATCH: min(one.disk, node.devices.get(SCRATCH, 0))} if one.disk and SCRATCH in node.devices else {}
    return Allocation(
        node=node.name, cores=min(one.cores, node.cores), memory=min(one.memory, node.memory), devices=disk
    )


# --- Blazar's forms


def _minute(instant: int) -> str:
    return datetime.fromtimestamp(instant, UTC).strftime("%Y-%m-%d %H:%M")


def _pin(host: str) -> str:
    return json.dumps(["==", "$hypervisor_hostname", host])


def _pinned(properties: Any) -> str | None:
    """Return the hypervisor that properties name; None: they name none, or more than one."""
    if not isinstance(properties, str) or not properties:
        return None
    try:
        told = json.loads(properties)
    except ValueError:
        return None
    match told:
        case ["==" | "=", "$hypervisor_hostname", str(host)]:
            return host
    return None


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
