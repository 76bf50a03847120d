"""Sessions' storage as volumes of a real Cinder: made, mounted, deleted always."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openstack_lab import Place, ended, notebook, ready, served, session, submitted, text_of, until, words
from test_openstack_broker import offered, request, running

from ebhpc.model import Demand, Metadata, Range, Session, Shape, SimpleStorage, SimpleVolume, kinds
from ebhpc.planning import Timeline, stored, why_never
from ebhpc.plugins import SessionFailed
from ebhpc_openstack import notes, volumes
from ebhpc_openstack.asking import CloudFault, Refused, Unanswered
from ebhpc_openstack.platform import OpenStackPlatform
from ebhpc_openstack.snapshot import VOLUME_GIB, VOLUMES
from tests.lab.openstack import Cloud
from tests.labs import require

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]


@pytest.fixture(scope="module", autouse=True)
def _loop_devices_and_no_cinder_afterwards(openstack: Cloud) -> Iterator[None]:
    require(Path("/dev/loop-control").exists(), "guests have volumes as loop devices: needs /dev/loop-control")
    yield
    openstack.clean()
    openstack.stop_block_storage()


STORED = {"volumes": {"through": "cinder"}}


def with_storage(url: str = "http://127.0.0.1:9/note.ipynb", **more: Any) -> Session:
    """Return a session with a storage of 2 GiB that its job sees as ``kept``, and one without a size."""
    element = SimpleStorage(size=Range(min=2), meta=Metadata(name="large"))
    volume = SimpleVolume(path="kept", mode="READWRITE", resource="large")
    return session(url, storage=(element, SimpleStorage()), volumes=(volume,), **more)


def of(place: Place, one: Session) -> list[dict[str, Any]]:
    """Return a session's volumes, as the administrator sees them."""
    return [found for found in place.cloud.volumes() if found["metadata"].get("ebhpc_session") == one.uuid]


def unread(port: int) -> bool:
    """Whether a question has come to a port of loopback, and nobody has read it yet."""
    for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]:
        _, local, _, state, queues, *_ = line.split()
        if state == "01" and int(local.partition(":")[2], 16) == port and int(queues.partition(":")[2], 16) > 0:
            return True
    return False


def gone(place: Place, platform: OpenStackPlatform, one: Session) -> None:
    """End a session, and see that neither a server nor a volume is left of it."""
    deadline = time.monotonic() + 240
    while True:
        try:
            platform.ebhpc_cancel(one)
            platform.ebhpc_cleanup(one)
            break
        except CloudFault:
            assert time.monotonic() < deadline
            time.sleep(0.5)
    servers = place.cloud.servers
    place.cloud.until(lambda: not [s for s in servers() if s["name"] == f"ebhpc-{one.uuid}"], 240, "its server is gone")
    place.cloud.until(lambda: not of(place, one), 240, "its volumes are gone")


def test_storage_of_a_size_is_a_volume_that_the_job_has_and_that_goes_with_it(place: Place, tmp_path: Path) -> None:
    place.cloud.start_block_storage()
    platform = place.platform(**STORED)
    source = (
        "import os; place = os.path.realpath('kept'); open('kept/x', 'w').write('x' * 1000000);"
        "room = os.statvfs(place);"
        "print(os.path.ismount(place), round(room.f_blocks * room.f_frsize / 2**30), os.listdir(place))"
    )
    notebook(tmp_path, source)
    with served(tmp_path) as url:
        one = submitted(platform, ready(platform, with_storage(f"{url}/note.ipynb")))
        seen = until(platform, one, ended, 480)
        assert seen.state == "SUCCEEDED", seen
        (found,) = of(place, one)
        assert (found["size"], found["status"], found["name"]) == (2, "in-use", f"ebhpc-{one.uuid}-0")
        (job,) = [job for job in platform.ebhpc_snapshot(int(time.time())).running if job.session == one.uuid]
        assert (job.licences[VOLUMES], job.licences[VOLUME_GIB]) == (1, 2)
    assert "True 2 ['x']" in text_of(platform, one, "results/note.ipynb")
    gone(place, platform, one)


def test_a_connection_cut_while_a_volume_is_asked_for_leaves_one_volume(place: Place) -> None:
    place.cloud.start_block_storage()
    platform = place.platform(answer_within="30s", **STORED)
    one = ready(platform, with_storage())
    platform.ebhpc_snapshot(int(time.time()))
    platform.launches.body(one)
    # Cinder takes the question while it is held, and carries it out when nobody waits for the answer any more
    faults: list[Exception] = []
    asked = platform.launches.volumes._make

    def asked_while_held(*given: Any) -> None:
        with place.cloud.held("cinder-api"):
            cut = threading.Thread(target=cutting)
            cut.start()
            try:
                asked(*given)
            finally:
                cut.join(120)

    def cutting() -> None:
        place.cloud.until(lambda: unread(place.cloud.ports.cinder), 60, "a question lies before the service")
        place.cloud.cut()

    platform.launches.volumes._make = asked_while_held  # type: ignore[method-assign]
    try:
        platform.ebhpc_submit(one)
    except CloudFault as fault:
        faults.append(fault)
    platform.launches.volumes._make = asked  # type: ignore[method-assign]
    assert faults
    assert notes.read(platform.settings.jobs.root, one.uuid).volumes is not None
    deadline, uuid = time.monotonic() + 300, one.uuid
    while True:
        try:
            one = submitted(platform, one)
            until(platform, one, lambda _: f"ebhpc-{uuid}" in [server["name"] for server in place.cloud.servers()])
            break
        except CloudFault:
            assert time.monotonic() < deadline
            time.sleep(1)
    assert len(of(place, one)) == 1
    gone(place, platform, one)


