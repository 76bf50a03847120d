"""Blazar's leases as data: what is asked for and told, what they are in a snapshot, what is checked of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from openstack_lab import MEDIUM, SMALL, session

from ebhpc.config import Seconds, SettingsError
from ebhpc.model import Allocation, Shape
from ebhpc.planning import Flavor, Node, RunningJob, Snapshot
from ebhpc.plugins import SessionFailed
from ebhpc_openstack import ebhpc_platform, lease_checks, leases, records
from ebhpc_openstack.asking import Answer, Call, Unanswered
from ebhpc_openstack.cloud import Cloud
from ebhpc_openstack.leased_platform import LeasedPlatform
from ebhpc_openstack.leasing import Leases, NotBegun
from ebhpc_openstack.platform import OpenStackPlatform
from ebhpc_openstack.settings import LeaseSettings, OpenStackSettings

UUID = "01234567-89ab-7cde-8f01-23456789abcd"
NINE = 1795510800
"""9:00 UTC on 24 November 2026."""
SETTINGS = LeaseSettings(hosts=("node1", "node2"))
LEAST: dict[str, Any] = {
    "ssh": {"host": "login", "user": "ebhpc", "known_hosts": "/k", "key_file": "/i"},
    "image": "debian",
    "jobs": {"root": "/r", "access": "own", "staging": "job", "runtime": {"kind": "podman"}},
}
QUOTA = records.Quota(servers=None, cores=None, memory=None)


def told(name: str = f"ebhpc-{UUID}", status: str = "PENDING", **more: Any) -> dict[str, Any]:
    """A lease as Blazar tells of it; ``more``: of its reservation."""
    reservation = {
        "id": "7d91130c",
        "resource_type": "virtual:instance",
        "status": "pending",
        "vcpus": 2,
        "memory_mb": 4096,
        "disk_gb": 20,
        "amount": 1,
        "affinity": None,
        "resource_properties": '["==", "$hypervisor_hostname", "node2"]',
        **more,
    }
    return {
        "id": "b45ef719",
        "name": name,
        "status": status,
        "start_date": "2026-11-24T09:00:00.000000",
        "end_date": "2026-11-24T10:00:00.000000",
        "created_at": "2026-11-24 08:00:00",
        "reservations": [reservation],
    }


def one(**more: Any) -> leases.Lease:
    found = leases.lease(told(**more))
    assert found is not None
    return found


def wanted(start: int = NINE, duration: int = 600, settings: LeaseSettings = SETTINGS) -> leases.Wanted:
    asked = session(uuid=UUID, shape=MEDIUM, node="node2", firm=True)
    asked = replace(asked, start=start, latest=start, end=start + duration)
    return leases.wanted(asked, f"ebhpc-{UUID}", settings)


# --- asked for -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("start", "duration"), [(NINE, 600), (NINE + 1, 598), (NINE + 59, 3), (NINE - 1, 61)])
def test_a_lease_covers_its_session_and_what_the_settings_want_beside_it_in_whole_minutes(
    start: int, duration: int
) -> None:
    asked = wanted(start, duration)
    assert asked.start % 60 == asked.end % 60 == 0
    assert 60 <= start - asked.start < 120
    assert 60 <= asked.end - (start + duration) < 120


def test_leases_of_sessions_with_the_gap_between_them_never_overlap() -> None:
    for first in range(NINE, NINE + 60):
        for settings in (SETTINGS, LeaseSettings(hosts=("x",), before=Seconds(0), after=Seconds(75))):
            end = wanted(first, 601, settings).end
            assert wanted(first + 601 + leases.gap(settings), 60, settings).start >= end


def test_what_is_asked_for_names_the_hypervisor_that_was_booked() -> None:
    asked = wanted()
    body = leases.body(asked, now=NINE - 3600)
    assert (body["name"], body["start_date"], body["end_date"]) == (
        f"ebhpc-{UUID}",
        "2026-11-24 08:59",
        "2026-11-24 09:11",
    )
    (reservation,) = body["reservations"]
    assert (reservation["vcpus"], reservation["memory_mb"], reservation["disk_gb"], reservation["amount"]) == (
        *(2, 4096, 20),
        1,
    )
    assert leases.lease(told(**reservation)) == replace(one(), reservation="7d91130c")
    assert leases.body(asked, now=NINE)["start_date"] == "now"


def test_a_hostile_name_of_a_hypervisor_stays_one_word_of_the_question() -> None:
    asked = replace(wanted(), host='x"], ["==", "$vcpus", "1')
    (reservation,) = leases.body(asked, now=0)["reservations"]
    assert one(**reservation).host == asked.host


# --- told ----------------------------------------------------------------------------------------------------------


def test_a_lease_that_is_told_of_is_read() -> None:
    found = one()
    assert (found.start, found.end, found.created) == (NINE, NINE + 3600, NINE - 3600)
    assert (found.host, found.cores, found.memory, found.disk, found.whole) == ("node2", 2, 4096, 20, False)
    assert one(resource_properties="").host is None
    assert one(resource_properties='["and", 1]').host is None
    assert one(resource_properties="[").host is None
    whole = one(resource_type="physical:host", min=1, max=2)
    assert (whole.whole, whole.amount) == (True, 2)
    assert leases.lease({**told(), "reservations": [{"resource_type": "virtual:floatingip"}]}) is None


@pytest.mark.parametrize(
    ("change", "serves"),
    [
        ({}, True),
        ({"status": "ERROR"}, False),
        ({"status": "TERMINATED"}, False),
        ({"vcpus": 4}, False),
        ({"resource_properties": ""}, False),
    ],
)
def test_a_lease_that_is_there_serves_only_what_it_was_made_for(change: dict[str, Any], serves: bool) -> None:
    asked = wanted(NINE + 60, 3400)
    assert leases.serves(one(**change), asked, now=NINE - 600) is serves


def test_a_lease_that_ends_too_early_or_begins_too_late_does_not_serve() -> None:
    assert not leases.serves(one(), wanted(NINE + 60, 3600), now=NINE - 600)
    assert not leases.serves(one(), wanted(NINE, 600), now=NINE - 600)
    assert leases.serves(one(), wanted(NINE, 600), now=NINE + 5)  # it was made with the minute, as late as that


def test_names_of_others_are_not_ours() -> None:
    assert leases.session_of(f"ebhpc-{UUID}", "ebhpc") == UUID
    assert leases.session_of(f"ebhpcs-{UUID}", "ebhpc") is None
    assert leases.session_of("ebhpc", "ebhpc") is None


# --- snapshots -----------------------------------------------------------------------------------------------------


def node(name: str) -> Node:
    return Node(name=name, cores=8, memory=16384, devices={"scratch": 100})


def seen(running: Sequence[RunningJob] = ()) -> Snapshot:
    return Snapshot(
        platform="cloud",
        taken=NINE,
        nodes=(node("node1"), node("node2"), node("gpu1")),
        running=tuple(running),
        flavors=(
            Flavor(name="small", shape=SMALL),
            Flavor(name="gpu", shape=Shape(cores=4, memory=8192, devices={"scratch": 40, "gpu": 1})),
        ),
    )


def look(*bodies: dict[str, Any], servers: Sequence[records.Server] = ()) -> records.Look:
    return records.Look(project="p", servers=tuple(servers), flavors=(), quota=QUOTA, zones=(), leases=bodies)


def test_a_snapshot_has_the_pools_hypervisors_with_the_leases_on_them() -> None:
    found = leases.leased(seen(), look(told(), told(name="theirs"), told(status="TERMINATED")), SETTINGS, "ebhpc")
    assert [one.name for one in found.nodes] == ["node1", "node2"]
    assert [one.name for one in found.flavors or ()] == ["small"]
    ours, theirs = found.reservations
    assert (ours.session, ours.start, ours.end) == (UUID, NINE, NINE + 3600)
    assert ours.allocations == (Allocation(node="node2", cores=2, memory=4096, devices={"scratch": 20}),)
    assert (theirs.session, theirs.start, theirs.end) == (None, NINE - 120, NINE + 3720)
    assert found.scheduler is not None
    assert found.scheduler.gap == 240


def test_a_lease_whose_hypervisor_nobody_tells_counts_on_each() -> None:
    (found,) = leases.leased(seen(), look(told(resource_properties="")), SETTINGS, "ebhpc").reservations
    assert [(one.node, one.cores) for one in found.allocations] == [("node1", 2), ("node2", 2)]
    (found,) = leases.leased(
        seen(), look(told(resource_properties="", resource_type="physical:host", max=1)), SETTINGS, "ebhpc"
    ).reservations
    assert [(one.node, one.cores) for one in found.allocations] == [("node1", 8), ("node2", 8)]


def test_a_server_in_a_lease_is_not_counted_beside_it() -> None:
    flavor = records.Flavor(id="", name="reservation:7d91130c", cores=2, memory=4096, disk=20, specs={})
    server = records.server({"id": "s", "name": "theirs", "status": "ACTIVE"})
    job = RunningJob(id="s", allocations=(Allocation(node="node2", cores=2, memory=4096),), started=NINE)
    other = replace(job, id="t", allocations=(Allocation(node="gpu1", cores=2, memory=4096),), licences={"quota": 1})
    given = look(told(name="theirs"), servers=[replace(server, flavor=flavor)])
    found = leases.leased(seen([job, other]), given, SETTINGS, "ebhpc")
    assert [(one.id, one.reservation) for one in found.running] == [("s", "b45ef719"), ("t", None)]
    assert found.running[1].allocations == ()  # not of the pool, and yet it counts in the quota
    assert flavor.leased


def test_a_platform_without_leases_leaves_the_pool_alone() -> None:
    job = RunningJob(id="s", allocations=(Allocation(node="node2", cores=2, memory=4096),), started=NINE)
    found = leases.left(seen([job]), replace(SETTINGS, offered=False))
    assert [one.name for one in found.nodes] == ["gpu1"]
    assert found.running == ()
    assert len(found.flavors or ()) == 2


# --- what Blazar says, through an asker that answers from a list ----------------------------------------------------


class Recorded:
    """An asker that gives recorded answers, one for each call, and keeps the calls."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.calls: list[Call] = []

    def ask(self, calls: Sequence[Call], *, seconds: float | None = None) -> list[Answer]:
        self.calls += calls
        return [self.answers.pop(0) for _ in calls]

    def close(self) -> None:
        """Nothing was started."""


