"""Leases of a real Blazar: firm offers, two users after one window, the end, and what is left behind."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from openstack_lab import MEDIUM, SMALL, Place, ended, notebook, ready, runs, served, session, submitted, until
from openstack_lab import words as said
from test_openstack_broker import end_of, request, running, words

from ebhpc.client import Broker
from ebhpc.model import Phase, Shape
from ebhpc.plugins import SessionFailed
from ebhpc_openstack import leasing as asked_of_blazar
from ebhpc_openstack.asking import CloudFault, NotReached, Unanswered
from ebhpc_openstack.leased_platform import LeasedPlatform
from ebhpc_openstack.platform import OpenStackPlatform
from tests.broker import RunningBroker
from tests.lab.openstack import Cloud
from tests.lab.openstack.blazar import Blazar, leasing

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]

HOST = "node2"
WHOLE = Shape(cores=8, memory=16384, devices={"scratch": 100})
"""All of it."""
EARLY = 30
"""Seconds that the first session's start lies in the future at least; the tests before the last go on meanwhile."""
PASSWORD = "another password for tests only"

SETTINGS: dict[str, Any] = {"cloud": "leases", "leases": {"hosts": [HOST], "before": "0s", "after": "0s"}}
FIRM: dict[str, Any] = {"reserve_at": "offer", "settings": SETTINGS, "timeout": "60s"}
SITE: dict[str, Any] = {"offers": {"lifetime": "75s", "per_platform": 1}}
"""Longer than leases take on the slowest machine, and as short as can be: one offer is left to expire."""


@pytest.fixture(scope="module")
def blazar(openstack: Cloud) -> Iterator[Blazar]:
    openstack.clean()
    with leasing(openstack, HOST) as started:
        yield started


@pytest.fixture
def place(blazar: Blazar, tmp_path: Path) -> Iterator[Place]:
    here = Place(blazar.cloud, tmp_path)
    yield here
    here.close()


def leased(place: Place, **more: Any) -> LeasedPlatform:
    platform = place.platform(**{**SETTINGS, "prefix": "hooks", **more})
    assert isinstance(platform, LeasedPlatform)
    return platform


def moment(instant: float) -> str:
    return datetime.fromtimestamp(instant, UTC).isoformat()


def named(blazar: Blazar, name: str) -> list[dict[str, Any]]:
    """Return the leases of a name; Blazar allows several."""
    listed: list[dict[str, Any]] = blazar.ask("/leases").raise_for_status().json()["leases"]
    return [one for one in listed if one["name"] == name]


# --- a broker whose first session waits for its minute, while the others are looked at -------------------------------


class Firm:
    """A broker that has reserved what it offers, and its first session, which starts at a whole minute."""

    def __init__(self, blazar: Blazar, broker: RunningBroker, client: Broker, url: str) -> None:
        self.blazar = blazar
        self.broker = broker
        self.client = client
        self.url = url
        self.start = _next_minute(time.time() + EARLY)
        wanted = request(url, {"min": 1, "max": 1}, start=f"{moment(self.start)}/{moment(self.start)}")
        offers = client.offers(wanted)
        assert offers.result == "YES", offers
        self.first = str(offers.offers[0].meta.uuid)
        self.before = named(blazar, f"ebhpc-{self.first}")
        client.accept(self.first)
        # Nobody accepts this one
        self.left = str(client.offers(self.later(8)).offers[0].meta.uuid)
        assert named(blazar, f"ebhpc-{self.left}")

    def later(self, hours: int, window: int = 0, cores: int = 3) -> dict[str, Any]:
        """Return a request for a server hours from now, in a window of seconds."""
        begin = self.start + 3600 * hours
        return request(self.url, {"min": cores}, start=f"{moment(begin)}/{moment(begin + window)}")


