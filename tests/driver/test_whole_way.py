"""A session's whole way, and how it is ended early."""

from __future__ import annotations

import pytest

from ebhpc.model import Connector, Phase, message
from ebhpc.store import get_snapshot
from tests.driver.world import EPOCH, WITH_ACCESS

WAY = [
    Phase.OFFERED,
    Phase.ACCEPTED,
    Phase.WAITING,
    Phase.PREPARING,
    Phase.AVAILABLE,
    Phase.RUNNING,
    Phase.RELEASING,
    Phase.COMPLETED,
]


def test_a_session_goes_the_whole_way_each_phase_in_its_time(world):
    driver = world.driver()
    uuid = world.accepted(start=int(EPOCH) + 120)
    world.turn(driver)
    assert world.phase(uuid) is Phase.WAITING
    assert world.session(uuid).held == f"held-{uuid}"
    world.turn(driver, 59)
    assert world.phase(uuid) is Phase.WAITING
    world.turn(driver, 1)
    assert world.phase(uuid) is Phase.AVAILABLE
    world.turn(driver, 59)
    assert world.tin.starts[uuid] == 0
    world.turn(driver, 1)
    assert world.tin.starts[uuid] == 1
    world.turn(driver, 1)
    record = world.session(uuid)
    assert (record.phase, record.started, record.node) == (Phase.RUNNING, EPOCH + 120, "n1")
    world.until(driver, lambda: world.is_over(uuid))
    record = world.session(uuid)
    assert world.phases(uuid) == WAY
    assert (record.exit_code, record.ended) == (0, EPOCH + 180)
    assert record.kept_until == world.now + 7 * 86400
    world.check_is_over(uuid, Phase.COMPLETED)
    assert world.tin.results == {uuid}


def test_every_move_is_told_in_words_with_its_time(world):
    driver = world.driver()
    uuid = world.accepted()
    world.until(driver, lambda: world.is_over(uuid))
    messages = world.session(uuid).messages
    assert all(one.time is not None and one.filled and "{" not in one.filled for one in messages)
    text = "\n".join(map(str, messages))
    for word in (
        "booked on tin",
        "being prepared",
        "staged",
        "ready",
        "with tin",
        "runs on n1",
        "has ended",
        "completed",
    ):
        assert word in text


def test_a_running_session_keeps_its_booking_no_longer_than_its_duration(world):
    driver = world.driver()
    uuid = world.accepted(start=int(EPOCH) + 120, latest=int(EPOCH) + 1120, duration=600)
    assert world.booked(uuid)[0].finish == EPOCH + 1720
    world.until(driver, lambda: world.phase(uuid) is Phase.RUNNING)
    assert world.booked(uuid)[0].finish == EPOCH + 720


def test_a_failed_job_makes_the_session_failed_with_its_exit_code(world):
    driver = world.driver()
    world.tin.exit_code = 3
    uuid = world.accepted()
    world.until(driver, lambda: world.is_over(uuid))
    world.check_is_over(uuid, Phase.FAILED)
    assert world.session(uuid).exit_code == 3
    assert Phase.RELEASING in world.phases(uuid)
    assert world.told(uuid, "urn:execution-failed") == ["the job failed with exit code 3"]


def test_a_job_that_was_over_before_it_was_seen_running_passes_all_phases(world):
    driver = world.driver()
    world.tin.runs_for = 0
    uuid = world.accepted()
    world.until(driver, lambda: world.is_over(uuid))
    assert world.phases(uuid) == WAY


def test_messages_of_a_job_are_told_once_however_often_it_is_observed(world):
    driver = world.driver()
    world.tin.job_messages = (message("urn:progress", "half way", level="INFO"),)
    uuid = world.accepted()
    world.until(driver, lambda: world.is_over(uuid))
    assert world.tin.calls["observe"] > 10
    assert world.told(uuid).count("half way") == 1


def test_connectors_are_those_of_the_job_and_finished_after_it(world):
    driver = world.driver()
    world.tin.connectors = (Connector(kind="urn:http", status="AVAILABLE", location="http://127.0.0.1:1/"),)
    uuid = world.accepted()
    world.until(driver, lambda: world.phase(uuid) is Phase.RUNNING)
    assert world.session(uuid).connectors == world.tin.connectors
    world.until(driver, lambda: world.is_over(uuid))
    (left,) = world.session(uuid).connectors
    assert left.status == "FINISHED"


def test_a_session_past_its_end_is_ended_and_has_failed(world):
    driver = world.driver()
    world.tin.runs_for = 10_000
    uuid = world.accepted(start=int(EPOCH) + 120, duration=300)
    world.until(driver, lambda: world.phase(uuid) is Phase.RUNNING)
    world.tin.jobs[uuid].limit = 1e12  # a platform that does not end it
    world.until(driver, lambda: world.is_over(uuid))
    world.check_is_over(uuid, Phase.FAILED)
    assert world.tin.jobs[uuid].ended == EPOCH + 420
    assert len(world.told(uuid, "urn:time-limit")) == 1


def test_a_job_that_its_platform_ended_in_time_is_told_as_such(world):
    driver = world.driver()
    world.tin.runs_for = 10_000
    uuid = world.accepted(duration=300)
    world.until(driver, lambda: world.is_over(uuid))
    world.check_is_over(uuid, Phase.FAILED)
    assert len(world.told(uuid, "urn:time-limit")) == 1
    assert world.told(uuid, "urn:execution-failed") == []


