"""Reserved time and batch scripts on a real cluster, through a whole broker."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from slurm_lab import ALICE, BOB, Place

from ebhpc.client import Broker
from ebhpc.model import Phase, kinds
from ebhpc_slurm.notation import hosts
from tests.broker import ADMIN, PASSWORD, RunningBroker
from tests.lab.slurm import Cluster
from tests.local.webserver import serving

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

IDENTITIES = {
    ADMIN: {"user": "alice", "account": "phys", "uid": ALICE},
    "berta": {"user": "bob", "account": "chem", "uid": BOB},
}


@pytest.fixture(scope="module")
def lab(slurm_2605: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cluster, RunningBroker]]:
    """A cluster, and a broker on it for all tests of this file."""
    slurm_2605.clean()
    folder = tmp_path_factory.mktemp("reserved")
    settings = Place(slurm_2605, "commands", folder).settings(look="500ms", identities=IDENTITIES, gap="60s")
    settings["jobs"]["private_networks"] = ["127.0.0.0/8"]
    settings["jobs"]["scripts"] = {"allowed": True, "modules": ["lab/*"], "module_setup": MODULES}
    platform = {
        "name": "lab",
        "kind": "slurm",
        "lead": "1s",
        "refresh": "1s",
        "reserved_time": {"users": True, "accounts": ["phys", "chem"]},
        "settings": settings,
    }
    broker = RunningBroker(folder, {"platforms": [platform], "api": {"workers": 1}})
    try:
        broker.make_ready()
        broker.start("api")
        broker.start("drive")
        broker.wait_ready()
        with client_of(broker) as http:
            made = http.post("/admin/identities", json={"username": "berta", "password": PASSWORD})
            assert made.status_code == 201, made.text
        yield slurm_2605, broker
    finally:
        broker.stop()
        slurm_2605.clean()


MODULES = 'module() { shift; for name in "$@"; do export "LOADED_${name#lab/}=yes"; done; }'


def client_of(broker: RunningBroker, user: str = ADMIN) -> httpx.Client:
    return httpx.Client(
        base_url=broker.url,
        auth=(user, PASSWORD),
        headers={"Accept": "application/json"},
        trust_env=False,
        timeout=60,
    )


def reserved(
    *, nodes: int = 1, minutes: int = 5, whole: bool = False, partition: str | None = None, **more: Any
) -> Any:
    start = more.pop("start", None)
    compute: dict[str, Any] = {
        "kind": kinds.CLUSTER_COMPUTE,
        "nodes": {"min": nodes, "max": nodes},
        "cores": {"min": 2},
    }
    if whole:
        compute["exclusive"] = True
    if partition:
        compute["partition"] = partition
    requested = {"duration": f"PT{minutes}M"}
    if start is not None:
        begin = datetime.fromtimestamp(start, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        requested["start"] = f"{begin}/PT0S"
    return {
        "executable": {"kind": kinds.RESERVED_TIME, "meta": {"name": "tutorial"}, **more},
        "compute": compute,
        "schedule": {"requested": requested},
    }


def accepted(client: Broker, wanted: dict[str, Any]) -> str:
    offers = client.offers(wanted)
    assert offers.result == "YES", offers
    uuid = str(offers.offers[0].meta.uuid)
    client.accept(uuid)
    return uuid


def until_phase(client: Broker, uuid: str, *wanted: Phase, seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while (session := client.session(uuid)).phase not in wanted:
        assert time.monotonic() < deadline, (session.phase, words(session))
        assert session.phase not in (Phase.FAILED, Phase.COMPLETED, Phase.CANCELLED), words(session)
        time.sleep(0.2)
    return session


def words(session: Any) -> list[str]:
    return [str(told) for told in session.meta.messages or ()]


def typed(cluster: Cluster, session: Any, program: str, rest: str, user: str = "alice") -> Any:
    """Type the line that a session's connector names, as a user of the cluster."""
    (connector,) = session.connectors
    (line,) = [line for line in connector.commands if line.startswith(program)]
    for hole in (" SCRIPT", " COMMAND"):
        line = line.replace(hole, "")
    return cluster.run(["/bin/sh", "-c", f"{line} {rest}"], user=user)


def metric(session: Any, kind: str) -> float:
    (found,) = [one.min for one in session.metrics if one.type == kind]
    return float(found)


