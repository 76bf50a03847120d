"""A session's life on real clusters, over every way of asking Slurm."""

from __future__ import annotations

import json
import sys
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import Phase as HypothesisPhase
from hypothesis import strategies as st
from msgspec.structs import asdict, replace
from record import scene
from slurm_lab import Place, ended, ours, ready, runs, session, submitted, text_of, until

from ebhpc.model import Allocation, ClusterCompute, Identity, Phase
from ebhpc.planning import Timeline
from ebhpc.plugins import SessionFailed
from ebhpc_slurm import records
from ebhpc_slurm.notation import hosts, resources
from ebhpc_slurm.transport import Refused

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]


def test_a_session_is_held_submitted_once_followed_and_leaves_nothing(place: Place) -> None:
    platform = place.platform()
    one = session(start=3, cores=2, memory=300)
    assert platform.ebhpc_hold(one) == f"ebhpc-{one.uuid}"
    assert platform.ebhpc_hold(one) == f"ebhpc-{one.uuid}"
    (kept,) = [each for each in platform.ebhpc_snapshot(int(time.time())).reservations if each.session == one.uuid]
    assert (kept.start, kept.end) == (one.start, one.end + 120)
    assert [(share.node, share.cores) for share in kept.allocations] == [("n3", 2)]

    script = "echo hello from $(id -un); echo oops >&2; sleep 1; exit 3"
    one = ready(platform, replace(one, held="yes"), ["/bin/sh", "-c", script])
    one = submitted(platform, one)
    assert platform.ebhpc_submit(one) == one.native
    assert place.platform().ebhpc_submit(one) == one.native  # as a driver would after a crash
    (waits,) = platform.ebhpc_observe([one])
    assert waits.state in ("PENDING", "RUNNING")
    seen = until(platform, one, ended)
    assert (seen.state, seen.exit_code, seen.node) == ("FAILED", 3, "n3")
    assert seen.started is not None
    assert seen.ended is not None
    assert one.start <= seen.started <= one.start + 10
    assert seen.ended >= seen.started
    assert text_of(platform, one) == "hello from alice\n"
    assert text_of(platform, one, "stderr") == "oops\n"
    job = next(job for job in platform.slurm.jobs() if str(job.id) == one.native)
    assert (job.user, job.account, job.partition, job.reservation) == ("alice", "phys", "batch", f"ebhpc-{one.uuid}")
    assert (job.cpus, job.limit) == (2, 180)

    platform.ebhpc_cleanup(one)
    platform.ebhpc_release(one)
    platform.ebhpc_release(one)
    assert ours(platform) == []
    finished: list[tuple[int, str]] = []

    def learned() -> bool:
        found = platform.ebhpc_snapshot(int(time.time())).finished
        finished.extend((job.cores, job.user) for job in found if job.id == one.native)
        return bool(finished)

    place.cluster.until(learned, 60, "the job is learned from")
    assert finished == [(2, "alice")]
    platform.ebhpc_forget(one)
    assert platform.ebhpc_outputs(one) == []
    platform.slurm.close()


def test_every_way_of_asking_says_the_same_of_the_same_cluster(slurm_2605: object, here: Place) -> None:
    scene(here.cluster)
    here.cluster.until(lambda: "RUNNING" in here.cluster.run(["squeue", "-h", "-o", "%T"]).stdout)
    time.sleep(6)  # a cycle of the scheduler, so that reasons stay as they are
    ways = {way: Place(here.cluster, way, here.state).platform().slurm for way in ("commands", "pyslurm", "ssh")}

    def told(way: str) -> dict[str, object]:
        slurm = ways[way]
        return {
            "nodes": {one.name: {**asdict(one), "states": sorted(one.states)} for one in slurm.nodes()},
            "partitions": {one.name: asdict(one) for one in slurm.partitions()},
            "licences": slurm.licences(),
            "reservations": {
                one.name: {**asdict(one), "flags": {"MAINT"} & set(one.flags)} for one in slurm.reservations()
            },
            "jobs": {job.id: _bare(job) for job in slurm.jobs() if job.state in ("PENDING", "RUNNING")},
        }

    first = told("commands")
    assert len(first["jobs"]) > 8  # type: ignore[arg-type]  # a dictionary
    for way in ("ssh", "pyslurm"):
        for what, answer in told(way).items():
            assert answer == first[what], f"{what} over {way}"
    for slurm in ways.values():
        slurm.close()


