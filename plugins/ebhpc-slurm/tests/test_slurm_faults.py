"""What goes wrong on a real cluster, and what a session, and the platform, make of it."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
from msgspec.structs import replace
from slurm_lab import Place, ended, ours, ready, runs, session, submitted, until

from ebhpc.model import Phase, Session
from ebhpc.plugins import SessionFailed
from ebhpc_slurm.platform import SlurmPlatform
from ebhpc_slurm.pyslurm_client import Pyslurm
from ebhpc_slurm.transport import NotReached, Refused, SlurmFault, Unanswered, Why

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]

SLEEP = ["/bin/sleep", "300"]

T = TypeVar("T")


def finish(platform: SlurmPlatform, one: Session, seconds: float = 60) -> None:
    """End a session as the driver does: again and again, until nothing is left."""
    deadline = time.monotonic() + seconds
    platform.ebhpc_cancel(one)
    while True:
        try:
            until(platform, one, lambda seen: seen.state in ("SUCCEEDED", "FAILED", "GONE"), seconds=5)
            platform.ebhpc_cleanup(one)
            platform.ebhpc_release(one)
            break
        except (SlurmFault, AssertionError, OSError):
            assert time.monotonic() < deadline
            time.sleep(0.5)


def patiently(work: Callable[[], T], seconds: float = 40) -> T:
    """Do something as the driver does: a fault that may pass is tried again."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return work()
        except SlurmFault:
            assert time.monotonic() < deadline
            time.sleep(0.5)


def held(platform: SlurmPlatform, **more: Any) -> Session:
    """A session with its reservation."""
    one = session(**more)
    return replace(one, held=platform.ebhpc_hold(one))


def test_a_controller_that_restarts_is_noticed_by_nobody(newest: Place) -> None:
    platform = newest.platform(impatient=True)
    one = held(platform)
    newest.cluster.controller.restart()
    one = submitted(platform, ready(platform, one, SLEEP))
    newest.cluster.controller.restart()
    assert platform.ebhpc_submit(one) == one.native
    until(platform, one, runs)
    newest.cluster.controller.restart()
    assert until(platform, one, runs).node == "n3"
    finish(platform, one)
    assert ours(platform) == []
    platform.slurm.close()


def test_a_controller_that_is_down_is_unavailable_and_all_goes_on_when_it_is_back(newest: Place) -> None:
    platform = newest.platform(impatient=True)
    one = submitted(platform, ready(platform, held(platform), SLEEP))
    waiting = ready(platform, session(node="n4", start=60), SLEEP)
    until(platform, one, runs)
    newest.cluster.controller.stop()
    for asked in (
        lambda: platform.ebhpc_snapshot(int(time.time())),
        lambda: platform.ebhpc_observe([one]),
        lambda: platform.ebhpc_hold(waiting),
        lambda: platform.ebhpc_submit(replace(waiting, firm=False)),
    ):
        with pytest.raises((NotReached, Unanswered)):
            asked()
    newest.cluster.controller.start()
    assert until(platform, one, runs).state == "RUNNING"
    patiently(lambda: platform.ebhpc_hold(waiting))
    assert platform.ebhpc_snapshot(int(time.time())).nodes
    for each in (one, waiting):
        finish(platform, each)
    assert ours(platform) == []
    platform.slurm.close()


def test_an_sbatch_that_hangs_is_unknown_and_its_job_is_found_and_not_started_twice(here: Place) -> None:
    platform = here.platform(answer_within="3s")
    ran = here.cluster.shared / f"ran-{time.time()}"
    one = ready(platform, session(firm=False), ["/bin/sh", "-c", f"echo once >> {ran}; sleep 2"])
    platform.ebhpc_snapshot(int(time.time()))
    here.cluster.controller.pause()
    with pytest.raises(Unanswered):
        platform.ebhpc_submit(one)
    here.cluster.controller.resume()
    time.sleep(3)  # what was asked is carried out, though nobody listens
    one = submitted(platform, one)
    assert len(platform.slurm.jobs(f"ebhpc-{one.uuid}")) <= 2
    assert until(platform, one, ended).state == "SUCCEEDED"
    assert ran.read_text() == "once\n"
    finish(platform, one)
    assert ours(platform) == []


