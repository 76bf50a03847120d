"""The cloud: what is asked of it, each question one round trip."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import quote

from msgspec import Struct

from ebhpc_openstack import records
from ebhpc_openstack.asking import Answer, Asker, Call, NotReached, Refused

log = logging.getLogger("ebhpc_openstack")

VERSION = "2.61"
"""Nova's microversion: flavors within servers, and their properties within flavors (OpenStack Queens and later)."""

PINNED = "2.74"
"""The one from which on a server can be created on a named hypervisor."""

STORAGE = "block-storage"
STORAGE_VERSION = "3.3"
"""Cinder, and its microversion: why a volume failed (OpenStack Newton and later)."""

VOLUMES = Call(service=STORAGE, path="/volumes/detail", version=STORAGE_VERSION, list="volumes")
VOLUME_LIMITS = Call(service=STORAGE, path="/limits", version=STORAGE_VERSION)

_CONSOLES = 20
"""Consoles of one question."""


class Made(Struct, frozen=True, kw_only=True):
    """A server that was made, or why not."""

    id: str | None = None
    fault: Exception | None = None


class Cloud:
    """One project of a cloud. Everything raises a CloudFault where there was no answer.

    ``storage``: whether Cinder is looked at, too.
    """

    def __init__(self, asker: Asker, prefix: str, *, storage: bool = False) -> None:
        self._asker = asker
        self._storage = storage
        self._prefix = prefix
        self._lock = threading.Lock()
        self._project: str | None = None

    def ask(self, *calls: Call, seconds: float | None = None) -> list[Answer]:
        """Make calls at the same time, by one round trip."""
        return self._asker.ask(calls, seconds=seconds)

    def look(self, *, leases: bool = False) -> records.Look:
        """Look at the whole cloud; what the account may not see is left out. ``leases``: at Blazar's, too.

        Raises:
            CloudFault: there was no answer; or leases are asked for, and there are none to be seen.
        """
        calls = {
            "who": Call(service="who"),
            "servers": Call(service="compute", path="/servers/detail", version=VERSION, list="servers"),
            "limits": Call(service="compute", path="/limits", version=VERSION),
            "flavors": Call(service="compute", path="/flavors/detail", version=VERSION, list="flavors"),
            "zones": Call(service="compute", path="/os-availability-zone", version=VERSION),
            "hypervisors": Call(service="compute", path="/os-hypervisors/detail", version=VERSION, list="hypervisors"),
            "services": Call(service="compute", path="/os-services?binary=nova-compute", version=VERSION),
            "providers": Call(service="hypervisors"),
        }
        if leases:
            calls["leases"] = Call(service="reservation", path="/leases")
        if self._storage:
            calls |= {"volume limits": VOLUME_LIMITS, "volumes": VOLUMES}
        answers = dict(zip(calls, self.ask(*calls.values()), strict=True))
        zones = answers["zones"].ok()["availabilityZoneInfo"]
        listed = answers["flavors"].ok()["flavors"]
        hypervisors = _seen(answers["hypervisors"])
        services = _seen(answers["services"])
        providers = _seen(answers["providers"])
        return records.Look(
            project=answers["who"].ok()["project"],
            servers=tuple(records.server(one) for one in answers["servers"].ok()["servers"]),
            flavors=tuple(one for told in listed if not (one := records.flavor(told)).leased),
            quota=records.quota(answers["limits"].ok()),
            zones=tuple(one["zoneName"] for one in zones if one["zoneState"]["available"]),
            hypervisors=tuple(records.hypervisor(one) for one in (hypervisors or {}).get("hypervisors", ())),
            zone_of={one["host"]: one["zone"] for one in (services or {}).get("services", ())},
            providers=None if providers is None else records.providers(providers["providers"]),
            leases=tuple(answers["leases"].ok()["leases"]) if leases else (),
            storage=_block_storage(answers["volume limits"], answers["volumes"]) if self._storage else None,
        )

    def servers(self) -> tuple[records.Server, ...]:
        """Return our servers: those whose names begin with our prefix."""
        path = f"/servers/detail?name=%5E{quote(self._prefix)}-"
        (answer,) = self.ask(Call(service="compute", path=path, version=VERSION, list="servers"))
        return tuple(records.server(one) for one in answer.ok()["servers"])

    def faults(self, servers: Sequence[str]) -> dict[str, str]:
        """Return why servers failed: lists do not tell it of those that never had a hypervisor."""
        calls = [Call(service="compute", path=f"/servers/{quote(one)}", version=VERSION) for one in servers]
        answers = self.ask(*calls) if calls else []
        return {
            one: records.server(answer.body["server"]).fault
            for one, answer in zip(servers, answers, strict=True)
            if answer.status == 200
        }

    def create(self, wanted: Sequence[dict[str, Any]], *, version: str = VERSION) -> list[Made]:
        """Create servers; return for each what came of it, a refusal included."""
        calls = [
            Call(service="compute", path="/servers", method="POST", version=version, json={"server": one})
            for one in wanted
        ]
        return [
            Made(id=str(answer.body["server"]["id"])) if answer.status == 202 else Made(fault=answer.failure())
            for answer in self.ask(*calls)
        ]

    def delete(self, servers: Iterable[str]) -> None:
        """Delete servers; those that are gone are none the worse.

        Raises:
            CloudFault: one at least could not be deleted.
        """
        calls = [Call(service="compute", path=f"/servers/{quote(one)}", method="DELETE") for one in servers]
        answers = self.ask(*calls) if calls else []
        for answer in answers:
            if answer.status not in (204, 404):
                raise answer.failure()

    def consoles(self, servers: Sequence[str]) -> dict[str, str]:
        """Return the consoles' texts of servers, those that have one."""
        found: dict[str, str] = {}
        for start in range(0, len(servers), _CONSOLES):
            some = servers[start : start + _CONSOLES]
            calls = [
                Call(
                    service="compute",
                    path=f"/servers/{quote(one)}/action",
                    method="POST",
                    json={"os-getConsoleOutput": {}},
                )
                for one in some
            ]
            for server, answer in zip(some, self.ask(*calls), strict=True):
                if answer.status == 200:
                    found[server] = str(answer.body.get("output") or "")
        return found

    def image(self, name: str) -> str | None:
        """Return the ID of an active image by name or ID; None: there is none."""
        by_name, by_id = self.ask(
            Call(service="image", path=f"/images?name={quote(name)}&status=active", list="images"),
            Call(service="image", path=f"/images/{quote(name)}"),
        )
        if by_id.status == 200 and by_id.body.get("status") == "active":
            return str(by_id.body["id"])
        listed = by_name.ok()["images"]
        return str(listed[0]["id"]) if listed else None

    def reachable(self, places: Sequence[tuple[str, int]]) -> list[bool]:
        """Say which hosts and ports answer a TCP connection from the login host."""
        (answer,) = self.ask(Call(service="reach", json=[list(place) for place in places]))
        return [bool(one) for one in answer.ok()]

    # --- floating IPs

    def floating(self, marks: Iterable[str]) -> dict[str, tuple[str, str]]:
        """Return the floating IPs with these descriptions: of each its ID and its address."""
        wanted = set(marks)
        (answer,) = self.ask(Call(service="network", path="/floatingips"))
        return {
            str(one["description"]): (str(one["id"]), str(one["floating_ip_address"]))
            for one in answer.ok()["floatingips"]
            if one.get("description") in wanted
        }

    def all_floating(self, prefix: str) -> dict[str, str]:
        """Return the floating IPs whose description begins so: their IDs."""
        (answer,) = self.ask(Call(service="network", path="/floatingips"))
        return {
            str(one["description"]): str(one["id"])
            for one in answer.ok()["floatingips"]
            if str(one.get("description") or "").startswith(prefix)
        }

    def give_floating(self, network: str, server: str, mark: str) -> str:
        """Give a server a floating IP of an external network, described by ``mark``; return its address."""
        ports, networks = self.ask(
            Call(service="network", path=f"/ports?device_id={quote(server)}"),
            Call(service="network", path="/networks?router:external=true"),
        )
        found = [one["id"] for one in networks.ok()["networks"] if network in (one["id"], one["name"])]
        if not found:
            raise NotReached(f"there is no external network {network}")
        listed = ports.ok()["ports"]
        if not listed:
            raise NotReached(f"server {server} has no port yet")
        body = {"floating_network_id": found[0], "port_id": listed[0]["id"], "description": mark}
        (answer,) = self.ask(Call(service="network", path="/floatingips", method="POST", json={"floatingip": body}))
        return str(answer.ok()["floatingip"]["floating_ip_address"])

    def delete_floating(self, numbers: Iterable[str]) -> None:
        """Give floating IPs back."""
        calls = [Call(service="network", path=f"/floatingips/{quote(one)}", method="DELETE") for one in numbers]
        for answer in self.ask(*calls) if calls else ():
            if answer.status not in (204, 404):
                raise answer.failure()


def _block_storage(limits: Answer, volumes: Answer) -> records.BlockStorage | None:
    """Return what Cinder says; None: it says nothing, without which sessions that need no volume can be offered."""
    for answer in (limits, volumes):
        if answer.status != 200:
            log.warning("the cloud's block storage: %s", answer.failure())
            return None
    return records.block_storage(limits.body, volumes.body["volumes"])


def _seen(answer: Answer) -> Any:
    """Return an answer's body; None: the account may not see it, or the cloud has no such service."""
    if answer.status in (401, 403, 404) or (answer.status == 0 and answer.fault == "EndpointNotFound"):
        return None
    return answer.ok()


def no_room(fault: Exception) -> bool:
    """Whether a refusal is for a quota, which may have room later."""
    return isinstance(fault, Refused) and fault.status in (403, 413) and "quota" in str(fault).lower()
