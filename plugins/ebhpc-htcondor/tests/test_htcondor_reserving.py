"""A pool whose machines keep start times, by the configuration that comes with the plugin."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from htcondor_lab import Place, ended, ready, runs, session, submitted, text_of, until
from msgspec.structs import replace

from ebhpc.model import Allocation, Session
from ebhpc.plugins import SessionFailed
from ebhpc_htcondor.platform import HTCondorPlatform
from ebhpc_htcondor.reserving import Kept, attributes, file_name, most
from tests.lab.htcondor import Pool
from tests.lab.htcondor.fixtures import running_pool

pytestmark = [pytest.mark.lab, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def htcondor() -> Iterator[Pool]:
    """A pool of its own: what is kept, and who has used how much, is of consequence to whatever comes after."""
    yield from running_pool()


def keeping(place: Place, **more: Any) -> HTCondorPlatform:
    platform = place.platform(start_expression=True, reservations=str(place.pool.reservations), early="30s", **more)
    place.pool.until(lambda: all(slot.checked for slot in platform.pool.kept()), 60, "the machines look")
    return platform


def firm(start: float, *, cores: int, node: str = "node2@localhost", duration: int = 60, **more: Any) -> Session:
    begin = int(time.time() + start)
    return session(
        start=start, cores=cores, node=node, duration=duration, firm=True, latest=begin, end=begin + duration, **more
    )


def test_a_machine_keeps_what_was_promised_and_short_jobs_go_before(place: Place) -> None:
    platform = keeping(place)
    assert platform.ebhpc_promises() == ("queue", "reservation")
    here = 'regexp("node2", TARGET.Name)'
    one = firm(40, cores=6)
    held = platform.ebhpc_hold(one)
    assert platform.ebhpc_hold(one) == held
    # Others flood the machine: two cores are left to them, and those that end in time get the rest for so long
    place.pool.sleep(300, user="bob", count=12, requirements=here)
    short = place.pool.sleep(3, user="bob", allowed_job_duration=5, requirements=here)
    place.pool.until(lambda: len(running(place, "bob")) >= 2, 60, "others run")
    assert len(running(place, "bob")) <= 3
    place.pool.until(lambda: short in history(platform, one), 60, "the short one has run before")
    one = submitted(platform, ready(platform, one, ["/bin/sh", "-c", "date +%s.%N; sleep 3"]))
    seen = until(platform, one, runs, 90)
    assert len(running(place, "bob")) == 2  # nobody came in, and nobody was sent away
    seen = until(platform, one, ended)
    assert seen.state == "SUCCEEDED"
    assert seen.node == "node2@localhost"
    assert 0 <= float(text_of(platform, one)) - one.start < 15
    platform.ebhpc_release(one)
    platform.ebhpc_release(one)
    place.pool.until(lambda: len(running(place, "bob")) == 8, 90, "it is full")
    assert {job["NumJobStarts"] for job in place.pool.queue() if job["JobStatus"] == 2} <= {0, 1}


def running(place: Place, user: str) -> list[dict[str, Any]]:
    return [job for job in place.pool.queue() if job["JobStatus"] == 2 and job["Owner"] == user]


def history(platform: HTCondorPlatform, one: Session) -> set[str]:
    return {job.id for job in platform.pool.look(one.start - 600).finished}


def test_a_machine_with_a_job_that_stays_is_not_promised(place: Place) -> None:
    platform = keeping(place)
    place.pool.sleep(300, request_cpus=4, requirements='regexp("node1", TARGET.Name)')
    place.pool.until(lambda: place.pool.queue()[0]["JobStatus"] == 2, 90, "it runs")
    place.pool.until(lambda: any(job.ends is None for job in platform.ebhpc_snapshot(int(time.time())).running), 90)
    with pytest.raises(SessionFailed, match="will not have ended"):
        platform.ebhpc_hold(firm(20, cores=2, node="node1@localhost"))
    assert [path.name for path in place.pool.reservations.iterdir() if not path.name.startswith(".")] == []
    with pytest.raises(SessionFailed, match="no longer in the pool"):
        platform.ebhpc_hold(firm(20, cores=2, node="node9@localhost"))


def test_another_users_job_does_not_get_in_by_our_mark(place: Place) -> None:
    platform = keeping(place)
    one = firm(60, cores=4, node="node1@localhost")
    platform.ebhpc_hold(one)
    forged = {"+EbhpcSession": f'"{one.uuid}"', "requirements": 'regexp("node1", TARGET.Name)'}
    place.pool.sleep(300, user="bob", **forged)
    mine = place.pool.sleep(300, user="alice", **forged)
    place.pool.until(lambda: any(job["JobStatus"] == 2 for job in place.pool.queue()), 90, "one runs")
    assert [f"{job['ClusterId']}.0" for job in place.pool.queue() if job["JobStatus"] == 2] == [mine]
    platform.ebhpc_reconcile([])
    assert (place.pool.reservations / "node1").exists()  # it is young
    platform.reservations._clock = lambda: time.time() + 700
    platform.ebhpc_reconcile([])
    assert not (place.pool.reservations / "node1").exists()
    # What was kept is free for everybody as soon as the machine has looked
    place.pool.until(lambda: len(running(place, "bob")) == 1, 90, "others run there")


def test_devices_are_kept_where_the_machine_says_so(place: Place) -> None:
    platform = keeping(place)
    one = firm(300, cores=1, devices={"fpgas": 2, "scratch": 1})
    platform.ebhpc_hold(one)
    here = 'regexp("node2", TARGET.Name)'
    taker = place.pool.sleep(300, user="bob", request_FPGAs=1, requirements=here)
    plain = place.pool.sleep(300, user="bob", requirements=here)
    place.pool.until(lambda: len(running(place, "bob")) == 1, 90, "one runs")
    (job,) = running(place, "bob")
    assert f"{job['ClusterId']}.0" == plain
    platform.ebhpc_release(one)
    place.pool.until(lambda: len(running(place, "bob")) == 2, 90, "so does the other")
    with pytest.raises(SessionFailed, match="will not have ended"):
        platform.ebhpc_hold(firm(300, cores=1, devices={"fpgas": 2}))
    place.pool.run(["condor_rm", taker], user="root")
    place.pool.reconfigure(EBHPC_DEVICE_1="Nothing")
    keeps = place.pool.until
    keeps(lambda: not any("fpgas" in slot.keeps for slot in platform.pool.kept()), 40, "nobody keeps them any more")
    with pytest.raises(SessionFailed, match="does not keep fpgas"):
        platform.ebhpc_hold(firm(300, cores=1, devices={"fpgas": 1}))


def kept(start: int, end: int, cores: int, *, begun: bool = False) -> Kept:
    share = Allocation(node="n", cores=cores, memory=cores * 100)
    uuid = f"00000000-0000-0000-0000-{start:06}{end:06}"
    return Kept(session=uuid, user="alice", start=start, end=end, share=share, made=0.0, begun=begun)


def test_what_is_kept_on_one_machine_is_told_as_one_amount() -> None:
    three = [kept(10, 20, 2), kept(15, 30, 3), kept(20, 25, 1)]
    assert most(three, lambda one: one.share.cores) == 5
    told = attributes([*three, kept(0, 12, 4, begun=True)])
    assert "ReservedFrom = 10\nReservedUntil = 30\nReservedCpus = 5\nReservedMemory = 500\n" in told
    assert "ReservedUntil = 0\nReservedCpus = 0" in attributes([kept(0, 12, 4, begun=True)])
    share = Allocation(node="n", cores=1, memory=100, devices={"fpgas": 2, "gpu:X": 1})
    devices = attributes([replace(kept(10, 20, 2), share=share)])
    assert "Reservedfpgas = 2\n" in devices
    assert "ReservedGPUs = 0\n" in devices
    assert '"00000000-0000-0000-0000-000000000012 alice"' in told
    assert replace(three[0], begun=True).begun


@pytest.mark.parametrize("node", ["", "../etc/passwd", "a/b", ".keep", "@x"])
def test_a_name_that_is_no_machines_makes_no_file(node: str) -> None:
    with pytest.raises(ValueError, match="no machine"):
        file_name(node)
    assert file_name("slot1@Node7.example.org".removeprefix("slot1@")) == "node7.example.org"
