"""The driver learns of queues and publishes forecasts."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest
from sqlalchemy import update

from ebhpc.driver.forecasting import LEASE
from ebhpc.driver.learner import LearnerGone, LearnerHere, LearnerProcess
from ebhpc.driver.learning import SHARE, Learner, Plan, Planned, Result, Task
from ebhpc.model import Allocation
from ebhpc.model.sessions import Shape
from ebhpc.planning import (
    FinishedJob,
    Node,
    RunningJob,
    Snapshot,
    WaitingJob,
    decode_snapshot,
    encode_snapshot,
)
from ebhpc.planning.queue import decode_forecast, unpack_learned
from ebhpc.store import Forecasts, get_learned, get_platforms, get_snapshot, read_forecasts
from ebhpc.store.tables import learned

HOUR = 3600


def full_queue(
    now: int, uuid: str | None, seconds: int, finished: tuple[FinishedJob, ...] = (), number: int = 0
) -> Snapshot:
    """One node, taken for so many seconds by its job's limit; a job, a session's or not, waits."""
    return Snapshot(
        platform="tin",
        taken=now,
        nodes=(Node(name="n1", cores=1, memory=1024),),
        running=(
            RunningJob(
                id=f"r{number}",
                allocations=(Allocation(node="n1", cores=1, memory=1024),),
                started=now,
                ends=now + seconds,
                user="u",
            ),
        ),
        waiting=(
            WaitingJob(
                id=f"r{number + 1}",
                shape=Shape(cores=1, memory=1024),
                time_limit=HOUR,
                submitted=now - 5,
                session=uuid,
                user="u",
            ),
        ),
        finished=finished,
    )


def ended(number: int, now: int) -> FinishedJob:
    return FinishedJob(
        id=f"r{number}", nodes=1, cores=1, time_limit=HOUR, submitted=now - 900, started=now - 600, ended=now, user="u"
    )


def busy(world, number: int = 0, **more) -> None:
    world.tin.always["snapshot"] = lambda _: full_queue(int(world.now), None, HOUR, number=number, **more)


def forecast_of(world):
    with world.store.read() as tx:
        return read_forecasts(tx).get("tin")


class Counting(LearnerHere):
    """Learns here, and keeps the tasks."""

    def __init__(self) -> None:
        super().__init__()
        self.tasks: list[Task] = []
        self.failures: list[Exception] = []

    def do(self, task: Task) -> Result:
        self.tasks.append(task)
        if self.failures:
            raise self.failures.pop()
        return super().do(task)


def test_each_snapshot_of_a_queue_becomes_a_forecast(world):
    busy(world)
    driver = world.driver(learner=Counting())
    world.turn(driver, 25)
    record = forecast_of(world)
    assert record.version >= 2
    assert world.now - record.taken <= 11
    with world.store.read() as tx:
        known = Forecasts(world.store).current(tx, "tin")
    assert known.forecast.waiting == known.forecast.running == 1


def test_a_platform_without_a_queue_is_left_alone(world):
    learner = Counting()
    driver = world.driver(learner=learner)
    world.turn(driver, 60)
    assert learner.tasks == []
    assert forecast_of(world) is None


def test_what_was_learned_outlives_the_driver_and_each_job_counts_once(world):
    driver = world.driver(learner=LearnerHere())
    for number in range(1, 80):
        now = int(world.now)
        busy(world, number, finished=(ended(number - 1, now),))
        world.turn(driver, 10.5)
    kept = get_learned(world.store, "tin")
    assert kept.state is not None
    before = unpack_learned(kept.state)
    # They start long before they were thought to: most are to be learned from later
    told = before.known + len(before.early)
    assert told >= 40
    driver.stop()
    again = world.driver("other", learner=LearnerHere())
    world.turn(again, 10.5)
    # The same jobs are told once more: by a plugin that begins anew
    busy(world, 80, finished=tuple(ended(number, int(world.now)) for number in range(40)))
    world.turn(again, 310, each=10)
    after = unpack_learned(get_learned(world.store, "tin").state)
    assert after.known + len(after.early) == pytest.approx(told, abs=5)
    assert after.run_times.ended <= 80
    assert forecast_of(world).accuracy.starts > 0
    world.turn(again, HOUR, each=30)
    assert unpack_learned(get_learned(world.store, "tin").state).known >= 40


def test_one_of_two_drivers_learns_and_the_other_goes_on_when_it_is_gone(world):
    busy(world)
    one, two = Counting(), Counting()
    first, second = world.driver("one", learner=one), world.driver("two", pid=2, learner=two)
    for _ in range(60):
        world.now += 1
        first.step(world.now)
        second.step(world.now)
    assert bool(one.tasks) != bool(two.tasks)
    idle, alive = (two, second) if one.tasks else (one, first)
    world.turn(alive, LEASE + 60, each=5)
    assert idle.tasks


def test_a_driver_that_is_started_again_under_its_name_goes_on_learning_at_once(world):
    busy(world)
    world.turn(world.driver("d", learner=LearnerHere()), 5)
    version = forecast_of(world).version
    again = world.driver("d", pid=2, learner=LearnerHere())
    world.turn(again, 15)
    assert forecast_of(world).version > version


def test_what_cannot_be_read_is_dropped_with_a_line_in_the_log_and_learning_begins_anew(world, caplog):
    busy(world)
    driver = world.driver(learner=LearnerHere())
    world.turn(driver, 5)
    driver.stop()
    with world.store.write("damage") as tx:
        tx.execute(update(learned).values(state=b"L1rubbish"))
    again = world.driver("other", learner=LearnerHere())
    world.turn(again, 20)
    assert "what was learned of its queue is dropped" in caplog.text
    assert unpack_learned(get_learned(world.store, "tin").state).known == 0


def test_a_learner_that_fails_is_tried_again_and_no_ended_job_is_lost(world, caplog):
    learner = Counting()
    learner.failures = [LearnerGone("it hangs")]
    driver = world.driver(learner=learner)
    busy(world, 1, finished=(ended(0, int(world.now)),))
    world.turn(driver, 1)
    busy(world, 2, finished=(ended(1, int(world.now)),))
    world.turn(driver, 90)
    assert "its queue is not forecast: it hangs" in caplog.text
    assert {job.id for task in learner.tasks[1:] for job in task.ended} == {"r0", "r1"}
    assert forecast_of(world) is not None


def test_a_snapshot_that_breaks_the_simulation_harms_neither_the_driver_nor_what_was_learned(world):
    driver = world.driver(learner=LearnerHere())
    busy(world)
    world.turn(driver, 15)
    broken = encode_snapshot(full_queue(int(world.now), None, HOUR))[:-20]
    assert Learner().do(Task(platform="tin", snapshot=broken, fresh=True)).failure is not None
    busy(world)
    version = forecast_of(world).version
    world.turn(driver, 25)
    assert forecast_of(world).version > version


def test_forecasts_that_cost_much_are_made_more_rarely(world):
    class Slow(Counting):
        def do(self, task: Task) -> Result:
            from msgspec.structs import replace

            return replace(super().do(task), seconds=20.0)

    learner = Slow()
    busy(world)
    driver = world.driver(learner=learner)
    world.turn(driver, 300)
    done = [task for task in learner.tasks if task.token or task.state or task.fresh]
    assert len(done) <= 300 * SHARE / 20.0 + 2


# --- the plan on limits, for reservations ----------------------------------------------------------------------------


def published(world) -> Snapshot:
    found = get_snapshot(world.store, "tin")
    assert found is not None
    return decode_snapshot(found[1])


def test_a_snapshot_is_published_with_the_planned_starts_of_what_waits(world):
    busy(world)
    driver = world.driver(learner=LearnerHere())
    world.turn(driver, 1)
    [planned] = published(world).planned
    assert planned.start >= published(world).taken + HOUR


def test_where_the_site_lets_reservations_delay_the_queue_nothing_is_planned(world):
    busy(world)
    platform = world.platform("tin", world.tin, delay_queue=True)
    driver = world.driver(learner=LearnerHere(), platforms={"tin": platform})
    world.turn(driver, 1)
    assert published(world).planned == ()
    platform.close()


def test_a_queue_that_cannot_be_planned_makes_the_platform_unavailable_until_it_can(world):
    class Broken(LearnerHere):
        def plan(self, task: Plan) -> Planned:
            return super().plan(task) if works else Planned(failure="no room")

    works = False
    busy(world)
    driver = world.driver(learner=Broken())
    world.turn(driver, 1)
    assert "its queue cannot be planned: no room" in str(get_platforms(world.store)["tin"].trouble)
    works = True
    world.turn(driver, 12)
    assert get_platforms(world.store)["tin"].trouble is None


# --- the process -----------------------------------------------------------------------------------------------------


@pytest.fixture
def process():
    made = LearnerProcess()
    yield made
    made.close()


def task(**more) -> Task:
    snapshot = encode_snapshot(full_queue(int(time.time()), None, HOUR))
    return Task(platform="tin", snapshot=snapshot, **{"fresh": True, **more})


def test_a_process_of_its_own_learns_remembers_and_is_started_again_when_it_was_killed(process):
    assert process.pid is None
    first = process.do(task())
    assert decode_forecast(first.forecast).waiting == 1
    assert os.getpriority(os.PRIO_PROCESS, process.pid) >= 10
    second = process.do(task(fresh=False, token=first.token))
    assert not second.unknown
    assert process.do(task(fresh=False, token="another")).unknown
    planned = process.plan(Plan(snapshot=task().snapshot, bookings=(), now=int(time.time())))
    assert len(decode_snapshot(planned.snapshot).planned) == 1
    before = process.pid
    os.kill(before, signal.SIGKILL)
    with pytest.raises(LearnerGone):
        process.do(task())
    third = process.do(task(fresh=False, token=second.token))
    assert third.unknown
    assert process.pid != before


def test_a_process_that_hangs_is_ended():
    process = LearnerProcess()
    try:
        process.do(task())
        process.longest = 1.0
        os.kill(process.pid, signal.SIGSTOP)
        with pytest.raises(LearnerGone, match="silent"):
            process.do(task())
        assert process.pid is None
    finally:
        process.close()


def test_the_process_ends_with_the_driver(process):
    process.do(task())
    pid = process.pid
    process._wire.close()
    deadline = time.monotonic() + 10
    while process._process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert pid == process._process.pid


def test_stopping_does_not_wait_for_a_task_that_runs(process):
    process.do(task())
    os.kill(process.pid, signal.SIGSTOP)
    failed: list[BaseException] = []

    def ask() -> None:
        try:
            process.do(task())
        except LearnerGone as error:
            failed.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    time.sleep(0.2)
    begun = time.monotonic()
    process.close()
    thread.join(10)
    assert failed
    assert time.monotonic() - begun < 5
