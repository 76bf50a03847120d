"""Storage as volumes of Cinder: what is asked for and read, without a Cinder."""

from __future__ import annotations

import base64
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from openstack_lab import Place, session
from test_openstack_words import SETTINGS, SITE, look

from ebhpc import batch
from ebhpc.config import read_settings
from ebhpc.model import Demand, Range, Session, Shape, SimpleStorage
from ebhpc.planning import Timeline, storable, stored, why_never
from ebhpc_openstack import guest, records
from ebhpc_openstack.asking import Answer, Call, Unanswered
from ebhpc_openstack.cloud import Cloud
from ebhpc_openstack.settings import OpenStackSettings
from ebhpc_openstack.snapshot import VOLUME_GIB, VOLUMES, snapshot
from ebhpc_openstack.volumes import Coming, Volumes, block_device_mapping

NUMBER = "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9"
LIMITS = {"maxTotalVolumes": 3, "maxTotalVolumeGigabytes": 10, "totalVolumesUsed": 2, "totalGigabytesUsed": 6}


def large() -> tuple[SimpleStorage, ...]:
    return SimpleStorage(), SimpleStorage(size=Range(min=5))


def settings(folder: Path) -> OpenStackSettings:
    jobs = {**SETTINGS["jobs"], "root": str(folder)}
    return read_settings(OpenStackSettings, {**SETTINGS, "jobs": jobs, "volumes": {"through": "cinder"}})


class LosingAnswers:
    """A Cinder that takes what it is asked for, answers nothing to it, and lists the volumes only when told to."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.shown = False

    def ask(self, calls: Sequence[Call], *, seconds: float | None = None) -> list[Answer]:
        if calls[0].method == "POST":
            self.asked += [call.json["volume"] for call in calls]
            raise Unanswered("the connection was lost")
        listed = [
            {**body, "id": NUMBER, "status": "available", "created_at": "2026-01-01T00:00:00"} for body in self.asked
        ]
        return [Answer(status=200, body={"volumes": listed if self.shown else []})]

    def close(self) -> None:
        pass


def test_a_volume_whose_answer_was_lost_is_found_by_its_metadata_and_not_asked_for_twice(tmp_path: Path) -> None:
    asker = LosingAnswers()
    one = session(storage=large())
    batch.session_directory(tmp_path, one.uuid).path.mkdir(parents=True)
    made = Volumes(settings(tmp_path), Cloud(asker, "ebhpc"), lambda: 1.0, lambda _: True)
    with pytest.raises(Unanswered, match="was lost"):
        made.ready([one])
    assert isinstance(made.ready([one])[one.uuid], Unanswered), "it may be on its way"
    asker.shown = True
    assert made.ready([one]) == {one.uuid: {1: NUMBER}}
    (asked,) = asker.asked
    assert (asked["name"], asked["size"]) == (f"ebhpc-{one.uuid}-1", 5)
    assert asked["metadata"] == {"ebhpc_session": one.uuid, "ebhpc_storage": "1"}
    assert isinstance(Coming(), Exception)


def test_user_data_mounts_what_the_server_is_given_and_refuses_numbers_that_are_none(tmp_path: Path) -> None:
    one = session(storage=large())
    text = base64.b64decode(guest.user_data(one, settings(tmp_path), {1: NUMBER})).decode()
    assert f"volume {NUMBER[:20]} /var/lib/ebhpc/job/storage/1 && sh " in text
    assert subprocess.run(["sh", "-n"], input=text, text=True, check=False).returncode == 0
    with pytest.raises(guest.Strange):
        guest.user_data(one, settings(tmp_path), {1: "$(reboot)"})
    disks = block_device_mapping("image", {1: NUMBER})
    assert [(disk["boot_index"], disk["uuid"], disk["delete_on_termination"]) for disk in disks] == [
        (0, "image", True),
        (-1, NUMBER, True),
    ]


def demand(one: Session, taken: int) -> Demand:
    return Demand(least=Shape(cores=1, memory=1024), duration=one.duration, earliest=taken, latest=taken + 600)


def test_volumes_count_in_the_quota_and_without_block_storage_there_is_room_for_none() -> None:
    site = replace(SITE, volumes=True)
    ours = {"id": NUMBER, "name": "ebhpc-a-0", "status": "in-use", "size": 4, "metadata": {"ebhpc_session": "a"}}
    told = records.block_storage({"limits": {"absolute": LIMITS}}, [ours])
    seen = snapshot(look(storage=told), site, 1000)
    assert (seen.licences[VOLUMES], seen.licences[VOLUME_GIB]) == (3, 10)
    taken = {job.id: (job.licences.get(VOLUMES), job.licences.get(VOLUME_GIB)) for job in seen.running}
    assert taken["volumes of a"] == (1, 4)
    assert taken["volumes of others"] == (1, 2)
    one = session(storage=large())
    asked = stored(demand(one, 1000), one.storage, seen)
    assert (asked.licences[VOLUMES], asked.licences[VOLUME_GIB]) == (1, 5)
    none = snapshot(look(), site, 1000)
    words = [str(one) for one in why_never(stored(demand(one, 1000), one.storage, none), Timeline.of(none))]
    assert any("Storage takes 5 of quota-volume-gib; cloud has 0." in word for word in words), words
    assert stored(demand(one, 1000), one.storage, snapshot(look(), SITE, 1000)).licences == {}
    assert storable(asked, seen)
    assert not storable(stored(demand(one, 1000), one.storage, none), none)
    assert storable(demand(one, 1000), snapshot(look(), SITE, 1000))


@pytest.mark.lab
@pytest.mark.timeout(600)
def test_where_block_storage_does_not_answer_no_volume_is_offered_and_everything_else_is(place: Place) -> None:
    place.cloud.stop_block_storage()
    platform = place.platform(volumes={"through": "cinder"})
    seen = platform.ebhpc_snapshot(int(time.time()))
    assert seen.nodes
    assert (seen.licences[VOLUMES], seen.licences[VOLUME_GIB]) == (0, 0)
    assert any("no volume can be made" in one.text for one in platform.ebhpc_check() if one.level == "WARN")
