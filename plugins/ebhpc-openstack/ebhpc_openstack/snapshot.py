"""A look at the cloud as ebhpc's snapshot: pure functions.

Where placement may be seen, nodes are the hypervisors. Else a node is an availability zone, as large as the project's
quota: of how much room there really is, refusals alone tell. The quota is a stock of licences in both cases: each
server takes of it wherever it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from ebhpc.model import SCRATCH, Allocation, Shape
from ebhpc.planning import Flavor, Node, NodeState, RunningJob, Scheduler, Snapshot, StorageLicences
from ebhpc_openstack import records

SERVERS, CORES, MEMORY = "quota-servers", "quota-cores", "quota-memory-mib"
"""The licences that stand for the project's quota."""

VOLUMES, VOLUME_GIB = "quota-volumes", "quota-volume-gib"
"""The licences that stand for the project's quota of volumes, where storage is made of them."""

UNKNOWN_CORES, UNKNOWN_MEMORY = 100_000, 400_000 * 1024
"""Of a zone whose size neither placement nor a quota tells."""

UNKNOWN_DEVICES = 10_000

AWAY = ("DELETED", "SOFT_DELETED")
"""Servers that take nothing any more; one that has failed still counts in the quota."""


class Refusal(Struct, frozen=True, kw_only=True):
    """A server of a shape found no room in a zone (any: empty); nobody counts on one like it until then."""

    zone: str
    shape: Shape
    until: int


class Site(Struct, frozen=True, kw_only=True):
    """What of the settings makes a snapshot of a look."""

    platform: str
    prefix: str
    flavors: tuple[str, ...] = ()
    zones: tuple[str, ...] = ()
    devices: Mapping[str, str] = {}
    volumes: bool = False


def offered(look: records.Look, site: Site) -> list[records.Flavor]:
    """Return the flavors that are offered."""
    return [
        one
        for one in look.flavors
        if one.cores > 0
        and one.memory > 0
        and not one.disabled
        and (not site.flavors or one.name in site.flavors or one.id in site.flavors)
    ]


def session_of(server: records.Server, prefix: str) -> str | None:
    """Return the session that a server is of; None: it is none of ours."""
    return server.metadata.get(f"{prefix}_session") if server.name.startswith(f"{prefix}-") else None


def snapshot(look: records.Look, site: Site, now: int, refusals: Sequence[Refusal] = ()) -> Snapshot:
    """Return the cloud's state."""
    zones = site.zones or look.zones
    nodes = _hypervisors(look, site, zones) if look.providers is not None else _zones(look, site, zones)
    names = {node.name for node in nodes}
    at = _places(look, names)
    running = [_running(one, site, at.get(one.id), look.quota) for one in look.servers if one.status not in AWAY]
    if look.providers is not None:
        running += _others(look, site, running, names)
    else:
        running += _refused(nodes, running, refusals, now)
    if site.volumes:
        running = _with_volumes(running, look.storage, site, now)
    return Snapshot(
        platform=site.platform,
        taken=now,
        nodes=tuple(nodes),
        running=tuple(one for one in running if one.allocations or one.licences),
        licences={**_quota(look.quota), **(_volume_quota(look.storage) if site.volumes else {})},
        stored=StorageLicences(count=VOLUMES, gib=VOLUME_GIB) if site.volumes else None,
        scheduler=Scheduler(backfill="easy"),
        flavors=tuple(
            Flavor(name=one.name, shape=records.shape(one, site.devices), licences=_cost(one, look.quota))
            for one in offered(look, site)
        ),
    )


def _hypervisors(look: records.Look, site: Site, zones: Sequence[str]) -> list[Node]:
    told = {one.node: one for one in look.hypervisors}
    found = []
    for provider in look.providers or ():
        nova = told.get(provider.name)
        if look.hypervisors and nova is None:
            continue
        zone = look.zone_of.get(nova.host if nova is not None else provider.name, "")
        if site.zones and zone and zone not in zones:
            continue
        state = NodeState.UP
        if nova is not None and not nova.up:
            state = NodeState.DOWN
        elif nova is not None and not nova.enabled:
            state = NodeState.DRAINED
        shape = _amounts(provider.capacity, site.devices)
        features = (zone,) if zone else ()
        found.append(
            Node(
                name=provider.name,
                cores=shape.cores,
                memory=shape.memory,
                devices=shape.devices,
                features=features,
                state=state,
            )
        )
    return found


def _zones(look: records.Look, site: Site, zones: Sequence[str]) -> list[Node]:
    kinds = {kind for one in offered(look, site) for kind in records.shape(one, site.devices).devices}
    return [
        Node(
            name=zone,
            cores=look.quota.cores if look.quota.cores is not None else UNKNOWN_CORES,
            memory=look.quota.memory if look.quota.memory is not None else UNKNOWN_MEMORY,
            devices={kind: UNKNOWN_MEMORY if kind == SCRATCH else UNKNOWN_DEVICES for kind in sorted(kinds)},
            features=(zone,),
        )
        for zone in zones
        if zone in look.zones
    ]


def _places(look: records.Look, names: Iterable[str]) -> dict[str, str]:
    """Return on which node each server is, as far as that is known."""
    known = set(names)
    if look.providers is None:
        first = next(iter(look.zones), "")
        return {one.id: zone for one in look.servers if (zone := one.zone or first) in known}
    hosts = {one.host: one.node for one in look.hypervisors} or {name: name for name in known}
    numbers = {records.host_number(look.project, host): node for host, node in hosts.items()}
    return {one.id: node for one in look.servers if (node := numbers.get(one.host)) in known and node is not None}


