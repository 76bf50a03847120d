"""A session's life in a real pool."""

from __future__ import annotations

import time

import pytest
from htcondor_lab import Place, ended, ready, runs, session, submitted, text_of, until, words

from ebhpc.model import DockerContainer, DockerImage, Identity
from ebhpc_htcondor.asking import NotReached
from ebhpc_htcondor.states import hold
from tests.lab import containers
from tests.labs import require

pytestmark = [pytest.mark.lab, pytest.mark.timeout(400)]


def test_a_session_is_submitted_once_as_its_user_followed_and_leaves_nothing(place: Place) -> None:
    platform = place.platform()
    script = "echo hello from $(id -un); echo oops >&2; cp $_CONDOR_JOB_AD $EBHPC_RESULTS/ad; sleep 1; exit 3"
    one = ready(platform, session(cores=2, memory=300), ["/bin/sh", "-c", script])
    one = submitted(platform, one)
    assert platform.ebhpc_submit(one) == one.native
    assert place.platform().ebhpc_submit(one) == one.native  # as a driver would after a crash
    seen = until(platform, one, ended)
    assert (seen.state, seen.exit_code) == ("FAILED", 3), words(seen)
    assert seen.node is not None
    assert seen.node.startswith("node")
    assert seen.started is not None
    assert seen.ended is not None
    assert seen.ended >= seen.started
    assert text_of(platform, one) == "hello from alice\n"
    assert text_of(platform, one, "stderr") == "oops\n"
    ad = text_of(platform, one, "results/ad")
    for line in (
        "RequestCpus = 2",
        "RequestMemory = 300",
        f'EbhpcSession = "{one.uuid}"',
        "AllowedExecuteDuration = 160",
    ):
        assert line in ad
    assert platform.ebhpc_submit(one) == one.native  # found in the history
    platform.ebhpc_cleanup(one)
    assert place.pool.queue() == []
    assert len(platform.pool.history([one.uuid], 0)) == 1
    platform.ebhpc_snapshot(int(time.time()) - 60)
    (finished,) = [
        job for job in platform.ebhpc_snapshot(int(time.time())).finished if job.id.endswith(f"#{one.native}")
    ]
    assert (finished.cores, finished.user) == (2, "alice")
    platform.ebhpc_forget(one)
    assert platform.ebhpc_outputs(one) == []


def test_a_running_session_is_cancelled_and_a_waiting_one_never_begins(place: Place) -> None:
    platform = place.platform()
    sleep = ["/bin/sh", "-c", "trap 'echo ended in order; exit 0' TERM; echo begun; sleep 300 & wait"]
    runner = submitted(platform, ready(platform, session(cores=4), sleep))
    later = submitted(platform, ready(platform, session(cores=4000), sleep))
    until(platform, runner, runs)
    (waits,) = platform.ebhpc_observe([later])
    assert waits.state == "PENDING"
    assert "no machine has what it asks for" in words(waits) or "waits for the pool" in words(waits)
    for one in (runner, later):
        platform.ebhpc_cancel(one)
        platform.ebhpc_cancel(one)
        seen = until(platform, one, ended)
        assert "was removed" in words(seen)
        platform.ebhpc_cleanup(one)
    assert text_of(platform, runner) == "begun\nended in order\n"
    assert place.pool.queue() == []


