"""Hooks that fail, in every way and everywhere: the session waits, or fails, and is cleaned up after."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from sqlalchemy import update

from ebhpc.model import LIVE, Observation, Phase, message
from ebhpc.plugins import SessionFailed
from ebhpc.store import BrokenDocument, cancel, expire_offers, reject, tables
from tests.driver.scripted_platform import DO, Delayed, Late
from tests.driver.world import EPOCH, SETTINGS

UNAVAILABLE = "urn:platform-unavailable"


@pytest.mark.parametrize("hook", ["hold", "prepare", "submit", "cleanup", "release"])
@pytest.mark.parametrize(
    "fault", [OSError("connection refused"), 42, Late("no answer")], ids=["raises", "nonsense", "late"]
)
def test_a_hook_that_fails_for_a_while_delays_the_session_and_no_more(world, hook, fault):
    driver = world.driver()
    world.tin.script[hook] = [fault] * 3
    uuid = world.accepted(duration=3600)
    world.until(driver, lambda: world.is_over(uuid))
    world.check_is_over(uuid, Phase.COMPLETED)
    assert world.tin.calls[hook] >= 4
    told = world.told(uuid, UNAVAILABLE)
    assert 1 <= len(told) <= 2  # after the first and the second failure, not after the third
    assert "tin failed while" in told[0]


@pytest.mark.parametrize("hook", ["hold", "prepare", "submit"])
def test_a_session_that_can_never_succeed_fails_with_its_platforms_words_and_is_cleaned_up(world, hook):
    driver = world.driver()
    world.tin.script[hook] = [SessionFailed(message("urn:image-digest-mismatch", "wrong digest"))]
    uuid = world.accepted()
    world.until(driver, lambda: world.is_over(uuid))
    world.check_is_over(uuid, Phase.FAILED)
    assert world.told(uuid, "urn:image-digest-mismatch") == ["wrong digest"]
    assert world.tin.calls["cleanup"] == 1
    assert world.tin.starts[uuid] == 0


def test_a_refusal_after_a_lost_answer_still_ends_the_job_that_may_live(world):
    driver = world.driver()
    world.tin.script["submit"] = [Late("no answer"), SessionFailed("no such account")]
    world.tin.runs_for = 500
    uuid = world.accepted()
    world.until(driver, lambda: world.is_over(uuid))
    world.check_is_over(uuid, Phase.FAILED)
    assert world.tin.starts[uuid] == 1
    assert world.tin.calls["cancel"] >= 1


def test_a_submission_without_an_answer_is_asked_for_again_and_starts_one_job(world):
    driver = world.driver()
    world.tin.script["submit"] = [Late("no answer")] * 4
    uuid = world.accepted()
    world.until(driver, lambda: world.is_over(uuid))
    world.check_is_over(uuid, Phase.COMPLETED)
    assert world.tin.starts[uuid] == 1


def test_a_submission_without_an_answer_is_not_repeated_when_the_sessions_time_is_over(world):
    driver = world.driver()
    world.tin.always["submit"] = OSError("down")
    uuid = world.accepted(duration=300)
    world.until(driver, lambda: world.phase(uuid) is Phase.FAILED)
    asked = world.tin.calls["submit"]
    assert asked > 1
    del world.tin.always["submit"]
    world.until(driver, lambda: world.is_over(uuid))
    world.check_is_over(uuid, Phase.FAILED)
    assert world.tin.calls["submit"] == asked


def test_a_job_that_appears_long_after_its_submission_was_given_up_is_ended_too(world):
    """The call timed out, the user cancelled, and only then the batch system made the job."""
    driver = world.driver()
    world.tin.runs_for = 1000
    world.tin.script["submit"] = [Delayed(15)]
    uuid = world.accepted(duration=3600)
    world.until(driver, lambda: world.session(uuid).submitting)
    world.cancel(uuid)
    world.until(driver, lambda: world.is_over(uuid), each=1)
    world.check_is_over(uuid, Phase.CANCELLED)
    assert world.tin.starts[uuid] == 1


def test_retries_become_rarer_up_to_a_limit(world):
    driver = world.driver()
    world.tin.always["prepare"] = OSError("no route")
    uuid = world.accepted(start=int(EPOCH) + 60, latest=int(EPOCH) + 7200, duration=3600)
    world.turn(driver, 900)
    assert 15 <= world.tin.calls["prepare"] <= 25
    assert len(world.told(uuid, UNAVAILABLE)) == 5  # 1, 2, 4, 8, 16
    attempts = [session.attempt for session in world.tin.seen["prepare"]]
    assert attempts == list(range(1, len(attempts) + 1))


def test_a_platform_that_stays_silent_is_given_up_at_last(world):
    driver = world.driver(settings=replace(SETTINGS, give_up=7200))
    world.tin.always["hold"] = OSError("no route")
    uuid = world.accepted(start=int(EPOCH) + 200_000)
    world.until(driver, lambda: world.is_over(uuid), most=8000, each=60)
    assert 7200 <= world.now - EPOCH <= 7500
    world.check_is_over(uuid, Phase.FAILED)
    assert "given up" in world.told(uuid, UNAVAILABLE)[-1]


def test_a_running_session_outlives_a_platform_that_is_silent_for_an_hour(world):
    driver = world.driver()
    uuid = world.accepted(duration=3 * 3600)
    world.tin.runs_for = 7200
    world.until(driver, lambda: world.phase(uuid) is Phase.RUNNING)
    world.tin.always["observe"] = OSError("no route")
    world.turn(driver, 30)
    assert world.told(uuid, UNAVAILABLE) == []  # a hiccup is nobody's business
    world.turn(driver, 3600, each=30)
    assert 4 <= len(world.told(uuid, UNAVAILABLE)) <= 8
    del world.tin.always["observe"]
    world.until(driver, lambda: world.is_over(uuid), most=10_000, each=60)
    world.check_is_over(uuid, Phase.COMPLETED)
    assert "tin answers again" in world.told(uuid)


def test_a_running_session_on_a_platform_that_stays_silent_has_failed_at_last(world):
    driver = world.driver(settings=replace(SETTINGS, give_up=7200))
    uuid = world.accepted(duration=3 * 3600)
    world.tin.runs_for = 7200
    world.until(driver, lambda: world.phase(uuid) is Phase.RUNNING)
    world.tin.always["observe"] = OSError("no route")
    world.until(driver, lambda: world.phase(uuid) is Phase.FAILED, most=8000, each=60)
    assert world.now - EPOCH >= 7200
    del world.tin.always["observe"]
    world.until(driver, lambda: world.is_over(uuid))
    world.check_is_over(uuid, Phase.FAILED)


def test_a_cleanup_that_never_works_while_the_platform_answers_is_given_up_after_an_hour(world, caplog):
    driver = world.driver()
    world.tin.always["cleanup"] = OSError("busy")
    other = world.accepted(start=int(EPOCH) + 120, duration=9000)
    world.tin.runs_for = 8000
    uuid = world.accepted(start=int(EPOCH) + 120, duration=300)
    world.until(driver, lambda: world.phase(uuid) is Phase.RELEASING)
    began = world.now
    world.until(driver, lambda: world.is_over(uuid), each=10)
    assert 3600 <= world.now - began <= 3700
    assert world.phase(uuid) is Phase.FAILED
    assert world.booked(uuid) == []
    assert world.phase(other) is Phase.RUNNING
    assert any(record.levelname == "ERROR" and uuid in record.getMessage() for record in caplog.records)


def test_a_cleanup_waits_longer_while_the_whole_platform_is_silent(world):
    driver = world.driver()
    uuid = world.accepted(duration=300)
    world.until(driver, lambda: world.phase(uuid) is Phase.RUNNING)
    for hook in ("cleanup", "snapshot"):
        world.tin.always[hook] = OSError("down")
    world.turn(driver, 3 * 3600, each=30)
    assert world.phase(uuid) is Phase.RELEASING
    world.tin.always.clear()
    world.until(driver, lambda: world.is_over(uuid))
    world.check_is_over(uuid, Phase.COMPLETED)


def test_a_failed_release_makes_a_succeeded_session_failed(world):
    driver = world.driver(settings=replace(SETTINGS, give_up=600, give_up_cleanup=60))
    world.tin.always["release"] = OSError("busy")
    uuid = world.accepted()
    world.until(driver, lambda: world.is_over(uuid))
    assert world.phase(uuid) is Phase.FAILED
    assert world.session(uuid).exit_code == 0


def test_a_job_that_does_not_end_is_asked_to_again(world):
    driver = world.driver()
    world.tin.runs_for = 1e6
    world.tin.obeys_cancel = False
    uuid = world.accepted(duration=3600)
    world.until(driver, lambda: world.phase(uuid) is Phase.RUNNING)
    world.tin.jobs[uuid].limit = 1e12
    world.cancel(uuid)
    world.turn(driver, 300)
    assert 5 <= world.tin.calls["cancel"] <= 15
    assert world.tin.calls["cleanup"] == 0
    assert world.booked(uuid)
    world.tin.obeys_cancel = True
    world.until(driver, lambda: world.is_over(uuid))
    world.check_is_over(uuid, Phase.CANCELLED)


def test_a_job_that_its_batch_system_forgot_fails_only_when_that_lasts(world):
    driver = world.driver()
    uuid = world.accepted(duration=3600)
    world.tin.runs_for = 3000
    world.until(driver, lambda: world.phase(uuid) is Phase.RUNNING)

    def gone(sessions):
        return [Observation(uuid=session.uuid, state="GONE") for session in sessions]

    world.tin.always["observe"] = gone
    world.turn(driver, 10)
    world.tin.always["observe"] = DO  # a controller that had restarted
    world.turn(driver, 5)
    assert world.phase(uuid) is Phase.RUNNING
    world.tin.always["observe"] = gone
    world.turn(driver, 19)
    assert world.phase(uuid) is Phase.RUNNING
    world.until(driver, lambda: world.is_over(uuid))
    world.check_is_over(uuid, Phase.FAILED)
    assert world.tin.calls["cancel"] >= 1
    assert "does not know the job" in world.told(uuid, "urn:execution-failed")[0]


def test_observations_of_sessions_that_nobody_asked_for_take_only_their_platform_out(two_platforms):
    world = two_platforms
    driver = world.driver()
    world.tin.always["observe"] = lambda sessions: [Observation(uuid="somebody's", state="SUCCEEDED")]
    bad, good = world.accepted(), world.accepted(platform="zinc")
    world.until(driver, lambda: world.is_over(good))
    world.check_is_over(good, Phase.COMPLETED)
    assert world.phase(bad) in LIVE
    world.tin.always.clear()
    world.until(driver, lambda: world.is_over(bad))
    world.check_is_over(bad, Phase.COMPLETED)


def test_a_session_whose_plugin_is_gone_waits_for_it(world):
    driver = world.driver()
    uuid = world.accepted()
    good = world.session(uuid).document

    def store_document(document: bytes) -> None:
        with world.store.write("test") as tx:
            tx.execute(update(tables.sessions).where(tables.sessions.c.uuid == uuid).values(document=document.decode()))

    store_document(b'{"kind": "https://example.org/kinds/gone"}')
    world.turn(driver, 10)
    assert world.phase(uuid) is Phase.ACCEPTED
    assert "plugin that the session needs is not loaded" in world.told(uuid, UNAVAILABLE)[0]
    store_document(good)
    world.until(driver, lambda: world.is_over(uuid))
    world.check_is_over(uuid, Phase.COMPLETED)
    assert issubclass(BrokenDocument, ValueError)


@pytest.mark.parametrize("phase", [Phase.ACCEPTED, Phase.RUNNING])
def test_a_session_whose_platform_is_no_longer_configured_waits_for_it(world, phase):
    driver = world.driver()
    uuid = world.accepted(duration=3600)
    if phase is Phase.RUNNING:
        world.until(driver, lambda: world.phase(uuid) is phase)
    without = world.driver(pid=2, platforms={})
    world.turn(without, 20)
    assert world.phase(uuid) is phase
    assert "not configured" in world.told(uuid, UNAVAILABLE)[0]
    again = world.driver(pid=3)
    world.until(again, lambda: world.is_over(uuid))
    world.check_is_over(uuid, Phase.COMPLETED)


@pytest.mark.parametrize("ending", ["expired", "rejected"])
def test_what_is_held_for_an_offer_that_is_over_is_released(world, ending):
    driver = world.driver()
    offer = world.offer()
    world.book(offer)
    world.tin.held.add(offer.uuid)
    with world.store.write("test") as tx:
        tx.execute(update(tables.sessions).where(tables.sessions.c.uuid == offer.uuid).values(held="held"))
    if ending == "expired":
        world.now += 300
        expire_offers(world.store, "tin", now=world.now)
    else:
        reject(world.store, offer.uuid, now=world.now)
    world.turn(driver)
    assert world.tin.held == set()
    assert world.tin.calls["cleanup"] == 0
    assert world.is_over(offer.uuid)


def test_an_error_of_our_own_stops_one_session_and_not_the_others(world, monkeypatch, caplog):
    driver = world.driver()
    bad, good = world.accepted(), world.accepted()
    from ebhpc.driver import steps

    ordinary = steps.reached

    def broken(record, *arguments, **named):
        if record.uuid == bad:
            raise ZeroDivisionError
        return ordinary(record, *arguments, **named)

    monkeypatch.setattr(steps, "reached", broken)
    world.until(driver, lambda: world.is_over(good))
    assert world.phase(bad) in LIVE | {Phase.FAILED}
    assert any(bad in record.getMessage() and record.exc_info for record in caplog.records)
    assert "ZeroDivision" not in " ".join(world.told(bad))


def test_cancelling_an_offer_changes_nothing(world):
    offer = world.offer()
    world.book(offer)
    assert cancel(world.store, offer.uuid, now=world.now, cause="-").phase is Phase.OFFERED