Asked = Callable[..., tuple[Recorded, Leases]]


@pytest.fixture
def asked(tmp_path: Path) -> Asked:
    """Leases of a Blazar that gives these answers."""

    def build(*answers: Answer) -> tuple[Recorded, Leases]:
        recorded = Recorded(*answers)
        cloud = Cloud(recorded, "ebhpc")
        return recorded, Leases(SETTINGS, cloud, "ebhpc", tmp_path, lambda: NINE - 3600, lambda seconds: None)

    return build


def listed(*bodies: dict[str, Any]) -> Answer:
    return Answer(status=200, body={"leases": list(bodies)})


def refusal(text: str, status: int = 403) -> Answer:
    return Answer(status=status, body={"error_code": status, "error_message": text, "error_name": status})


MADE = Answer(status=201, body={"lease": told()})
ROOM = Answer(
    status=200,
    body={
        "providers": [
            {
                "uuid": "n",
                "name": "node2",
                "resources": {
                    "VCPU": {"capacity": 4, "used": 0},
                    "MEMORY_MB": {"capacity": 8192, "used": 0},
                    "DISK_GB": {"capacity": 100, "used": 0},
                },
            }
        ]
    },
)
THERE = {**told(), "start_date": "2026-11-24T08:59:00.000000", "end_date": "2026-11-24T09:11:00.000000"}
HELD = replace(session(uuid=UUID, shape=MEDIUM, node="node2", firm=True), start=NINE, latest=NINE, end=NINE + 600)


