"""A whole broker whose platform is a real cluster: asked, accepted, run, read."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from slurm_lab import ALICE, Place, ours

from ebhpc.client import Broker
from ebhpc.model import Phase, kinds
from tests.broker import ADMIN, RunningBroker
from tests.lab import containers
from tests.labs import require

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]

NOTEBOOK = {
    "nbformat": 4,
    "nbformat_minor": 5,
    "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
    "cells": [
        {
            "cell_type": "code",
            "id": "one",
            "metadata": {},
            "execution_count": None,
            "outputs": [],
            "source": "import getpass, pathlib\nprint('hello from', getpass.getuser())\n"
            "with open(pathlib.Path('RAN'), 'a') as file:\n    file.write('once\\n')\n",
        }
    ],
}


@pytest.fixture
def notebook(here: Place) -> Path:
    """A notebook that leaves a trace of each run beside the sessions."""
    folder = here.cluster.shared / f"notebooks-{time.time()}"
    folder.mkdir()
    folder.chmod(0o777)
    text = json.dumps(NOTEBOOK).replace("RAN", str(folder / "ran"))
    (folder / "note.ipynb").write_text(text, encoding="utf-8")
    return folder / "note.ipynb"


def platform_of(place: Place, notebook: Path) -> dict[str, Any]:
    settings = place.settings(look="500ms", identities={ADMIN: {"user": "alice", "account": "phys", "uid": ALICE}})
    settings["jobs"]["file_roots"] = [str(notebook.parent)]
    return {"name": "lab", "kind": "slurm", "lead": "2s", "refresh": "1s", "settings": settings}


@contextmanager
def running(place: Place, notebook: Path, folder: Path, **more: Any) -> Iterator[RunningBroker]:
    (folder / "faults").mkdir()
    broker = RunningBroker(folder, {"platforms": [{**platform_of(place, notebook), **more}], "api": {"workers": 1}})
    try:
        broker.make_ready()
        broker.start("api")
        broker.start("drive", EBHPC_FAULTS=str(folder / "faults"))
        broker.wait_ready()
        yield broker
    finally:
        broker.stop()


def request(notebook: Path, **schedule: str) -> dict[str, Any]:
    one = {"min": 1, "max": 1}
    return {
        "executable": {"kind": kinds.JUPYTER_NOTEBOOK, "location": notebook.as_uri()},
        "compute": {"kind": kinds.SIMPLE_COMPUTE, "cores": one, "memory": one},
        "schedule": {"requested": {"duration": "PT2M", **schedule}},
    }


def accepted(client: Broker, wanted: dict[str, Any]) -> str:
    offers = client.offers(wanted)
    assert offers.result == "YES", offers
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


@pytest.mark.parametrize("way", ["commands", "pyslurm"])
def test_a_notebook_goes_from_question_to_result_on_a_cluster(
    here: Place, notebook: Path, tmp_path: Path, way: str
) -> None:
    place = Place(here.cluster, way, here.state)
    with running(place, notebook, tmp_path) as broker, broker.client() as client:
        uuid = accepted(client, request(notebook))
        session = end_of(client, uuid)
        assert session.phase is Phase.COMPLETED, f"{words(session)}\n{broker.logs()}"
        names = [output.name for output in client.outputs(uuid)]
        assert "results/note.ipynb" in names
        result = b"".join(client.read_output(uuid, "results/note.ipynb")).decode()
        assert "hello from alice" in result
        assert (notebook.parent / "ran").read_text() == "once\n"
        here.cluster.until(lambda: ours(here.platform()) == [])


@pytest.mark.containers
def test_a_container_goes_from_question_to_result_on_a_cluster(here: Place, notebook: Path, tmp_path: Path) -> None:
    lacking = containers.missing()
    require(not lacking, f"containers cannot be tested: {'; '.join(lacking)}")
    # Apptainer wants to read it before it fetches anything
    (here.cluster.root / "etc" / "resolv.conf").touch()
    one = platform_of(here, notebook)
    runtime = {"kind": "apptainer", "pull_options": ["--no-https"]}
    settings = {**one["settings"], "jobs": {**one["settings"]["jobs"], "runtime": runtime}}
    with (
        containers.registry() as registry,
        running(here, notebook, tmp_path, settings=settings) as broker,
        broker.client() as client,
    ):
        image = {"locations": [registry.location], "digest": registry.digest}
        container = {
            "kind": kinds.DOCKER_CONTAINER,
            "image": image,
            "command": ["sh", "-c", 'id -un; echo "$WORD" "$0" >"$EBHPC_RESULTS/said"', "$(id) `id`"],
            "environment": {"WORD": 'it\'s "$HOME"'},
        }
        wanted = {**request(notebook), "executable": container}
        wrong = {**wanted, "executable": {**container, "image": {**image, "digest": f"sha256:{'0' * 64}"}}}
        uuids = [accepted(client, each) for each in (wanted, wrong)]
        session = end_of(client, uuids[0])
        assert session.phase is Phase.COMPLETED, f"{words(session)}\n{broker.logs()}"
        assert b"".join(client.read_output(uuids[0], "stdout")).decode() == "alice\n"
        assert b"".join(client.read_output(uuids[0], "results/said")).decode() == 'it\'s "$HOME" $(id) `id`\n'
        session = end_of(client, uuids[1])
        assert session.phase is Phase.FAILED
        assert any("cannot be fetched" in text for text in words(session)), words(session)
        here.cluster.until(lambda: ours(here.platform()) == [])


@pytest.mark.parametrize("point", ["slurm.hold.after", "slurm.submit.after"])
def test_a_driver_killed_before_it_could_note_what_it_did_does_it_once(
    here: Place, notebook: Path, tmp_path: Path, point: str
) -> None:
    with running(here, notebook, tmp_path) as broker:
        armed = tmp_path / "faults" / "armed"
        armed.write_text(f"{point} 1", encoding="utf-8")
        with broker.client() as client:
            uuid = accepted(client, request(notebook))
            here.cluster.until(lambda: not armed.exists())
            broker.kill("drive")
            broker.start("drive")
            session = end_of(client, uuid)
            assert session.phase is Phase.COMPLETED, f"{words(session)}\n{broker.logs()}"
            assert (notebook.parent / "ran").read_text() == "once\n"
            assert len(here.platform().slurm.jobs(f"ebhpc-{uuid}")) == 1
            here.cluster.until(lambda: ours(here.platform()) == [])


def test_offers_vanish_with_a_word_while_the_controller_is_down_and_sessions_go_on(
    here: Place, notebook: Path, tmp_path: Path
) -> None:
    with running(here, notebook, tmp_path) as broker, broker.client() as client:
        begin = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 25))
        uuid = accepted(client, request(notebook, start=f"{begin}/PT0S"))
        here.cluster.until(lambda: ours(here.platform()) == [f"ebhpc-{uuid}"])
        here.cluster.controller.stop()
        here.cluster.until(lambda: "does not answer" in str(client.platforms()), timeout=40)
        time.sleep(2)
        here.cluster.controller.start()
        session = end_of(client, uuid)
        assert session.phase is Phase.COMPLETED, f"{words(session)}\n{broker.logs()}"
        here.cluster.until(lambda: ours(here.platform()) == [])


def test_in_the_queue_a_start_is_expected_and_the_job_runs_when_its_turn_comes(
    here: Place, notebook: Path, tmp_path: Path
) -> None:
    with running(here, notebook, tmp_path, promise="queue") as broker, broker.client() as client:
        here.cluster.until(
            lambda: client.offers(request(notebook)).result == "YES", timeout=40
        )  # it has to learn first
        uuid = accepted(client, request(notebook))
        session = end_of(client, uuid)
        assert session.phase is Phase.COMPLETED, f"{words(session)}\n{broker.logs()}"
        (job,) = here.platform().slurm.jobs(f"ebhpc-{uuid}")
        assert (job.reservation, job.user) == ("", "alice")
        assert (notebook.parent / "ran").read_text() == "once\n"
        here.cluster.until(lambda: ours(here.platform()) == [])
