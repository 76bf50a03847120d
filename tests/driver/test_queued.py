"""Sessions without a firm start: their jobs wait in the batch system's queue."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ebhpc.driver.learner import LearnerHere
from ebhpc.model import Phase
from ebhpc.planning.queue import Outlook
from ebhpc.store import get_learned, read_forecasts
from tests.driver.queue_of_one import NAME, QueueOfOne
from tests.driver.test_expected_starts import full_queue
from tests.driver.test_loop import wait
from tests.driver.world import EPOCH, World

HOUR = 3600
LIFE = [
    Phase.OFFERED,
    Phase.ACCEPTED,
    Phase.WAITING,
    Phase.PREPARING,
    Phase.AVAILABLE,
    Phase.RUNNING,
    Phase.RELEASING,
    Phase.COMPLETED,
]


def queued(world: World, *, latest: int = 5 * HOUR, duration: int = HOUR, **given) -> str:
    """An accepted session that may start from now to ``latest`` seconds from now."""
    now = int(world.now)
    return world.accepted(
        firm=False,
        allocations=(),
        start=now,
        latest=now + latest,
        duration=duration,
        **given,
    )


def test_it_is_prepared_and_submitted_at_once_and_ends_its_duration_after_its_real_start(world):
    world.tin.queues_for = 2 * HOUR
    world.tin.runs_for = 5000 * HOUR
    driver = world.driver()
    uuid = queued(world)
    world.turn(driver, 5)
    assert world.phase(uuid) is Phase.AVAILABLE
    assert uuid in world.tin.jobs
    assert world.now - EPOCH < 10
    assert world.tin.seen["submit"][0].end == world.session(uuid).finish
    assert any("queue" in words for words in world.told(uuid))
    assert world.booked(uuid) == []
    world.turn(driver, 2 * HOUR - 60, each=60)
    assert world.phase(uuid) is Phase.AVAILABLE
    world.until(driver, lambda: world.phase(uuid) is Phase.RUNNING, most=200)
    began = world.session(uuid).started
    world.until(driver, lambda: world.is_over(uuid), most=2 * HOUR, each=20)
    world.check_is_over(uuid, Phase.FAILED)  # it was ended by the driver, when its time was over
    assert world.told(uuid, "urn:time-limit")
    record = world.session(uuid)
    assert math.ceil(began) + HOUR <= record.ended <= began + HOUR + 60


def test_one_that_runs_to_its_end_is_completed(world):
    world.tin.queues_for = HOUR
    driver = world.driver()
    uuid = queued(world)
    world.until(driver, lambda: world.is_over(uuid), most=2 * HOUR, each=30)
    world.check_is_over(uuid, Phase.COMPLETED)
    assert world.phases(uuid) == LIFE


def test_one_that_does_not_start_by_its_latest_start_is_taken_out_of_the_queue_with_a_message(world):
    world.tin.queues_for = 5000 * HOUR
    driver = world.driver()
    uuid = queued(world, latest=HOUR)
    world.turn(driver, HOUR - 30, each=30)
    assert world.phase(uuid) is Phase.AVAILABLE
    world.until(driver, lambda: world.is_over(uuid), most=600)
    world.check_is_over(uuid, Phase.FAILED)
    assert any("had not started by" in words for words in world.told(uuid, "urn:execution-failed"))
    assert Phase.RUNNING not in world.phases(uuid)


def test_one_that_starts_at_the_last_moment_has_all_of_its_duration(world):
    world.tin.queues_for = HOUR - 1
    world.tin.runs_for = HOUR - 5
    driver = world.driver()
    uuid = queued(world, latest=HOUR)
    world.until(driver, lambda: world.is_over(uuid), most=4 * HOUR, each=10)
    world.check_is_over(uuid, Phase.COMPLETED)


def test_one_whose_preparation_takes_until_after_its_latest_start_never_gets_into_the_queue(world):
    world.tin.always["prepare"] = RuntimeError("not yet")
    driver = world.driver()
    uuid = queued(world, latest=HOUR)
    world.until(driver, lambda: world.is_over(uuid), most=2 * HOUR, each=30)
    world.check_is_over(uuid, Phase.FAILED)
    assert world.tin.calls["submit"] == 0


def test_a_queued_one_that_its_owner_cancels_leaves_the_queue(world):
    world.tin.queues_for = 50 * HOUR
    driver = world.driver()
    uuid = queued(world)
    world.turn(driver, 30)
    world.cancel(uuid)
    world.until(driver, lambda: world.is_over(uuid), most=300)
    world.check_is_over(uuid, Phase.CANCELLED)


# --- what its owner is told while it waits ---------------------------------------------------------------------------


def ahead(world: World, uuid: str, seconds: int) -> None:
    """Have the snapshots show the session's job waiting behind one that has so many seconds left by its limit."""
    world.tin.always["snapshot"] = lambda _: full_queue(int(world.now), uuid, seconds)


def test_its_expected_start_is_kept_up_to_date_and_told_when_it_moves_much(world):
    world.tin.queues_for = 50 * HOUR
    driver = world.driver(learner=LearnerHere())
    uuid = queued(world, latest=40 * HOUR)
    ahead(world, uuid, HOUR)
    world.turn(driver, 60, each=5)
    first = world.session(uuid).outlook
    assert isinstance(first, Outlook)
    assert world.now <= first.start <= first.expected <= first.latest <= world.now + 1.1 * HOUR
    before = len(world.told(uuid))
    world.turn(driver, 120, each=5)
    assert len(world.told(uuid)) == before  # as was expected
    ahead(world, uuid, 20 * HOUR)
    world.turn(driver, 60, each=5)
    second = world.session(uuid).outlook
    assert second.expected > first.expected + HOUR
    [moved] = world.told(uuid)[before:]
    assert "now expected to start around" in moved
    assert world.phase(uuid) is Phase.AVAILABLE