def test_a_reservation_whose_answer_was_lost_is_found(here: Place) -> None:
    platform = here.platform(answer_within="3s")
    platform.ebhpc_snapshot(int(time.time()))
    one = session(start=600)
    here.cluster.controller.pause()
    with pytest.raises(Unanswered):
        platform.ebhpc_hold(one)
    here.cluster.controller.resume()
    assert here.cluster.until(lambda: platform.ebhpc_hold(one)) == f"ebhpc-{one.uuid}"
    assert ours(platform) == [f"ebhpc-{one.uuid}"]
    platform.ebhpc_release(one)
    assert ours(platform) == []


def test_a_reservation_that_a_killed_controller_forgot_is_made_again(here: Place) -> None:
    platform = here.platform(impatient=True)
    time.sleep(6)  # the controller writes its state every five seconds: it is not to have written ours
    waiting = held(platform, start=600, node="n5")
    one = held(platform)
    here.cluster.controller.kill()
    here.cluster.controller.start()
    one = ready(platform, one, SLEEP)
    one = replace(one, native=patiently(lambda: platform.ebhpc_submit(one)))
    until(platform, one, runs)
    platform.ebhpc_reconcile([replace(waiting, phase=Phase.WAITING), one])
    assert {f"ebhpc-{one.uuid}", f"ebhpc-{waiting.uuid}"} <= set(ours(platform))
    for each in (one, waiting):
        finish(platform, each)
    assert ours(platform) == []


def test_a_reservation_that_an_operator_deletes_is_made_again_or_the_session_fails(here: Place) -> None:
    platform = here.platform()
    one, other = held(platform), held(platform, node="n4")
    for each in (one, other):
        here.cluster.run(["scontrol", "delete", f"reservationname=ebhpc-{each.uuid}"])
    here.cluster.run(
        [
            "scontrol",
            "create",
            "reservation",
            "reservationname=theirs",
            "starttime=now",
            "duration=60",
            "users=bob",
            "nodes=n4",
        ]
    )
    one = submitted(platform, ready(platform, one, SLEEP))
    until(platform, one, runs)
    with pytest.raises(SessionFailed, match="refused the reservation"):
        platform.ebhpc_submit(ready(platform, other, SLEEP))
    finish(platform, one)
    finish(platform, other)
    assert ours(platform) == []


def test_a_job_that_somebody_cancels_has_failed_with_a_word(newest: Place) -> None:
    platform = newest.platform()
    one = submitted(platform, ready(platform, held(platform), SLEEP))
    until(platform, one, runs)
    newest.cluster.run(["scancel", str(one.native)], user="alice")
    seen = until(platform, one, ended)
    assert seen.state == "FAILED"
    assert "the job was cancelled on the cluster" in [str(told) for told in seen.messages]
    finish(platform, one)
    platform.slurm.close()


def test_a_node_that_dies_takes_its_job_with_it_and_the_job_does_not_run_again(here: Place) -> None:
    platform = here.platform()
    one = submitted(platform, ready(platform, held(platform), SLEEP))
    until(platform, one, runs)
    here.cluster.kill_node("n3")
    here.cluster.down("n3")
    try:
        seen = until(platform, one, ended)
        assert seen.state == "FAILED"
        assert "a node of the job's failed" in [str(told) for told in seen.messages]
        platform.cluster.nodes(fresh=True)
        nodes = {node.name: node.state for node in platform.ebhpc_snapshot(int(time.time())).nodes}
        assert nodes["n3"] == "DOWN"
        finish(platform, one)
        assert ours(platform) == []
    finally:
        here.cluster.start_node("n3")
        here.cluster.wait_idle()


def test_a_full_queue_is_tried_again(here: Place) -> None:
    for _ in range(3):
        here.cluster.submit("sleep 100\n", "-H", "-t", "1", "-o", "/dev/null")
    platform = here.platform(answer_within="4s")
    one = ready(platform, session(firm=False), ["/bin/true"])
    with here.cluster.configured(MaxJobCount=2), pytest.raises((Unanswered, Refused)):
        platform.ebhpc_submit(one)
    one = replace(one, native=patiently(lambda: platform.ebhpc_submit(one)))
    assert until(platform, one, ended).state == "SUCCEEDED"
    finish(platform, one)
    assert ours(platform) == []


