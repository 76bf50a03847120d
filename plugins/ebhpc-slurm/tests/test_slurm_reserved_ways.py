"""Reserved time over every way of asking Slurm, and what is remembered of the jobs in it: the platform alone."""

from __future__ import annotations

import time
from typing import Any

import pytest
from msgspec.structs import replace
from slurm_lab import Place, ours, session, until

from ebhpc.model import Allocation, Identity, JobUse, Phase, ReservedTime, Session, Usage, kinds
from ebhpc.model.reading import read_request
from ebhpc.model.registry import Kinds
from ebhpc.plugins import SessionFailed
from ebhpc_slurm import records
from ebhpc_slurm.reserved import MOST_LISTED, Inside
from ebhpc_slurm.transport import NotReached

SHARED = {"identities": {"ada": {"user": "alice", "account": "phys"}, "berta": {"user": "bob", "account": "chem"}}}


def block(*nodes: str, start: float = 0, **executable: Any) -> Session:
    """Reserved time on whole nodes."""
    shares = tuple(Allocation(node=node, cores=8, memory=16000) for node in nodes)
    return session(start=start, duration=600, executable=ReservedTime(**executable), allocations=shares, storage=())


def users_of(place: Place, name: str) -> str:
    said = place.cluster.run(["scontrol", "--oneliner", "show", "reservations", name]).stdout
    return " ".join(word for word in said.split() if word.startswith(("Users=", "Accounts=", "Nodes=")))


@pytest.mark.lab
@pytest.mark.timeout(300)
def test_a_block_is_held_changed_used_and_given_back(place: Place) -> None:
    platform = place.platform(**SHARED)
    one = block("n1", "n2", users=["berta"])
    name = platform.ebhpc_hold(one)
    assert name == f"ebhpc-{one.uuid}"
    assert users_of(place, name) == "Nodes=n[1-2] Users=alice,bob Accounts=(null)"
    one = replace(one, held=name, phase=Phase.AVAILABLE)
    # A node was lost: asked again with another one, the same reservation has that
    one = replace(one, allocations=(one.allocations[0], Allocation(node="n4", cores=8, memory=16000)))
    assert platform.ebhpc_hold(one) == name
    assert users_of(place, name).startswith("Nodes=n[1,4]")
    one = replace(one, native=platform.ebhpc_submit(one))
    (seen,) = platform.ebhpc_observe([one])
    assert (seen.state, seen.usage) == ("PENDING", Usage())
    assert seen.connectors is not None
    (connector,) = seen.connectors
    assert (connector.reservation, connector.partition, connector.status) == (name, "batch", "AVAILABLE")
    assert connector.commands is not None
    assert connector.commands[0] == f"sbatch --reservation={name} --partition=batch --account=phys --nodes=2 SCRIPT"
    job = place.cluster.submit("sleep 100", f"--reservation={name}", "--nodes=2", "--ntasks=2", "--time=5")
    seen = until(platform, one, lambda seen: seen.state == "RUNNING")
    assert seen.usage is not None
    assert [(each.id, each.user, each.nodes, each.cores, each.ended) for each in seen.usage.jobs] == [
        (str(job), "alice", 2, 2, None)
    ]
    # Longer, for the session that goes on with it
    longer = replace(one, uuid=block("n1").uuid, held=None, native=None, extends=name, end=one.end + 3600)
    assert platform.ebhpc_hold(longer) == name
    longer = replace(longer, held=name, native=name)
    (held,) = [each for each in platform.slurm.reservations() if each.name == name]
    assert held.end >= longer.end
    taken = block("n1", start=(one.end - time.time()) + 60)
    with pytest.raises(SessionFailed):
        platform.ebhpc_hold(taken)
    platform.ebhpc_cancel(longer)
    seen = until(platform, replace(longer, phase=Phase.CANCELLED), lambda seen: seen.state == "SUCCEEDED")
    assert seen.usage is not None
    assert [each.state for each in seen.usage.jobs] == ["CANCELLED"]
    platform.ebhpc_cleanup(longer)
    platform.ebhpc_release(longer)
    assert ours(platform) == []
    platform.slurm.close()


@pytest.mark.lab
@pytest.mark.timeout(300)
def test_a_block_for_accounts_is_theirs_and_one_that_an_operator_deletes_is_made_again(newest: Place) -> None:
    platform = newest.platform(**SHARED)
    one = block("n3", accounts=["phys", "chem"])
    name = platform.ebhpc_hold(one)
    assert name is not None
    assert "Users=(null) Accounts=phys,chem" in users_of(newest, name)
    one = replace(one, held=name, native=name, phase=Phase.AVAILABLE)
    newest.cluster.run(["scontrol", "delete", f"reservationname={name}"], user="root")
    (seen,) = platform.ebhpc_observe([one])
    assert seen.state == "PENDING"
    assert any("made again" in str(told) for told in seen.messages)
    assert "n3" in users_of(newest, name)
    newest.cluster.run(["scontrol", "delete", f"reservationname={name}"], user="root")
    # Users beside accounts: these users alone, and with jobs of these accounts alone
    both = block("n4", accounts=["chem"], users=["berta"])
    shared = platform.ebhpc_hold(both)
    assert shared is not None
    assert "Users=alice,bob Accounts=chem" in users_of(newest, shared)
    assert platform.ebhpc_hold(both) == shared  # found, and as good
    words = ["sbatch", "--parsable", "--chdir=/tmp", "--output=/dev/null", f"--reservation={shared}", "--wrap=true"]
    for user, account, enters in (("bob", "chem", True), ("alice", "chem", True), ("alice", "phys", False)):
        said = newest.cluster.run([*words, f"--account={account}"], user=user, check=False)
        assert (said.returncode == 0) is enters, said.stderr
    platform.reservations.release(shared)
    operators = ["reservationname=mine", "starttime=now", "duration=60", "users=root", "nodes=n3"]
    newest.cluster.run(["scontrol", "create", "reservation", *operators], user="root")
    (seen,) = platform.ebhpc_observe([one])
    assert seen.state == "FAILED"
    assert any("overlaps" in str(told) for told in seen.messages)
    platform.slurm.close()