def _next_minute(instant: float) -> int:
    return int(-(-instant // 60) * 60)


@pytest.fixture(scope="module")
def firm(blazar: Blazar, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Firm]:
    folder = tmp_path_factory.mktemp("firm")
    notebook(folder, "import os; print('hello from', os.environ['EBHPC_CORES'], 'cores')")
    place = Place(blazar.cloud, folder)
    with served(folder) as url, running(place, folder, SITE, **FIRM) as broker, broker.client() as client:
        secret = folder / "ben"
        secret.write_text(PASSWORD + "\n", encoding="utf-8")
        broker.command("account", "add", "ben", "--password-file", str(secret))
        yield Firm(blazar, broker, client, url)


def test_an_offer_has_a_lease_on_its_hypervisor_before_it_is_shown(firm: Firm) -> None:
    (lease,) = firm.before
    assert lease["status"] == "PENDING"
    assert lease["start_date"].startswith(datetime.fromtimestamp(firm.start, UTC).strftime("%Y-%m-%dT%H:%M:00"))
    (reservation,) = lease["reservations"]
    assert (reservation["vcpus"], reservation["memory_mb"], reservation["disk_gb"]) == (1, 1024, 10)
    assert HOST in reservation["resource_properties"]


def test_of_two_users_after_one_window_one_gets_it_and_the_other_the_next_or_an_honest_no(firm: Firm) -> None:
    blazar, client = firm.blazar, firm.client
    begin = firm.start + 2 * 3600
    span = [datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M") for at in (begin - 600, begin + 600)]
    # Of another project's lease the broker learns nothing: half of the hypervisor is left, and it knows of all
    blazar.take("theirs", *span, vcpus=4, memory_mb=8192, disk_gb=10)
    with Broker(firm.broker.url, username="ben", password=PASSWORD) as ben, ThreadPoolExecutor(2) as threads:
        asked = [threads.submit(one.offers, firm.later(2)) for one in (client, ben)]
        answers = [one.result() for one in asked]
        assert sorted(one.result for one in answers) == ["NO", "YES"], f"{answers}\n{firm.broker.logs()}"
        winner = next(number for number, one in enumerate(answers) if one.result == "YES")
        taken = str(answers[winner].offers[0].meta.uuid)
        no = answers[1 - winner]
        told = " ".join(str(one) for one in no.meta.messages or ())
        assert "did not reserve what was planned" in told, told
        assert "Not enough hosts available" in told, told
        loser, held = (ben, client) if winner == 0 else (client, ben)
        offers = loser.offers(firm.later(2, window=7200))
        assert offers.result == "YES", offers
        other = str(offers.offers[0].meta.uuid)
        (lease,) = named(blazar, f"ebhpc-{other}")
        assert lease["start_date"] >= datetime.fromtimestamp(begin + 120, UTC).strftime("%Y-%m-%dT%H:%M")
        held.reject(taken)
        loser.reject(other)
    blazar.cloud.until(
        lambda: not named(blazar, f"ebhpc-{taken}") and not named(blazar, f"ebhpc-{other}"),
        240,
        "their leases are gone",
    )
    (theirs,) = named(blazar, "theirs")
    blazar.delete(theirs["id"])


def test_a_driver_killed_between_the_lease_and_its_record_has_one_lease(blazar: Blazar, tmp_path: Path) -> None:
    place = Place(blazar.cloud, tmp_path)
    settings = {**SETTINGS, "prefix": "late"}
    with running(place, tmp_path, settings=settings, timeout="60s") as broker, broker.client() as client:
        begin = _next_minute(time.time() + 4 * 3600)
        wanted = request("http://127.0.0.1:9", {"min": 1}, start=f"{moment(begin)}/{moment(begin)}")
        offers = client.offers(wanted)
        assert offers.result == "YES", offers
        uuid = str(offers.offers[0].meta.uuid)
        assert named(blazar, f"late-{uuid}") == []
        armed = tmp_path / "faults" / "armed"
        armed.write_text("openstack.lease.after 1", encoding="utf-8")
        client.accept(uuid)
        blazar.cloud.until(lambda: not armed.exists(), 240, "the driver was killed")
        broker.kill("drive")
        (made,) = named(blazar, f"late-{uuid}")
        broker.start("drive")
        blazar.cloud.until(lambda: client.session(uuid).phase is Phase.WAITING, 240, "the session has its lease")
        assert [one["id"] for one in named(blazar, f"late-{uuid}")] == [made["id"]]
        client.cancel(uuid)
        blazar.cloud.until(lambda: not named(blazar, f"late-{uuid}"), 240, "its lease is gone")


# --- hook by hook ----------------------------------------------------------------------------------------------------


def test_a_lease_is_made_once_told_of_and_deleted_when_nobody_has_it(place: Place, blazar: Blazar) -> None:
    platform = leased(place)
    one = session(shape=MEDIUM, node=HOST, firm=True, start=5 * 3600)
    name = platform.ebhpc_hold(one)
    assert name == f"hooks-{one.uuid}"
    (made,) = named(blazar, name)
    again = leased(place)
    assert again.ebhpc_hold(one) == name
    assert [lease["id"] for lease in named(blazar, name)] == [made["id"]]
    seen = again.ebhpc_snapshot(int(time.time()))
    assert [node.name for node in seen.nodes] == [HOST]
    (kept,) = [lease for lease in seen.reservations if lease.session == one.uuid]
    assert kept.allocations[0].node == HOST
    assert kept.start <= one.start
    assert kept.end >= one.end
    smaller = replace(one, allocations=(replace(one.allocations[0], cores=SMALL.cores, memory=SMALL.memory),))
    platform.ebhpc_hold(smaller)
    (changed,) = named(blazar, name)
    assert changed["id"] != made["id"]
    assert changed["reservations"][0]["vcpus"] == SMALL.cores
    platform.ebhpc_reconcile([])
    assert named(blazar, name), "it is young: its session may have come after the list"
    settings, host = platform.settings, platform.host
    orphaned = LeasedPlatform("cloud", settings, place.state, host, clock=lambda: time.time() + 3600)
    orphaned.ebhpc_reconcile([one])
    assert named(blazar, name)
    orphaned.ebhpc_reconcile([])
    assert not named(blazar, name)
    platform.ebhpc_release(one)


@pytest.fixture
def elsewhere(blazar: Blazar, tmp_path: Path) -> Iterator[Place]:
    here = Place(blazar.cloud, tmp_path / "elsewhere")
    yield here
    here.close()


def test_two_brokers_after_one_hypervisor_get_it_once_and_leave_each_others_leases(
    place: Place, elsewhere: Place, blazar: Blazar
) -> None:
    first, second = leased(place), leased(elsewhere, prefix="others")
    wanted = {one: session(shape=WHOLE, node=HOST, firm=True, start=6 * 3600) for one in (first, second)}

    told: list[str] = []

    def held(platform: LeasedPlatform) -> bool:
        try:
            return platform.ebhpc_hold(wanted[platform]) is not None
        except SessionFailed as refused:
            told.append(str(refused))
            return False

    with ThreadPoolExecutor(2) as threads:
        won = dict(zip(wanted, threads.map(held, wanted), strict=True))
    names = {one: f"{one.settings.prefix}-{wanted[one].uuid}" for one in wanted}
    assert list(won.values()).count(True) <= 1
    assert {one: bool(named(blazar, names[one])) for one in wanted} == won
    winner = next((one for one in wanted if won[one]), first)
    loser = second if winner is first else first
    assert held(winner)
    assert not held(loser)
    # Where Blazar was asked by both at once, it has given both the same, and one has left it, or both have
    assert all("Not enough hosts available" in why or "at the same time" in why for why in told), told
    seen = loser.ebhpc_snapshot(int(time.time()))
    (taken,) = [one for one in seen.reservations if one.start <= wanted[winner].start < one.end]
    assert (taken.session, taken.allocations[0].cores) == (None, WHOLE.cores)
    old = LeasedPlatform("cloud", loser.settings, loser.state, loser.host, clock=lambda: time.time() + 3600)
    old.ebhpc_reconcile([])
    assert named(blazar, names[winner])
    winner.ebhpc_release(wanted[winner])
    assert not named(blazar, names[winner])


def test_a_blazar_that_is_held_up_or_gone_is_told_and_what_it_makes_later_is_one_lease(
    place: Place, blazar: Blazar, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform = leased(place)
    one = session(shape=WHOLE, node=HOST, firm=True, start=9 * 3600)
    name = f"hooks-{one.uuid}"
    with monkeypatch.context() as patch, ExitStack() as held:

        def hold_up(where: str, _: str) -> None:
            """Have nobody answer who is asked for the lease, and not wait for that for long."""
            if where == "openstack.lease.before":
                held.enter_context(blazar.cloud.held("blazar-manager"))
                patch.setattr(platform.host, "_within", 1.0)

        patch.setattr(asked_of_blazar, "point", hold_up)
        with pytest.raises(Unanswered):
            platform.ebhpc_hold(one)
        with pytest.raises(Unanswered):
            platform.ebhpc_snapshot(int(time.time()))

    def again() -> bool:
        try:
            return platform.ebhpc_hold(one) == name
        except CloudFault:
            return False

    blazar.cloud.until(again, 240, "Blazar gives the lease")
    assert len(named(blazar, name)) == 1
    with blazar.without_api():
        with pytest.raises(NotReached):
            platform.ebhpc_snapshot(int(time.time()))
        assert any("Blazar is not reached" in found.text for found in platform.ebhpc_check())
    platform.ebhpc_release(one)
    assert not named(blazar, name)


def test_a_lease_that_somebody_deletes_before_its_start_is_told(place: Place, blazar: Blazar) -> None:
    platform = leased(place)
    one = session(shape=SMALL, node=HOST, firm=True)
    (lease,) = named(blazar, str(platform.ebhpc_hold(one)))
    blazar.delete(lease["id"])
    with pytest.raises(SessionFailed, match="The session's lease is gone: somebody has deleted it"):
        submitted(platform, ready(platform, one))
    assert not place.cloud.servers()


def test_a_lease_that_blazar_ends_takes_the_server_with_it_and_the_session_is_told(
    place: Place, blazar: Blazar, tmp_path: Path
) -> None:
    notebook(tmp_path, "import time; time.sleep(600)")
    with served(tmp_path) as url:
        platform = leased(place)
        one = session(f"{url}/note.ipynb", shape=SMALL, node=HOST, firm=True, duration=900)
        platform.ebhpc_hold(one)
        one = submitted(platform, ready(platform, one))
        until(platform, one, runs)
        (server,) = [found for found in place.cloud.servers() if found["name"] == f"hooks-{one.uuid}"]
        assert server["OS-EXT-SRV-ATTR:host"] == HOST
        (lease,) = named(blazar, f"hooks-{one.uuid}")
        blazar.cloud.until(
            lambda: blazar.ask(f"/leases/{lease['id']}", "PUT", {"end_date": "now"}).is_success, 120, "Blazar ends it"
        )
        seen = until(platform, one, ended)
        assert seen.state == "FAILED"
        assert "Blazar has ended the session's lease, and the server with it" in said(seen)
        platform.ebhpc_cleanup(one)

        def released() -> bool:
            """While Blazar ends a lease it does not let it be deleted; a driver tries on, too."""
            try:
                platform.ebhpc_release(one)
            except CloudFault:
                return False
            return True

        blazar.cloud.until(released, 240, "the lease is given back")
        assert not named(blazar, f"hooks-{one.uuid}")


def test_what_leases_lack_is_told_and_the_other_hypervisors_are_offered_as_before(
    place: Place, blazar: Blazar, firm: Firm
) -> None:
    def bad(platform: OpenStackPlatform) -> list[str]:
        return [one.text for one in platform.ebhpc_check() if one.level in ("WARN", "ERROR")]

    assert bad(leased(place)) == []
    (told,) = bad(leased(place, cloud="planner"))
    assert "no trusts" in told
    assert any("no hypervisor node9" in one for one in bad(leased(place, leases={"hosts": [HOST, "node9"]})))
    beside = place.platform(leases={"hosts": [HOST], "offered": False})
    seen = beside.ebhpc_snapshot(int(time.time()))
    assert sorted(node.name for node in seen.nodes) == ["gpu1", "node1"]
    assert {one.name for one in seen.flavors or ()} == {"small", "medium", "large", "gpu", "huge"}


def test_the_accepted_session_starts_at_its_minute_on_the_leased_host_and_its_lease_goes_with_it(firm: Firm) -> None:
    blazar, client = firm.blazar, firm.client
    name = f"ebhpc-{firm.first}"
    found: list[dict[str, Any]] = []

    def there() -> bool:
        found[:] = [one for one in blazar.cloud.servers() + blazar.cloud.servers(deleted=True) if one["name"] == name]
        return bool(found and found[0]["OS-SRV-USG:launched_at"])

    blazar.cloud.until(there, 600, "the server is there")
    session = end_of(client, firm.first, 600)
    assert session.phase is Phase.COMPLETED, f"{words(session)}\n{firm.broker.logs()}"
    assert "hello from 1 cores" in b"".join(client.read_output(firm.first, "results/note.ipynb")).decode()
    server = found[0]
    assert server["OS-EXT-SRV-ATTR:host"] == HOST
    (reservation,) = firm.before[0]["reservations"]
    assert server["flavor"]["original_name"] == f"reservation:{reservation['id']}"
    assert datetime.fromisoformat(server["created"]).timestamp() >= firm.start
    blazar.cloud.until(lambda: not named(blazar, name), 240, "its lease is gone")
    blazar.cloud.until(lambda: not blazar.cloud.servers(), 240, "no server is left")
    blazar.cloud.until(lambda: client.session(firm.left).phase is Phase.EXPIRED, 240, "nobody took the other offer")
    blazar.cloud.until(lambda: not named(blazar, f"ebhpc-{firm.left}"), 240, "its lease is gone")
