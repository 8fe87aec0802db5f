"""Line charts as inline SVG: a report needs a few curves, not a plotting library."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

_COLOURS = ("#2f6fde", "#d9541e", "#2a9d5c", "#8e44ad", "#b8860b", "#c2185b", "#00838f", "#6d4c41")
_WIDTH, _HEIGHT = 560, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 14, 34, 40
_MOST_POINTS = 600

Points = Sequence[tuple[float, float]]


def line_chart(title: str, series: Mapping[str, Points], x_label: str = "iteration", dashed: Sequence[str] = ()) -> str:
    """Return a chart as an ``<svg>`` element; values that are not finite leave gaps.

    The vertical axis is logarithmic when all values are positive and span more than a factor of 30.

    Args:
        title: written above.
        series: curves by name, each a sequence of (x, y).
        x_label: name of the horizontal axis.
        dashed: names of the curves to draw dashed (references).
    """
    finite = [(x, y) for points in series.values() for x, y in points if math.isfinite(x) and math.isfinite(y)]
    if not finite:
        return ""
    xs, ys = zip(*finite, strict=True)
    log = min(ys) > 0 and max(ys) / min(ys) > 30
    y_ticks = (
        _log_ticks(min(ys), max(ys)) if log else _ticks(min(0.0, *ys) if min(ys) < max(ys) / 2 else min(ys), max(ys))
    )
    x_ticks = _ticks(min(xs), max(xs))
    x_low, x_high = (min(xs), max(xs)) if min(xs) < max(xs) else (min(xs) - 1, max(xs) + 1)
    y_low, y_high = min(y_ticks[0], *ys), max(y_ticks[-1], *ys)

    def place_x(x: float) -> float:
        return _LEFT + (x - x_low) / (x_high - x_low) * (_WIDTH - _LEFT - _RIGHT)

    def place_y(y: float) -> float:
        share = math.log(y / y_low) / math.log(y_high / y_low) if log else (y - y_low) / (y_high - y_low)
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)

    parts = [
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">',
        f'<text class="title" x="{_LEFT}" y="18">{escape(title)}{" (log)" if log else ""}</text>',
    ]
    for tick in y_ticks:
        y = place_y(tick)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" text-anchor="end" x="{_LEFT - 6}" y="{y + 4:.1f}">{tick:.4g}</text>')
    for tick in x_ticks:
        if x_low <= tick <= x_high:
            x = place_x(tick)
            parts.append(f'<text class="tick" text-anchor="middle" x="{x:.1f}" y="{_HEIGHT - 22}">{tick:g}</text>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text class="tick" text-anchor="middle" x="{middle}" y="{_HEIGHT - 6}">{escape(x_label)}</text>')

    for i, (name, points) in enumerate(series.items()):
        colour, style = _COLOURS[i % len(_COLOURS)], ' stroke-dasharray="6 4"' if name in dashed else ""
        for run in _finite_runs(points):
            run = run[:: max(1, len(run) // _MOST_POINTS)] + ([run[-1]] if len(run) > _MOST_POINTS else [])
            path = " ".join(f"{place_x(x):.1f},{place_y(y):.1f}" for x, y in run)
            parts.append(f'<polyline fill="none" stroke="{colour}" stroke-width="1.8"{style} points="{path}"/>')
            if len(run) <= 40:
                parts += [
                    f'<circle cx="{place_x(x):.1f}" cy="{place_y(y):.1f}" r="2.6" fill="{colour}">'
                    f"<title>{escape(name)}: {y:.6g} at {x:g}</title></circle>"
                    for x, y in run
                ]
    parts.append("</svg>")
    legend = "".join(
        f'<span><i style="background:{_COLOURS[i % len(_COLOURS)]}"></i>{escape(name)}</span>'
        for i, name in enumerate(series)
    )
    return f'<figure class="curve">{"".join(parts)}<figcaption>{legend}</figcaption></figure>'


def _finite_runs(points: Points) -> list[list[tuple[float, float]]]:
    runs: list[list[tuple[float, float]]] = [[]]
    for x, y in points:
        if math.isfinite(x) and math.isfinite(y):
            runs[-1].append((x, y))
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def _ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Return round numbers that cover the range."""
    if high <= low:
        margin = abs(high) / 2 or 1.0
        low, high = low - margin, high + margin
    raw = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    return [10.0**k for k in range(first, last + 1)]