def test_a_reservation_is_used_by_the_lines_that_its_connector_names_and_what_ran_in_it_is_told(
    lab: tuple[Cluster, RunningBroker],
) -> None:
    cluster, broker = lab
    with broker.client() as client:
        uuid = accepted(client, reserved(nodes=2, users=["berta"]))
        session = until_phase(client, uuid, Phase.AVAILABLE)
        cluster.until(lambda: client.session(uuid).connectors)
        session = client.session(uuid)
        (connector,) = session.connectors
        assert (connector.reservation, connector.partition) == (f"ebhpc-{uuid}", "batch")
        tell = "sh -c 'printenv SLURM_JOB_RESERVATION SLURMD_NODENAME; sleep 2'"
        ran = typed(cluster, session, "srun", f"-n2 {tell}")
        assert ran.stdout.split().count(f"ebhpc-{uuid}") == 2
        assert len({word for word in ran.stdout.split() if word.startswith("n")}) == 2
        session = until_phase(client, uuid, Phase.RUNNING)
        other = ["srun", f"--reservation=ebhpc-{uuid}", "--partition=batch", "-n1", "id", "-un"]
        assert cluster.run(other, user="bob").stdout.split() == ["bob"]
        cluster.run(["sacctmgr", "-i", "add", "user", "carol", "account=phys"], user="root")
        try:
            third = cluster.run(other, user="carol", check=False)
        finally:
            cluster.run(["sacctmgr", "-i", "delete", "user", "carol"], user="root")
        assert third.returncode != 0
        assert "Access denied to requested reservation" in third.stderr
        cluster.until(lambda: len([job for job in client.session(uuid).executable.jobs or () if job.ended]) == 2)
        session = client.session(uuid)
        assert [(job.user, job.state) for job in session.executable.jobs] == [
            ("alice", "COMPLETED"),
            ("bob", "COMPLETED"),
        ]
        client.cancel(uuid)
        session = until_end(client, uuid)
        assert session.phase is Phase.CANCELLED
        # A core on each of two nodes for two seconds or more; Slurm tells whole seconds
        assert session.executable.jobs[0].core_hours >= 4 / 3600 - 0.0001
        # The reservation may stand a second or two before the time that was promised: that is not charged
        moment = datetime.fromisoformat
        begin = moment(session.schedule.available.start.split("/")[0])
        charged = sum(
            job.cores * max((moment(job.ended) - max(moment(job.started), begin)).total_seconds(), 0)
            for job in session.executable.jobs
        )
        assert metric(session, kinds.CORE_HOURS_USED) == pytest.approx(charged / 3600, abs=0.0001)
        assert metric(session, kinds.CORE_HOURS_UNUSED) > 0
        cluster.until(lambda: f"ebhpc-{uuid}" not in cluster.run(["scontrol", "show", "reservations"]).stdout)


