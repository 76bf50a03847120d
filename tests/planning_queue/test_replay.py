"""Replaying traces: nothing from the future, sensible on machines of every shape."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from bench.queue_traces import Kind
from ebhpc.planning.queue.figures import figures
from ebhpc.planning.queue.plot import picture
from ebhpc.planning.queue.replay import Replay, Replayed
from ebhpc.planning.queue.swf import TracedJob
from tests.planning_queue.traces import jobs_in, write_trace


def job(
    number: int, submitted: int, started: int, ended: int, processors: int = 1, limit: int | None = 100
) -> TracedJob:
    return TracedJob(
        number=number,
        submitted=submitted,
        started=started,
        ended=ended,
        processors=processors,
        limit=limit,
        user=1,
    )


def replayed(jobs: list[TracedJob], processors: int) -> list[Replayed]:
    return [each for each in Replay(jobs, processors=processors, began=0) if each is not None]


def test_the_plan_takes_running_jobs_to_their_limits_and_waiting_ones_in_order_with_backfill() -> None:
    answers = replayed(
        [
            job(1, 0, 0, 10, processors=3, limit=100),
            job(2, 1, 10, 20, processors=4, limit=50),
            job(3, 2, 2, 5, processors=1, limit=60),
            job(4, 3, 20, 21, processors=1, limit=99),
        ],
        processors=4,
    )
    # 2 waits for 1's limit; 3 fits before that; 4 is planned behind 2, whose plan starts at 100 and takes 50
    assert [answer.planned for answer in answers] == [0, 99, 0, 147]


def test_what_happens_after_a_submission_changes_nothing_about_its_prediction(tmp_path: Path) -> None:
    _, jobs = jobs_in(write_trace(tmp_path / "t.swf", "heavy", 900))
    now = jobs[599].submitted
    other = [
        each
        if each.ended <= now
        else msgspec.structs.replace(
            each, started=each.started if each.started <= now else each.started + 7777, ended=each.ended + 54321
        )
        for each in jobs[:600]
    ]
    assert sum(one != two for one, two in zip(jobs[:600], other, strict=True)) > 5
    seen, altered = replayed(jobs, 512)[:600], replayed(other, 512)

    def told(answers: list[Replayed]) -> list[tuple[int, ...]]:
        return [(each.planned, each.earliest, each.median, each.latest) for each in answers]

    assert told(seen) == told(altered)


def test_the_same_seed_gives_the_same_answers(tmp_path: Path) -> None:
    _, jobs = jobs_in(write_trace(tmp_path / "t.swf", "priorities", 400))
    assert replayed(jobs, 128) == replayed(jobs, 128)


def test_jobs_larger_than_the_machine_are_left_out_and_counted() -> None:
    replay = Replay([job(1, 0, 0, 5, processors=9), job(2, 1, 1, 5)], processors=4, began=0)
    assert [each and each.number for each in replay] == [None, 2]
    assert replay.too_large == 1


def test_more_jobs_running_than_the_machine_has_room_for_is_no_reason_to_fail() -> None:
    answers = replayed([job(number, number, number, number + 50, processors=3) for number in range(1, 6)], 4)
    assert len(answers) == 5
    assert all(0 <= each.earliest <= each.median <= each.latest for each in answers)


def test_jobs_past_their_limit_are_expected_to_end_soon() -> None:
    answers = replayed([job(1, 0, 0, 9000, processors=4, limit=100), job(2, 5000, 9000, 9010, processors=4)], 4)
    assert answers[1].planned == 1


def test_the_first_jobs_of_all_get_sensible_answers() -> None:
    answers = replayed([job(1, 0, 0, 3000, processors=4, limit=3600), job(2, 1, 3000, 3100, processors=4)], 4)
    assert (answers[0].earliest, answers[0].median, answers[0].latest) == (0, 0, 0)
    second = answers[1]
    assert second.planned == 3599
    assert 0 < second.median < 3600
    assert second.earliest < second.median < second.latest <= 3600


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["exact", "heavy", "idle", "overloaded", "unknown", "priorities"])
def test_on_machines_of_every_shape_it_keeps_its_promise_and_beats_the_plan(kind: str, tmp_path: Path) -> None:
    trace, jobs = jobs_in(write_trace(tmp_path / "t.swf", kind, 1500, seed=11))
    assert trace.processors is not None
    found = figures(replayed(jobs, trace.processors))
    assert found is not None
    # With exact limits little can be better than the plan; there, not to be much worse is all
    assert found.expected.mean < found.planned.mean * (1.25 if kind == "exact" else 0.8)
    if found.counted > 500:
        assert 0.7 < found.intervals.inside < 0.9
        assert found.intervals.score < found.intervals.trivial_score


def test_figures_are_those_of_jobs_that_waited_or_were_predicted_to() -> None:
    def answer(wait: int, planned: int, earliest: int, median: int, latest: int) -> Replayed:
        return Replayed(
            number=1, submitted=0, wait=wait, planned=planned, earliest=earliest, median=median, latest=latest
        )

    found = figures([answer(0, 0, 0, 0, 0), answer(100, 400, 60, 200, 240), answer(300, 300, 0, 100, 240)])
    assert found is not None
    assert (found.jobs, found.counted, found.mean_wait) == (3, 2, 200)
    assert (found.expected.mean, found.expected.median, found.expected.relative) == (150, 150, 0.75)
    assert (found.planned.mean, found.planned.bias) == (150, 150)
    assert found.planned_by_plan == found.planned
    assert (found.intervals.inside, found.intervals.after, found.intervals.before) == (0.5, 0.5, 0)
    assert found.intervals.inside_of_all == pytest.approx(2 / 3)
    assert found.intervals.score == pytest.approx((180 + 240 + 10 * 60) / 2)
    assert figures([answer(0, 0, 0, 0, 0)]) is None
    assert figures([]) is None


def test_the_picture_is_well_formed_whether_or_not_anybody_waited(tmp_path: Path) -> None:
    from xml.etree import ElementTree

    _, jobs = jobs_in(write_trace(tmp_path / "t.swf", Kind(processors=64, load=0.9, limits="loose"), 300))
    drawn = ElementTree.fromstring(picture(replayed(jobs, 64), "A <trace> & more"))
    assert len(drawn.findall("{http://www.w3.org/2000/svg}polyline")) == 3
    assert ElementTree.fromstring(picture([], "nothing")).tag.endswith("svg")