def test_without_the_accounting_nothing_is_concluded_from_a_job_that_is_gone(here: Place) -> None:
    platform = here.platform()
    one = submitted(platform, ready(platform, session(firm=False), ["/bin/true"]))
    until(platform, one, ended)
    never = session(firm=False)
    here.cluster.accounting.stop()
    fresh = here.platform()
    assert [seen.uuid for seen in fresh.ebhpc_observe([one, never])] == [one.uuid]
    here.cluster.accounting.start()
    states = {seen.uuid: seen.state for seen in here.platform().ebhpc_observe([one, never])}
    assert states == {one.uuid: "SUCCEEDED", never.uuid: "GONE"}
    platform.ebhpc_cleanup(one)


def test_of_a_session_that_was_not_asked_about_at_the_last_look_nothing_is_said(here: Place) -> None:
    platform, slow = here.platform(), here.platform(look="1h")
    one = submitted(platform, ready(platform, session(firm=False), SLEEP))
    until(platform, one, runs)
    assert [seen.state for seen in slow.ebhpc_observe([one])] == ["RUNNING"]
    other = submitted(platform, ready(platform, session(firm=False), SLEEP))  # by another driver
    assert [seen.uuid for seen in slow.ebhpc_observe([one, other])] == [one.uuid]
    slow.follower.expect(one)
    assert {seen.uuid for seen in slow.ebhpc_observe([one, other])} == {one.uuid, other.uuid}
    for each in (one, other):
        finish(platform, each)


def test_a_job_that_the_controller_has_forgotten_is_found_in_the_accounting(here: Place) -> None:
    with here.cluster.configured(MinJobAge=2):
        platform = here.platform()
        one = submitted(platform, ready(platform, session(firm=False), ["/bin/sh", "-c", "exit 4"]))
        until(platform, one, ended)
        here.cluster.until(lambda: not platform.slurm.jobs(f"ebhpc-{one.uuid}"), timeout=60)
        (seen,) = here.platform().ebhpc_observe([one])
        assert (seen.state, seen.exit_code) == ("FAILED", 4)
        assert here.platform().ebhpc_submit(one) == one.native  # and it is not submitted once more
        platform.ebhpc_cleanup(one)


# --- orphans, and two brokers ------------------------------------------------------------------------------------


