"""`ebhpc replay`: how well starts would have been predicted on a trace of a real machine."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import msgspec

from ebhpc.cli import screen
from ebhpc.cli.choices import choices_of
from ebhpc.planning.queue.figures import Errors, Figures, figures
from ebhpc.planning.queue.plot import picture
from ebhpc.planning.queue.replay import Replay, Replayed
from ebhpc.planning.queue.swf import Trace, TracedJob, TraceError, read_jobs


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What `ebhpc replay --json` writes.

    ``skipped`` counts lines by reason, ``too_large`` jobs larger than the machine; ``seconds`` is what it
    took. ``figures`` is absent where no job waited.
    """

    trace: str
    processors: int
    lines: int
    skipped: dict[str, int]
    too_large: int
    seconds: float
    figures: Figures | None = None


@click.command(short_help="Replay a trace: how well would starts have been predicted?")
@click.argument("trace", metavar="TRACE.swf[.gz]", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--jobs", "limit", metavar="N", type=click.IntRange(min=1), help="Only the first N jobs.")
@click.option(
    "--processors",
    metavar="N",
    type=click.IntRange(min=1),
    help="How many the machine has.  [default: MaxProcs, else MaxNodes, of the trace's header]",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of what is drawn at random.")
@click.option(
    "--plot",
    metavar="FILE.svg",
    type=click.Path(path_type=Path, dir_okay=False, writable=True),
    help="Draw the errors and the coverage.",
)
@click.option("--json", "as_json", is_flag=True, help="Write the figures as JSON, for programs.")
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
@click.pass_context
def replay(
    context: click.Context,
    trace: Path,
    limit: int | None,
    processors: int | None,
    seed: int,
    plot: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Predict each job's start at its submission, and compare it with what happened.

    TRACE is in the Standard Workload Format, plain or gzip. Jobs wait in the order of submission on one pool of
    processors; the estimator learns from those that have started and ended, never from the future. Beside it
    stands the plan that a scheduler with conservative backfill makes when it takes each job to use its whole limit.
    """
    choices = choices_of(context)
    if plot is not None and plot.suffix.lower() != ".svg":
        raise click.BadParameter(f"{plot}: the plot is an SVG image; name the file something.svg", param_hint="--plot")
    begun = time.monotonic()
    seen = Trace()
    try:
        jobs = sorted(read_jobs(trace, seen), key=lambda job: job.submitted)[:limit]
    except (TraceError, OSError) as error:
        raise click.ClickException(str(error)) from error
    size = processors or seen.processors
    if not jobs:
        raise click.ClickException(f"{trace}: none of its {seen.read} jobs can be replayed{_reasons(seen)}.")
    if size is None:
        raise click.ClickException(f"{trace}: the header has neither MaxProcs nor MaxNodes; give --processors.")
    running = Replay(jobs, processors=size, began=seen.began, seed=seed)
    replayed = _run(running, jobs, shown=not (quiet or choices.quiet) and screen.on_terminal(err=True))
    result = figures(replayed)
    if plot is not None:
        try:
            plot.write_text(picture(replayed, trace.name), encoding="utf-8")
        except OSError as error:
            raise click.ClickException(f"{plot}: {error.strerror}") from error
    report = Report(
        trace=str(trace),
        processors=size,
        lines=seen.read,
        skipped={reason.name.lower(): count for reason, count in seen.skipped.items()},
        too_large=running.too_large,
        seconds=round(time.monotonic() - begun, 1),
        figures=result,
    )
    if as_json or choices.json:
        screen.result(msgspec.json.encode(report).decode())
    else:
        _show(report, seen)


def _run(running: Replay, jobs: list[TracedJob], *, shown: bool) -> list[Replayed]:
    with _progress(running, len(jobs), shown=shown) as steps:
        return [job for job in steps if job is not None]


@contextmanager
def _progress(running: Iterable[Replayed | None], total: int, *, shown: bool) -> Iterator[Iterable[Replayed | None]]:
    """Show a bar on stderr meanwhile, with the time that is left."""
    if not shown:
        yield running
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("replaying"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, refresh_per_second=4) as progress:
        yield progress.track(running, total=total)


def _show(report: Report, seen: Trace) -> None:
    result = report.figures
    screen.result(f"{report.trace}: {report.lines} jobs, {report.processors} processors{_reasons(seen)}")
    if report.too_large:
        screen.result(f"{report.too_large} jobs are larger than the machine and were left out.")
    if result is None:
        screen.result("No job waited, or was predicted to wait, more than a minute.")
        return
    screen.result(
        f"{result.counted} of {result.jobs} jobs waited or were predicted to wait more than a minute; their mean wait "
        f"is {result.mean_wait:,.0f} s."
    )
    screen.result()
    screen.table(
        ("error of the start", "mean", "median", "90 %", "mean / mean wait", "too late (mean)"),
        [_row("expected start", result.expected), _row("plan on limits", result.planned), _ratios(result)],
        right=(1, 2, 3, 4, 5),
    )
    alone = result.planned_by_plan
    screen.result(
        f"Without the jobs that only the estimator had wait, the plan's error is {alone.median:,.0f} s in the "
        f"median and {alone.relative:.2f} mean waits, that of the expected start "
        f"{result.expected_by_plan.median:,.0f} s and {result.expected_by_plan.relative:.2f}."
    )
    promised = result.intervals
    screen.result()
    screen.table(
        ("starts inside the interval", "before", "after", "of all jobs", "mean width", "median width"),
        [
            [
                f"{promised.inside:.1%}",
                f"{promised.before:.1%}",
                f"{promised.after:.1%}",
                f"{promised.inside_of_all:.1%}",
                f"{promised.mean_width:,.0f} s",
                f"{promised.median_width:,.0f} s",
            ]
        ],
        right=(0, 1, 2, 3, 4, 5),
    )
    screen.result()
    screen.result(
        f"One interval for all jobs that holds as many starts: {promised.trivial_width:,.0f} s wide, "
        f"{promised.trivial_from_now_width:,.0f} s if it begins at once; ours have "
        f"{promised.mean_width / max(promised.trivial_width, 1):.2f} and "
        f"{promised.mean_width / max(promised.trivial_from_now_width, 1):.2f} times that in the mean. "
        f"Interval score: {promised.score:,.0f} s, theirs {promised.trivial_score:,.0f} s."
    )
    screen.result(f"It took {report.seconds:,.0f} s.")


def _row(name: str, errors: Errors) -> list[str]:
    return [
        name,
        f"{errors.mean:,.0f} s",
        f"{errors.median:,.0f} s",
        f"{errors.p90:,.0f} s",
        f"{errors.relative:.2f}",
        f"{errors.bias:+,.0f} s",
    ]


def _ratios(result: Figures) -> list[str]:
    ours, theirs = result.expected, result.planned
    pairs = ((ours.mean, theirs.mean), (ours.median, theirs.median), (ours.p90, theirs.p90))
    return ["of the plan's", *(f"{one / other:.2f}" if other else "" for one, other in pairs), "", ""]


def _reasons(seen: Trace) -> str:
    if not seen.skipped:
        return ""
    return " (left out: " + "; ".join(f"{count} × {reason}" for reason, count in seen.skipped.most_common()) + ")"
