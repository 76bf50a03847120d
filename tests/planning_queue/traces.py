"""Small traces for tests, made by the scheduler of bench/queue_traces.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bench.queue_traces import KINDS, Kind, jobs_of, lines, run_easy
from ebhpc.planning.queue.swf import Trace, TracedJob, read_jobs


def write_trace(path: Path, kind: str | Kind, count: int, seed: int = 1) -> Path:
    """Write a trace of so many jobs and return its path."""
    made = KINDS[kind] if isinstance(kind, str) else kind
    jobs = jobs_of(made, count, np.random.default_rng(seed))
    run_easy(jobs, made.processors)
    path.write_text("".join(lines(made, jobs)))
    return path


def jobs_in(path: Path) -> tuple[Trace, list[TracedJob]]:
    """Read a trace."""
    trace = Trace()
    return trace, list(read_jobs(path, trace))
