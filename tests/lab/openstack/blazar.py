"""Blazar in a running cloud: hypervisors that nobody gets but by a lease.

It is started for the tests that want it, in a second or ten, and taken away behind them.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import psutil

from tests.lab.daemons import listens, until
from tests.lab.openstack.cloud import Cloud
from tests.lab.openstack.layout import SERVICE

POOL = "freepool"
"""The aggregate of nova's in which hypervisors are that are Blazar's."""

_READY_SECONDS = 240.0


@dataclass
class Blazar:
    """A running Blazar; ``hosts`` were given to it."""

    cloud: Cloud
    hosts: tuple[str, ...]

    def ask(self, path: str, method: str = "GET", body: Any = None) -> httpx.Response:
        """Ask Blazar as the cloud's administrator."""
        headers = {"X-Auth-Token": self.cloud.token()}
        url = f"http://127.0.0.1:{self.cloud.ports.blazar}/v1{path}"
        return httpx.request(method, url, headers=headers, json=body, timeout=120)

    def leases(self) -> dict[str, dict[str, Any]]:
        """Return all leases by name."""
        answer = self.ask("/leases").raise_for_status()
        return {one["name"]: one for one in answer.json()["leases"]}

    def take(self, name: str, start: str, end: str, **share: Any) -> dict[str, Any]:
        """Have somebody else's lease: ``start`` and ``end`` as Blazar writes them, or ``now``."""
        reservation = {
            "resource_type": "virtual:instance",
            "amount": 1,
            "affinity": None,
            "resource_properties": "",
            "vcpus": 1,
            "memory_mb": 1024,
            "disk_gb": 1,
            **share,
        }
        body = {"name": name, "start_date": start, "end_date": end, "reservations": [reservation], "events": []}
        answer = self.ask("/leases", "POST", body)
        assert answer.is_success, answer.text
        found: dict[str, Any] = answer.json()["lease"]
        return found

    def delete(self, number: str) -> None:
        """Delete a lease."""
        self.cloud.until(lambda: self.ask(f"/leases/{number}", "DELETE").status_code in (200, 204, 404), 120)

    def clean(self) -> None:
        """Delete all leases."""
        for lease in self.leases().values():
            self.delete(lease["id"])
        self.cloud.until(lambda: not self.leases(), 120, "no lease is left")

    @contextlib.contextmanager
    def without_api(self) -> Iterator[None]:
        """Have nobody listen on Blazar's port for a while."""
        _end(self.cloud, "blazar-api")
        until(lambda: not listens(self.cloud.ports.blazar), 60, "Blazar's API is gone")
        try:
            yield
        finally:
            script = f". /recipe/lib.sh; service blazar-api {self.cloud.ports.blazar} /usr/bin/blazar-api-wsgi 3; wait"
            self.cloud.namespace.start(["/bin/bash", "-c", script], "root", "/var/log/lab/blazar-api-again.log")
            until(lambda: listens(self.cloud.ports.blazar), _READY_SECONDS, "Blazar's API listens")
            self.cloud.until(lambda: self.ask("/leases").is_success, _READY_SECONDS, "Blazar answers")


@contextlib.contextmanager
def leasing(cloud: Cloud, *hosts: str) -> Iterator[Blazar]:
    """Run Blazar, with these hypervisors given to it, which have no servers; give them back at the end.

    The account on the login host has the cloud ``leases`` meanwhile, which logs in by password: for each lease Blazar
    makes a trust, which keystone refuses to a restricted application credential.
    """
    log = "/var/log/lab/blazar.log"
    said = cloud.root / log.lstrip("/")
    said.unlink(missing_ok=True)
    aggregates = cloud.ask("nova", "/v2.1/os-aggregates")["aggregates"]
    if POOL not in [one["name"] for one in aggregates]:
        cloud.ask("nova", "/v2.1/os-aggregates", "POST", {"aggregate": {"name": POOL}})
    cloud.namespace.start(["/bin/bash", "/recipe/blazar.sh"], "root", log)
    blazar = Blazar(cloud, hosts)
    try:
        until(lambda: said.exists() and "ready" in said.read_text(), _READY_SECONDS, "Blazar answers", step=0.2)
        with _account(cloud):
            numbers = [_given(blazar, host) for host in hosts]
            yield blazar
            blazar.clean()
            for number in numbers:
                blazar.ask(f"/os-hosts/{number}", "DELETE").raise_for_status()
    except BaseException as error:
        named = {name: text[-3000:] for name, text in cloud.logs().items() if "blazar" in name}
        error.add_note("\n".join(f"--- {name}\n{text}" for name, text in named.items()))
        raise
    finally:
        _end(cloud, "blazar")


def _end(cloud: Cloud, words: str) -> None:
    for process in cloud.namespace.processes():
        with contextlib.suppress(psutil.Error):
            if words in " ".join(process.cmdline()):
                process.kill()


def _given(blazar: Blazar, host: str) -> str:
    """Give a hypervisor to Blazar, as soon as its manager listens; return Blazar's number of it."""
    found: list[str] = []

    def given() -> bool:
        answer = blazar.ask("/os-hosts", "POST", {"name": host})
        if answer.is_success:
            found.append(str(answer.json()["host"]["id"]))
        else:
            assert answer.status_code >= 500, answer.text
        return bool(found)

    until(given, _READY_SECONDS, f"Blazar takes {host}", step=0.5)
    return found[0]


@contextlib.contextmanager
def _account(cloud: Cloud) -> Iterator[None]:
    clouds = cloud.root / f"home/{SERVICE}/.config/openstack/clouds.yaml"
    before = clouds.read_text()
    told = json.loads(before)
    told["clouds"]["leases"] = {
        "region_name": "RegionOne",
        "auth": {
            "auth_url": f"http://127.0.0.1:{cloud.ports.keystone}/v3",
            "username": "broker",
            "password": "lab",
            "project_name": "ebhpc",
            "user_domain_name": "Default",
            "project_domain_name": "Default",
        },
    }
    clouds.write_text(json.dumps(told))
    try:
        yield
    finally:
        clouds.write_text(before)