class Memory:
    """The accounting: what was asked, and what it answers. The rest of Slurm is not asked here."""

    def __init__(self, *jobs: records.Job) -> None:
        self.known = jobs
        self.asked = 0
        self.there = True

    def jobs(self, prefix: str = "") -> Any:
        return ()

    def ended(self, since: int, names: Any = ()) -> Any:
        self.asked += 1
        if not self.there:
            raise NotReached("no accounting")
        return self.known


def job(number: int, state: str = "RUNNING", **more: Any) -> records.Job:
    given: dict[str, Any] = {
        "id": number,
        "user": "alice",
        "state": state,
        "started": 1000,
        "cpus": 16,
        "hosts": "n1",
        "reservation": "r",
        "exit": "0:0",
    }
    return records.Job(**{**given, **more})


def test_jobs_that_slurm_has_forgotten_are_remembered_and_those_of_before_are_asked_for_once() -> None:
    accounting = Memory(job(1, "COMPLETED", ends=1100), job(9, "COMPLETED", ends=1100, reservation="other"))
    inside = Inside(accounting, lambda: 2000.0, lambda nodes: 2)  # type: ignore[arg-type]  # what it asks for is there
    usage = inside.usage({"r": 900}, [job(2)])["r"]
    assert [(each.id, each.cores, each.ended) for each in usage.jobs] == [("1", 8, 1100.0), ("2", 8, None)]
    assert accounting.asked == 1
    inside.usage({"r": 900}, [job(2)])
    assert accounting.asked == 1
    accounting.known = (job(2, "TIMEOUT", ends=1500, exit="0:15"),)
    usage = inside.usage({"r": 900}, [])["r"]
    assert [(each.id, each.state, each.ended) for each in usage.jobs] == [
        ("1", "COMPLETED", 1100.0),
        ("2", "TIMEOUT", 1500.0),
    ]
    assert accounting.asked == 2
    assert inside.usage({"r": 900}, [])["r"] == usage
    assert accounting.asked == 2
    assert inside.usage({}, []) == {}


def test_without_an_accounting_what_is_lost_sight_of_has_ended() -> None:
    accounting = Memory()
    accounting.there = False
    inside = Inside(accounting, lambda: 2000.0, lambda nodes: 1)  # type: ignore[arg-type]  # what it asks for is there
    inside.usage({"r": 900}, [job(3), job(4, "PENDING", started=None, hosts="")])
    (gone,) = inside.usage({"r": 900}, [])["r"].jobs
    assert (gone.id, gone.state, gone.ended) == ("3", "UNKNOWN", 2000.0)


def test_many_jobs_are_added_up() -> None:
    inside = Inside(Memory(), lambda: 0.0, lambda nodes: 1)  # type: ignore[arg-type]  # what it asks for is there
    jobs = [job(at, "COMPLETED", started=1000 + at, ends=1000 + at + 3600, cpus=2) for at in range(1, MOST_LISTED + 6)]
    usage = inside.usage({"r": 0}, jobs)["r"]
    assert (len(usage.jobs), usage.others, usage.more) == (MOST_LISTED, 5, 10.0)
    assert usage.core_hours(1e9) == pytest.approx(2 * (MOST_LISTED + 5))
    assert usage.idle_since(0) == max(each.ended for each in usage.jobs if each.ended is not None)
    assert Usage(jobs=(JobUse(id="1", started=5.0),)).idle_since(0) is None


@pytest.mark.parametrize(
    ("executable", "who", "told"),
    [
        ({"users": ["zoe"]}, "ada", "has no account on lab"),
        ({"users": ["berta"], "accounts": ["chem"]}, "ada", "you could not use it"),
        ({"accounts": ["phys"]}, "berta", "you could not use it"),
    ],
)
def test_what_slurm_cannot_keep_is_refused(tmp_path: Any, executable: dict[str, Any], who: str, told: str) -> None:
    from ebhpc_slurm import ebhpc_platform

    platform: Any = ebhpc_platform("slurm", "lab", {"jobs": {"root": "/scratch"}, **SHARED}, tmp_path)
    raw = {"executable": {"kind": kinds.RESERVED_TIME, **executable}}
    document = Kinds().request(raw).document
    assert document is not None
    request = read_request(document, now=1_900_000_000, new_uuid=lambda: block("n1").uuid).request
    assert request is not None
    refusals = list(platform.ebhpc_refuses(request))
    policy = platform.ebhpc_policy(request, Identity(uuid="u", username=who), "lab")
    said = [*refusals, *(policy.refusals if policy is not None else ())]
    assert any(told in str(one) for one in said), said