def _bare(job: records.Job) -> dict[str, object]:
    """Leave out what the ways tell differently, and nobody needs."""
    words = {name: count for name, count in resources(job.tres).items() if name.startswith(("cpu", "mem", "gres/"))}
    running = job.state == "RUNNING"
    times = {"eligible": None, "started": job.started if running else None, "ends": job.ends if running else None}
    return {**asdict(job), "tres": words, "hosts": hosts(job.hosts), **times}


def test_what_is_taken_is_refused_and_so_is_a_user_whom_the_cluster_does_not_know(place: Place) -> None:
    platform = place.platform()
    first = session(start=600, cores=8)
    platform.ebhpc_hold(first)
    with pytest.raises(SessionFailed, match="refused the reservation"):
        platform.ebhpc_hold(session(start=700, cores=1))
    beside = session(start=600, cores=8, node="n4")
    platform.ebhpc_hold(beside)
    stranger = place.platform(identities={"ada": {"user": "nobody-here", "uid": 12345}})
    with pytest.raises(SessionFailed, match="refused the reservation"):
        stranger.ebhpc_hold(session(start=600, node="n1"))
    with pytest.raises(SessionFailed, match="has no account"):
        platform.ebhpc_hold(session(start=600, node="n1", who="mallory"))
    for one in (first, beside):
        platform.ebhpc_release(one)
    assert ours(platform) == []
    platform.slurm.close()


def test_cores_and_devices_of_a_node_are_shared_and_no_more_than_it_has(newest: Place) -> None:
    platform = newest.platform()
    devices = {"gpu": 2, "gpu:a100": 2}
    some = [session(start=600, node="g1", cores=4, devices=devices) for _ in range(2)]
    for one in some:
        platform.ebhpc_hold(one)
    with pytest.raises(SessionFailed):
        platform.ebhpc_hold(session(start=600, node="g1", cores=4, devices={"gpu": 1}))
    platform.ebhpc_hold(plain := session(start=600, node="g1", cores=8))
    snapshot = platform.ebhpc_snapshot(int(time.time()))
    free = Timeline.of(snapshot).free("g1", some[0].start, some[0].end)
    assert (free.cores, free.devices) == (0, {"gpu:a100": 4} if "gpu:a100" in free.devices else {})
    for one in (*some, plain):
        platform.ebhpc_release(one)
    platform.slurm.close()


def test_a_job_gets_the_devices_that_were_promised(newest: Place) -> None:
    platform = newest.platform()
    one = session(start=1, node="g1", cores=2, devices={"gpu": 1, "gpu:a100": 1})
    platform.ebhpc_hold(one)
    one = ready(platform, replace(one, held="yes"), ["/bin/sh", "-c", 'echo "$SLURM_JOB_GPUS / $SLURM_CPUS_PER_TASK"'])
    one = submitted(platform, one)
    assert until(platform, one, ended).state == "SUCCEEDED"
    gpus, cpus = text_of(platform, one).split("/")
    assert (len(gpus.strip().split(",")), int(cpus)) == (1, 2)
    platform.ebhpc_cleanup(one)
    platform.ebhpc_release(one)
    assert ours(platform) == []
    platform.slurm.close()


def test_a_job_of_several_nodes_gets_them_whole(newest: Place) -> None:
    platform = newest.platform()
    shares = tuple(Allocation(node=name, cores=2, memory=200) for name in ("n1", "n2", "n3"))
    one = session(start=1, allocations=shares)
    platform.ebhpc_hold(one)
    (kept,) = platform.ebhpc_snapshot(int(time.time())).reservations
    assert [(share.node, share.cores) for share in kept.allocations] == [("n1", 8), ("n2", 8), ("n3", 8)]
    one = ready(platform, replace(one, held="yes"), ["/usr/bin/srun", "sh", "-c", "echo $SLURMD_NODENAME"])
    one = submitted(platform, one)
    seen = until(platform, one, ended)
    assert sorted(text_of(platform, one).split()) == ["n1", "n2", "n3"], text_of(platform, one, "stderr")
    assert seen.state == "SUCCEEDED"
    platform.ebhpc_cleanup(one)
    platform.ebhpc_release(one)
    platform.slurm.close()


def test_a_job_that_asks_for_whole_nodes_gets_them(newest: Place) -> None:
    platform = newest.platform()
    whole = ClusterCompute(exclusive=True)
    one = session(start=1, compute=whole, allocations=(Allocation(node="n4", cores=8, memory=16000),))
    platform.ebhpc_hold(one)
    one = ready(platform, replace(one, held="yes"), ["/bin/sh", "-c", "echo $SLURM_CPUS_ON_NODE $SLURM_MEM_PER_NODE"])
    one = submitted(platform, one)
    assert until(platform, one, ended).state == "SUCCEEDED", text_of(platform, one, "stderr")
    assert text_of(platform, one).split()[0] == "8"
    platform.ebhpc_cleanup(one)
    platform.ebhpc_release(one)
    platform.slurm.close()