@pytest.mark.parametrize("enforced", [True, False])
def test_somebody_who_works_until_the_end_has_completed(world, enforced):
    driver = world.driver()
    world.tin.runs_for = 10_000
    uuid = world.accepted(duration=300, executable=WITH_ACCESS)
    world.until(driver, lambda: world.phase(uuid) is Phase.RUNNING)
    if not enforced:
        world.tin.jobs[uuid].limit = 1e12
    world.until(driver, lambda: world.is_over(uuid))
    world.check_is_over(uuid, Phase.COMPLETED)
    assert len(world.told(uuid, "urn:time-limit")) == 1


def test_a_job_that_ended_well_while_the_driver_was_away_has_succeeded(world):
    driver = world.driver()
    uuid = world.accepted(duration=300)
    world.until(driver, lambda: world.phase(uuid) is Phase.RUNNING)
    world.now += 7200
    again = world.driver(pid=2)
    world.until(again, lambda: world.is_over(uuid))
    world.check_is_over(uuid, Phase.COMPLETED)


def test_a_job_still_queued_when_its_time_has_come_and_gone_is_withdrawn(world):
    driver = world.driver()
    world.tin.queues_for = 1e6
    uuid = world.accepted(duration=300)
    world.until(driver, lambda: world.is_over(uuid))
    world.check_is_over(uuid, Phase.FAILED)
    assert "missed its start" in " ".join(world.told(uuid, "urn:execution-failed"))


def test_a_late_start_is_told_and_cut_at_the_end_of_the_booking(world):
    driver = world.driver()
    uuid = world.accepted(start=int(EPOCH) + 120, duration=600)
    world.turn(driver)
    world.now = EPOCH + 300
    world.until(driver, lambda: world.phase(uuid) is Phase.RUNNING)
    (warning,) = world.told(uuid, "urn:time-limit")
    assert "PT3M after" in warning
    assert "PT7M of its PT10M" in warning
    assert world.tin.seen["submit"][0].end == EPOCH + 720
    assert world.booked(uuid)[0].finish == EPOCH + 720


def test_a_session_with_next_to_nothing_left_of_its_time_does_not_start(world):
    driver = world.driver()
    uuid = world.accepted(start=int(EPOCH) + 120, duration=600)
    world.turn(driver)
    world.now = EPOCH + 120 + 541
    world.until(driver, lambda: world.is_over(uuid))
    world.check_is_over(uuid, Phase.FAILED)
    assert world.tin.starts[uuid] == 0
    assert "missed its start" in world.told(uuid, "urn:execution-failed")[0]


def test_a_short_session_starts_late_while_a_tenth_of_its_time_is_left(world):
    driver = world.driver()
    uuid = world.accepted(start=int(EPOCH) + 120, duration=30)
    world.turn(driver)
    world.now = EPOCH + 120 + 26
    world.turn(driver)
    assert world.tin.starts[uuid] == 1


@pytest.mark.parametrize("phase", WAY[1:-1])
def test_a_session_can_be_cancelled_in_every_phase_and_leaves_nothing(world, phase):
    driver = world.driver()
    world.tin.runs_for = 300
    if phase is Phase.RELEASING:
        world.tin.script["cleanup"] = [OSError("no space")]
    if phase is Phase.PREPARING:
        world.tin.script["prepare"] = [OSError("no route")] * 3
    uuid = world.accepted()
    if phase is not Phase.ACCEPTED:
        world.until(driver, lambda: world.phase(uuid) is phase)
    world.cancel(uuid)
    assert world.phase(uuid) is Phase.CANCELLED
    assert world.booked(uuid)
    world.until(driver, lambda: world.is_over(uuid), most=60)
    world.check_is_over(uuid, Phase.CANCELLED)
    assert world.phases(uuid)[-2:] == [phase, Phase.CANCELLED]


def test_a_session_that_is_cancelled_while_its_job_is_being_submitted_has_no_job_at_the_end(world):
    driver = world.driver()

    def cancelled_meanwhile(session):
        job = submit(session=session)
        world.cancel(session.uuid)
        return job

    submit = world.tin.ebhpc_submit
    world.tin.script["submit"] = [cancelled_meanwhile]
    uuid = world.accepted()
    world.until(driver, lambda: world.is_over(uuid))
    assert world.session(uuid).native == f"job-{uuid}"
    world.check_is_over(uuid, Phase.CANCELLED)


def test_a_platform_without_reservations_or_preparation_needs_no_such_hooks(world):
    class Bare:
        """The required hooks alone, carried out by the scripted platform."""

    for name in ("refuses", "snapshot", "submit", "observe", "cancel", "cleanup"):
        setattr(Bare, f"ebhpc_{name}", staticmethod(getattr(world.tin, f"ebhpc_{name}")))
    driver = world.driver(platforms={"tin": world.platform("tin", Bare())})
    uuid = world.accepted()
    world.until(driver, lambda: world.is_over(uuid))
    world.check_is_over(uuid, Phase.COMPLETED)
    assert world.tin.calls["hold"] == world.tin.calls["prepare"] == world.tin.calls["release"] == 0


def test_snapshots_are_published(world):
    driver = world.driver()
    world.turn(driver)
    found = get_snapshot(world.store, "tin")
    assert found is not None
    world.turn(driver, 10)
    again = get_snapshot(world.store, "tin")
    assert again is not None
    assert again[0] > found[0]
