"""What was learned and the forecasts, in the database."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import text, update

from ebhpc.model import Message, Phase, message
from ebhpc.planning.queue import Accuracy, Expected, Outlook, StartEstimator, encode_forecast, look, pack_learned
from ebhpc.store import (
    Forecasts,
    LeaseLost,
    Store,
    current_revision,
    expected_starts,
    get_learned,
    get_session,
    lease_learning,
    leave_learning,
    newest_revision,
    promised_starts,
    publish_forecast,
    read_forecasts,
    tell_outlook,
    upgrade,
)
from ebhpc.store.schema import _config
from ebhpc.store.tables import forecasts, learned, sessions
from tests.planning_queue.test_expected import NOW, running, snapshot

DRIVER, OTHER = "driver-1", "driver-2"


@pytest.fixture
def store(ready_database_url: str) -> Iterator[Store]:
    opened = Store(ready_database_url)
    yield opened
    opened.close()


def publish(store: Store, estimator: StartEstimator, *, driver: str = DRIVER, revision: int = 0, **more) -> int | None:
    forecast = look(estimator, snapshot(running=(running("1", "n0"),)))
    given = {
        "forecast": encode_forecast(forecast),
        "taken": float(NOW),
        "seconds": 0.5,
        "accuracy": Accuracy(starts=3, inside=1.0),
        "starts": {"s": Expected(NOW + 1, NOW + 2, NOW + 3)},
        "state": None,
        **more,
    }
    return publish_forecast(store, "p", driver, revision=revision, **given)


def test_one_driver_learns_until_its_lease_runs_out_or_it_leaves(store):
    assert lease_learning(store, "p", DRIVER, now=100.0, lease=60.0) == 0
    assert lease_learning(store, "p", OTHER, now=150.0, lease=60.0) is None
    assert lease_learning(store, "p", DRIVER, now=155.0, lease=60.0) == 0
    assert lease_learning(store, "p", OTHER, now=200.0, lease=60.0) is None
    assert lease_learning(store, "p", OTHER, now=216.0, lease=60.0) == 0
    assert lease_learning(store, "p", DRIVER, now=217.0, lease=60.0) is None
    leave_learning(store, OTHER)
    assert lease_learning(store, "p", DRIVER, now=218.0, lease=60.0) == 0
    assert lease_learning(store, "q", OTHER, now=218.0, lease=60.0) == 0


def test_only_the_one_that_learns_publishes_and_from_the_newest_state_only(store):
    lease_learning(store, "p", DRIVER, now=100.0, lease=60.0)
    assert publish(store, StartEstimator(), driver=OTHER) is None
    assert publish(store, StartEstimator(), revision=7) is None
    assert publish(store, StartEstimator()) == 0
    assert publish(store, StartEstimator(), state=b"state") == 1
    assert publish(store, StartEstimator(), revision=0) is None
    record = get_learned(store, "p")
    assert record is not None
    assert (record.revision, record.state) == (1, b"state")
    assert get_learned(store, "unknown") is None
    with store.read() as tx:
        [(name, forecast)] = read_forecasts(tx).items()
        assert (name, forecast.version, forecast.taken, forecast.seconds) == ("p", 2, NOW, 0.5)
        assert forecast.accuracy == Accuracy(starts=3, inside=1.0)
        assert expected_starts(tx, "p") == (NOW, {"s": Expected(NOW + 1, NOW + 2, NOW + 3)})
        assert expected_starts(tx, "unknown") is None


def test_a_worker_decodes_a_forecast_once_and_takes_up_what_is_newer(store):
    kept = Forecasts(store)
    with store.read() as tx:
        assert kept.current(tx, "p") is None
    lease_learning(store, "p", DRIVER, now=100.0, lease=60.0)
    estimator = StartEstimator(seed=11)
    publish(store, estimator, state=pack_learned(estimator))
    with store.read() as tx:
        first = kept.current(tx, "p")
        assert first is not None
        assert kept.current(tx, "p") is first
        assert first.estimator.seed == 11
    publish(store, estimator, revision=1)
    with store.read() as tx:
        second = kept.current(tx, "p")
    assert second is not None
    assert second is not first
    assert second.estimator is first.estimator
    publish(store, StartEstimator(seed=12), revision=1, state=pack_learned(StartEstimator(seed=12)))
    with store.read() as tx:
        third = kept.current(tx, "p")
    assert third is not None
    assert third.estimator.seed == 12


def test_what_cannot_be_read_is_dropped_with_a_word_in_the_log(store, caplog):
    lease_learning(store, "p", DRIVER, now=100.0, lease=60.0)
    publish(store, StartEstimator(), state=b"rubbish")
    with store.read() as tx:
        found = Forecasts(store).current(tx, "p")
    assert found is not None
    assert found.estimator.known == 0
    assert "what was learned of its queue is dropped" in caplog.text
    with store.write("damage") as tx:
        tx.execute(update(forecasts).values(forecast=b"F1rubbish"))
    with store.read() as tx:
        assert Forecasts(store).current(tx, "p") is None
    assert "its forecast cannot be read" in caplog.text


@pytest.fixture
def world(ready_database_url: str):
    from tests.driver.world import World

    made = World(ready_database_url)
    yield made
    made.close()


def lease(world, uuid: str, phase: Phase) -> None:
    with world.store.write("lease") as tx:
        tx.execute(update(sessions).where(sessions.c.uuid == uuid).values(lease=DRIVER, phase=phase))


def told(words: str) -> tuple[Message, ...]:
    return (message("urn:progress", words, level="INFO"),)


def test_an_outlook_is_noted_by_the_driver_that_has_the_session_while_it_waits(world):
    uuid = world.accepted(firm=False)
    outlook = Outlook(start=1, latest=3, expected=2, confidence=0.8, said=0)
    with pytest.raises(LeaseLost):
        tell_outlook(world.store, uuid, driver=DRIVER, outlook=outlook, messages=(), now=world.now)
    lease(world, uuid, Phase.AVAILABLE)
    record = tell_outlook(world.store, uuid, driver=DRIVER, outlook=outlook, messages=told("one"), now=world.now)
    assert record.outlook == outlook
    tell_outlook(world.store, uuid, driver=DRIVER, outlook=outlook, messages=told("two"), now=world.now)
    assert world.told(uuid)[-2:] == ["one", "two"]
    lease(world, uuid, Phase.RUNNING)
    with pytest.raises(LeaseLost):
        tell_outlook(world.store, uuid, driver=DRIVER, outlook=outlook, messages=(), now=world.now)


def test_starts_are_told_beside_what_was_promised_and_those_that_never_came_too(world):
    now = int(world.now)
    firm = world.accepted(start=now + 100, latest=now + 160)
    queued = world.accepted(firm=False, start=now, latest=now + 9000)
    missed = world.accepted(firm=False, start=now, latest=now + 50)
    waits = world.accepted()
    early = world.accepted()
    promised = Outlook(start=now + 10, latest=now + 90, expected=now + 40, confidence=0.8, said=now)
    promise = msgspec.json.encode(promised).decode()
    with world.store.write("happen") as tx:
        for uuid, values in {
            firm: {"started": now + 120.5},
            queued: {"started": now + 95.0, "promised": promise},
            missed: {"phase": Phase.FAILED, "modified": now + 60.0},
            waits: {"phase": Phase.FAILED, "modified": now + 60.0},  # long before its latest start
            early: {"started": now - 900_000.0},
        }.items():
            tx.execute(update(sessions).where(sessions.c.uuid == uuid).values(**values))
    with world.store.read() as tx:
        found = promised_starts(tx, since=now - 1000)
    [sure] = found[("tin", True)]
    assert (sure.earliest, sure.latest, sure.started) == (now + 100, now + 160, now + 120.5)
    late, never = sorted(found[("tin", False)], key=lambda each: each.started is None)
    assert (late.earliest, late.expected, late.latest, late.started) == (now + 10, now + 40, now + 90, now + 95.0)
    assert (never.latest, never.started) == (now + 50, None)


def test_a_database_of_the_first_schema_keeps_its_sessions_and_gets_room_for_promises(database_url):
    store = Store(database_url)
    with store.write("upgrade") as connection:
        config: Config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
    identity = "INSERT INTO identities (uuid, username, password, admin, created) VALUES ('i', 'ada', '-', :no, 1.0)"
    offerset = "INSERT INTO offersets (uuid, owner, created, expires, document) VALUES ('o', 'i', 1.0, 2, '{}')"
    session = (
        "INSERT INTO sessions (uuid, offerset, position, owner, platform, phase, created, modified, start, latest,"
        " finish, duration, firm, allocations, document, messages, unfinished, submitting, attempt, due)"
        " VALUES ('s', 'o', 0, 'i', 'p', 'RUNNING', 1.0, 1.0, 1, 2, 62, 60, :yes, '[]', '{}', '[]', :yes, :no, 0, 0.0)"
    )
    with store.write("fill") as tx:
        for statement in (identity, offerset, session):
            tx.execute(text(statement), {"yes": True, "no": False})
    assert current_revision(store) == "0001"
    upgrade(store)
    assert current_revision(store) == newest_revision()
    with store.read() as tx:
        record = get_session(tx, "s")
        assert tx.execute(learned.select()).all() == tx.execute(forecasts.select()).all() == []
    assert record is not None
    assert (record.phase, record.promised, record.outlook) == (Phase.RUNNING, None, None)
    assert lease_learning(store, "p", DRIVER, now=100.0, lease=60.0) == 0
    # And back again, with the session
    with store.write("downgrade") as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "0001")
    assert current_revision(store) == "0001"
    with store.read() as tx:
        assert tx.execute(text("SELECT uuid FROM sessions")).scalars().all() == ["s"]
    store.close()