def until_end(client: Broker, uuid: str, seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while "results are kept" not in (words(session := client.session(uuid)) or [""])[-1]:
        assert time.monotonic() < deadline, (session.phase, words(session))
        time.sleep(0.2)
    return session


def test_a_script_over_three_nodes_uses_the_clusters_own_launcher_as_its_user(
    lab: tuple[Cluster, RunningBroker],
) -> None:
    _, broker = lab
    script = """#!/bin/bash
echo "I am $(id -un), at home in $HOME, loaded: $LOADED_mpi, $1, $WORD"
srun --ntasks-per-node=1 sh -c 'echo node $SLURMD_NODENAME of $SLURM_NTASKS' | sort
exit 3
"""
    wanted = {
        "executable": {
            "kind": kinds.BATCH_SCRIPT,
            "script": script,
            "arguments": ["$(touch /tmp/never) 'quoted'"],
            "environment": {"WORD": "a;b"},
            "modules": ["lab/mpi"],
        },
        "compute": {"kind": kinds.CLUSTER_COMPUTE, "nodes": {"min": 3, "max": 3}, "cores": {"min": 2}},
        "schedule": {"requested": {"duration": "PT2M"}},
    }
    with broker.client() as client:
        uuid = accepted(client, wanted)
        session = until_end(client, uuid)
        out = b"".join(client.read_output(uuid, "stdout")).decode()
        errors = b"".join(client.read_output(uuid, "stderr")).decode()
        first, *nodes = out.splitlines()
        assert first == "I am alice, at home in /home/alice, loaded: yes, $(touch /tmp/never) 'quoted', a;b", errors
        assert len({line.split()[1] for line in nodes}) == 3, (out, errors)
        assert all(line.endswith("of 3") for line in nodes)
        assert session.phase is Phase.FAILED
        assert any("exit code 3" in word for word in words(session)), words(session)


def test_a_script_by_its_url_is_fetched_and_runs_only_with_its_digest(lab: tuple[Cluster, RunningBroker]) -> None:
    _, broker = lab
    text = b'#!/bin/sh\necho "fetched on $SLURMD_NODENAME by $(id -un)"\n'
    digest = f"sha256:{hashlib.sha256(text).hexdigest()}"
    with broker.client() as client, serving(text) as url:

        def ended(digest: str) -> Any:
            script = {"kind": kinds.BATCH_SCRIPT, "location": url, "digest": digest}
            uuid = accepted(client, {"executable": script, "schedule": {"requested": {"duration": "PT2M"}}})
            return until_end(client, uuid, 120)

        session = ended(digest)
        assert session.phase is Phase.COMPLETED, words(session)
        out = b"".join(client.read_output(session.meta.uuid, "stdout")).decode().split()
        assert (out[:2], out[3:]) == (["fetched", "on"], ["by", "alice"])
        session = ended(f"sha256:{'0' * 64}")
        assert session.phase is Phase.FAILED
        assert any("sha256" in word for word in words(session)), words(session)


def test_nodes_whose_daemon_dies_or_that_an_operator_takes_before_the_start_are_replaced(
    lab: tuple[Cluster, RunningBroker],
) -> None:
    cluster, broker = lab
    with broker.client() as client:
        uuid = accepted(client, reserved(nodes=2, minutes=10, start=time.time() + 3600))
        until_phase(client, uuid, Phase.AVAILABLE)
        dead, taken = sorted(nodes_of(cluster, uuid))
        cluster.kill_node(dead)
        operators = [f"reservationname=operators nodes={taken} users=root flags=overlap starttime=now+59minutes"]
        cluster.run(["scontrol", "create", "reservation", *operators[0].split(), "duration=60"], user="root")
        try:
            cluster.until(lambda: taken not in nodes_of(cluster, uuid), 120, "another node for what was taken")
            # Slurm calls it down when it has not answered for its SlurmdTimeout
            cluster.until(lambda: dead not in nodes_of(cluster, uuid), 200, "another node for the dead one")
            assert len(nodes_of(cluster, uuid)) == 2
            session = cluster.until(lambda: _told_twice(client.session(uuid)))
            told = words(session)
            assert any(f"{taken}: the reservation operators takes it; the session gets" in word for word in told), told
            assert any(f"{dead}: it is down; the session gets" in word for word in told), told
        finally:
            cluster.run(["scontrol", "delete", "reservationname=operators"], user="root", check=False)
            cluster.start_node(dead)
        client.cancel(uuid)
        until_end(client, uuid, 120)
        resume = ["scontrol", "update", f"nodename={dead}", "state=resume"]
        cluster.run(resume, user="root", check=False)  # it may be in service already
        cluster.until(lambda: cluster.node_states()[dead] == "idle", 120, "the dead node is back")


def _told_twice(session: Any) -> Any:
    return session if sum("instead" in word for word in words(session)) >= 2 else None


def nodes_of(cluster: Cluster, uuid: str) -> set[str]:
    """The nodes of a session's reservation, as Slurm tells them."""
    said = cluster.run(["scontrol", "--oneliner", "show", "reservations", f"ebhpc-{uuid}"]).stdout
    (nodes,) = [word.partition("=")[2] for word in said.split() if word.startswith("Nodes=")]
    return set(hosts(nodes))


def test_a_node_that_drains_before_the_start_is_replaced_and_when_none_is_left_the_user_is_told(
    lab: tuple[Cluster, RunningBroker],
) -> None:
    cluster, broker = lab
    with broker.client() as client:
        uuid = accepted(client, reserved(nodes=2, minutes=10, start=time.time() + 1800))
        until_phase(client, uuid, Phase.AVAILABLE)
        before = nodes_of(cluster, uuid)
        waits = cluster.submit("true", f"--reservation=ebhpc-{uuid}", "--nodes=2")
        lost = min(before)
        cluster.drain(lost)
        try:
            cluster.until(lambda: lost not in nodes_of(cluster, uuid))
            after = nodes_of(cluster, uuid)
            assert after & before == before - {lost}
            assert len(after) == 2
            (new,) = after - before
            assert any(f"the session gets {new} instead" in word for word in words(client.session(uuid)))
            assert cluster.job_state(waits) == "PENDING"  # what was submitted to it still waits for it
            # No spare node is left: told at once, with other windows
            spare = {f"n{number}" for number in range(1, 8)} - after - {lost}
            for node in spare:
                cluster.drain(node)
            time.sleep(1.5)
            cluster.drain(new)
            cluster.until(lambda: any("no other node is free" in word for word in words(client.session(uuid))))
            for node in (new, *spare):
                cluster.undrain(node)
            cluster.until(lambda: any("can be used again" in word for word in words(client.session(uuid))))
        finally:
            every = ["scontrol", "update", "nodename=n[1-7]", "state=resume"]
            cluster.run(every, user="root", check=False)  # some are in service already
        cluster.run(["scancel", str(waits)], user="alice")
        client.cancel(uuid)
        until_end(client, uuid)


def test_a_block_is_extended_under_its_running_jobs_and_the_old_session_stays_until_then(
    lab: tuple[Cluster, RunningBroker],
) -> None:
    cluster, broker = lab
    with broker.client() as client:
        first = accepted(client, reserved(nodes=2, minutes=3))
        until_phase(client, first, Phase.AVAILABLE)
        cluster.until(lambda: client.session(first).connectors)
        job = cluster.submit("sleep 60", f"--reservation=ebhpc-{first}", "--nodes=2", "--time=1")
        until_phase(client, first, Phase.RUNNING)
        ends = end_of_reservation(cluster, first)
        offers = client.offers(reserved(nodes=2, minutes=20, replaces=first))
        longer = offers.offers[0]
        client.accept(str(longer.meta.uuid))
        session = until_phase(client, str(longer.meta.uuid), Phase.RUNNING)
        assert end_of_reservation(cluster, first) >= ends + 15 * 60
        assert cluster.job_state(job) == "RUNNING"
        before = client.session(first)
        assert before.phase is Phase.COMPLETED
        assert any("the reserved time goes on" in word for word in words(before))
        assert session.connectors[0].reservation == f"ebhpc-{first}"
        assert [one.id for one in session.executable.jobs] == [str(job)]
        # Moved: another window, after which the one before is gone
        later = accepted(client, reserved(nodes=1, minutes=5, start=time.time() + 7200, replaces=str(longer.meta.uuid)))
        until_phase(client, later, Phase.AVAILABLE)
        gone = until_end(client, str(longer.meta.uuid))
        assert gone.phase is Phase.CANCELLED
        assert any("was moved" in word for word in words(gone))
        cluster.until(lambda: f"ebhpc-{first}" not in cluster.run(["scontrol", "show", "reservations"]).stdout)
        client.cancel(later)
        until_end(client, later)


def end_of_reservation(cluster: Cluster, uuid: str) -> float:
    said = cluster.run(
        ["scontrol", "--oneliner", "show", "reservations", f"ebhpc-{uuid}"], environment={"SLURM_TIME_FORMAT": "%s"}
    ).stdout
    (end,) = [word.partition("=")[2] for word in said.split() if word.startswith("EndTime=")]
    return float(end)


def test_what_nobody_uses_is_given_back_after_a_warning_and_sold_again_and_one_of_two_gets_the_last(
    lab: tuple[Cluster, RunningBroker],
) -> None:
    cluster, broker = lab
    everything = {"whole": True, "partition": "gpu", "nodes": 2, "minutes": 30}
    with broker.client() as client, client_of(broker, "berta") as berta:
        uuid = accepted(client, reserved(**everything, idle_release="PT20S"))
        until_phase(client, uuid, Phase.AVAILABLE)
        now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}/PT5M"
        wanted = reserved(**everything)
        wanted["schedule"]["requested"]["start"] = now
        assert berta.post("/requests", json=wanted).json()["result"] == "NO"  # all of it is promised
        session = until_end(client, uuid)
        assert session.phase is Phase.COMPLETED
        told = words(session)
        warned = next(place for place, word in enumerate(told) if "it is given back at" in word)
        assert any("is given back" in word for word in told[warned + 1 :]), told
        assert metric(session, kinds.CORE_HOURS_USED) == 0
        cluster.until(lambda: f"ebhpc-{uuid}" not in cluster.run(["scontrol", "show", "reservations"]).stdout)

        # Now it is for sale again: of two who want all of it, one gets it
        def asked() -> Any:
            answer = berta.post("/requests", json=wanted).json()
            return answer if answer["result"] == "YES" else None

        answer = cluster.until(asked)
        assert client.offers(wanted).result == "NO"
        mine = answer["offers"][0]["meta"]["uuid"]
        change = {"kind": "uri:enum-value-update", "path": "phase", "value": "ACCEPTED"}
        assert berta.post(f"/sessions/{mine}", json=change).status_code == 200
        cluster.until(lambda: berta.get(f"/sessions/{mine}").json()["phase"] == "AVAILABLE")
        assert "Users=bob" in cluster.run(["scontrol", "show", "reservations", f"ebhpc-{mine}"]).stdout
        assert berta.post(f"/sessions/{mine}", json={**change, "value": "CANCELLED"}).status_code == 200
        cluster.until(lambda: f"ebhpc-{mine}" not in cluster.run(["scontrol", "show", "reservations"]).stdout)
