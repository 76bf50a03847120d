"""What slurmctld is asked: no look is more than two requests, and yet everything is seen."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from slurm_lab import Place, ended, ready, runs, session, submitted, until

from ebhpc.model import Phase, ReservedTime
from ebhpc.planning import NodeState
from ebhpc_slurm.looking import MOST
from ebhpc_slurm.platform import SlurmPlatform

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]

ROUNDS = 8
"""Looks within which all has been asked for at least once, by each transport."""


def look_at(platform: SlurmPlatform) -> None:
    """Take a snapshot."""
    platform.ebhpc_snapshot(int(platform.clock()))


def test_a_look_at_a_cluster_without_sessions_is_two_requests_and_changes_are_seen(place: Place) -> None:
    cluster, platform = place.cluster, place.platform()
    look_at(platform)
    counts = [cluster.requests(lambda: look_at(platform)) for _ in range(ROUNDS)]
    assert 1 <= min(counts) <= max(counts) <= MOST, counts

    job = cluster.submit("sleep 600", "--nodelist=n2")
    cluster.until(lambda: cluster.job_state(job) == "RUNNING", 60, "the job runs")
    cluster.run(["scontrol", "update", "nodename=n1", "state=drain", "reason=a test"], user="root")
    words = "reservationname=theirs users=bob starttime=now+3600 duration=10 nodes=n4"
    cluster.run(["scontrol", "create", "reservation", *words.split()], user="root")
    for _ in range(ROUNDS):
        seen = platform.ebhpc_snapshot(int(platform.clock()))
    assert [one.id for one in seen.running] == [str(job)]
    assert {node.name for node in seen.nodes if node.state is NodeState.DRAINED} == {"n1"}
    assert [one.name for one in seen.reservations] == ["theirs"]


@pytest.mark.parametrize("snapshot_first", [True, False], ids=["snapshot first", "following first"])
def test_a_snapshot_and_following_share_two_requests(
    newest: Place, snapshot_first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster, platform = newest.cluster, newest.platform(look="5s", gap="60s")
    one = submitted(platform, ready(platform, session(node="n1", firm=False), ["/bin/sleep", "600"]))
    kept = session(node="n2", start=0, duration=1800, executable=ReservedTime(), phase=Phase.RUNNING)
    platform.ebhpc_hold(kept)
    sessions = [one, kept]
    now = [1000.0]
    monkeypatch.setattr(platform.cluster, "_monotonic", lambda: now[0])
    look_at(platform)

    def follow() -> None:
        for seen in platform.ebhpc_observe(sessions):
            assert seen.state != "GONE"

    parts: tuple[Callable[[], None], ...] = (lambda: look_at(platform), follow)

    def both() -> None:
        for part in parts if snapshot_first else reversed(parts):
            part()

    # The first time it looks at the job that was just submitted
    follow()
    counts = []
    for _ in range(ROUNDS):
        now[0] += 5
        counts.append(cluster.requests(both))
    assert 1 <= min(counts) <= max(counts) <= MOST, counts
    # Between two looks nothing is asked at all
    now[0] += 1
    assert cluster.requests(both) == 0

    platform.ebhpc_cancel(one)
    cluster.run(["scontrol", "delete", f"reservationname=ebhpc-{kept.uuid}"], user="root")
    # Slow to end, where it was just beginning
    until(newest.platform(), one, ended, 120)
    for _ in range(2):
        now[0] += 5
        told = {seen.uuid: seen for seen in platform.ebhpc_observe(sessions)}
    assert ended(told[one.uuid])
    # What was deleted while it was to be kept is there again
    assert kept.uuid in told
    assert f"ebhpc-{kept.uuid}" in {reservation.name for reservation in platform.slurm.reservations()}
    platform.ebhpc_cancel(kept)


def test_what_was_done_to_a_session_is_looked_at_at_once(here: Place) -> None:
    platform = here.platform(look="1h")
    one = submitted(platform, ready(platform, session(firm=False), ["/bin/sleep", "600"]))
    until(here.platform(), one, runs)
    assert [seen.state for seen in platform.ebhpc_observe([one])] == ["RUNNING"]
    platform.ebhpc_cancel(one)
    until(here.platform(), one, ended)
    assert here.cluster.requests(lambda: list(platform.ebhpc_observe([one]))) <= MOST
    assert ended(next(iter(platform.ebhpc_observe([one]))))