def test_a_refusal_is_told_in_blazars_words(asked: Asked) -> None:
    _, held = asked(listed(), ROOM, refusal("Not enough hosts available", 500), listed())
    with pytest.raises(SessionFailed, match=re.escape("Blazar does not give the lease: Not enough hosts available.")):
        held.hold(HELD)


def test_a_lease_that_was_asked_for_before_is_taken_where_it_is_what_leaves_no_room(asked: Asked) -> None:
    recorded, held = asked(listed(), ROOM, refusal("Not enough hosts available", 500), listed(THERE))
    assert held.hold(HELD) == f"ebhpc-{UUID}"
    assert [call.method for call in recorded.calls] == ["GET", "GET", "POST", "GET"]


def test_a_lease_that_is_being_made_is_waited_for(asked: Asked) -> None:
    recorded, held = asked(listed({**told(status="CREATING"), "reservations": []}), ROOM)
    with pytest.raises(Unanswered, match="has not made it yet"):
        held.hold(HELD)
    assert [call.method for call in recorded.calls] == ["GET", "GET"]


def test_a_failure_of_blazars_own_is_no_refusal(asked: Asked) -> None:
    _, held = asked(listed(), ROOM, refusal("Internal Server Error", 500))
    with pytest.raises(Unanswered, match="Internal Server Error"):
        held.hold(HELD)


