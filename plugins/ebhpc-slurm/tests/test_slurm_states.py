"""Ends that a real cluster gives to jobs, one of each kind that the lab can make, and what their sessions' users read.

BOOT_FAIL is known from Slurm's manual alone (``ebhpc_slurm.states``): a node that is rebooted for a job and does not
come gives NODE_FAIL, a controller's prolog that fails CANCELLED.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from slurm_lab import Place, ended, ready, runs, session, submitted, until

from ebhpc.model import Observation, Session
from ebhpc_slurm.platform import SlurmPlatform
from tests.lab.slurm import memory, missing, slurm_cluster
from tests.labs import require

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]

SLEEP = ["/bin/sleep", "300"]


def started(platform: SlurmPlatform, **more: Any) -> Session:
    """A session whose job waits or runs in the queue."""
    one = ready(platform, session(firm=False, **more), SLEEP)
    return submitted(platform, one)


def told(seen: Observation) -> list[str]:
    return [str(one.filled) for one in seen.messages]


def kinds(seen: Observation) -> set[str]:
    return {str(one.kind) for one in seen.messages}


def test_every_end_that_the_cluster_gives_to_a_job_is_told_in_words(here: Place) -> None:
    cluster = here.cluster

    def change(one: Session, *words: str) -> None:
        cluster.run(["scontrol", "update", f"jobid={one.native}", *words], user="root")

    platform = here.platform()
    meek = here.platform(qos="scavenge", prefix="meek")
    late, again = (started(platform, duration=600) for _ in range(2))
    # A node for each of these alone
    lost, victim = started(platform, duration=600, node="n4"), started(meek, duration=600, node="n2")
    never = started(platform, start=600, latest=int(time.time()) + 1200)
    for one in (late, again, lost):
        until(platform, one, runs)
    # Slurm looks every half minute at the jobs that have had their time
    change(late, "endtime=now+1")
    change(never, "deadline=now+2")

    node = str(until(meek, victim, runs).node)
    cluster.submit("sleep 1\n", "-t1", "--qos=urgent", "--exclusive", f"--nodelist={node}", "-o", "/dev/null")
    seen = until(meek, victim, ended)
    assert (seen.state, cluster.job_state(int(victim.native or 0))) == ("FAILED", "PREEMPTED")
    assert "the cluster ended the job for one of higher priority" in told(seen)

    # A job that its cluster puts back into the queue waits, and does not run a second time
    change(again, "requeue=1")
    cluster.run(["scontrol", "requeue", str(again.native)], user="root")
    seen = until(platform, again, lambda seen: seen.state == "PENDING")
    assert any("waits" in words for words in told(seen)), told(seen)
    cluster.until(lambda: cluster.job_state(int(again.native or 0)) == "PENDING", what="it waits again")
    change(again, "starttime=now")
    seen = until(platform, again, ended)
    assert seen.state == "FAILED"

    # The same where its node is lost, and the site lets jobs be put back
    change(lost, "requeue=1")
    node = str(until(platform, lost, runs).node)
    cluster.kill_node(node)
    cluster.down(node)
    try:
        until(platform, lost, lambda seen: seen.state == "PENDING")
    finally:
        cluster.start_node(node)
    change(lost, "starttime=now")
    assert until(platform, lost, ended).state == "FAILED"

    seen = until(platform, late, ended)
    assert cluster.job_state(int(late.native or 0)) == "TIMEOUT"
    assert "urn:time-limit" in kinds(seen)
    assert "the cluster ended the job at its time limit" in told(seen)
    seen = until(platform, never, ended)
    assert cluster.job_state(int(never.native or 0)) == "DEADLINE"
    assert "the cluster ended the job at its deadline" in told(seen)
    for one in (late, again, lost, never):
        platform.ebhpc_cleanup(one)
    meek.ebhpc_cleanup(victim)
    cluster.wait_idle()


GREEDY = ["/bin/sh", "-c", "exec $0 -c 'held = bytearray(1 << 30); print(len(held))'"]


def test_a_job_that_wants_more_memory_than_it_has_is_told_so(here: Place) -> None:
    cluster, platform = here.cluster, here.platform()
    # A matter of the kernel's, which no preparation of a machine changes
    if lacking := memory.missing(cluster):
        pytest.skip(lacking)
    with memory.limited_memory(cluster, "n1"):
        cluster.wait_idle(120)
        one = ready(platform, session(firm=False, node="n1", memory=200), [*GREEDY, cluster.python])
        one = submitted(platform, one)
        seen = until(platform, one, ended, 120)
        assert (seen.state, cluster.job_state(int(one.native or 0))) == ("FAILED", "OUT_OF_MEMORY")
        assert seen.node == "n1"
        assert "the job wanted more memory than it had" in told(seen)
        # The same job with as much as it wants
        other = ready(platform, session(firm=False, node="n1", memory=2000), [*GREEDY, cluster.python])
        other = submitted(platform, other)
        assert until(platform, other, ended, 120).state == "SUCCEEDED"
        for each in (one, other):
            platform.ebhpc_cleanup(each)
        cluster.wait_idle(120)


def test_cores_are_whole_cores_where_each_has_two_threads(tmp_path: Path) -> None:
    lacking = missing()
    require(not lacking, f"the Slurm lab cannot run: {'; '.join(lacking)}")
    with slurm_cluster("26.05", nodes=1, threads=2) as cluster:
        cluster.wait_idle()
        for way in ("commands", "pyslurm"):
            platform = Place(cluster, way, tmp_path).platform(partitions=["batch"], prefix=f"x{way}")
            (node,) = platform.ebhpc_snapshot(int(time.time())).nodes
            assert node.cores == 64
            queued = started(platform, cores=4, node="")
            firm = ready(platform, session(cores=4, node=node.name), SLEEP)
            held = platform.ebhpc_hold(firm)
            firm = submitted(platform, replace(firm, held=held))
            for one in (queued, firm):
                until(platform, one, runs)
            jobs = {str(job.id): job.cpus for job in platform.slurm.jobs(f"x{way}-")}
            assert jobs == {str(queued.native): 8, str(firm.native): 8}
            (kept,) = [one for one in platform.slurm.reservations() if one.name == held]
            assert kept.cores == {node.name: 4}
            told = platform.ebhpc_snapshot(int(time.time()))
            assert [share.cores for one in told.running for share in one.allocations] == [4, 4]
            for one in (queued, firm):
                platform.ebhpc_cancel(one)
                until(platform, one, ended)
            platform.ebhpc_release(firm)
            platform.slurm.close()