def test_a_snapshot_tells_of_slots_jobs_and_who_comes_first(place: Place) -> None:
    platform = place.platform(features={"big": "TARGET.TotalSlotMemory > 20000"})
    pool = place.pool
    limited = pool.sleep(300, request_cpus=2, allowed_execute_duration=250)
    site = pool.sleep(300, request_cpus=1, **{"+MaxWallTime": 400, "requirements": 'regexp("node1", TARGET.Name)'})
    gpu = pool.sleep(300, user="bob", request_cpus=1, request_gpus=2, request_FPGAs=0)
    fpga = pool.sleep(300, user="bob", request_FPGAs=1, request_cpus=1)
    pool.until(lambda: [job["JobStatus"] for job in pool.queue()] == [2] * 4, 90, "all run")
    picky = pool.sleep(300, request_cpus=4, requirements='regexp("node[12]", TARGET.Name)', concurrency_limits="matlab")
    never = pool.sleep(300, request_cpus=1, requirements="TARGET.NoSuchThing > 3")
    huge = pool.sleep(300, user="bob", request_cpus=100)
    held = pool.sleep(300, hold="True")

    def sorted_out() -> bool:
        now = platform.ebhpc_snapshot(int(time.time()))
        return len(now.running) >= 4 and sum(job.partitions != ("pool",) for job in now.waiting) >= 2

    pool.until(sorted_out, 90, "the pool knows what runs, and what is alike in what waits")
    told = platform.ebhpc_snapshot(int(time.time()))
    nodes = {node.name.partition("@")[0]: node for node in told.nodes}
    assert {name: (node.cores, node.memory) for name, node in nodes.items()} == {
        "node1": (4, 8000),
        "node2": (8, 16000),
        "node3": (8, 32000),
    }
    assert nodes["node3"].devices["gpu"] == nodes["node3"].devices["gpu:A100-SXM4-40GB"] == 4
    assert nodes["node2"].devices["fpgas"] == 2
    assert {name for name, node in nodes.items() if "big" in node.features} == {"node3"}
    assert all({"X86_64", "Debian13"} <= set(node.features) for node in told.nodes)
    running = {job.id.rpartition("#")[2]: job for job in told.running}
    now = time.time()
    assert now + 200 < (running[limited].ends or 0) < now + 255
    assert now + 350 < (running[site].ends or 0) < now + 405
    assert running[gpu].ends is None
    (share,) = running[gpu].allocations
    assert (share.node.partition("@")[0], share.cores, share.devices["gpu"]) == ("node3", 1, 2)
    assert running[fpga].allocations[0].devices["fpgas"] == 1
    waiting = {job.id.rpartition("#")[2]: job for job in told.waiting}
    groups = {one.name: {name.partition("@")[0] for name in one.nodes} for one in told.partitions}
    assert groups[waiting[never].partitions[0]] == set()
    assert waiting[held].held
    assert groups[waiting[huge].partitions[0]] == set()
    if picky in waiting:  # it may have started meanwhile
        assert groups[waiting[picky].partitions[0]] == {"node1", "node2"}
        assert waiting[picky].licences == {"matlab": 1}
    assert told.licences == {"matlab": 2}
    assert told.scheduler is not None


def test_what_is_asked_of_gpus_devices_and_limits_is_had_inside_the_job(place: Place) -> None:
    platform = place.platform(features={"big": "TARGET.TotalSlotMemory > 20000"}, submit={"+ProjectName": '"astro"'})
    script = "cat $_CONDOR_MACHINE_AD; echo; cat $_CONDOR_JOB_AD; echo GPUS=$CUDA_VISIBLE_DEVICES"
    gpus = session(
        devices={"gpu": 2, "gpu:A100-SXM4-40GB": 2, "scratch": 2},
        features=("big",),
        licences={"matlab": 2},
        who="berta",
    )
    fpga = session(devices={"fpgas": 1})
    wrong = session(devices={"gpu": 1, "gpu:H100": 1})
    jobs = [submitted(platform, ready(platform, one, ["/bin/sh", "-c", script])) for one in (gpus, fpga, wrong)]
    assert until(platform, jobs[0], ended).state == "SUCCEEDED"
    told = text_of(platform, jobs[0])
    assert "GPUs = 2" in told
    assert 'ConcurrencyLimits = "matlab:2"' in told
    assert 'AcctGroup = "chem"' in told
    assert 'ProjectName = "astro"' in told
    assert "RequestDisk = 2097152" in told
    assert told.count("GPU-", told.index("GPUS=")) == 2
    assert until(platform, jobs[1], ended).state == "SUCCEEDED"
    assert 'AssignedFPGAs = "FPGA' in text_of(platform, jobs[1])
    (waits,) = platform.ebhpc_observe([jobs[2]])
    assert waits.state == "PENDING"


