"""What the APIs say, as records: pure functions of their JSON, so that recorded answers do as well as live ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from hashlib import sha224
from typing import Any

from msgspec import Struct

from ebhpc.model import SCRATCH, Shape

UNLIMITED = -1


class Flavor(Struct, frozen=True, kw_only=True):
    """A flavor: memory and swap MiB, disk GiB; ``specs`` are its properties."""

    id: str
    name: str
    cores: int
    memory: int
    disk: int
    specs: dict[str, str]
    disabled: bool = False

    @property
    def leased(self) -> bool:
        """Whether it is one that Blazar has made for a lease."""
        return "aggregate_instance_extra_specs:reservation" in self.specs or self.name.startswith("reservation:")


class Server(Struct, frozen=True, kw_only=True):
    """A server. ``host`` is the number that the project knows its hypervisor by; times are POSIX seconds."""

    id: str
    name: str
    status: str
    task: str
    metadata: dict[str, str]
    host: str
    flavor: Flavor
    created: float | None
    launched: float | None
    fault: str
    addresses: tuple[str, ...]
    zone: str


class Hypervisor(Struct, frozen=True, kw_only=True):
    """A hypervisor as nova tells of it: ``host`` is its service's name, ``node`` the name of its provider."""

    node: str
    host: str
    up: bool
    enabled: bool


class Provider(Struct, frozen=True, kw_only=True):
    """What placement has for one hypervisor: how much there is by resource class, and how much of that is used."""

    name: str
    capacity: dict[str, int]
    used: dict[str, int]


class Quota(Struct, frozen=True, kw_only=True):
    """The project's limits (None: unlimited): servers, cores, memory (MiB); and what is used of them."""

    servers: int | None
    cores: int | None
    memory: int | None
    servers_used: int = 0
    cores_used: int = 0
    memory_used: int = 0


class Volume(Struct, frozen=True, kw_only=True):
    """A volume of Cinder; ``gib`` is its size, ``created`` POSIX seconds."""

    id: str
    name: str
    status: str
    gib: int
    metadata: dict[str, str]
    created: float | None


class BlockStorage(Struct, frozen=True, kw_only=True):
    """What Cinder says: the project's limits (None: unlimited), what is used of them, and its volumes."""

    count: int | None
    gib: int | None
    count_used: int
    gib_used: int
    volumes: tuple[Volume, ...]


class Look(Struct, frozen=True, kw_only=True):
    """One look at the whole cloud. ``providers`` None: the account may not see them.

    ``storage`` None: there is none, it does not answer, or nobody asked.
    """

    project: str
    servers: tuple[Server, ...]
    flavors: tuple[Flavor, ...]
    quota: Quota
    zones: tuple[str, ...]
    hypervisors: tuple[Hypervisor, ...] = ()
    zone_of: dict[str, str] = {}
    providers: tuple[Provider, ...] | None = None
    leases: tuple[Mapping[str, Any], ...] = ()
    storage: BlockStorage | None = None


def flavor(body: Mapping[str, Any]) -> Flavor:
    """Return a flavor, as in a list or within a server (microversion 2.47 and later)."""
    specs = body.get("extra_specs") or {}
    return Flavor(
        id=str(body.get("id") or ""),
        name=str(body.get("name") or body.get("original_name") or ""),
        cores=_count(body.get("vcpus")),
        memory=_count(body.get("ram")),
        disk=_count(body.get("disk")) + _count(body.get("OS-FLV-EXT-DATA:ephemeral", body.get("ephemeral"))),
        specs={str(key): str(value) for key, value in specs.items()} if isinstance(specs, Mapping) else {},
        disabled=body.get("OS-FLV-DISABLED:disabled") is True,
    )


def shape(one: Flavor, devices: Mapping[str, str]) -> Shape:
    """Return what a flavor gives: cores, memory, disk as scratch, devices of the resource classes in ``devices``."""
    found: dict[str, int] = {SCRATCH: one.disk} if one.disk else {}
    cores, memory = one.cores, one.memory
    for key, value in one.specs.items():
        head, _, kind = key.partition(":")
        # "resources" and "resources1": groups of them are all the server's
        if head.startswith("resources") and kind in devices and value.isdigit() and int(value):
            found[devices[kind]] = found.get(devices[kind], 0) + int(value)
    return Shape(cores=cores, memory=memory, devices=found)