def test_a_session_that_is_cancelled_while_its_volume_is_made_leaves_none(place: Place) -> None:
    place.cloud.start_block_storage()
    platform = place.platform(**STORED)
    one = ready(platform, with_storage())
    platform.ebhpc_snapshot(int(time.time()))
    with place.cloud.held("cinder-volume"):
        one = submitted(platform, one)
        (found,) = of(place, one)
        assert found["status"] == "creating"
        with pytest.raises(Unanswered, match="being made"):
            platform.ebhpc_cancel(one)
    gone(place, platform, one)


def test_an_offer_takes_its_storage_from_the_quota_and_names_it_where_there_is_too_little(
    place: Place, tmp_path: Path
) -> None:
    place.cloud.start_block_storage()
    place.cloud.volume_quota(volumes=10, gigabytes=3)
    with running(place, tmp_path, settings=STORED) as broker, broker.client() as client:
        wanted = request("http://127.0.0.1:9", {"min": 1})
        offers = offered(client, {**wanted, "storage": [{"kind": kinds.SIMPLE_STORAGE, "size": {"min": 2}}]})
        (storage,) = offers.offers[0].storage
        assert storage.size.min == 2
        none = client.offers({**wanted, "storage": [{"kind": kinds.SIMPLE_STORAGE, "size": {"min": 4}}]})
        assert none.result == "NO"
        assert "Storage takes 4 of quota-volume-gib; cloud has 3." in str(none), none


def test_a_quota_of_volumes_that_others_took_is_waited_for_by_who_has_an_expectation_alone(place: Place) -> None:
    place.cloud.start_block_storage()
    platform = place.platform(retry="0s", **STORED)
    place.cloud.volume_quota(volumes=0)
    seen = platform.ebhpc_snapshot(int(time.time()))
    assert seen.licences[VOLUMES] == 0
    kept = ready(platform, with_storage(firm=True))
    with pytest.raises(Refused, match=r"(?i)quota"):
        platform.ebhpc_submit(kept)
    one = submitted(platform, ready(platform, with_storage()))
    (said,) = platform.ebhpc_observe([one])
    assert said.state == "PENDING"
    assert "quota" in words(said).lower()
    place.cloud.volume_quota(volumes=10)
    until(platform, one, lambda _: len(of(place, one)) == 1)
    assert of(place, kept) == []
    gone(place, platform, one)


def test_what_cinder_says_of_a_volume_that_it_cannot_make_is_told(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.cloud.start_block_storage()
    unknown = place.platform(volumes={"through": "cinder", "type": "no such type"})
    with pytest.raises(SessionFailed, match="no such type"):
        unknown.ebhpc_submit(ready(unknown, with_storage()))
    platform = place.platform(**STORED)
    usual = platform.launches.volumes._body

    def failing(*given: Any) -> dict[str, Any]:
        body = usual(*given)
        return {**body, "metadata": {**body["metadata"], "lab_create_fails": "no disk left"}}

    monkeypatch.setattr(platform.launches.volumes, "_body", failing)
    one = submitted(platform, ready(platform, with_storage()))
    said = until(platform, one, ended)
    assert said.state == "FAILED"
    assert "could not make the volume of 2 GiB" in words(said)
    gone(place, platform, one)


def test_orphaned_and_second_volumes_are_deleted_and_a_sessions_own_is_not(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.cloud.start_block_storage()
    platform = place.platform(**STORED)
    orphan, kept = (ready(platform, with_storage()) for _ in range(2))
    for one in (orphan, kept):
        platform.ebhpc_submit(one)  # asks for the volume, and does not wait for it
    place.cloud.until(
        lambda: [found["status"] for one in (orphan, kept) for found in of(place, one)] == ["available"] * 2,
        240,
        "both have a volume",
    )
    platform.ebhpc_reconcile([kept])
    assert len(of(place, orphan)) == 1, "it is young"
    monkeypatch.setattr(volumes, "YOUNG", -60)
    place.platform(**STORED).ebhpc_reconcile([kept])
    place.cloud.until(lambda: not of(place, orphan), 240, "the orphan is deleted")
    assert len(of(place, kept)) == 1
    gone(place, platform, kept)


def test_more_storage_than_the_quota_has_is_refused_with_the_reason(place: Place) -> None:
    place.cloud.start_block_storage()
    platform = place.platform(**STORED)
    place.cloud.volume_quota(volumes=10, gigabytes=1)
    seen = platform.ebhpc_snapshot(int(time.time()))
    plain = Demand(least=Shape(cores=1, memory=1024), duration=60, earliest=seen.taken, latest=seen.taken + 600)
    asked = stored(plain, with_storage().storage, seen)
    (reason,) = why_never(asked, Timeline.of(seen))
    assert "Storage takes 2 of quota-volume-gib; cloud has 1." in str(reason)