def test_what_belongs_to_no_session_goes_and_what_is_not_ours_stays(
    here: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    platform, other = here.platform(), here.platform(prefix="other")
    clock = [now]
    for part in (platform.reservations._orphans, platform.jobs._orphans):
        monkeypatch.setattr(part, "_clock", lambda: clock[0])
    orphan, alive, theirs = (
        held(each, node=node, start=600)
        for each, node in (
            (platform, "n1"),
            (platform, "n2"),
            (other, "n4"),
        )
    )
    lost = submitted(platform, ready(platform, session(firm=False, duration=600), SLEEP))
    until(platform, lost, runs)
    operators = "reservationname=ebhpc-not-ours"
    here.cluster.run(
        ["scontrol", "create", "reservation", operators, "starttime=now+1hour", "duration=5", "users=bob", "nodes=n5"]
    )
    twin = Place(here.cluster, "commands", here.state / "of another broker").platform()
    same = held(twin, node="n7", start=600)  # whose operator has not read that each needs a prefix of its own
    living = [replace(alive, phase=Phase.WAITING)]
    platform.ebhpc_reconcile(living)
    assert len(ours(platform)) == 5  # it may be of a session that is younger than the list
    clock[0] = now + 100
    platform.ebhpc_reconcile(living)
    assert sorted(ours(platform)) == sorted([f"ebhpc-{alive.uuid}", f"ebhpc-{same.uuid}", "ebhpc-not-ours"])
    assert ours(other) == [f"other-{theirs.uuid}"]
    assert orphan.uuid not in str(ours(platform))
    until(platform, lost, ended)
    for each, one in ((platform, alive), (other, theirs), (twin, same)):
        each.ebhpc_release(one)


def test_two_brokers_with_prefixes_of_their_own_do_not_see_each_other(here: Place) -> None:
    one, other = here.platform(), here.platform(prefix="other")
    first = submitted(one, ready(one, held(one), SLEEP))
    second = submitted(other, ready(other, held(other, node="n4"), SLEEP))
    until(one, first, runs)
    until(other, second, runs)
    snapshot = one.ebhpc_snapshot(int(time.time()))
    assert {job.session for job in snapshot.running} == {first.uuid, None}
    assert [seen.state for seen in one.ebhpc_observe([second])] == ["GONE"]
    one.ebhpc_cancel(second)
    assert until(other, second, runs)
    finish(one, first)
    finish(other, second)
    assert ours(one) == ours(other) == []


# --- the process with pyslurm ------------------------------------------------------------------------------------


def _pyslurm(place: Place, **more: Any) -> Pyslurm:
    slurm = Place(place.cluster, "pyslurm", place.state).platform(**more).slurm
    assert isinstance(slurm, Pyslurm)
    return slurm


def _process(slurm: Pyslurm) -> int:
    process = slurm.worker._process
    assert process is not None
    return process.pid


def test_a_pyslurm_that_dies_is_started_again(here: Place) -> None:
    slurm = _pyslurm(here)
    slurm.nodes()
    first = slurm.worker._process
    assert first is not None
    os.killpg(first.pid, signal.SIGKILL)
    assert here.cluster.until(lambda: not first.lives)
    assert len(slurm.nodes()) == 9
    assert _process(slurm) != first.pid
    here.cluster.controller.pause()
    killer = threading.Timer(0.5, lambda: os.killpg(_process(slurm), signal.SIGKILL))
    killer.start()
    with pytest.raises(Unanswered, match="has ended"):  # while it is asked
        slurm.nodes()
    here.cluster.controller.resume()
    assert here.cluster.until(lambda: len(slurm.nodes()) == 9)
    slurm.close()
    assert slurm.worker._process is None


def test_a_pyslurm_that_hangs_is_given_up(here: Place) -> None:
    slurm = _pyslurm(here, answer_within="1s")
    slurm.nodes()
    here.cluster.controller.pause()
    begun = time.monotonic()
    with pytest.raises(Unanswered):
        slurm.nodes()
    assert time.monotonic() - begun < 5
    here.cluster.controller.resume()
    assert here.cluster.until(lambda: len(slurm.nodes()) == 9)
    slurm.close()


def test_libslurm_without_a_configuration_ends_its_own_process_only(here: Place) -> None:
    cluster = here.cluster
    prefix = cluster.enter_argv("ebhpc", {"SLURM_CONF": "/nowhere/slurm.conf"})
    slurm = _pyslurm(here, command_prefix=prefix, answer_within="3s")
    with pytest.raises(NotReached, match="pyslurm did not start"):
        slurm.nodes()
    slurm.close()


def test_a_python_without_pyslurm_says_so(here: Place) -> None:
    slurm = _pyslurm(here, pyslurm=["/usr/bin/python3"])
    with pytest.raises(NotReached, match="pyslurm"):
        slurm.nodes()
    slurm.close()


def test_pyslurm_is_asked_by_several_threads(here: Place) -> None:
    slurm = _pyslurm(here)
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.extend(len(slurm.nodes()) for _ in range(5))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [9] * 20
    slurm.close()


# --- over SSH ----------------------------------------------------------------------------------------------------


def test_a_host_whose_key_is_not_known_is_not_spoken_to(here: Place) -> None:
    settings = Place(here.cluster, "ssh", here.state).settings()
    unknown = here.state / "known_hosts"
    unknown.touch()
    settings["ssh"]["known_hosts"] = str(unknown)
    platform = here.platform(command_prefix=[], ssh=settings["ssh"])
    with pytest.raises(NotReached, match="not found in known_hosts"):
        platform.slurm.nodes()


def test_a_connection_that_is_lost_is_made_anew(here: Place) -> None:
    platform = Place(here.cluster, "ssh", here.state).platform()
    assert platform.slurm.nodes()
    here.cluster.sshd.stop()
    platform.slurm.close()
    with pytest.raises(NotReached):
        platform.slurm.nodes()
    here.cluster.sshd.start()
    assert platform.slurm.nodes()
    platform.slurm.close()


def test_a_command_that_takes_too_long_is_ended(here: Place) -> None:
    for transport in ("commands", "ssh"):
        platform = Place(here.cluster, transport, here.state).platform(answer_within="1s")
        here.cluster.controller.pause()
        begun = time.monotonic()
        with pytest.raises(Unanswered):
            platform.slurm.nodes()
        assert time.monotonic() - begun < 5
        here.cluster.controller.resume()
        assert here.cluster.until(lambda platform=platform: len(platform.slurm.nodes()) == 9)  # type: ignore[misc]
        platform.slurm.close()


def test_a_reservation_refused_tells_why(here: Place) -> None:
    platform = here.platform()
    with pytest.raises(Refused) as refused:
        platform.slurm.delete_reservation("ebhpc-never")
    assert refused.value.why is Why.UNKNOWN
