"""What becomes of a session is told by the batch system and by the job's own report, which nobody trusts."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as some

from ebhpc import batch
from ebhpc.batch.reports import Port, Words
from ebhpc.model import (
    DockerContainer,
    DockerInternalPort,
    DockerNetwork,
    DockerPort,
    MessageKind,
    Session,
    message,
)
from tests.batch.conftest import Site, said

TIMEOUT = message(MessageKind.TIME_LIMIT, "The batch system's time limit was reached.")


@pytest.fixture
def session(site: Site) -> Session:
    """A container with two ports, one of which is nobody's business."""
    ports = [
        DockerPort(internal=DockerInternalPort(port=80), protocol="HTTPS", path="a/b"),
        DockerPort(internal=DockerInternalPort(port=81), access=False),
        DockerPort(internal=DockerInternalPort(port=82)),
    ]
    return site.session(DockerContainer(network=DockerNetwork(ports=ports)))


def written(site: Site, session: Session, **files: Any) -> batch.Report | None:
    """Write files of a report as a job might, and read them."""
    directory = batch.session_directory(site.root, session.uuid)
    directory.report.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        raw = value if isinstance(value, bytes) else json.dumps(value).encode()
        (directory.report / f"{name}.json").write_bytes(raw)
    return batch.read_report(directory)


def observed(site: Site, session: Session, state: Any, report: batch.Report | None, **more: Any) -> Any:
    """Observe a session whose batch system says ``state``."""
    return batch.observation(session, batch.Native(state=state, **more), report, site.settings(domain=".example.org"))


def test_the_batch_system_says_whether_a_job_has_ended_and_the_report_how(site: Site, session: Session) -> None:
    report = batch.Report(
        state="FAILED",
        exit_code=3,
        started=100.0,
        ended=200.0,
        messages=(Words("urn:execution-failed", "ERROR", "x", {}),),
    )
    running = observed(site, session, "RUNNING", report, node="n7", started=90.0)
    assert (running.state, running.ended, running.started, running.node) == ("RUNNING", None, 100.0, "n7")
    ended = observed(site, session, "FAILED", report, node="n7", exit_code=3, ended=201.0)
    assert (ended.state, ended.exit_code, ended.ended, said(ended)) == ("FAILED", 3, 200.0, "x")


def test_a_job_without_a_complete_report_is_what_the_batch_system_says(site: Site, session: Session) -> None:
    begun = batch.Report(node="n7", started=100.0)
    for report in (None, begun):
        seen = observed(site, session, "FAILED", report, exit_code=9, ended=300.0, messages=(TIMEOUT,))
        assert (seen.state, seen.exit_code, seen.ended) == ("FAILED", 9, 300.0)
        assert seen.messages == (TIMEOUT,)


def test_a_job_that_ended_well_and_was_forgotten_has_ended_well(site: Site, session: Session) -> None:
    done = batch.Report(state="SUCCEEDED", exit_code=0, ended=200.0)
    assert observed(site, session, "GONE", done).state == "SUCCEEDED"
    assert observed(site, session, "GONE", batch.Report(started=1.0)).state == "GONE"
    assert observed(site, session, "GONE", None).state == "GONE"
    assert observed(site, session, "PENDING", done).state == "PENDING"


def test_connectors_are_made_of_the_request_and_the_ports_number_alone(site: Site, session: Session) -> None:
    report = batch.Report(node="evil.example.com", ports=(Port(80, 4433), Port(81, 81), Port(99, 1), Port(82, 70000)))
    (connector,) = observed(site, session, "RUNNING", report, node="n7").connectors
    assert connector.location == "https://n7.example.org:4433/a/b"
    assert (connector.status, connector.protocol) == ("AVAILABLE", "HTTPS")
    (finished,) = observed(site, session, "SUCCEEDED", report, node="n7").connectors
    assert finished.status == "FINISHED"


@pytest.mark.parametrize(
    "status",
    [
        b"",
        b"[]",
        b"\xff\xfe",
        b"{" * 10_000,
        b'{"state": "RUNNING"}',
        b'{"state": "GREAT"}',
        b'{"state": "SUCCEEDED", "exit_code": "0"}',
        b'{"state": "SUCCEEDED", "exit_code": 0, "messages": [{}]}',
        b'{"state": "SUCCEEDED", "messages": "' + b"x" * 2_000_000 + b'"}',
    ],
    ids=range(9),
)
def test_a_report_that_is_none_fails_the_session(site: Site, session: Session, status: bytes) -> None:
    report = written(site, session, status=status)
    seen = observed(site, session, "SUCCEEDED", report)
    assert seen.state == "FAILED"
    assert "cannot be read" in said(seen)


def test_a_report_says_what_it_likes_within_bounds(site: Site, session: Session) -> None:
    report = written(
        site,
        session,
        status={
            "state": "FAILED",
            "exit_code": 1,
            "started": 1e300,
            "ended": -5.0,
            "messages": [
                {"kind": "urn:own", "level": "ERROR", "template": "{a} {a}", "values": {"a": "y" * 100_000}},
                {"kind": "urn:progress", "level": "INFO", "template": "{missing}", "values": {}},
                {"kind": "urn:progress", "level": "INFO", "template": "t", "values": {"kind": "k", "template": "t"}},
                *({"kind": "urn:progress", "level": "INFO", "template": str(n), "values": {}} for n in range(100)),
            ],
        },
    )
    seen = observed(site, session, "FAILED", report, started=10.0, ended=20.0)
    assert (seen.started, seen.ended) == (10.0, 20.0)
    assert seen.messages[0].kind == "urn:execution-failed"
    assert len(str(seen.messages[0])) < 10_000
    assert len(seen.messages) <= 20


def test_links_and_pipes_are_no_report(site: Site, session: Session, tmp_path: Path) -> None:
    real = tmp_path / "real.json"
    real.write_text('{"state": "SUCCEEDED"}')
    directory = batch.session_directory(site.root, session.uuid)
    directory.report.mkdir(parents=True)
    (directory.report / "status.json").symlink_to(real)
    assert batch.read_report(directory) is None
    (directory.report / "status.json").unlink()
    os.mkfifo(directory.report / "status.json")
    began = time.monotonic()
    assert batch.read_report(directory) is None
    assert time.monotonic() - began < 5
    (directory.report / "status.json").unlink()
    directory.report.rmdir()
    directory.report.symlink_to(tmp_path)
    (tmp_path / "status.json").write_text('{"state": "SUCCEEDED"}')
    assert batch.read_report(directory) is None


JUNK = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | some.text(max_size=20),
    lambda inner: some.lists(inner, max_size=4) | some.dictionaries(some.text(max_size=9), inner, max_size=4),
    max_leaves=10,
)
FIELDS = ("state", "exit_code", "node", "started", "ended", "messages", "ports", "kind")


@examples(max_examples=200, deadline=None, derandomize=True)
@given(junk=some.dictionaries(some.sampled_from(FIELDS), JUNK | some.sampled_from(["FAILED", "SUCCEEDED"]), max_size=8))
def test_no_report_makes_an_observation_fail(tmp_path_factory: pytest.TempPathFactory, junk: dict[str, Any]) -> None:
    site = Site(tmp_path_factory.mktemp("junk"))
    made = site.session(DockerContainer())
    report = written(site, made, status=junk, running=junk)
    for state in ("PENDING", "RUNNING", "SUCCEEDED", "FAILED", "GONE"):
        seen = observed(site, made, state, report)
        assert seen.state in (state, "SUCCEEDED", "FAILED")
        assert all(one.kind in set(MessageKind) for one in seen.messages)
