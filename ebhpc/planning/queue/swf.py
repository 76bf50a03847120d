"""Reading traces in the Standard Workload Format (SWF) of the Parallel Workloads Archive, version 2.2.

Source: S. Chapin, W. Cirne, D. Feitelson and others, "Benchmarks and Standards for the Evaluation of Parallel
Job Schedulers", JSSPP 1999, and the archive's page "The Standard Workload Format". A line is a job of 18
numbers, -1 where something is not known; lines that begin with ``;`` are comments, at the top a header.
"""

from __future__ import annotations

import gzip
import io
import math
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO, TextIO

from msgspec import Struct

FIELDS = 18
"""How many numbers a line has."""

_LARGEST = 10**11
"""No time of a job, in seconds, and no other number of its line is greater."""

_LARGEST_MACHINE = 10**9

_GZIP = b"\x1f\x8b"
_BYTE_ORDER_MARK = "\xef\xbb\xbf"
"""As it reads in Latin-1."""

_PARTIAL = frozenset({2, 3, 4})
"""Status of a part of a job that was checkpointed or swapped out; the line of the whole job has 0 or 1."""


class TraceError(ValueError):
    """A trace that cannot be read; the text names the file, the line, what is wrong and what was expected."""


class Skipped(StrEnum):
    """Why a line of a trace is no job to learn from or to predict."""

    PARTIAL = "part of a job that has a line of its own as a whole"
    NEVER_RAN = "no run time: cancelled before its start, or not recorded"
    NO_WAIT = "no wait time: a model's trace, or not recorded"
    NO_SIZE = "no number of processors"


class TracedJob(Struct, frozen=True, kw_only=True):
    """A job of a trace.

    ``submitted``, ``started`` and ``ended`` are seconds since the trace's beginning, ``processors`` what it
    got (where that is not known, what it asked for), ``limit`` the requested run time in seconds (None: not
    known). ``user``, ``group``, ``queue`` and ``partition`` are the trace's numbers.
    """

    number: int
    submitted: int
    started: int
    ended: int
    processors: int
    limit: int | None
    user: int | None = None
    group: int | None = None
    queue: int | None = None
    partition: int | None = None

    @property
    def wait(self) -> int:
        """Seconds from submission to start."""
        return self.started - self.submitted


@dataclass(slots=True)
class Trace:
    """What a trace says of itself, and of the lines read so far: both grow while it is read.

    ``header`` has the first value of each label, ``skipped`` counts the lines left out, ``read`` all lines
    of jobs.
    """

    header: dict[str, str] = field(default_factory=dict)
    skipped: Counter[Skipped] = field(default_factory=Counter)
    read: int = 0

    def number(self, label: str) -> int | None:
        """Return the first number in the header's value of ``label``; None if there is none."""
        try:
            return int(self.header.get(label, "").split()[0])
        except (IndexError, ValueError):
            return None

    @property
    def processors(self) -> int | None:
        """How many processors the machine has, by the header: MaxProcs, else MaxNodes; None where that is no size."""
        for label in ("MaxProcs", "MaxNodes"):
            if 0 < (self.number(label) or 0) <= _LARGEST_MACHINE:
                return self.number(label)
        return None

    @property
    def began(self) -> int:
        """When the trace begins (POSIX seconds); 0 where it does not say."""
        began = self.number("UnixStartTime") or 0
        return began if 0 < began <= _LARGEST else 0


def read_jobs(path: Path, trace: Trace) -> Iterator[TracedJob]:
    """Yield a trace's jobs in the order of its lines, plain or gzip whatever its name; fill in ``trace``.

    Left out, and counted in ``trace.skipped``: see :class:`Skipped`. Fractions of seconds are rounded.

    Raises:
        TraceError: a line is no job, or the file is damaged.
        OSError: the file cannot be opened.
    """
    with path.open("rb") as raw, _text(raw) as text:
        number = 0
        try:
            for number, line in enumerate(text, start=1):
                line = line.removeprefix(_BYTE_ORDER_MARK) if number == 1 else line
                if line.startswith(";"):
                    _read_comment(line, trace)
                elif line.strip():
                    trace.read += 1
                    job = _job(line, f"{path}:{number}", trace.skipped)
                    if job is not None:
                        yield job
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise TraceError(f"{path}: damaged after line {number}: {error}") from error
        except UnicodeDecodeError as error:
            raise TraceError(f"{path}:{number + 1}: no text; expected a trace in SWF, plain or gzip") from error


def _text(raw: BinaryIO) -> TextIO:
    """Open as text. Headers of old traces name people and places in Latin-1, in which every byte is a letter."""
    first = raw.read(2)
    raw.seek(0)
    stream = gzip.GzipFile(fileobj=raw) if first == _GZIP else raw
    return io.TextIOWrapper(stream, encoding="latin-1")


def _read_comment(line: str, trace: Trace) -> None:
    label, colon, value = line.lstrip("; \t").partition(":")
    if colon and label.strip():
        trace.header.setdefault(label.strip(), value.strip())


def _job(line: str, where: str, skipped: Counter[Skipped]) -> TracedJob | None:
    words = line.split()
    if len(words) != FIELDS:
        raise TraceError(f"{where}: {len(words)} fields, expected the {FIELDS} numbers of SWF")
    try:
        values = [float(word) for word in words]
    except ValueError as error:
        raise TraceError(f"{where}: {error}; expected {FIELDS} numbers") from error
    if not all(map(math.isfinite, values)):
        raise TraceError(f"{where}: a number that is not finite")
    if max(map(abs, values)) > _LARGEST:
        raise TraceError(f"{where}: {max(values, key=abs):g}, expected no number above {_LARGEST:g}")
    fields = [round(value) for value in values]
    number, submitted, wait, run, allocated = fields[:5]
    asked, limit, status = fields[7], fields[8], fields[10]
    processors = allocated if allocated > 0 else asked
    reason = None
    if status in _PARTIAL:
        reason = Skipped.PARTIAL
    elif run < 0 or (run == 0 and status == 5):
        reason = Skipped.NEVER_RAN
    elif wait < 0:
        reason = Skipped.NO_WAIT
    elif processors < 1:
        reason = Skipped.NO_SIZE
    if reason is not None:
        skipped[reason] += 1
        return None
    if submitted < 0:
        raise TraceError(f"{where}: submitted at {submitted}, expected 0 or more seconds since the beginning")
    user, group, _, queue, partition = (value if value >= 0 else None for value in fields[11:16])
    return TracedJob(
        number=number,
        submitted=submitted,
        started=submitted + wait,
        ended=submitted + wait + run,
        processors=processors,
        limit=limit if limit > 0 else None,
        user=user,
        group=group,
        queue=queue,
        partition=partition,
    )