def test_a_job_that_runs_for_too_long_is_ended_by_its_runner_and_by_the_pool(place: Place) -> None:
    platform = place.platform()
    one = submitted(platform, ready(platform, session(duration=1), ["/bin/sleep", "300"]))
    seen = until(platform, one, ended)
    assert seen.state == "FAILED"
    assert any(str(told.kind) == "urn:time-limit" for told in seen.messages), words(seen)
    # One whose runner does not end it: allowed_execute_duration is not kept where no files are transferred
    number = place.pool.sleep(300, allowed_job_duration=1)
    place.pool.until(lambda: [job for job in place.pool.queue() if job["JobStatus"] == 5], 90, "it is held")
    (held,) = [job for job in platform.pool.look(None).jobs if job.id == number]
    assert held.hold_code == 46
    assert hold(held.hold_code).kind == "urn:time-limit"


def test_another_users_job_with_our_marks_is_none_of_ours(place: Place) -> None:
    platform = place.platform()
    one = ready(platform, session(), ["/bin/echo", "mine"])
    marks = {"+EbhpcSession": f'"{one.uuid}"', "+EbhpcPrefix": '"ebhpc"'}
    forged = place.pool.sleep(300, user="bob", **marks)
    one = submitted(platform, one)
    assert one.native != forged
    assert until(platform, one, ended).state == "SUCCEEDED"
    platform.ebhpc_cancel(one)
    assert [job["JobStatus"] for job in place.pool.queue() if f"{job['ClusterId']}.0" == forged] in ([1], [2])


def test_jobs_without_a_session_are_removed_when_they_are_old_and_no_others(place: Place) -> None:
    platform = place.platform(identities={"ada": {"user": "alice", "uid": 2001}})
    kept, orphan = session(), session()
    jobs = [submitted(platform, ready(platform, one, ["/bin/sleep", "300"])) for one in (kept, orphan)]
    stranger = place.pool.sleep(300, user="bob", **{"+EbhpcSession": f'"{orphan.uuid}"', "+EbhpcPrefix": '"ebhpc"'})
    platform.ebhpc_reconcile([kept])
    assert len(place.pool.queue()) == 3
    platform.jobs._clock = lambda: time.time() + 3600
    platform.ebhpc_reconcile([kept])
    left = place.pool.until(lambda: [f"{job['ClusterId']}.0" for job in place.pool.queue() if job["JobStatus"] != 3])
    assert sorted(left) == sorted([str(jobs[0].native), stranger])


def test_a_user_whom_nobody_knows_is_refused_and_one_without_a_token_waits(place: Place) -> None:
    platform = place.platform()
    request = None
    stranger = Identity(uuid="0b4e4f0a-61a6-4b8a-9f0f-0f6a0a1f5e11", username="mallory")
    policy = platform.ebhpc_policy(request, stranger, "pool")  # type: ignore[arg-type]  # the request is not looked at
    assert policy is not None
    assert "mallory has no account" in str(policy.refusals[0].filled)
    poor = place.platform(token_command=["/bin/false", "{user}"])
    one = ready(poor, session(), ["/bin/true"])
    with pytest.raises(NotReached, match="token_command failed for alice"):
        poor.ebhpc_submit(one)
    loud = place.platform(token_command=["/bin/echo", "no token for {user}"])
    with pytest.raises(NotReached, match="printed no token"):
        loud.ebhpc_submit(one)
    assert platform.ebhpc_submit(one)


@pytest.mark.containers
def test_a_container_runs_by_its_digest_as_its_user(place: Place) -> None:
    lacking = containers.missing()
    require(not lacking, f"containers cannot be tested: {'; '.join(lacking)}")
    runtime = {"kind": "apptainer", "pull_options": ["--no-https"]}
    platform = place.platform(
        jobs={"root": str(place.pool.shared / "sessions"), "python": place.pool.python, "runtime": runtime}
    )
    with containers.registry() as registry:
        image = DockerImage(locations=[registry.location], digest=registry.digest)
        command = ["sh", "-c", 'id -u; echo "$0" "$WORD"', "$(id) `id`"]
        executable = DockerContainer(image=image, command=command, environment={"WORD": "a $b 'c'"})
        one = session(executable=executable, memory=500)
        platform.ebhpc_prepare(one)
        one = submitted(platform, one)
        seen = until(platform, one, ended)
    assert seen.state == "SUCCEEDED", words(seen)
    assert text_of(platform, one) == "2001\n$(id) `id` a $b 'c'\n"
