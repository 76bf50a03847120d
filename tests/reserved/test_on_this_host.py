"""Reserved time and batch scripts on the local platform, through a whole broker."""

from __future__ import annotations

import hashlib
import os
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import icalendar
import psutil
import pytest
from click.testing import CliRunner

from ebhpc.cli.commands import ebhpc
from ebhpc.local import use as program
from ebhpc.model import kinds
from tests.broker import ADMIN, PASSWORD, RunningBroker
from tests.local.webserver import serving
from tests.reserved.asking import accepted, in_phase, metric, offers, reserved, session, until, update, use, words

ENDED = in_phase("COMPLETED", "FAILED", "CANCELLED")


def test_time_is_reserved_used_told_and_over(http: httpx.Client) -> None:
    uuid = accepted(http, reserved(cores=2, seconds=10))
    found = until(http, uuid, lambda one: one["phase"] == "AVAILABLE" and one.get("connectors"))
    (connector,) = found["connectors"]
    assert connector["kind"] == kinds.RESERVATION_CONNECTOR
    assert connector["reservation"] == f"ebhpc-{uuid}"
    assert any("the reservation stands on here" in word for word in words(found))
    script = "echo $EBHPC_CORES; sleep 2; exit 7"
    first = use(found, "sh", "-c", script, cores=1)
    second = use(found, "sh", "-c", "echo two; sleep 1", cores=1)
    third = use(found, "true")  # takes both cores: it waits for the others
    assert first.communicate()[0].split() == ["1"]
    assert (first.returncode, second.wait(), third.wait()) == (7, 0, 0)
    found = until(
        http, uuid, lambda one: len([job for job in one["executable"].get("jobs", ()) if job.get("ended")]) == 3
    )
    assert found["phase"] == "RUNNING"
    jobs = found["executable"]["jobs"]
    assert sorted((job["cores"], job["exit_code"]) for job in jobs) == [(1, 0), (1, 7), (2, 0)]
    assert {job["user"] for job in jobs} == {psutil.Process().username()}
    late = use(found, "sleep", "60", cores=1)
    found = until(http, uuid, ENDED)
    assert found["phase"] == "COMPLETED"
    assert late.wait(10) != 0
    assert "reserved time is over" in late.communicate()[1]
    used, unused = metric(found, kinds.CORE_HOURS_USED), metric(found, kinds.CORE_HOURS_UNUSED)
    assert used >= 3 / 3600
    assert used + unused == pytest.approx(20 / 3600, abs=2 / 3600)
    assert not any(str(uuid) in " ".join(_environment(process)) for process in psutil.process_iter())


def _environment(process: psutil.Process) -> list[str]:
    try:
        return [f"{name}={value}" for name, value in process.environ().items() if name == "EBHPC_SESSION"]
    except (psutil.AccessDenied, psutil.NoSuchProcess, OSError):
        return []


def test_what_nobody_used_is_completed_too_and_ends_early_when_its_user_says_so(
    http: httpx.Client, broker: RunningBroker
) -> None:
    unused = accepted(http, reserved(cores=1, seconds=2))
    given_back = accepted(http, reserved(cores=7, seconds=3600))
    found = until(http, given_back, lambda one: one.get("connectors"))
    runs = use(found, "sleep", "60", cores=1)
    until(http, given_back, in_phase("RUNNING"))
    said = CliRunner(env={"EBHPC_URL": broker.url, "EBHPC_USER": ADMIN, "EBHPC_PASSWORD": PASSWORD}).invoke(
        ebhpc, ["release", given_back], catch_exceptions=False
    )
    assert said.exit_code == 0, said.output
    found = until(http, given_back, lambda one: "results are kept" in words(one)[-1])
    assert found["phase"] == "CANCELLED"
    assert runs.wait(10) != 0
    for offer in offers(http, reserved(cores=7, seconds=60)):  # its cores are free again
        update(http, offer["meta"]["uuid"], "REJECTED")
    found = until(http, unused, ENDED)
    assert found["phase"] == "COMPLETED"
    assert any("0.0 of its" in word for word in words(found))


