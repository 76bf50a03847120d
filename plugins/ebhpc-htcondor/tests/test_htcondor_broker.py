"""A whole broker whose platform is a real pool: asked, accepted, run, read."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from htcondor_lab import Place

from ebhpc.client import Broker
from ebhpc.model import Phase, kinds
from tests.broker import ADMIN, RunningBroker

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]

SOURCE = """import getpass, pathlib
print('hello from', getpass.getuser())
with open(pathlib.Path('RAN'), 'a') as file:
    file.write('once\\n')
"""


@pytest.fixture
def notebook(place: Place) -> Path:
    """A notebook that leaves a trace of each run beside the sessions."""
    folder = place.pool.shared / f"notebooks-{time.time()}"
    folder.mkdir()
    folder.chmod(0o777)
    cell = {"cell_type": "code", "id": "one", "metadata": {}, "execution_count": None, "outputs": []}
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    text = {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {"kernelspec": kernel},
        "cells": [{**cell, "source": SOURCE.replace("RAN", str(folder / "ran"))}],
    }
    (folder / "note.ipynb").write_text(json.dumps(text), encoding="utf-8")
    return folder / "note.ipynb"


@contextmanager
def running(place: Place, notebook: Path, folder: Path, **more: Any) -> Iterator[RunningBroker]:
    (folder / "faults").mkdir()
    given = more.pop("settings", {})
    settings = place.settings(look="500ms", identities={ADMIN: {"user": "alice", "uid": 2001}}, **given)
    settings["jobs"]["file_roots"] = [str(notebook.parent)]
    platform = {"name": "pool", "kind": "htcondor", "lead": "1s", "refresh": "1s", "settings": settings, **more}
    broker = RunningBroker(folder, {"platforms": [platform], "api": {"workers": 1}})
    try:
        broker.make_ready()
        broker.start("api")
        broker.start("drive", EBHPC_FAULTS=str(folder / "faults"))
        broker.wait_ready()
        yield broker
    finally:
        broker.stop()


def request(notebook: Path, cores: int = 1, **schedule: str) -> dict[str, Any]:
    return {
        "executable": {"kind": kinds.JUPYTER_NOTEBOOK, "location": notebook.as_uri()},
        "compute": {
            "kind": kinds.SIMPLE_COMPUTE,
            "cores": {"min": cores, "max": cores},
            "memory": {"min": 1, "max": 1},
        },
        "schedule": {"requested": {"duration": "PT2M", **schedule}},
    }


def accepted(client: Broker, wanted: dict[str, Any], seconds: float = 30) -> str:
    """Ask until there are offers: expectations come with the first forecast."""
    deadline = time.monotonic() + seconds
    while (offers := client.offers(wanted)).result != "YES":
        assert time.monotonic() < deadline, offers
        time.sleep(0.5)
    uuid = offers.offers[0].meta.uuid
    client.accept(uuid)
    return str(uuid)


def end_of(client: Broker, uuid: str, seconds: float = 90) -> Any:
    deadline = time.monotonic() + seconds
    while (session := client.session(uuid)).phase not in (Phase.COMPLETED, Phase.FAILED, Phase.CANCELLED):
        assert time.monotonic() < deadline, session
        time.sleep(0.3)
    return session


def words(session: Any) -> list[str]:
    return [str(told) for told in session.meta.messages or ()]


def test_a_notebook_goes_from_question_to_result_in_a_pool(place: Place, notebook: Path, tmp_path: Path) -> None:
    with running(place, notebook, tmp_path) as broker, broker.client() as client:
        too_large = client.offers(request(notebook, cores=1000))
        assert too_large.result == "NO"
        uuid = accepted(client, request(notebook))
        session = end_of(client, uuid)
        assert session.phase is Phase.COMPLETED, f"{words(session)}\n{broker.logs()}"
        result = b"".join(client.read_output(uuid, "results/note.ipynb")).decode()
        assert "hello from alice" in result
        assert (notebook.parent / "ran").read_text() == "once\n"
        assert place.pool.queue() == []


def test_a_driver_killed_between_submit_and_record_submits_once(place: Place, notebook: Path, tmp_path: Path) -> None:
    with running(place, notebook, tmp_path) as broker, broker.client() as client:
        armed = tmp_path / "faults" / "armed"
        armed.write_text("htcondor.submit.after 1", encoding="utf-8")
        uuid = accepted(client, request(notebook))
        place.pool.until(lambda: not armed.exists(), what="the driver was killed")
        broker.kill("drive")
        broker.start("drive")
        session = end_of(client, uuid)
        assert session.phase is Phase.COMPLETED, f"{words(session)}\n{broker.logs()}"
        assert (notebook.parent / "ran").read_text() == "once\n"


def test_a_start_that_was_offered_is_kept_though_others_want_the_machines(
    place: Place, notebook: Path, tmp_path: Path
) -> None:
    keeps = {"start_expression": True, "reservations": str(place.pool.reservations), "early": "15s"}
    more = {"settings": keeps, "promise": "reservation", "lead": "20s"}
    with running(place, notebook, tmp_path, **more) as broker, broker.client() as client:
        begin = int(time.time()) + 40
        start = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(begin))
        uuid = accepted(client, request(notebook, cores=8, start=f"{start}/{start}"))
        place.pool.until(lambda: client.session(uuid).phase is not Phase.ACCEPTED, 90, "the machine keeps it")
        place.pool.sleep(600, user="bob", count=40)
        session = end_of(client, uuid)
        assert session.phase is Phase.COMPLETED, f"{words(session)}\n{broker.logs()}"
        (job,) = [one for one in place.pool.history() if one.get("EbhpcSession") == uuid]
        # On time, give or take what a busy host needs to start it
        assert 0 <= job["JobCurrentStartExecutingDate"] - begin < 15
        assert (notebook.parent / "ran").read_text() == "once\n"
        kept = [path.name for path in place.pool.reservations.iterdir() if not path.name.startswith(".")]
        assert kept == []


def test_offers_vanish_while_the_collector_is_down_and_a_session_goes_on(
    place: Place, notebook: Path, tmp_path: Path
) -> None:
    blocker = [place.pool.sleep(600, request_cpus=cores, allowed_execute_duration=900) for cores in (4, 8, 8)]
    place.pool.until(lambda: [job["JobStatus"] for job in place.pool.queue()] == [2, 2, 2], what="the pool is full")
    with running(place, notebook, tmp_path, timeout="5s") as broker, broker.client() as client:
        begin = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        uuid = accepted(client, request(notebook, start=f"{begin}/PT5H"))
        place.pool.until(lambda: len(place.pool.queue()) == 4, what="the job waits in the queue")
        with place.pool.hanging(place.pool.collector):
            place.pool.until(lambda: "does not answer" in str(client.platforms()), 40, "it is told")
            assert client.session(uuid).phase in (Phase.AVAILABLE, Phase.PREPARING)
        place.pool.run(["condor_rm", *blocker], user="root")
        session = end_of(client, uuid)
        assert session.phase is Phase.COMPLETED, f"{words(session)}\n{broker.logs()}"