def test_a_start_that_has_passed_by_blazars_clock_begins_now(asked: Asked) -> None:
    recorded, held = asked(listed(), ROOM, refusal("Start date must be later than current date"), MADE, listed(THERE))
    assert held.hold(HELD) == f"ebhpc-{UUID}"
    assert [call.json["start_date"] for call in recorded.calls if call.method == "POST"] == ["2026-11-24 08:59", "now"]


def test_of_two_leases_of_one_name_one_stays(asked: Asked) -> None:
    early = {**THERE, "id": "first"}
    late = {**early, "id": "second", "created_at": "2026-11-24 08:00:01"}
    recorded, held = asked(listed(late, early), ROOM, Answer(status=204))
    held.hold(HELD)
    assert [(call.method, call.path) for call in recorded.calls[2:]] == [("DELETE", "/leases/second")]


# --- the same room, given twice by a Blazar that was asked twice at the same time -----------------------------------


def other(**more: Any) -> dict[str, Any]:
    """Somebody else's lease of three of the four cores, made in the same second as ours."""
    found = told(name="theirs", vcpus=3)
    return {**found, "id": "z-theirs", **more}


@pytest.mark.parametrize(
    ("theirs", "crowded"),
    [
        ({}, True),
        ({"created_at": "2026-11-24 07:59:59"}, True),
        ({"created_at": "2026-11-24 08:00:01"}, False),
        ({"status": "TERMINATED"}, False),
        ({"status": "CREATING", "reservations": []}, True),
        ({"start_date": "2026-11-24T09:11:00.000000"}, False),
        ({"start_date": "2026-11-24T09:10:00.000000"}, True),
        ({"end_date": "2026-11-24T08:59:00.000000", "start_date": "2026-11-24T08:00:00.000000"}, False),
        ({"reservations": [{**told()["reservations"][0], "vcpus": 2}]}, False),
        ({"reservations": [{**told()["reservations"][0], "vcpus": 1, "memory_mb": 4097}]}, True),
        ({"reservations": [{**told()["reservations"][0], "vcpus": 1, "disk_gb": 81}]}, True),
        ({"reservations": [{**told(vcpus=3)["reservations"][0], "resource_properties": ""}]}, True),
        ({"reservations": [{"id": "r", "resource_type": "physical:host", "max": 1}]}, True),
    ],
)
def test_a_lease_that_was_given_beside_another_older_one_is_known_by_the_sizes(
    theirs: dict[str, Any], crowded: bool
) -> None:
    mine = leases.lease(THERE)
    assert mine is not None
    capacity = {"VCPU": 4, "MEMORY_MB": 8192, "DISK_GB": 100}
    known = [mine, *leases.leases([other(**theirs)])]
    assert [one.id for one in leases.crowding(mine, known, capacity)] == (["z-theirs"] if crowded else [])


def test_of_two_who_were_given_the_same_the_younger_leaves_it(asked: Asked) -> None:
    older = other(created_at="2026-11-24 07:59:59")
    recorded, held = asked(listed(), ROOM, MADE, listed(THERE, older), Answer(status=204))
    with pytest.raises(SessionFailed, match="somebody else has asked for the same at the same time"):
        held.hold(HELD)
    assert recorded.calls[-1].method == "DELETE"
    assert recorded.calls[-1].path == f"/leases/{THERE['id']}"


def test_of_two_who_were_given_the_same_in_one_second_one_tries_again(asked: Asked) -> None:
    again = [listed(), ROOM, MADE, listed(THERE)]
    recorded, held = asked(listed(), ROOM, MADE, listed(THERE, other()), Answer(status=204), *again)
    assert held.hold(HELD) == f"ebhpc-{UUID}"
    assert recorded.answers == []
    _, held = asked(listed(), ROOM, MADE, listed(THERE, other(id="a-theirs")), Answer(status=204))
    with pytest.raises(SessionFailed, match="somebody else"):
        held.hold(HELD)


