"""A replay as a picture: how far off predictions were, and how many starts lay inside their intervals over time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

import numpy as np

from ebhpc.planning.queue.estimator import CONFIDENCE
from ebhpc.planning.queue.placement import Floats
from ebhpc.planning.queue.replay import Replayed

_WIDTH, _HEIGHT = 920, 440
_TICKS = ((60, "1 min"), (600, "10 min"), (3600, "1 h"), (36_000, "10 h"), (360_000, "4 d"), (3_600_000, "42 d"))
_EXPECTED, _PLANNED = "#1668b4", "#b0562c"
_AVERAGED = 500
"""The coverage is shown as the mean over so many jobs; of a short trace, over a fifth of it."""


@dataclass(frozen=True, slots=True)
class _Panel:
    """A rectangle of the picture, and the numbers that its corners stand for."""

    left: float
    top: float
    width: float
    height: float
    xs: tuple[float, float]
    ys: tuple[float, float]

    def x(self, value: float) -> float:
        return self.left + (value - self.xs[0]) / (self.xs[1] - self.xs[0]) * self.width

    def y(self, value: float) -> float:
        return self.top + self.height - (value - self.ys[0]) / (self.ys[1] - self.ys[0]) * self.height

    def line(self, xs: Floats, ys: Floats, colour: str) -> str:
        points = " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in zip(xs.tolist(), ys.tolist(), strict=True))
        return f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.8"/>'

    def frame(self, title: str, below: str) -> Iterable[str]:
        yield _text(self.left, self.top - 32, title, weight="bold")
        yield _text(self.left + self.width / 2, self.top + self.height + 42, below, anchor="middle")
        for share in np.linspace(*self.ys, 6).tolist():
            yield (
                f'<line x1="{self.left}" x2="{self.left + self.width}" y1="{self.y(share):.1f}" '
                f'y2="{self.y(share):.1f}" stroke="#ddd"/>'
            )
            yield _text(self.left - 8, self.y(share) + 4, f"{share:.0%}", anchor="end")
        yield (
            f'<rect x="{self.left}" y="{self.top}" width="{self.width}" height="{self.height}" '
            'fill="none" stroke="#888"/>'
        )


def picture(replayed: Sequence[Replayed], title: str) -> str:
    """Return an SVG image of the jobs that waited or were predicted to, in the order of their submission."""
    table = np.array(
        [[job.wait, job.planned, job.earliest, job.median, job.latest] for job in replayed], dtype=float
    ).reshape(-1, 5)
    table = table[(table[:, [0, 1, 3]] > 60).any(axis=1)]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'font-family="sans-serif" font-size="12" fill="#222">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        _text(60, 26, f"{title}: {_count(len(table))} jobs that waited, or were predicted to", size=15, weight="bold"),
        *(_errors(table) if len(table) else ()),
        *(_coverage(table) if len(table) else ()),
        "</svg>\n",
    ]
    return "\n".join(parts)


def _errors(table: Floats) -> Iterable[str]:
    panel = _Panel(60, 96, 380, 270, (np.log(30.0), np.log(3_600_000.0)), (0.0, 1.0))
    yield from panel.frame("Share of jobs whose start was missed by at most …", "error of the predicted start")
    for seconds, label in _TICKS:
        at = panel.x(float(np.log(seconds)))
        yield f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{panel.top}" y2="{panel.top + panel.height}" stroke="#ddd"/>'
        yield _text(at, panel.top + panel.height + 18, label, anchor="middle")
    levels = np.linspace(0, 1, 201)
    for column, colour, name, anchor, at in (
        (3, _EXPECTED, "expected start", "start", panel.left),
        (1, _PLANNED, "plan on limits", "end", panel.left + panel.width),
    ):
        missed = np.quantile(np.abs(table[:, column] - table[:, 0]), levels)
        yield panel.line(np.log(np.clip(missed, 30, 3_600_000)), levels, colour)
        middle = _duration(float(missed[len(missed) // 2]))
        yield _text(at, panel.top - 12, f"{name} (median {middle})", anchor=anchor, colour=colour)


def _coverage(table: Floats) -> Iterable[str]:
    panel = _Panel(510, 96, 380, 270, (0.0, float(len(table))), (0.0, 1.0))
    window = max(min(_AVERAGED, len(table) // 5), 1)
    yield from panel.frame(f"Starts inside the interval, of {window} jobs each", "jobs, in the order of submission")
    low, high = panel.y(CONFIDENCE + 0.05), panel.y(CONFIDENCE - 0.05)
    yield (
        f'<rect x="{panel.left}" y="{low:.1f}" width="{panel.width}" height="{high - low:.1f}" '
        'fill="#1668b4" fill-opacity="0.15"/>'
    )
    shaded = f"promised are {CONFIDENCE:.0%}; shaded: {CONFIDENCE - 0.05:.0%} to {CONFIDENCE + 0.05:.0%}"
    yield _text(panel.left, panel.top - 12, shaded, colour="#555")
    inside = ((table[:, 2] <= table[:, 0]) & (table[:, 0] <= table[:, 4])).astype(float)
    averaged = np.convolve(inside, np.ones(window) / window, mode="valid")
    at = np.arange(len(averaged)) + window
    step = max(len(averaged) // 400, 1)
    yield panel.line(at[::step].astype(float), averaged[::step], _EXPECTED)
    for count, anchor in ((0, "start"), (len(table) // 2, "middle"), (len(table), "end")):
        yield _text(panel.x(count), panel.top + panel.height + 18, _count(count), anchor=anchor)


def _count(number: int) -> str:
    return f"{number:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 2 * 86_400 else f"{seconds / 86_400:.0f} d"


def _text(
    x: float,
    y: float,
    words: str,
    *,
    anchor: str = "start",
    size: int = 12,
    weight: str = "normal",
    colour: str = "#222",
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" font-weight="{weight}" '
        f'fill="{colour}">{escape(words)}</text>'
    )