def test_licences_are_reserved_and_used(newest: Place) -> None:
    platform = newest.platform()
    one = session(start=1, licences={"matlab": 8})
    platform.ebhpc_hold(one)
    with pytest.raises(SessionFailed, match="refused the reservation"):
        platform.ebhpc_hold(session(start=1, node="n4", licences={"matlab": 4}))
    (kept,) = platform.ebhpc_snapshot(int(time.time())).reservations
    assert (kept.licences, kept.session) == ({"matlab": 8}, one.uuid)
    one = submitted(platform, ready(platform, replace(one, held="yes"), ["/bin/true"]))
    assert until(platform, one, ended).state == "SUCCEEDED"
    (job,) = platform.slurm.jobs(f"ebhpc-{one.uuid}")
    assert job.licences == "matlab:8"
    platform.ebhpc_cleanup(one)
    platform.ebhpc_release(one)
    platform.slurm.close()


def test_a_running_job_is_cancelled_and_so_is_what_others_run_in_the_reservation(place: Place) -> None:
    platform = place.platform()
    one = session(start=0, cores=2)
    platform.ebhpc_hold(one)
    name = f"ebhpc-{one.uuid}"
    one = submitted(platform, ready(platform, replace(one, held=name), ["/bin/sleep", "300"]))
    until(platform, one, runs)
    guest = place.cluster.submit("sleep 300\n", f"--reservation={name}", "-t", "1", "-o", "/dev/null")
    platform.ebhpc_cancel(one)
    seen = until(platform, one, ended)
    assert seen.state == "FAILED"
    platform.ebhpc_cancel(one)
    platform.ebhpc_cleanup(one)
    deadline = time.monotonic() + 30
    while True:  # the driver tries again while jobs of the reservation still end
        try:
            platform.ebhpc_release(one)
            break
        except Refused:
            assert time.monotonic() < deadline
            time.sleep(0.5)
    assert ours(platform) == []
    assert place.cluster.job_state(guest) in ("CANCELLED", "COMPLETING", "")
    platform.slurm.close()


def test_a_session_that_was_ended_before_its_job_began_is_not_submitted(here: Place) -> None:
    platform = here.platform()
    one = ready(platform, session(firm=False), ["/bin/true"])
    platform.ebhpc_cancel(one)
    with pytest.raises(SessionFailed, match="ended before"):
        platform.ebhpc_submit(one)
    assert ours(platform) == []
    assert [seen.state for seen in platform.ebhpc_observe([one])] == ["GONE"]


def test_in_the_queue_a_job_needs_no_reservation_and_no_node(place: Place) -> None:
    platform = place.platform()
    one = session(node="", firm=False, who="berta")
    assert platform.ebhpc_hold(one) is None
    one = submitted(platform, ready(platform, one, ["/bin/sh", "-c", "id -un"]))
    later = session(node="", start=600, firm=False)
    later = submitted(platform, ready(platform, later, ["/bin/true"]))
    assert until(platform, one, ended).state == "SUCCEEDED"
    assert text_of(platform, one) == "bob\n"
    seen = until(platform, later, lambda seen: bool(seen.messages))
    assert (seen.state, str(seen.messages[0])) == ("PENDING", "the job waits: the job's time to begin has not come")
    platform.ebhpc_cancel(later)
    for each in (one, later):
        platform.ebhpc_cleanup(each)
        platform.ebhpc_release(each)
    assert ours(platform) == []
    platform.slurm.close()


def test_a_job_becomes_its_users_by_a_token_as_well(place: Place) -> None:
    platform = place.platform(run_as="token")
    one = submitted(platform, ready(platform, session(firm=False, who="berta"), ["/bin/sh", "-c", "id -un"]))
    assert until(platform, one, ended).state == "SUCCEEDED"
    assert text_of(platform, one) == "bob\n"
    platform.ebhpc_cleanup(one)
    platform.slurm.close()


def test_a_broker_that_runs_all_jobs_itself_submits_them_directly(newest: Place) -> None:
    newest.cluster.run(["chown", "root:ebhpc", str(newest.cluster.shared)], user="root")
    platform = newest.platform(run_as="self", account="services", identities={"ada": {"user": "ebhpc", "uid": 2003}})
    wish = records.Submit(
        name="ebhpc-self",
        user="ebhpc",
        script="#!/bin/sh\nid -un\n",
        minutes=1,
        cpus=1,
        memory=200,
        directory="/tmp",
        output=str(newest.cluster.shared / "self.out"),
        account="services",
        partition="batch",
    )
    number = platform.slurm.submit(wish)
    newest.cluster.until(lambda: newest.cluster.job_state(number) == "COMPLETED")
    assert (newest.cluster.shared / "self.out").read_text() == "ebhpc\n"
    platform.slurm.close()