@pytest.mark.parametrize(
    ("bodies", "expected"),
    [
        ([told(status="ACTIVE")], "7d91130c"),
        ([told(status="PENDING")], "its lease has not begun yet"),
        ([told(status="STARTING")], "its lease has not begun yet"),
        ([told(status="TERMINATING")], "Blazar has ended the session's lease."),
        ([told(status="TERMINATED")], "Blazar has ended the session's lease."),
        ([told(status="ERROR")], "Blazar could not begin or end the session's lease."),
        ([], "The session's lease is gone: somebody has deleted it."),
    ],
)
def test_a_server_is_made_only_in_a_lease_that_has_begun(
    bodies: list[dict[str, Any]], expected: str, asked: Asked
) -> None:
    _, held = asked(listed(*bodies))
    found = held.flavors([HELD])[UUID]
    assert str(found) == expected
    assert isinstance(found, NotBegun) is (expected == "its lease has not begun yet")


# --- settings, and what is checked ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"leases": {}}, "hosts"),
        ({"leases": {"hosts": []}}, "settings.leases.hosts"),
        ({"leases": {"hosts": ["a\nb"]}}, "settings.leases.hosts"),
        ({"leases": {"hosts": ["a"]}, "capacity": "own"}, "without pin and capacity: own"),
    ],
)
def test_a_wrong_setting_of_leases_is_told(tmp_path: Path, wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(words)):
        ebhpc_platform("openstack", "cloud", {**LEAST, **wrong}, tmp_path)


def test_leases_are_firm_and_the_platform_beside_them_goes_on_as_before(tmp_path: Path) -> None:
    firm = ebhpc_platform("openstack", "cloud", {**LEAST, "leases": {"hosts": ["a"]}}, tmp_path)
    assert isinstance(firm, LeasedPlatform)
    assert firm.ebhpc_promises() == ("reservation",)
    beside = ebhpc_platform("openstack", "cloud", {**LEAST, "leases": {"hosts": ["a"], "offered": False}}, tmp_path)
    assert isinstance(beside, OpenStackPlatform)
    assert not isinstance(beside, LeasedPlatform)
    assert beside.ebhpc_promises() == ("queue",)


def findings(*answers: Answer, providers: tuple[records.Provider, ...] | None = ()) -> list[str]:
    settings = OpenStackSettings(**_built())
    found = lease_checks.findings(settings, Cloud(Recorded(*answers), "ebhpc"), replace(look(), providers=providers))
    return [f"{one.level}: {one.text}" for one in found]


def _built() -> dict[str, Any]:
    platform = ebhpc_platform("openstack", "cloud", {**LEAST, "leases": {"hosts": ["node1"]}}, Path("/s"))
    assert isinstance(platform, OpenStackPlatform)
    return {name: getattr(platform.settings, name) for name in platform.settings.__struct_fields__}


WHO = Answer(status=200, body={"user": "u", "project": "p"})
NODE1 = (records.Provider(name="node1", capacity={"VCPU": 8}, used={}),)


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ([Answer(status=0, fault="EndpointNotFound", body={"text": "no endpoint"})], "Blazar is not reached"),
        ([refusal("Policy does not allow")], "does not let us see leases: Policy does not allow"),
        ([Answer(status=503, body={})], "Blazar does not answer"),
        ([listed(), WHO, Answer(status=403, body={"error": {"message": "not allowed"}})], "make no trusts"),
    ],
)
def test_blazar_that_is_missing_or_not_allowed_is_told(answers: list[Answer], words: str) -> None:
    found = findings(*answers, providers=NODE1)
    assert any(one.startswith("ERROR") and words in one for one in found), found


def test_hypervisors_that_nobody_knows_are_told() -> None:
    good = [listed(told()), WHO, Answer(status=404, body={})]
    assert findings(*good, providers=NODE1) == ["INFO: 1 hypervisors are offered by leases; the project has 1 now"]
    assert "ERROR: placement knows no hypervisor node1" in findings(*good)
    assert any("placement is not open" in one for one in findings(*good, providers=None))