def test_it_is_told_when_it_is_expected_to_start_too_late(world):
    world.tin.queues_for = 50 * HOUR
    driver = world.driver(learner=LearnerHere())
    uuid = queued(world, latest=HOUR)
    ahead(world, uuid, 20 * HOUR)
    world.turn(driver, 120, each=5)
    [late] = world.told(uuid, "urn:time-limit")
    assert "later than" in late


def test_what_the_owner_was_promised_at_first_stays_beside_what_is_expected_now(world):
    world.tin.queues_for = 50 * HOUR
    driver = world.driver(learner=LearnerHere())
    uuid = queued(world, latest=40 * HOUR)
    ahead(world, uuid, HOUR)
    world.turn(driver, 60, each=5)
    record = world.session(uuid)
    assert record.start == int(EPOCH)
    assert record.latest == record.finish - record.duration
    with world.store.read() as tx:
        assert set(read_forecasts(tx)) == {"tin"}


# --- real processes, and drivers that are killed ---------------------------------------------------------------------


class Killed(World):
    """A world with the queue of one, whose driver is a process that dies at points that the test names."""

    def __init__(self, url: str, folder: Path) -> None:
        super().__init__(url, (NAME,))
        self.url = url
        self.queue = QueueOfOne(folder / "queue")
        self.faults = folder / "faults"
        self.faults.mkdir()
        self.log = (folder / "log").open("wb")
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def now(self) -> float:
        return time.time()

    @now.setter
    def now(self, value: float) -> None:
        pass

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.driver.queue_of_one", self.url, str(self.queue.path)],
            env={**os.environ, "EBHPC_FAULTS": str(self.faults)},
            stdout=self.log,
            stderr=self.log,
        )

    def arm(self, point: str) -> None:
        (self.faults / "armed").write_text(f"{point} 1", encoding="utf-8")

    def died_of(self, uuid: str) -> bool:
        """Whether the driver dies at the armed point during a session's life; else the point is armed no more."""
        over = time.monotonic() + 20
        while self.process.poll() is None:
            if self.is_over(uuid):
                over = min(over, time.monotonic() + 0.5)
            if time.monotonic() > over:
                (self.faults / "armed").unlink(missing_ok=True)  # a point that only other lives pass
                return self.process.poll() is not None
            time.sleep(0.02)
        return True

    def points(self) -> list[str]:
        text = (self.faults / "seen").read_text(encoding="utf-8")
        return list(dict.fromkeys(line.split()[0] for line in text.splitlines()))

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(20)
        self.queue.close()
        self.log.close()
        super().close()


@pytest.fixture
def killed(sqlite_template: Path, tmp_path: Path) -> Iterator[Killed]:
    path = tmp_path / "ebhpc.sqlite3"
    path.write_bytes(sqlite_template.read_bytes())
    made = Killed(f"sqlite:///{path}", tmp_path)
    yield made
    made.close()


OWN = ("hold", "prepare", "submit", "AVAILABLE", "WAITING", "forecast", "outlook", "lease_learning")
"""Parts of the names of points that only a queued session passes, or passes in another order."""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_at_any_point_a_driver_runs_each_queued_job_once_and_leaves_nothing(killed):
    killed.start()
    # The first waits until a forecast has told when it starts
    blocking = killed.queue.block(120)
    first = queued(killed, latest=600, duration=60, platform=NAME)
    wait(lambda: killed.session(first).outlook, 60)
    (killed.queue.path / "cancelled" / blocking).touch()
    wait(lambda: killed.is_over(first), 60)
    assert killed.phases(first) == LIFE
    points = killed.points()
    assert {
        "driver.submit.after",
        "driver.forecast.after",
        "store.publish_forecast.after-commit",
        "store.tell_outlook.after-commit",
    } <= set(points)
    # Those at which a session with a firm start is no different have a test of their own
    points = [point for point in points if any(part in point for part in OWN)]
    lives, deaths = [first], 0
    for point in points:
        killed.arm(point)
        # Some points are passed by the way, while something waits
        waits = any(part in point for part in ("forecast", "outlook", "learn"))
        blocking = killed.queue.block(120 if waits else 0.3)
        uuid = queued(killed, latest=600, duration=60, platform=NAME)
        lives.append(uuid)
        if killed.died_of(uuid):
            killed.start()
            deaths += 1
        (killed.queue.path / "cancelled" / blocking).touch()
        wait(lambda uuid=uuid: killed.is_over(uuid), 60)
        assert killed.phases(uuid) == LIFE, point
    for uuid in lives:
        assert killed.queue.runs(uuid) == 1
        assert killed.session(uuid).lease is None
        assert not (killed.queue.path / "stuff" / uuid).exists()
    assert deaths >= 0.9 * len(points)
    assert get_learned(killed.store, NAME) is not None


@pytest.mark.slow
def test_a_job_that_waits_behind_a_long_one_is_taken_out_of_a_real_queue_in_time(killed):
    killed.queue.block(90)
    killed.start()
    uuid = queued(killed, latest=15, duration=60, platform=NAME)
    wait(lambda: killed.phase(uuid) is Phase.AVAILABLE, 30)
    wait(lambda: killed.is_over(uuid), 60)
    assert killed.phase(uuid) is Phase.FAILED
    assert killed.queue.runs(uuid) == 0
    assert uuid in killed.queue.names("ended")