# --- hostile words -----------------------------------------------------------------------------------------------

WORDS = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=60)
SHELL = [
    "$(touch /tmp/broken)",
    "`id`",
    "; rm -rf /",
    "'\"\\",
    "\n#SBATCH --uid=0\n",
    "%j",
    "--uid=0",
    "${HOME}",
    "|x&",
]


@settings(max_examples=3, deadline=None, phases=[HypothesisPhase.generate], suppress_health_check=list(HealthCheck))
@given(st.lists(WORDS, min_size=20, max_size=40))
def test_words_of_users_arrive_in_the_job_as_they_are(here: Place, words: list[str]) -> None:
    platform = here.platform()
    words = [*words, *SHELL]
    owner = Identity(uuid="11111111-1111-4111-8111-111111111111", username="ada")
    one = session(firm=False, owner=owner, name="".join(words)[:200])
    code = "import json, sys; print(json.dumps(sys.argv[1:]))"
    one = ready(platform, one, [here.cluster.python, "-I", "-c", code, *words])
    one = submitted(platform, one)
    assert until(platform, one, ended).state == "SUCCEEDED"
    assert json.loads(text_of(platform, one)) == words
    platform.ebhpc_cleanup(one)
    assert not (here.cluster.root / "tmp/broken").exists()
    assert ours(platform) == []


def test_a_job_that_calls_itself_ours_changes_nothing(here: Place) -> None:
    platform = here.platform()
    one = ready(platform, session(start=0), ["/bin/sleep", "60"])
    platform.ebhpc_hold(one)
    name = f"ebhpc-{one.uuid}"
    fake = here.cluster.submit("exit 1\n", "-J", name, "--comment", name, "-t", "1", "-o", "/dev/null", user="bob")
    weird = here.cluster.submit("exit 1\n", "-J", f"x\n{name}|Q", "-t", "1", "-o", "/dev/null", user="bob")
    here.cluster.until(lambda: here.cluster.job_state(fake) == here.cluster.job_state(weird) == "FAILED")
    one = submitted(platform, replace(one, held=name))
    assert one.native not in (str(fake), str(weird))
    assert until(platform, one, runs).node == "n3"
    platform.ebhpc_cancel(one)
    until(platform, one, ended)
    platform.ebhpc_cleanup(one)
    platform.ebhpc_release(one)


# --- what it costs -----------------------------------------------------------------------------------------------


def _calls(place: Place) -> dict[str, int]:
    """Return how often the service account has asked the controller for what."""
    told = json.loads(place.cluster.run(["sdiag", "--json=v0.0.42"], user="root").stdout)
    return {one["user"]: one["count"] for one in told["statistics"]["rpcs_by_user"]}


@pytest.mark.parametrize("way", ["commands", "pyslurm"])
def test_a_look_asks_the_controller_a_few_things_only(here: Place, way: str) -> None:
    platform = Place(here.cluster, way, here.state).platform()
    platform.ebhpc_snapshot(int(time.time()))
    one = session(firm=False)
    before = _calls(here).get("ebhpc", 0)
    looks = 8
    for _ in range(looks):
        platform.ebhpc_snapshot(int(time.time()))
    middle = _calls(here)["ebhpc"]
    for _ in range(looks):
        list(platform.ebhpc_observe([one, one, one]))
    after = _calls(here)["ebhpc"]
    sys.stdout.write(
        f"{way}: {(middle - before) / looks} calls a snapshot, {(after - middle) / looks} an observation\n"
    )
    # squeue asks for the partitions as well, and so does whoever asks for nodes
    assert (after - middle) / looks == {"commands": 2, "pyslurm": 1}[way]
    assert (middle - before) / looks <= {"commands": 4, "pyslurm": 3}[way]
    platform.slurm.close()


def test_a_phase_that_never_held_anything_asks_nothing(here: Place) -> None:
    platform = here.platform()
    before = _calls(here).get("ebhpc", 0)
    # Of an offer that nobody took the driver asks only where it was, or may have been, reserved before it was shown
    platform.ebhpc_release(session(firm=False, phase=Phase.EXPIRED))
    platform.ebhpc_release(session(firm=False, phase=Phase.CANCELLED))
    assert _calls(here).get("ebhpc", 0) == before
