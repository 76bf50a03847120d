"""How well promises were kept, as operators see it: `ebhpc check` and the metrics."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from prometheus_client.core import CollectorRegistry, GaugeMetricFamily
from prometheus_client.exposition import generate_latest
from sqlalchemy import update

from ebhpc.api.promises import promise_families
from ebhpc.cli.checking import check_promises
from ebhpc.model import Finding, Phase
from ebhpc.planning.queue import Accuracy
from ebhpc.store import lease_learning, publish_forecast
from ebhpc.store.tables import sessions
from tests.driver.world import World


@pytest.fixture
def world(ready_database_url: str) -> Iterator[World]:
    made = World(ready_database_url)
    yield made
    made.close()


def foreseen(world: World, accuracy: Accuracy, *, age: float = 5.0) -> None:
    revision = lease_learning(world.store, "tin", "d", now=world.now, lease=60.0)
    assert revision is not None
    publish_forecast(
        world.store,
        "tin",
        "d",
        forecast=b"-",
        taken=world.now - age,
        seconds=1.5,
        accuracy=accuracy,
        starts={},
        revision=revision,
        state=None,
    )


def ran(world: World, number: int, *, late: int = 0, firm: bool = True) -> None:
    """So many sessions that started in time, and so many that did not."""
    now = int(world.now)
    for each in range(number + late):
        uuid = world.accepted(start=now + 100, latest=now + 160, firm=firm)
        started = now + (120.0 if each < number else 500.0)
        with world.store.write("start") as tx:
            tx.execute(update(sessions).where(sessions.c.uuid == uuid).values(started=started, phase=Phase.RUNNING))


def findings(world: World) -> dict[str, Finding]:
    return {one.subject: one for one in check_promises(world.store, world.platforms, world.now)}


def test_check_says_nothing_where_nothing_was_promised(world):
    assert findings(world) == {}


def test_check_tells_errors_and_coverage_of_the_queue_and_of_sessions(world):
    foreseen(
        world,
        Accuracy(
            starts=900,
            inside=0.81,
            early=0.1,
            late=0.09,
            mean_error=5400.0,
            median_error=300.0,
            planned_error=20_000.0,
            width=9000.0,
        ),
    )
    ran(world, 2)
    found = findings(world)
    queue = found["tin: starts of the queue's jobs"]
    assert queue.level == "INFO"
    assert "of the last 900, 81% were inside their interval (10% before, 9% after)" in queue.text
    assert "5,400 s in the mean, 300 s in the median (a plan on time limits: 20,000 s in the mean)" in queue.text
    firm = found["tin: firm starts of sessions"]
    assert (firm.level, "too few to judge" in firm.text) == ("INFO", True)


def test_check_warns_of_intervals_that_hold_too_little_and_of_an_old_forecast(world):
    foreseen(world, Accuracy(starts=200, inside=0.5, early=0.1, late=0.4))
    assert findings(world)["tin: starts of the queue's jobs"].level == "WARN"
    foreseen(world, Accuracy(starts=200, inside=0.8), age=4000.0)
    old = findings(world)["tin: forecast of its queue"]
    assert old.level == "WARN"
    assert "4000 s old" in old.text


def test_check_warns_of_firm_starts_that_were_not_kept(world):
    ran(world, 50, late=6)
    kept = findings(world)["tin: firm starts of sessions"]
    assert kept.level == "WARN"
    assert "of the last 56, 89% were inside" in kept.text


def test_the_metrics_have_the_same_figures(world):
    foreseen(world, Accuracy(starts=200, inside=0.75, early=0.05, late=0.2, mean_error=60.0, planned_error=90.0))
    ran(world, 3, late=1, firm=False)

    class Figures:
        def collect(self) -> Iterator[GaugeMetricFamily]:
            yield from promise_families(world.store, world.now)

    registry = CollectorRegistry()
    registry.register(Figures())
    text = generate_latest(registry).decode()
    assert 'ebhpc_start_promises{platform="tin",promise="queue"} 200.0' in text
    assert 'ebhpc_start_promises{platform="tin",promise="expected"} 4.0' in text
    assert 'ebhpc_start_promise_share{platform="tin",promise="queue",where="inside"} 0.75' in text
    assert 'ebhpc_start_promise_share{platform="tin",promise="expected",where="late"} 0.25' in text
    assert 'ebhpc_start_error_mean_seconds{platform="tin",promise="queue"} 60.0' in text
    assert 'ebhpc_start_plan_error_mean_seconds{platform="tin",promise="queue"} 90.0' in text
    assert 'ebhpc_start_plan_error_mean_seconds{platform="tin",promise="expected"}' not in text
    assert 'ebhpc_forecast_age_seconds{platform="tin"} 5.0' in text
    assert 'ebhpc_forecast_cpu_seconds{platform="tin"} 1.5' in text
