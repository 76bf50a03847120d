"""Slurm's answers, as recorded from real clusters, become records and a snapshot."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebhpc.planning import NodeState, Scheduler, Snapshot, Timeline, decode_snapshot, encode_snapshot
from ebhpc_slurm import answers, notation, records
from ebhpc_slurm.following import by_session, native
from ebhpc_slurm.snapshot import Look, Site, node_state, offered, scheduler, session_of, snapshot
from ebhpc_slurm.transport import NotReached, Refused, Unanswered, Why, fault

SAMPLES = Path(__file__).parent / "samples"
MARK = "QmarkQ"
OURS = "12345678-1234-4321-8765-123456789abc"
VERSIONS = ("24.11", "26.05")


def look(version: str) -> Look:
    folder = SAMPLES / version
    jobs = answers.queue((folder / "squeue.txt").read_text(encoding="utf-8"), MARK, older=version == "24.11")
    return Look(
        nodes=answers.nodes((folder / "nodes.json").read_bytes()),
        partitions=answers.partitions((folder / "partitions.txt").read_text(encoding="utf-8")),
        jobs=jobs,
        reservations=answers.reservations((folder / "reservations.json").read_bytes()),
        licences=answers.licences((folder / "licences.json").read_bytes()),
        settings=answers.configuration((folder / "configuration.txt").read_text(encoding="utf-8")).settings,
        ended=jobs,
    )


def taken(version: str) -> int:
    return answers.configuration((SAMPLES / version / "configuration.txt").read_text(encoding="utf-8")).now


def seen(version: str, *partitions: str) -> Snapshot:
    site = Site(platform="here", prefix="ebhpc", partitions=partitions)
    return snapshot(site, look(version), taken(version))


@pytest.mark.parametrize("version", VERSIONS)
def test_nodes_have_their_cores_memory_devices_features_and_state(version: str) -> None:
    nodes = {node.name: node for node in seen(version, "batch", "gpu").nodes}
    assert sorted(nodes) == ["g1", "g2", *(f"n{number}" for number in range(1, 8))]
    assert (nodes["n1"].cores, nodes["n1"].memory, nodes["n1"].devices) == (8, 16000, {})
    assert nodes["g1"].devices == {"gpu": 4, "gpu:a100": 4}
    assert nodes["g2"].devices == {"gpu": 2, "gpu:t4": 2}
    assert nodes["n6"].features == ("fast",)
    assert nodes["n5"].state is NodeState.DRAINED
    assert nodes["n1"].state is NodeState.UP


@pytest.mark.parametrize("version", VERSIONS)
def test_only_what_is_offered_is_shown_and_the_default_partition_where_none_is_named(version: str) -> None:
    default = seen(version)
    assert [(one.name, one.default, one.time_limit) for one in default.partitions] == [("batch", True, 172800)]
    assert {node.name for node in default.nodes} == {f"n{number}" for number in range(1, 8)}
    assert not any(job.partition == "gpu" for job in default.running)
    assert [one.name for one in seen(version, "gpu", "batch").partitions] == ["gpu", "batch"]
    assert seen(version, "none").nodes == ()


@pytest.mark.parametrize("version", VERSIONS)
def test_running_jobs_hold_what_they_have_on_each_of_their_nodes(version: str) -> None:
    running = {job.id: job for job in seen(version, "batch", "gpu").running}
    two = next(job for job in running.values() if len(job.allocations) == 2)
    assert [(share.node, share.cores) for share in two.allocations] == [("n1", 8), ("n2", 8)]
    (gpu,) = (job for job in running.values() if job.partition == "gpu")
    assert gpu.allocations[0].devices == {"gpu": 1, "gpu:a100": 1}
    (ours,) = (job for job in running.values() if job.session is not None)
    assert (ours.session, ours.reservation, ours.allocations[0].memory) == (OURS, f"ebhpc-{OURS}", 500)
    assert ours.ends == ours.started + 601
    (licensed,) = (job for job in running.values() if job.licences)
    assert (licensed.licences, licensed.allocations[0].cores) == ({"matlab": 2}, 4)
    assert sum("_" in number for number in running) == 2  # tasks of the array


@pytest.mark.parametrize("version", VERSIONS)
def test_waiting_jobs_stand_in_order_with_what_keeps_them(version: str) -> None:
    waiting = {job.shape.cores * job.nodes: job for job in seen(version).waiting if job.user == "bob"}
    big = waiting[7]
    assert (big.nodes, big.held, big.time_limit) == (7, False, 600)
    jobs = seen(version).waiting
    assert [job.priority for job in jobs] == sorted((job.priority for job in jobs), reverse=True)
    (later,) = (job for job in jobs if job.begin is not None)
    assert later.begin == later.submitted + 3600
    assert [job.held for job in jobs if job.priority == 0] == [True]
    (array,) = (job for job in jobs if job.tasks > 1)
    assert (array.tasks, array.at_once, array.held) == (5, 2, False)
    (dependent,) = (job for job in jobs if job.dependent)
    assert (dependent.required, dependent.excluded, dependent.held) == (("n1",), ("n2",), False)


@pytest.mark.parametrize("version", VERSIONS)
def test_reservations_keep_nodes_cores_devices_and_licences(version: str) -> None:
    found = {one.name: one for one in seen(version, "batch", "gpu").reservations}
    assert [(share.node, share.cores, share.memory) for share in found["whole"].allocations] == [("n7", 8, 16000)]
    ours = found[f"ebhpc-{OURS}"]
    assert (ours.session, [(share.node, share.cores) for share in ours.allocations]) == (OURS, [("n6", 3)])
    assert ours.end - ours.start == 1800
    (share,) = found["gpus"].allocations
    assert (share.cores, share.devices) == (4, {"gpu": 2})
    assert (found["licences"].licences, found["licences"].allocations) == ({"matlab": 4}, ())
    services = [one for one in seen(version).reservations if one.name == "service"]
    assert all(one.maintenance for one in services)
    assert [one.start - services[0].start for one in services] == [0, 7 * 86400]


@pytest.mark.parametrize("version", VERSIONS)
def test_finished_jobs_tell_what_they_asked_for_and_how_long_they_ran(version: str) -> None:
    finished = {job.user: job for job in seen(version).finished}
    assert len(seen(version).finished) == 2  # the one that was cancelled never ran
    assert (finished["bob"].time_limit, finished["bob"].cores, finished["bob"].account) == (600, 1, "chem")
    assert finished["alice"].ended >= finished["alice"].started >= finished["alice"].submitted


@pytest.mark.parametrize("version", VERSIONS)
def test_a_snapshot_can_be_planned_on_and_survives_being_published(version: str) -> None:
    whole = seen(version, "batch", "gpu")
    assert decode_snapshot(encode_snapshot(whole)) == whole
    timeline = Timeline.of(whole)
    now = whole.taken
    assert timeline.free("n3", now, now + 60).cores == 8
    assert timeline.free("n1", now, now + 60).cores == 0
    assert timeline.free("n6", now, now + 60).cores == 0  # three reserved, five taken
    assert whole.scheduler == Scheduler(
        backfill="conservative", window=1209600, depth=500, per_array=20, resolution=60, limit_step=60, whole_nodes=True
    )


def test_the_two_versions_say_the_same() -> None:
    one, other = (look(version) for version in VERSIONS)
    assert [node.name for node in one.nodes] == [node.name for node in other.nodes]
    assert list(one.partitions) == list(other.partitions)
    assert [(job.name, job.state, job.tres, job.reason) for job in sorted(one.jobs, key=lambda job: job.id)] == [
        (job.name, job.state, job.tres, job.reason) for job in sorted(other.jobs, key=lambda job: job.id)
    ]


# --- notations ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", ()),
        ("n1", ("n1",)),
        ("n[1-3,07],g1", ("n1", "n2", "n3", "n07", "g1")),
        ("r[1-2]n[08-09]", ("r1n08", "r1n09", "r2n08", "r2n09")),
        ("a-b.c,d[001]x", ("a-b.c", "d001x")),
    ],
)
def test_a_host_list_names_its_hosts(text: str, names: tuple[str, ...]) -> None:
    assert notation.hosts(text) == names


@pytest.mark.parametrize("text", ["n[1-", "n]1[", "n[[1]]", "n[a]", "n[1-99999999999]", "n[1-1000][1-1000][1-9]"])
def test_what_is_no_host_list_is_said_to_be_none(text: str) -> None:
    with pytest.raises(ValueError, match="host list"):
        notation.hosts(text)


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=50))
def test_every_number_of_a_host_list_comes_back(numbers: list[int]) -> None:
    text = f"node[{','.join(str(number).zfill(4) for number in numbers)}]"
    assert notation.hosts(text) == tuple(f"node{number:04d}" for number in numbers)


@pytest.mark.parametrize(
    ("limit", "seconds"),
    [
        ("10:00", 600),
        ("1:02:03", 3723),
        ("2-00:00:00", 172800),
        ("1-12", 129600),
        ("UNLIMITED", None),
        ("Partition_Limit", None),
        ("N/A", None),
    ],
)
def test_a_limit_is_read_in_every_way_that_slurm_writes_it(limit: str, seconds: int | None) -> None:
    assert notation.seconds(limit) == seconds


def test_trackable_resources_count_devices_once_by_kind_and_by_model() -> None:
    tres = notation.resources("cpu=4,mem=1.5G,node=1,billing=4,gres/gpu=3,gres/gpu:a100=2,license/matlab=2")
    assert (tres["cpu"], tres["mem"]) == (4, 1536)
    assert notation.devices(tres) == {"gpu": 3, "gpu:a100": 2}
    assert notation.devices({"gres/gpu:a100": 2}) == {"gpu": 2, "gpu:a100": 2}
    assert notation.split({"gpu": 3, "gpu:a100": 2}) == {"gpu": 1, "gpu:a100": 2}
    assert notation.split({"gpu": 2, "gpu:a100": 2}) == {"gpu:a100": 2}
    assert notation.tres_text(cpus=4, devices={"gpu": 2, "gpu:a100": 2}) == "cpu=4,gres/gpu:a100=2"


@pytest.mark.parametrize(
    ("gres", "devices"),
    [
        ("", {}),
        ("gpu:4", {"gpu": 4}),
        ("gpu:a100:4(S:0-1),gpu:t4:2,shard:1K", {"gpu": 6, "gpu:a100": 4, "gpu:t4": 2, "shard": 1024}),
        ("craynetwork:no_consume:4", {"craynetwork": 4}),
    ],
)
def test_a_nodes_generic_resources_are_its_devices(gres: str, devices: dict[str, int]) -> None:
    assert notation.generic(gres) == devices


@pytest.mark.parametrize(
    ("text", "count"), [("3", (1, None)), ("3-9", (7, None)), ("[1,3-5%2]", (4, 2)), ("0-10:2", (6, None))]
)
def test_an_arrays_tasks_are_counted(text: str, count: tuple[int, int | None]) -> None:
    assert notation.task_count(text) == count


# --- states of nodes and partitions ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("states", "state"),
    [
        (("IDLE",), NodeState.UP),
        (("MIXED", "PLANNED"), NodeState.UP),
        (("ALLOCATED", "COMPLETING"), NodeState.UP),
        (("UNKNOWN",), NodeState.UP),
        (("IDLE", "POWERED_DOWN", "CLOUD"), NodeState.UP),
        (("IDLE", "DRAIN"), NodeState.DRAINED),
        (("MIXED", "REBOOT_REQUESTED"), NodeState.DRAINED),
        (("IDLE", "NOT_RESPONDING"), NodeState.DOWN),
        (("DOWN", "DRAIN"), NodeState.DOWN),
    ],
)
def test_a_nodes_states_say_whether_it_takes_work(states: tuple[str, ...], state: NodeState) -> None:
    assert node_state(states) is state


def test_of_partitions_those_that_are_wanted_come_in_their_order() -> None:
    some = [
        records.Partition(name="a", nodes="n1"),
        records.Partition(name="b", nodes="n2", default=True),
    ]
    assert [one.name for one in offered(some, ("b", "a", "x"))] == ["b", "a"]
    assert [one.name for one in offered(some, ())] == ["b"]


def test_a_cluster_without_backfill_plans_nothing() -> None:
    assert scheduler({"SchedulerType": "sched/builtin"}, gap=120) == Scheduler(
        backfill="none", gap=120, limit_step=60, whole_nodes=True
    )
    plain = scheduler({"SchedulerType": "sched/backfill", "SchedulerParameters": "bf_max_job_user=3,bf_window=60"})
    assert plain == Scheduler(
        backfill="conservative",
        window=3600,
        depth=500,
        per_user=3,
        per_array=20,
        resolution=60,
        limit_step=60,
        whole_nodes=True,
    )


# --- what is ours, and hostile words -----------------------------------------------------------------------------


def test_only_the_prefix_and_a_uuid_are_ours() -> None:
    assert session_of(f"ebhpc-{OURS}", "ebhpc") == OURS
    for name in (f"ebhpc2-{OURS}", f"ebhpc-{OURS.upper()}", f"ebhpc-{OURS}-x", "ebhpc-check", f"x{OURS}", "ebhpc-", ""):
        assert session_of(name, "ebhpc") is None


def test_a_job_of_another_user_with_our_name_is_none_of_ours() -> None:
    name = f"ebhpc-{OURS}"
    ours = records.Job(id=1, name=name, user="alice", state="PENDING", submitted=10)
    theirs = records.Job(id=2, name=name, user="mallory", state="RUNNING", submitted=20)
    assert by_session([ours, theirs], {OURS: "alice"}, "ebhpc") == {OURS: ours}
    renamed = records.Job(id=3, name="new name", comment=name, user="alice", state="RUNNING", submitted=5)
    ended = records.Job(id=4, name=name, user="alice", state="COMPLETED", submitted=30)
    assert by_session([ours, renamed, ended], {OURS: "alice"}, "ebhpc") == {OURS: renamed}


def test_the_job_of_somebody_who_is_nobody_there_any_more_is_told_by_its_number() -> None:
    name = f"ebhpc-{OURS}"
    ours = records.Job(id=1, name=name, user="alice", state="RUNNING")
    theirs = records.Job(id=2, name=name, user="mallory", state="RUNNING", submitted=20)
    assert by_session([ours, theirs], {}, "ebhpc", {OURS: "1"}) == {OURS: ours}
    assert by_session([ours, theirs], {}, "ebhpc", {OURS: None}) == {}


def row(**given: str) -> str:
    values = dict.fromkeys(answers.QUEUE_FIELDS, "") | {
        "JobID": "7",
        "State": "PENDING",
        "SubmitTime": "5",
        "NumNodes": "1",
        "NumCPUs": "1",
        "PriorityLong": "1",
        "TimeLimit": "10:00",
        "ArrayTaskID": "N/A",
    }
    return (
        "".join(values[name] + MARK for name in answers.QUEUE_FIELDS)
        if not given
        else "".join({**values, **given}[name] + MARK for name in answers.QUEUE_FIELDS)
    )


@given(st.text(), st.text())
def test_whatever_users_write_into_names_and_comments_stays_there(name: str, comment: str) -> None:
    text = row(Name=name, Comment=comment) + "\n" + row(JobID="8", UserName="bob") + "\n"
    first, second = answers.queue(text, MARK)
    assert (first.id, first.name, second.id, second.user) == (7, name, 8, "bob")
    assert first.comment == ("" if comment in ("N/A", "(null)", "None assigned") else comment)


def test_only_jobs_of_a_prefix_are_read_where_one_is_asked_for() -> None:
    text = row(Name="ebhpc-1") + "\n" + row(JobID="8", Comment="ebhpc-2") + "\n" + row(JobID="9") + "\n"
    assert [job.id for job in answers.queue(text, MARK, "ebhpc-")] == [7, 8]


@pytest.mark.parametrize("text", ["7" + MARK, row() + "slurm_load_jobs error", row(JobID="x")])
def test_half_an_answer_is_no_answer(text: str) -> None:
    with pytest.raises(Unanswered):
        answers.queue(text, MARK)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"nodes": [{"state": 1}]}'])
def test_what_is_no_json_is_no_answer(text: bytes) -> None:
    with pytest.raises(Unanswered):
        answers.nodes(text)


def test_errors_within_an_answer_are_raised() -> None:
    with pytest.raises(NotReached, match="contact"):
        answers.nodes(b'{"nodes": [], "errors": [{"error": "Unable to contact slurm controller"}]}')


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Error creating the reservation: Requested nodes are busy", Why.BUSY),
        ("Error creating the reservation: Requested reservation overlaps with another reservation", Why.BUSY),
        ("Error creating the reservation: Duplicate reservation name", Why.DUPLICATE),
        ("Error creating the reservation: Invalid user id", Why.NOT_PERMITTED),
        ("Error creating the reservation: Unspecified error", Why.USER),
        ("delete_reservation reservationname=E2: Requested reservation is in use", Why.IN_USE),
        ("delete_reservation reservationname=E2: Requested reservation is invalid", Why.UNKNOWN),
        ("sbatch: error: Batch job submission failed: Access denied to requested reservation", Why.NOT_PERMITTED),
        ("scancel: error: Kill job error on job id 9: Invalid job id specified", Why.UNKNOWN),
        ("something new", Why.OTHER),
    ],
)
def test_a_refusal_is_understood(text: str, wanted: Why) -> None:
    found = fault(text)
    assert isinstance(found, Refused)
    assert found.why is wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("slurm_load_jobs error: Socket timed out on send/recv operation", Unanswered),
        ("Error creating the reservation: Unexpected message received", Unanswered),
        ("slurm_load_jobs error: Unable to contact slurm controller (connect failure)", NotReached),
        ("sacct: error: Problem talking to the database: Connection refused", NotReached),
        ("", Refused),
    ],
)
def test_no_answer_is_told_from_no(text: str, wanted: type[Exception]) -> None:
    assert type(fault(text)) is wanted


def test_threads_of_a_core_are_counted_as_its_core_wherever_slurm_counts_them() -> None:
    node = records.Node(name="t1", states=("IDLE",), cpus=128, memory=1000, threads=2)
    plain = records.Node(name="p1", states=("IDLE",), cpus=64, memory=1000)
    given = {"user": "alice", "nodes": 1, "submitted": 1, "priority": 5, "limit": 600}
    look = Look(
        nodes=(node, plain),
        partitions=(
            records.Partition(name="ht", nodes="t1", default=True),
            records.Partition(name="both", nodes="t1,p1"),
        ),
        jobs=(
            records.Job(id=1, state="PENDING", partition="ht", cpus=7, tres="cpu=7,mem=100M", **given),
            records.Job(id=2, state="PENDING", partition="both", cpus=7, tres="cpu=7,mem=100M", **given),
            records.Job(id=3, state="RUNNING", partition="ht", hosts="t1", cpus=8, tres="cpu=8,mem=100M", **given),
        ),
        reservations=(records.Reservation(name="r", start=5, end=9000, nodes="t1", cores={"t1": 16}, flags=()),),
        licences={},
        settings={},
        ended=(
            records.Job(
                id=4, state="COMPLETED", partition="ht", hosts="t1", cpus=8, tres="cpu=8", started=1, ends=9, **given
            ),
        ),
    )
    told = snapshot(Site(platform="here", prefix="ebhpc", partitions=("ht", "both")), look, 10)
    assert {one.name: one.cores for one in told.nodes} == {"t1": 64, "p1": 64}
    assert {one.id: one.shape.cores for one in told.waiting} == {"1": 4, "2": 7}
    assert [one.allocations[0].cores for one in told.running] == [4]
    assert [one.cores for one in told.finished] == [4]
    assert [share.cores for one in told.reservations for share in one.allocations] == [16]


def test_an_ended_job_tells_its_exit_code_times_and_node() -> None:
    job = records.Job(id=1, state="FAILED", exit="3:0", started=5, ends=9, hosts="n[3-4]")
    said = native(job)
    assert said is not None
    assert (said.state, said.exit_code, said.node, said.started, said.ended) == ("FAILED", 3, "n3", 5, 9)
    killed = native(records.Job(id=1, state="FAILED", exit="0:9"))
    assert killed is not None
    assert killed.exit_code == 137
    over = native(records.Job(id=1, state="TIMEOUT", exit="0:0"))
    assert over is not None
    assert (over.state, over.exit_code, over.messages[0].kind) == ("FAILED", None, "urn:time-limit")
    assert native(records.Job(id=1, state="NEW_STATE")) is None
