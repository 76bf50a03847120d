"""Answers that are lost while a server is asked for, each at a time of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from openstack_lab import session

from ebhpc import batch
from ebhpc.config import read_settings
from ebhpc_openstack import records
from ebhpc_openstack.asking import Answer, Call, Unanswered
from ebhpc_openstack.cloud import Cloud
from ebhpc_openstack.launching import SETTLE, Launches
from ebhpc_openstack.settings import OpenStackSettings

FLAVOR = {"id": "small", "name": "small", "vcpus": 1, "ram": 1024, "disk": 10, "OS-FLV-EXT-DATA:ephemeral": 0}
WITHIN = 20.0


class LosingAnswers:
    """A cloud that takes what it is asked for, answers nothing to it, and lists the servers only when told to."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.shown = False

    def ask(self, calls: Sequence[Call], *, seconds: float | None = None) -> list[Answer]:
        return [self.answer(call) for call in calls]

    def answer(self, call: Call) -> Answer:
        if call.service == "image":
            return Answer(status=200, body={"id": "i", "status": "active", "images": []})
        if call.method == "POST":
            self.asked.append(call.json["server"])
            raise Unanswered("the connection was lost")
        assert call.path.startswith("/servers/detail"), call
        flavor = {"original_name": "small", "vcpus": 1, "ram": 1024, "disk": 10, "ephemeral": 0, "extra_specs": {}}
        listed = [
            {
                "id": str(at),
                "name": body["name"],
                "metadata": body["metadata"],
                "status": "BUILD",
                "created": "2026-01-01T00:00:00Z",
                "flavor": flavor,
            }
            for at, body in enumerate(self.asked)
        ]
        return Answer(status=200, body={"servers": listed if self.shown else []})

    def close(self) -> None:
        pass


class Clock:
    def __init__(self) -> None:
        self.now = 2_000_000_000.0

    def __call__(self) -> float:
        return self.now


def launches(folder: Path, asker: LosingAnswers, clock: Clock) -> Launches:
    given: dict[str, Any] = {
        "ssh": {"host": "login", "user": "ebhpc", "known_hosts": "/k", "key_file": "/i"},
        "image": "debian",
        "answer_within": f"{WITHIN:.0f}s",
        "jobs": {"root": str(folder), "access": "own", "staging": "job", "runtime": {"kind": "podman"}},
    }
    settings = read_settings(OpenStackSettings, given)
    made = Launches(settings, Cloud(asker, settings.prefix), clock)
    quota = records.Quota(servers=10, cores=None, memory=None)
    look = records.Look(
        project="p",
        servers=(),
        flavors=(records.flavor({**FLAVOR, "extra_specs": {}}),),
        quota=quota,
        zones=("nova",),
        hypervisors=(),
        zone_of={},
        providers=None,
    )
    made.learn(look)
    return made


def test_a_server_whose_answer_was_lost_is_found_by_its_sessions_uuid_by_whoever_comes_next(tmp_path: Path) -> None:
    asker, clock = LosingAnswers(), Clock()
    one = session()
    batch.session_directory(tmp_path, one.uuid).path.mkdir(parents=True)
    with pytest.raises(Unanswered):
        launches(tmp_path, asker, clock).submit(one)
    for seconds in (0.1, SETTLE, WITHIN - 1, 0.5):
        clock.now += seconds
        with pytest.raises(Unanswered, match="not known yet"):
            launches(tmp_path, asker, clock).submit(one)
    asker.shown = True
    clock.now += 3600
    assert launches(tmp_path, asker, clock).submit(one) == f"ebhpc-{one.uuid}"
    assert [body["name"] for body in asker.asked] == [f"ebhpc-{one.uuid}"]


def test_a_server_that_never_came_is_asked_for_again_when_no_question_can_be_on_its_way(tmp_path: Path) -> None:
    asker, clock = LosingAnswers(), Clock()
    one = session()
    batch.session_directory(tmp_path, one.uuid).path.mkdir(parents=True)
    for _ in range(2):
        with pytest.raises(Unanswered, match="was lost"):
            launches(tmp_path, asker, clock).submit(one)
        clock.now += WITHIN + SETTLE
    assert [body["name"] for body in asker.asked] == [f"ebhpc-{one.uuid}"] * 2