def _begins(found: dict[str, Any]) -> float:
    """When a session's time begins at the earliest, POSIX seconds."""
    return datetime.fromisoformat(found["schedule"]["available"]["start"].partition("/")[0]).timestamp()


def test_time_is_extended_under_what_runs_in_it(http: httpx.Client) -> None:
    # All cores: nothing but the old block's own time is free
    first = accepted(http, reserved(cores=8, seconds=8))
    found = until(http, first, lambda one: one.get("connectors"))
    # Its end was fixed a moment ago, and its time may begin only with the next second
    at_once = offers(http, reserved(cores=8, seconds=30, replaces=first))
    assert _begins(at_once[0]) < _begins(found) + 8
    for offer in at_once:
        update(http, offer["meta"]["uuid"], "REJECTED")
    runs = use(found, "sleep", "12", cores=1)
    until(http, first, in_phase("RUNNING"))
    longer = offers(http, reserved(cores=8, seconds=30, replaces=first))[0]
    uuid = longer["meta"]["uuid"]
    update(http, uuid, "ACCEPTED")
    found = until(http, uuid, in_phase("RUNNING"))
    assert session(http, first)["phase"] == "COMPLETED"
    assert any(f"in session {uuid}" in word for word in words(session(http, first)))
    assert found["connectors"][0]["reservation"] == f"ebhpc-{first}"
    assert runs.wait(30) == 0  # beyond the end of the first block
    found = until(http, uuid, lambda one: one["executable"]["jobs"][0].get("ended"))
    update(http, uuid, "CANCELLED")
    until(http, uuid, lambda one: "results are kept" in words(one)[-1])
    # What has ended cannot be extended
    no = http.post("/requests", json=reserved(replaces=uuid)).json()
    assert no["result"] == "NO"
    assert "has ended" in str(no["meta"]["messages"])


@pytest.mark.parametrize(
    ("script", "more", "out"),
    [
        ('#!/bin/bash\necho "$1|$WORD|$LOADED_gcc"', {"modules": ["lab/gcc"]}, "a b|x;y|yes\n"),
        ("echo plain $0", {}, "plain"),
        ("import sys; print(sys.argv[1:])", {"interpreter": ["/usr/bin/env", "python3"]}, "['a b', '$(id)', '-x']\n"),
        ("#!/bin/sh\npwd", {"directory": "/tmp"}, "/tmp\n"),
    ],
)
def test_a_script_runs_as_it_would_by_hand(http: httpx.Client, script: str, more: dict[str, Any], out: str) -> None:
    executable = {
        "kind": kinds.BATCH_SCRIPT,
        "script": script,
        "arguments": ["a b", "$(id)", "-x"],
        "environment": {"WORD": "x;y"},
        **more,
    }
    answer = http.post("/direct", json={"executable": executable, "schedule": {"requested": {"duration": "PT1M"}}})
    assert answer.status_code == 303, answer.text
    uuid = answer.json()["meta"]["uuid"]
    found = until(http, uuid, ENDED)
    stdout, stderr = (http.get(f"/sessions/{uuid}/output/{name}").text for name in ("stdout", "stderr"))
    assert found["phase"] == "COMPLETED", (words(found), stderr)
    assert stdout.startswith(out)


def _script(executable: dict[str, Any]) -> dict[str, Any]:
    return {"executable": executable, "schedule": {"requested": {"duration": "PT1M"}}}


def test_a_script_by_its_url_is_fetched_and_must_have_its_digest(http: httpx.Client, tmp_path: Path) -> None:
    text = b'#!/bin/sh\necho fetched "$@"\n'
    digest = "sha256:" + hashlib.sha256(text).hexdigest()
    wanted = {"kind": kinds.BATCH_SCRIPT, "location": "https://example.org/job.sh"}
    no = http.post("/requests", json={"executable": wanted}).json()
    assert no["result"] == "NO"
    assert "/executable/digest" in str(no["meta"]["messages"])
    with serving(text) as url:
        uuid = accepted(http, _script({**wanted, "location": url, "digest": digest, "arguments": ["a b"]}))
        found = until(http, uuid, ENDED, 120)
        assert found["phase"] == "COMPLETED", words(found)
        assert http.get(f"/sessions/{uuid}/output/stdout").text == "fetched a b\n"
        uuid = accepted(http, _script({**wanted, "location": url, "digest": f"sha256:{'0' * 64}"}))
        found = until(http, uuid, ENDED, 120)
        assert found["phase"] == "FAILED"
        assert any("sha256" in word for word in words(found)), words(found)
    elsewhere = {**wanted, "location": (tmp_path / "job.sh").as_uri(), "digest": digest}
    no = http.post("/requests", json={"executable": elsewhere}).json()
    assert "file roots" in str(no["meta"]["messages"])


