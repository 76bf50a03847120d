"""Reading traces in the Standard Workload Format."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from ebhpc.planning.queue.swf import Skipped, Trace, TracedJob, TraceError, read_jobs

HEADER = """; Version: 2.2
; Computer: A small one
; MaxNodes: 8 (of which 2 for interactive work)
; MaxProcs: 16
; UnixStartTime: 843480031
; Note: first
; Note: second
;
"""


def line(
    *,
    number: int = 1,
    submit: float = 0,
    wait: float = 5,
    run: float = 10,
    allocated: int = 4,
    asked: int = 4,
    limit: int = 60,
    status: int = 1,
    user: int = 7,
) -> str:
    return f"{number} {submit} {wait} {run} {allocated} -1 -1 {asked} {limit} -1 {status} {user} 3 -1 2 -1 -1 -1\n"


def read(path: Path, text: str | bytes) -> tuple[Trace, list[TracedJob]]:
    path.write_bytes(text.encode("latin-1") if isinstance(text, str) else text)
    trace = Trace()
    return trace, list(read_jobs(path, trace))


def test_a_line_becomes_a_job_and_minus_one_becomes_none(tmp_path: Path) -> None:
    trace, jobs = read(tmp_path / "t.swf", HEADER + "\n" + line(submit=100))
    assert jobs == [
        TracedJob(number=1, submitted=100, started=105, ended=115, processors=4, limit=60, user=7, group=3, queue=2)
    ]
    assert (trace.processors, trace.began, trace.read) == (16, 843480031, 1)
    assert trace.header["Note"] == "first"


def test_gzip_is_known_by_its_content_whatever_the_name(tmp_path: Path) -> None:
    _, jobs = read(tmp_path / "t.swf", gzip.compress((HEADER + line()).encode()))
    assert len(jobs) == 1


def test_the_machine_has_maxnodes_where_maxprocs_is_missing_and_says_nothing_without_both(tmp_path: Path) -> None:
    assert read(tmp_path / "a.swf", "; MaxNodes: 8\n")[0].processors == 8
    assert read(tmp_path / "b.swf", "; MaxNodes: many\n")[0].processors is None


def test_letters_of_another_century_do_not_stop_the_reading(tmp_path: Path) -> None:
    trace, _ = read(tmp_path / "t.swf", "; Installation: Kungliga tekniska högskolan\n")
    assert trace.header["Installation"].endswith("högskolan")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (line(status=2), Skipped.PARTIAL),
        (line(status=4), Skipped.PARTIAL),
        (line(run=-1), Skipped.NEVER_RAN),
        (line(run=0, status=5), Skipped.NEVER_RAN),
        (line(wait=-1), Skipped.NO_WAIT),
        (line(allocated=-1, asked=-1), Skipped.NO_SIZE),
    ],
)
def test_what_never_ran_is_left_out_and_counted(tmp_path: Path, text: str, reason: Skipped) -> None:
    trace, jobs = read(tmp_path / "t.swf", text + line(number=2))
    assert [job.number for job in jobs] == [2]
    assert trace.skipped == {reason: 1}


def test_a_job_cancelled_while_it_ran_and_one_of_less_than_a_second_are_kept(tmp_path: Path) -> None:
    _, jobs = read(tmp_path / "t.swf", line(status=5) + line(run=0))
    assert len(jobs) == 2


def test_processors_are_those_it_got_else_those_it_asked_for(tmp_path: Path) -> None:
    _, jobs = read(tmp_path / "t.swf", line(allocated=3, asked=5) + line(allocated=-1, asked=5) + line(limit=-1))
    assert [job.processors for job in jobs] == [3, 5, 4]
    assert [job.limit for job in jobs] == [60, 60, None]


def test_times_may_be_fractions(tmp_path: Path) -> None:
    _, jobs = read(tmp_path / "t.swf", line(submit=1.6, wait=2.2, run=9.9))
    assert (jobs[0].submitted, jobs[0].started, jobs[0].ended) == (2, 4, 14)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1 2 3\n", r":2: 3 fields, expected the 18 numbers"),
        (line().replace("60", "soon"), r":2: could not convert string to float: 'soon'"),
        (line().replace("60", "nan"), r":2: a number that is not finite"),
        (line(submit=-5), r":2: submitted at -5"),
    ],
)
def test_a_line_that_is_no_job_is_an_error_with_its_number(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(TraceError, match=words):
        read(tmp_path / "t.swf", "; MaxProcs: 4\n" + text)


def test_a_damaged_archive_is_an_error_that_says_after_which_line(tmp_path: Path) -> None:
    whole = gzip.compress("".join(line(number=number, submit=number * 37 % 1009) for number in range(5000)).encode())
    with pytest.raises(TraceError, match=r"damaged after line \d+"):
        read(tmp_path / "t.swf.gz", whole[: len(whole) // 2])
