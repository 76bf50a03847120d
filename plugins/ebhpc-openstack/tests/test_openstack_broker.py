"""A whole broker whose platform is a real cloud: asked, accepted, run, read."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from openstack_lab import Place, notebook, served

from ebhpc.client import Broker
from ebhpc.model import Phase, kinds
from tests.broker import RunningBroker

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

SOURCE = "import os; print('hello from', os.environ['EBHPC_CORES'], 'cores')"


@contextmanager
def running(place: Place, folder: Path, site: Mapping[str, Any] = {}, **more: Any) -> Iterator[RunningBroker]:
    (folder / "faults").mkdir()
    settings = place.settings(look="500ms", **more.pop("settings", {}))
    platform = {"name": "cloud", "kind": "openstack", "lead": "1s", "refresh": "2s", "settings": settings, **more}
    broker = RunningBroker(folder, {"platforms": [platform], "api": {"workers": 1}, **site})
    try:
        broker.make_ready()
        broker.start("api")
        broker.start("drive", EBHPC_FAULTS=str(folder / "faults"))
        broker.wait_ready()
        yield broker
    finally:
        broker.stop()


def request(url: str, cores: dict[str, int], **schedule: str) -> dict[str, Any]:
    return {
        "executable": {"kind": kinds.JUPYTER_NOTEBOOK, "location": f"{url}/note.ipynb"},
        "compute": {"kind": kinds.SIMPLE_COMPUTE, "cores": cores, "memory": {"min": 1}},
        "schedule": {"requested": {"duration": "PT2M", **schedule}},
    }


def offered(client: Broker, wanted: dict[str, Any], seconds: float = 240) -> Any:
    """Ask until there are offers: expectations come with the first forecast."""
    deadline = time.monotonic() + seconds
    while (offers := client.offers(wanted)).result != "YES":
        assert time.monotonic() < deadline, offers
        time.sleep(0.5)
    return offers


def end_of(client: Broker, uuid: str, seconds: float = 240) -> Any:
    deadline = time.monotonic() + seconds
    while (session := client.session(uuid)).phase not in (Phase.COMPLETED, Phase.FAILED, Phase.CANCELLED):
        assert time.monotonic() < deadline, session
        time.sleep(0.3)
    return session


def words(session: Any) -> list[str]:
    return [str(told) for told in session.meta.messages or ()]


def test_a_notebook_goes_from_question_to_result_in_the_smallest_server_that_is_large_enough(
    place: Place, tmp_path: Path
) -> None:
    notebook(tmp_path, SOURCE)
    with served(tmp_path) as url, running(place, tmp_path) as broker, broker.client() as client:
        offers = offered(client, request(url, {"min": 3}))
        compute = offers.offers[0].compute
        assert (compute.cores.min, compute.cores.max, compute.memory.max) == (4, 4, 8), compute
        none = client.offers(request(url, {"min": 3, "max": 3}))
        assert none.result == "NO"
        assert "No flavor" in str(none), none
        uuid = str(offers.offers[0].meta.uuid)
        client.accept(uuid)
        session = end_of(client, uuid)
        assert session.phase is Phase.COMPLETED, f"{words(session)}\n{broker.logs()}"
        result = b"".join(client.read_output(uuid, "results/note.ipynb")).decode()
        assert "hello from 4 cores" in result
        place.cloud.until(lambda: not place.cloud.servers(), 120, "no server is left")


def test_a_driver_killed_between_create_and_record_makes_one_server(place: Place, tmp_path: Path) -> None:
    notebook(tmp_path, SOURCE)
    kept = {"capacity": "own", "pin": True}
    with served(tmp_path) as url, running(place, tmp_path, settings=kept) as broker, broker.client() as client:
        armed = tmp_path / "faults" / "armed"
        armed.write_text("openstack.create.after 1", encoding="utf-8")
        offers = offered(client, request(url, {"min": 1, "max": 1}))
        uuid = str(offers.offers[0].meta.uuid)
        client.accept(uuid)
        place.cloud.until(lambda: not armed.exists(), 240, what="the driver was killed")
        broker.kill("drive")
        broker.start("drive")
        session = end_of(client, uuid)
        assert session.phase is Phase.COMPLETED, f"{words(session)}\n{broker.logs()}"
        result = b"".join(client.read_output(uuid, "results/note.ipynb")).decode()
        assert "hello from 1 cores" in result
        assert made(place, uuid) == 1
        place.cloud.until(lambda: not place.cloud.servers(), 120, "no server is left")


def made(place: Place, uuid: str) -> int:
    """Count the servers that a session ever had; one that is deleted between the two lists is in both."""
    name = f"ebhpc-{uuid}"
    listed = place.cloud.servers() + place.cloud.servers(deleted=True)
    return len({server["id"] for server in listed if server["name"] == name})