def _running(server: records.Server, site: Site, node: str | None, quota: records.Quota) -> RunningJob:
    session = session_of(server, site.prefix)
    ends = server.metadata.get(f"{site.prefix}_end", "") if session is not None else ""
    shape = records.shape(server.flavor, site.devices)
    return RunningJob(
        id=server.id,
        allocations=() if node is None else (_share(node, shape),),
        started=int(server.launched or server.created or 0),
        ends=int(ends) if ends.isdigit() and len(ends) < 12 else None,
        session=session,
        licences=_cost(server.flavor, quota),
    )


def _share(node: str, shape: Shape) -> Allocation:
    return Allocation(node=node, cores=shape.cores, memory=shape.memory, devices=shape.devices)


def _others(look: records.Look, site: Site, ours: Sequence[RunningJob], names: Iterable[str]) -> list[RunningJob]:
    """Return what is used on each node beside the project's own servers: how long, nobody tells."""
    known = set(names)
    taken: dict[str, list[Allocation]] = {}
    for job in ours:
        for share in job.allocations:
            taken.setdefault(share.node, []).append(share)
    found = []
    for provider in look.providers or ():
        if provider.name not in known:
            continue
        used, shares = _amounts(provider.used, site.devices), taken.get(provider.name, [])
        devices = {
            kind: left
            for kind, count in used.devices.items()
            if (left := count - sum(share.devices.get(kind, 0) for share in shares)) > 0
        }
        rest = Allocation(
            node=provider.name,
            cores=max(used.cores - sum(share.cores for share in shares), 0),
            memory=max(used.memory - sum(share.memory for share in shares), 0),
            devices=devices,
        )
        if rest.cores or rest.memory or rest.devices:
            found.append(RunningJob(id=f"others on {provider.name}", allocations=(rest,), started=0))
    return found


def _refused(
    nodes: Sequence[Node], running: Sequence[RunningJob], refusals: Sequence[Refusal], now: int
) -> list[RunningJob]:
    """Return what stands for the room that a refused server has shown not to be there.

    Which of a flavor's quantities had none left, nobody tells. Cores count: what is left is one less than it has.
    """
    found = []
    for node in nodes:
        due = [one for one in refusals if one.until > now and one.zone in ("", node.name)]
        if not due:
            continue
        smallest = min(one.shape.cores for one in due)
        used = sum(share.cores for job in running for share in job.allocations if share.node == node.name)
        blocked = node.cores - used - (smallest - 1)
        if blocked > 0:
            share = Allocation(node=node.name, cores=blocked, memory=0)
            until = max(one.until for one in due)
            found.append(RunningJob(id=f"no room in {node.name}", allocations=(share,), started=now, ends=until))
    return found


def _amounts(told: Mapping[str, int], devices: Mapping[str, str]) -> Shape:
    found: dict[str, int] = {}
    for kind, count in told.items():
        name = SCRATCH if kind == "DISK_GB" else devices.get(kind)
        if name is not None and count:
            found[name] = found.get(name, 0) + count
    return Shape(cores=told.get("VCPU", 0) + told.get("PCPU", 0), memory=told.get("MEMORY_MB", 0), devices=found)


def _quota(quota: records.Quota) -> dict[str, int]:
    limits = {SERVERS: quota.servers, CORES: quota.cores, MEMORY: quota.memory}
    return {name: limit for name, limit in limits.items() if limit is not None}


def _volume_quota(storage: records.BlockStorage | None) -> dict[str, int]:
    """Return the limits of volumes; where the cloud has none, or does not answer, there is no room for any."""
    if storage is None:
        return {VOLUMES: 0, VOLUME_GIB: 0}
    limits = {VOLUMES: storage.count, VOLUME_GIB: storage.gib}
    return {name: limit for name, limit in limits.items() if limit is not None}


def _with_volumes(
    running: Sequence[RunningJob], storage: records.BlockStorage | None, site: Site, now: int
) -> list[RunningJob]:
    """Add what volumes take of the quota: those of a session to its server, all others for as long as nobody knows."""
    if storage is None:
        return list(running)
    limits = _volume_quota(storage)
    ours = {
        session: (len(found), sum(one.gib for one in found))
        for session, found in by_session(storage.volumes, site.prefix).items()
    }
    others = (
        storage.count_used - sum(count for count, _ in ours.values()),
        storage.gib_used - sum(gib for _, gib in ours.values()),
    )

    def taken(amounts: tuple[int, int]) -> dict[str, int]:
        told = dict(zip((VOLUMES, VOLUME_GIB), amounts, strict=True))
        return {name: count for name, count in told.items() if name in limits and count > 0}

    found = []
    for job in running:
        mine = ours.pop(job.session, None) if job.session is not None else None
        found.append(job if mine is None else replace(job, licences={**job.licences, **taken(mine)}))
    for session, amounts in ours.items():
        found.append(
            RunningJob(
                id=f"volumes of {session}", allocations=(), started=now, session=session, licences=taken(amounts)
            )
        )
    found.append(RunningJob(id="volumes of others", allocations=(), started=now, licences=taken(others)))
    return found


def by_session(volumes: Iterable[records.Volume], prefix: str) -> dict[str, list[records.Volume]]:
    """Return volumes of ours by their sessions."""
    found: dict[str, list[records.Volume]] = {}
    for one in volumes:
        uuid = one.metadata.get(f"{prefix}_session")
        if uuid is not None and one.name.startswith(f"{prefix}-"):
            found.setdefault(uuid, []).append(one)
    return found


def _cost(flavor: records.Flavor, quota: records.Quota) -> dict[str, int]:
    costs = {SERVERS: 1, CORES: flavor.cores, MEMORY: flavor.memory}
    return {name: costs[name] for name in _quota(quota)}
