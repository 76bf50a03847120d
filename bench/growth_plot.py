"""A picture of how figures grow: both axes logarithmic, so that what grows linearly is a line of slope one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import ceil, floor, log10
from typing import NamedTuple
from xml.sax.saxutils import escape

_WIDTH, _HEIGHT = 760, 460
_LEFT, _TOP, _RIGHT, _BOTTOM = 70, 50, 470, 400
_COLOURS = ("#1668b4", "#b0562c", "#2c8a4b", "#7a4fb0", "#a03050", "#606060")


class Line(NamedTuple):
    """A name, and points of positive numbers."""

    name: str
    points: Sequence[tuple[float, float]]


def growth_picture(lines: Sequence[Line], title: str, across: str, up: str) -> str:
    """Return an SVG image of the lines, with one of slope one to compare them with."""
    xs = [log10(x) for line in lines for x, _ in line.points]
    ys = [log10(y) for line in lines for _, y in line.points]
    x_range, y_range = (floor(min(xs)), ceil(max(xs))), (floor(min(ys)), ceil(max(ys)))

    def at(x: float, y: float) -> tuple[float, float]:
        return (
            _LEFT + (x - x_range[0]) / (x_range[1] - x_range[0]) * (_RIGHT - _LEFT),
            _BOTTOM - (y - y_range[0]) / (y_range[1] - y_range[0]) * (_BOTTOM - _TOP),
        )

    def parts() -> Iterator[str]:
        yield (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" '
            'font-size="12" fill="#222">'
        )
        yield f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>'
        yield f'<text x="{_LEFT}" y="28" font-size="15" font-weight="bold">{escape(title)}</text>'
        for decade in range(x_range[0], x_range[1] + 1):
            x, _ = at(decade, y_range[0])
            yield f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{_BOTTOM}" stroke="#ddd"/>'
            yield f'<text x="{x:.1f}" y="{_BOTTOM + 18}" text-anchor="middle">{10**decade:,}</text>'
        for decade in range(y_range[0], y_range[1] + 1):
            _, y = at(x_range[0], decade)
            yield f'<line x1="{_LEFT}" x2="{_RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>'
            yield f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{10.0**decade:g}</text>'
        yield f'<text x="{(_LEFT + _RIGHT) / 2}" y="{_BOTTOM + 42}" text-anchor="middle">{escape(across)}</text>'
        yield f'<text x="{_LEFT}" y="{_TOP - 6}">{escape(up)}</text>'
        decades = min(x_range[1] - x_range[0], y_range[1] - y_range[0])
        (x1, y1), (x2, y2) = at(x_range[0], y_range[0]), at(x_range[0] + decades, y_range[0] + decades)
        yield (f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#999" stroke-dasharray="5 4"/>')
        yield f'<text x="{_RIGHT + 34}" y="{_TOP}" fill="#777">- - -  linear</text>'
        for number, line in enumerate(lines):
            colour = _COLOURS[number % len(_COLOURS)]
            points = [at(log10(x), log10(y)) for x, y in line.points]
            drawn = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
            yield f'<polyline points="{drawn}" fill="none" stroke="{colour}" stroke-width="1.8"/>'
            for x, y in points:
                yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6" fill="{colour}"/>'
            yield f'<text x="{_RIGHT + 34}" y="{_TOP + 24 + 20 * number}" fill="{colour}">{escape(line.name)}</text>'
        yield "</svg>\n"

    return "\n".join(parts())
