"""The command `ebhpc replay`."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from ebhpc.cli.replay import replay
from tests.planning_queue.traces import write_trace


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_trace(tmp_path_factory.mktemp("traces") / "priorities.swf", "priorities", 500)


def test_it_prints_errors_and_coverage_beside_the_plan(trace: Path) -> None:
    result = CliRunner().invoke(replay, [str(trace)])
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert "500 jobs, 128 processors" in lines[0]
    assert any(line.startswith("expected start  ") for line in lines)
    assert any(line.startswith("plan on limits  ") for line in lines)
    assert "mean / mean wait" in result.stdout
    assert "starts inside the interval" in result.stdout
    assert "One interval for all jobs" in result.stdout
    assert result.stderr == ""


def test_json_has_the_figures_and_the_plot_is_an_svg_image(trace: Path, tmp_path: Path) -> None:
    packed, plot = tmp_path / "t.swf.gz", tmp_path / "plot.svg"
    packed.write_bytes(gzip.compress(trace.read_bytes()))
    result = CliRunner().invoke(replay, [str(packed), "--json", "--jobs", "300", "--plot", str(plot)])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["figures"]["jobs"] == 300
    assert report["processors"] == 128
    assert 0 < report["figures"]["intervals"]["inside"] <= 1
    assert report["figures"]["expected"]["mean"] < report["figures"]["planned"]["mean"]
    assert plot.read_text(encoding="utf-8").startswith("<svg ")


def test_what_cannot_be_read_is_an_error_that_says_where(tmp_path: Path) -> None:
    broken = tmp_path / "broken.swf"
    broken.write_text("; MaxProcs: 4\n1 2 3\n")
    result = CliRunner().invoke(replay, [str(broken)])
    assert result.exit_code == 1
    assert "broken.swf:2: 3 fields" in result.stderr


def test_a_trace_without_waits_says_what_was_left_out(tmp_path: Path) -> None:
    model = tmp_path / "model.swf"
    model.write_text("; MaxProcs: 4\n1 0 -1 10 2 -1 -1 2 60 -1 1 1 1 -1 1 -1 -1 -1\n")
    result = CliRunner().invoke(replay, [str(model)])
    assert result.exit_code == 1
    assert "none of its 1 jobs can be replayed (left out: 1 × no wait time" in result.stderr


def test_a_trace_that_does_not_say_how_large_the_machine_is_needs_it_given(tmp_path: Path) -> None:
    silent = tmp_path / "silent.swf"
    silent.write_text("1 0 0 10 2 -1 -1 2 60 -1 1 1 1 -1 1 -1 -1 -1\n")
    result = CliRunner().invoke(replay, [str(silent)])
    assert result.exit_code == 1
    assert "give --processors" in result.stderr
    given = CliRunner().invoke(replay, [str(silent), "--processors", "4"])
    assert given.exit_code == 0, given.output
    assert "No job waited" in given.stdout


def test_another_kind_of_picture_is_refused_before_anything_is_done(trace: Path) -> None:
    result = CliRunner().invoke(replay, [str(trace), "--plot", "picture.png"])
    assert result.exit_code == 2
    assert "something.svg" in result.stderr


_JOB = "{number} {submitted} {wait} 30 1 -1 -1 1 {limit} -1 1 1 1 -1 1 -1 -1 -1\n"


def jobs(count: int, *, wait: int = 500, limit: int = 60) -> str:
    return "".join(_JOB.format(number=number, submitted=10 * number, wait=wait, limit=limit) for number in range(count))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "none of its 0 jobs can be replayed"),
        (b"; MaxProcs: 4\n", "none of its 0 jobs can be replayed"),
        (bytes(range(128, 256)) * 40, "expected the 18 numbers of SWF"),
        (b"\x1f\x8brubbish", "damaged"),
        (gzip.compress(jobs(90).encode())[:-40], "damaged"),
        (("; MaxProcs: 0\n" + jobs(1)).encode(), "give --processors"),
        (("; MaxProcs: -5\n; MaxNodes: none\n" + jobs(1)).encode(), "give --processors"),
        (("; MaxProcs: " + "9" * 5000 + "\n" + jobs(1)).encode(), "give --processors"),
        (("; MaxProcs: 4\n" + jobs(1, limit=10**30)).encode(), "expected no number above 1e+11"),
        (b"; MaxProcs: 4\n1 0 5 nan 1 -1 -1 1 60 -1 1 1 1 -1 1 -1 -1 -1\n", "not finite"),
        (("; MaxProcs: 4\n" + jobs(1)).encode() + b"\x00\x00\n", "fields, expected"),
    ],
    ids=["empty", "header", "garbage", "no gzip", "cut", "zero", "negative", "endless", "limit", "nan", "nul"],
)
def test_an_odd_trace_is_an_error_in_one_line(content: bytes, words: str, tmp_path: Path) -> None:
    odd = tmp_path / "odd.swf"
    odd.write_bytes(content)
    result = CliRunner().invoke(replay, [str(odd)])
    assert result.exit_code == 1
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "content",
    [
        "; MaxProcs: 4\n" + "; Note: much\n" * 100_000 + jobs(30),
        "\ufeff; MaxProcs: 4\n" + jobs(30),
        ("; MaxProcs: 4\n" + jobs(30)).replace("\n", "\r\n"),
        "; MaxProcs: 4\n; UnixStartTime: 99999999999999999999\n\n   \n" + jobs(30),
        "; MaxProcs: 4\n" + jobs(30, limit=-1),
    ],
    ids=["long header", "byte order mark", "line ends of Windows", "a beginning in the far future", "no limits"],
)
def test_a_trace_that_is_a_little_odd_is_replayed_and_drawn(content: str, tmp_path: Path) -> None:
    odd, plot = tmp_path / "odd.swf", tmp_path / "odd.svg"
    odd.write_text(content, encoding="utf-8", newline="")
    result = CliRunner().invoke(replay, [str(odd), "--plot", str(plot), "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["figures"]["jobs"] == 30
    assert "polyline" in plot.read_text(encoding="utf-8")