@pytest.mark.parametrize(
    ("executable", "told"),
    [
        ({"kind": kinds.BATCH_SCRIPT, "script": "x", "modules": ["other/gcc"]}, "not among those"),
        ({"kind": kinds.BATCH_SCRIPT, "script": "x", "directory": "/etc"}, "do not run in /etc"),
        ({"kind": kinds.BATCH_SCRIPT, "script": "x", "environment": {"A-B": "1"}}, "no name for a variable"),
        ({"kind": kinds.BATCH_SCRIPT, "script": "x", "environment": {"EBHPC_SESSION": "1"}}, "the broker's to set"),
        ({"kind": kinds.RESERVED_TIME, "users": ["berta"]}, "not shared with other users"),
        ({"kind": kinds.RESERVED_TIME, "accounts": ["phys"]}, "not shared with the account"),
        ({"kind": kinds.RESERVED_TIME, "replaces": "01a20965-4fcb-7618-8052-f0f213adb346"}, "you have no session"),
    ],
)
def test_what_the_site_does_not_allow_is_refused_by_name(
    http: httpx.Client, executable: dict[str, Any], told: str
) -> None:
    no = http.post("/requests", json={"executable": executable}).json()
    assert no["result"] == "NO"
    assert told in str(no["meta"]["messages"])


def test_ones_time_is_in_a_calendar_whose_address_can_be_renewed(http: httpx.Client, broker: RunningBroker) -> None:
    begin = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600))
    uuid = accepted(http, reserved(cores=1, seconds=600, start=f"{begin}/PT0S"))
    until(http, uuid, lambda one: one.get("connectors"))
    made = http.post("/sessions/calendar")
    assert made.status_code == 201
    address = made.json()["url"]
    with httpx.Client(trust_env=False) as calendar_program:
        answer = calendar_program.get(address)
        assert answer.status_code == 200
        assert answer.headers["Content-Type"].startswith("text/calendar")
        calendar = icalendar.Calendar.from_ical(answer.content)
        (event,) = [one for one in calendar.walk("VEVENT") if str(one["UID"]) == f"{uuid}@ebhpc"]
        assert event.decoded("DTSTART").strftime("%Y-%m-%dT%H:%M:%SZ") == begin
        assert (event.decoded("DTEND") - event.decoded("DTSTART")).total_seconds() == 600
        assert str(event["SUMMARY"]) == "a tutorial: 1 core on here"
        assert "ebhpc.local.use" in str(event["DESCRIPTION"])
        assert str(event["STATUS"]) == "CONFIRMED"
        renewed = http.post("/sessions/calendar").json()["url"]
        assert calendar_program.get(address).status_code == 404
        assert calendar_program.get(renewed).status_code == 200
        assert http.delete("/sessions/calendar").status_code == 204
        assert calendar_program.get(renewed).status_code == 404
        assert calendar_program.get(f"{broker.url}/sessions/calendar.ics").status_code == 404
        assert calendar_program.post(f"{broker.url}/sessions/calendar").status_code == 401
    assert renewed.partition("key=")[2] not in broker.logs()
    update(http, uuid, "CANCELLED")
    until(http, uuid, lambda one: "results are kept" in words(one)[-1])


def test_only_a_session_of_ones_own_has_a_directory_to_use(tmp_path: Path) -> None:
    assert program.main([str(tmp_path), "--", "true"]) == program.BROKEN
    assert os.listdir(tmp_path) == []
