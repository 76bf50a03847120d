"""``python -m bench``: measure the broker on this machine and print the figures with their bounds."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from bench import page, planning, refresh, reserved
from bench.anatomy import anatomy
from bench.serving import CONNECTIONS, THREADS, WORKERS, measure


def main() -> None:
    """Run the benchmarks."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--requests", type=int, default=2000, help="requests to the broker (default %(default)s)")
    parser.add_argument("--questions", type=int, default=300, help="questions to the planner (default %(default)s)")
    wanted = parser.parse_args()
    print(f"POST /requests: {WORKERS} workers of {THREADS} threads, SQLite on disk, {CONNECTIONS} connections")
    with tempfile.TemporaryDirectory(prefix="ebhpc-bench-", dir=Path.cwd() / "build") as folder:
        figures = measure(Path(folder), wanted.requests)
    broker, bare = figures.broker, figures.bare
    rows = [
        ("", "requests/s", "median ms", "p99 ms", "answers"),
        *(
            (
                name,
                f"{one.throughput:.0f}",
                f"{one.percentile(0.5) * 1000:.1f}",
                f"{one.percentile(0.99) * 1000:.1f}",
                ", ".join(f"{count} × {status}" for status, count in sorted(one.statuses.items())),
            )
            for name, one in (
                ("ebhpc", broker),
                ("bare, the same documents", bare),
                ("bare, plain data", figures.plain),
            )
        ),
    ]
    for row in rows:
        print(f"  {row[0]:26}{row[1]:>12}{row[2]:>12}{row[3]:>10}   {row[4]}")
    offers = broker.sample.count(b'"OFFERED"')
    print(f"  the last answer: {offers} offers, {len(broker.sample)} bytes")
    bounds = [
        ("throughput beside the bare resource", broker.throughput / bare.throughput, ">=", 0.1),
        ("99th percentile beside the median", broker.percentile(0.99) / broker.percentile(0.5), "<", 10.0),
        ("memory of one worker, MB", figures.worker_memory, "<", 150.0),
        ("start of ebhpc serve to ready, s", figures.ready, "<", 3.0),
    ]
    for name, value, sign, bound in bounds:
        met = value >= bound if sign == ">=" else value < bound
        print(f"  {name:40}{value:>9.2f}   wanted {sign} {bound:g}   {'met' if met else 'NOT MET'}")
    with tempfile.TemporaryDirectory(prefix="ebhpc-bench-", dir=Path.cwd() / "build") as folder:
        each, shares = anatomy(Path(folder))
    print(f"one request in one process: {each:.2f} ms; of this, by the profiler:")
    for part, share in sorted(shares.items(), key=lambda item: -item[1]):
        print(f"  {part:30}{share:>6.0%}")
    with tempfile.TemporaryDirectory(prefix="ebhpc-bench-", dir=Path.cwd() / "build") as folder:
        refresh.show(refresh.measure(Path(folder), wanted.requests))
    planning.show(planning.measure(Path.cwd() / "build", wanted.questions))
    reserved.show(reserved.harm_figures())
    reserved.week_figures(None, [4], 0.1, Path.cwd() / "build")
    with tempfile.TemporaryDirectory(prefix="ebhpc-bench-", dir=Path.cwd() / "build") as folder:
        page.show(page.measure(Path(folder)))


if __name__ == "__main__":
    (Path.cwd() / "build").mkdir(exist_ok=True)
    main()