def server(body: Mapping[str, Any]) -> Server:
    """Return a server of a detailed list."""
    fault = body.get("fault")
    told = body.get("metadata")
    return Server(
        id=str(body["id"]),
        name=str(body.get("name") or ""),
        status=str(body.get("status") or "UNKNOWN"),
        task=str(body.get("OS-EXT-STS:task_state") or ""),
        metadata={str(key): str(value) for key, value in told.items()} if isinstance(told, Mapping) else {},
        host=str(body.get("hostId") or ""),
        flavor=flavor(body.get("flavor") or {}),
        created=instant(body.get("created")),
        launched=instant(body.get("OS-SRV-USG:launched_at")),
        fault=str(fault.get("message") or "") if isinstance(fault, Mapping) else "",
        addresses=tuple(_addresses(body.get("addresses"))),
        zone=str(body.get("OS-EXT-AZ:availability_zone") or ""),
    )


def _addresses(body: Any) -> Iterable[str]:
    if isinstance(body, Mapping):
        for listed in body.values():
            for one in listed if isinstance(listed, list) else ():
                if isinstance(one, Mapping) and isinstance(one.get("addr"), str):
                    yield one["addr"]


def quota(body: Mapping[str, Any]) -> Quota:
    """Return the project's limits and usage (GET /limits)."""
    told = body["limits"]["absolute"]
    return Quota(
        servers=_limit(told, "maxTotalInstances"),
        cores=_limit(told, "maxTotalCores"),
        memory=_limit(told, "maxTotalRAMSize"),
        servers_used=_count(told.get("totalInstancesUsed")),
        cores_used=_count(told.get("totalCoresUsed")),
        memory_used=_count(told.get("totalRAMUsed")),
    )


def volume(body: Mapping[str, Any]) -> Volume:
    """Return a volume of a detailed list."""
    told = body.get("metadata")
    return Volume(
        id=str(body["id"]),
        name=str(body.get("name") or ""),
        status=str(body.get("status") or "unknown"),
        gib=_count(body.get("size")),
        metadata={str(key): str(value) for key, value in told.items()} if isinstance(told, Mapping) else {},
        created=instant(body.get("created_at")),
    )


def block_storage(limits: Mapping[str, Any], volumes: Iterable[Mapping[str, Any]]) -> BlockStorage:
    """Return what Cinder says: its GET /limits, and a detailed list of volumes."""
    told = limits["limits"]["absolute"]
    return BlockStorage(
        count=_limit(told, "maxTotalVolumes"),
        gib=_limit(told, "maxTotalVolumeGigabytes"),
        count_used=_count(told.get("totalVolumesUsed")),
        gib_used=_count(told.get("totalGigabytesUsed")),
        volumes=tuple(volume(one) for one in volumes),
    )


def hypervisor(body: Mapping[str, Any]) -> Hypervisor:
    """Return a hypervisor of a detailed list (microversion 2.53 and later)."""
    service = body.get("service")
    host = service.get("host") if isinstance(service, Mapping) else None
    name = str(body.get("hypervisor_hostname") or "")
    return Hypervisor(
        node=name, host=str(host or name), up=body.get("state") == "up", enabled=body.get("status") == "enabled"
    )


def providers(told: Iterable[Mapping[str, Any]]) -> tuple[Provider, ...]:
    """Return the providers of cores, each with what belongs to it, as GPUs that are children of their hypervisor."""
    listed = list(told)
    names = {str(one["uuid"]): str(one["name"]) for one in listed}
    capacity: dict[str, dict[str, int]] = {}
    used: dict[str, dict[str, int]] = {}
    for one in listed:
        root = str(one.get("root") or one["uuid"])
        for kind, amounts in one["resources"].items():
            _add(capacity.setdefault(root, {}), kind, _count(amounts.get("capacity")))
            _add(used.setdefault(root, {}), kind, _count(amounts.get("used")))
    return tuple(
        Provider(name=names[root], capacity=amounts, used=used[root])
        for root, amounts in capacity.items()
        if root in names and (amounts.get("VCPU") or amounts.get("PCPU"))
    )


def _add(counts: dict[str, int], kind: str, count: int) -> None:
    counts[kind] = counts.get(kind, 0) + count


def host_number(project: str, host: str) -> str:
    """Return the number by which a project knows a hypervisor: what nova makes of the two names, so that no project
    learns of another's (nova/api/openstack/compute/views/servers.py).
    """
    return sha224((project + host).encode("utf-8")).hexdigest()


def instant(text: Any) -> float | None:
    """Return the POSIX seconds of a time as nova writes it; None: there is none."""
    if not isinstance(text, str):
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _limit(told: Mapping[str, Any], name: str) -> int | None:
    value = told.get(name)
    return value if isinstance(value, int) and value != UNLIMITED else None


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
