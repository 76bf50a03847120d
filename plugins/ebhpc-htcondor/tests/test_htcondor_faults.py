"""What goes wrong in a real pool, and what a session, and the platform, make of it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from htcondor_lab import Place, ended, ready, runs, session, submitted, until, words

from ebhpc.model import Session
from ebhpc.plugins import SessionFailed
from ebhpc_htcondor.asking import NotPermitted, NotReached, PoolFault, Unanswered
from ebhpc_htcondor.platform import HTCondorPlatform

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

SLEEP = ["/bin/sleep", "300"]


def removed(platform: HTCondorPlatform, one: Session) -> None:
    """End a session as the driver does."""
    platform.ebhpc_cancel(one)
    until(platform, one, lambda seen: seen.state in ("SUCCEEDED", "FAILED", "GONE"))
    platform.ebhpc_cleanup(one)


def test_a_schedd_that_dies_and_comes_back_still_has_the_job(place: Place) -> None:
    platform = place.platform()
    one = submitted(platform, ready(platform, session(), SLEEP))
    until(platform, one, runs)
    place.pool.killed(place.pool.schedd)
    other = ready(platform, session(), SLEEP)
    assert until(platform, one, runs).node is not None
    other = submitted(platform, other)
    assert len(place.pool.queue()) == 2
    removed(platform, one)
    removed(platform, other)
    place.pool.until(lambda: place.pool.queue() == [], 90, "nothing is left")


def test_a_schedd_that_answers_nothing_is_given_up_and_asked_again(place: Place) -> None:
    platform = place.platform(answer_within="2s")
    one = ready(platform, session(), SLEEP)
    with place.pool.hanging(place.pool.schedd), pytest.raises((Unanswered, NotReached)):
        platform.ebhpc_submit(one)
    patient = place.platform()
    native = place.pool.until(lambda: _tried(patient, one), 90, "it is submitted")
    assert patient.ebhpc_submit(one) == native
    jobs = [job for job in place.pool.queue() if job.get("EbhpcSession") == one.uuid]
    assert len(jobs) == 1


def _tried(platform: HTCondorPlatform, one: Session) -> str:
    try:
        return platform.ebhpc_submit(one)
    except PoolFault:
        return ""


def test_a_collector_that_is_down_is_told_and_a_dead_negotiator_is_said_to_be_why_jobs_wait(place: Place) -> None:
    platform, impatient = place.platform(), place.platform(answer_within="4s")
    platform.ebhpc_snapshot(int(time.time()))
    with place.pool.hanging(place.pool.collector), pytest.raises((Unanswered, NotReached)):
        impatient.ebhpc_snapshot(int(time.time()))
    place.pool.killed(place.pool.collector)
    assert platform.ebhpc_snapshot(int(time.time())).nodes
    with place.pool.hanging(place.pool.negotiator):
        place.pool.until(lambda: not _negotiator(platform), 120, "the collector forgets the negotiator")
        one = submitted(platform, ready(platform, session(), ["/bin/echo", "at last"]))
        (seen,) = platform.ebhpc_observe([one])
        assert "negotiator does not answer" in words(seen)
    assert _negotiator(platform)
    assert until(platform, one, ended).state == "SUCCEEDED"


def _negotiator(platform: HTCondorPlatform) -> bool:
    platform.ebhpc_snapshot(int(time.time()))
    return platform.follower.negotiator


def test_a_machine_that_dies_under_a_job_is_told_and_the_job_does_not_run_twice(place: Place) -> None:
    platform = place.platform(submit={"job_lease_duration": "20"})
    trace = place.pool.shared / "trace"
    trace.touch()
    trace.chmod(0o666)
    one = submitted(platform, ready(platform, session(), ["/bin/sh", "-c", f"echo begun >>{trace}; sleep 300"]))
    seen = until(platform, one, runs)
    machine = str(seen.node).partition("@")[0]
    place.pool.until(lambda: trace.read_text(), 90, "it has begun")
    place.pool.kill_machine(machine)
    seen = until(platform, one, ended, seconds=240)
    assert seen.state == "FAILED"
    assert trace.read_text() == "begun\n"
    platform.ebhpc_cleanup(one)
    trace.unlink()


def test_what_the_pools_administrator_does_to_a_job_is_told(place: Place) -> None:
    platform = place.platform()
    held, gone = (submitted(platform, ready(platform, session(cores=4000), SLEEP)) for _ in range(2))
    place.pool.run(["condor_hold", "-reason", "not today", str(held.native)], user="root")
    place.pool.run(["condor_rm", "-reason", "never", str(gone.native)], user="root")
    seen = until(platform, held, lambda seen: "holds it" in words(seen))
    assert seen.state == "PENDING"
    assert "not today" in words(seen)
    seen = until(platform, gone, ended)
    assert seen.state == "FAILED"
    assert "removed from the pool" in words(seen)
    place.pool.run(["condor_qedit", str(held.native), "RequestCpus", "1"], user="root")
    place.pool.run(["condor_release", str(held.native)], user="root")
    until(platform, held, runs)
    place.pool.run(["condor_suspend", str(held.native)], user="root")
    seen = until(platform, held, lambda seen: "suspended" in words(seen))
    assert seen.state == "RUNNING"


def test_a_job_that_cannot_be_is_refused_and_one_that_cannot_begin_is_held_for_good_and_cleared_away(
    place: Place,
) -> None:
    wrong = place.platform(submit={"initialdir": "/nonexistent"})
    with pytest.raises(SessionFailed, match="No such directory"):
        wrong.ebhpc_submit(ready(wrong, session(), SLEEP))
    platform = place.platform(submit={"executable": "/nonexistent/sh"})
    one = submitted(platform, ready(platform, session(), SLEEP))
    seen = until(platform, one, ended)
    assert seen.state == "FAILED"
    assert "could not be started" in words(seen)
    platform.ebhpc_cleanup(one)
    place.pool.until(lambda: place.pool.queue() == [], 90, "nothing is left")


def test_the_process_that_asks_may_be_killed_at_any_time(place: Place) -> None:
    platform = place.platform()
    platform.ebhpc_snapshot(int(time.time()))
    process = platform.pool.worker._process
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    place.pool.until(lambda: not process.lives, 60, "it is dead")
    assert platform.ebhpc_snapshot(int(time.time())).nodes


def test_check_tells_what_is_wrong(place: Place, tmp_path: Path) -> None:
    def found(**more: object) -> dict[str, list[str]]:
        told: dict[str, list[str]] = {"INFO": [], "WARN": [], "ERROR": []}
        for one in place.platform(**more).ebhpc_check():
            told[one.level].append(f"{one.subject}: {one.text}")
        return told

    def seen(**more: object) -> dict[str, list[str]]:
        """What is found without a test job, which takes a while."""
        return found(identities={}, **more)

    well = found()
    assert well["ERROR"] == []
    assert any("a job as alice has run" in text for text in well["INFO"])
    assert any("3 slots with 20 cores" in text for text in well["INFO"])
    assert any("no answer" in text for text in seen(collector="127.0.0.1:1", answer_within="10s")["ERROR"])
    empty = tmp_path / "tokens"
    empty.mkdir()
    told = seen(token_directory=str(empty))["ERROR"]
    assert any("has no token" in text for text in told)
    (empty / "old").write_text(place.pool.token("ebhpc", lifetime=1) + "\n")
    reader = tmp_path / "reader"
    reader.mkdir()
    (reader / "token").write_text(place.pool.token("ebhpc", authorizations=["READ"]) + "\n")
    time.sleep(1.5)
    assert any("has expired" in text for text in seen(token_directory=str(empty))["ERROR"])
    (reader / "token").chmod(0o600)
    assert found(token_directory=str(reader))["ERROR"] == []  # jobs are submitted by their users' tokens
    own = place.settings()["jobs"] | {"access": "own"}
    told = seen(token_directory=str(reader), run_as="self", jobs=own)["ERROR"]
    assert any("may not submit" in text for text in told), told
    told = found(token_command=[*place.pool.token_command, "-authz", "READ"])["ERROR"]
    assert any("a test job as alice cannot be submitted" in text for text in told), told
    assert any("no slot" in text for text in seen(slots="Cpus > 1000")["ERROR"])
    place.pool.until(lambda: all(slot.checked for slot in place.platform().pool.kept()), 90, "the machines look")
    keeps = seen(start_expression=True, reservations=str(place.pool.reservations))
    assert any("all machines look" in text for text in keeps["INFO"]), keeps
    hasty = seen(start_expression=True, reservations=str(place.pool.reservations), early="1s")
    assert any("the pool negotiates every" in text for text in hasty["WARN"]), hasty
    # Apptainer vanishes from the machines, and is there again
    place.pool.reconfigure(SINGULARITY="/nonexistent")
    boxes = place.settings()["jobs"] | {"runtime": {"kind": "apptainer"}}
    place.pool.until(lambda: any("HasContainer" in text for text in seen(jobs=boxes)["WARN"]), 120, "it is told")
    place.pool.changes.clear()
    place.pool.reconfigure()
    place.pool.until(lambda: not any("HasContainer" in text for text in seen(jobs=boxes)["WARN"]), 120, "it is back")


def test_a_reader_that_may_not_write_is_told_so_when_it_submits(place: Place, tmp_path: Path) -> None:
    command = [*place.pool.token_command, "-authz", "READ"]
    platform = place.platform(token_command=command)
    with pytest.raises(NotPermitted):
        platform.ebhpc_submit(ready(platform, session(), SLEEP))
