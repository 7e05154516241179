"""Draws the benchmark's latencies as one page that needs no script and no other file."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from scripts._bench_arms import MEANINGS
from scripts._bench_stats import QUANTILES

COLOURS = ("#999999", "#bbbbbb", "#4c78a8", "#72b7b2", "#e45756", "#f58518", "#54a24b")
WIDTH, HEIGHT, MARGIN = 760, 260, 48
Panel = tuple[str, Mapping[str, Mapping[str, float]]]  # title, arm → quantile → milliseconds


def page(report: Mapping[str, Any]) -> str:
    """Return an HTML page: for each section with latencies, quantiles of every arm, log scale."""
    drawn = "".join(_panel(title, arms) for title, arms in _panels(report) if arms)
    said = ", ".join(f"{name} {value}" for name, value in report["conditions"].items())
    meanings = "".join(f"<li>{escape(arm)}: {escape(text)}</li>" for arm, text in MEANINGS.items())
    return ("<!doctype html><meta charset=utf-8><title>Benchmark</title>"
            "<style>body{font:14px sans-serif;max-width:800px;margin:2em auto}</style>"
            f"<h1>What personalization costs a search</h1><p>{escape(said)}</p>{drawn}"
            f"<ul>{meanings}</ul>\n")


def _panels(report: Mapping[str, Any]) -> Iterator[Panel]:
    if "latency" in report:
        yield "one client, arms in turn", {
            arm: seen["ms"][arm] for arm, seen in report["latency"].items()}
    if "closed" in report:
        yield f"{report['conditions']['clients']} clients, closed loop", {
            arm: seen["rounds"][-1]["ms"][arm] for arm, seen in report["closed"].items()}
    for name in ("open", "overload", "soak"):
        if name in report:
            yield f"{name}: {report[name]['rate']:.0f} searches a second", {
                arm: seen["ms"][arm] for arm, seen in report[name].items()
                if isinstance(seen, Mapping) and arm in seen["ms"]}


def _panel(title: str, arms: Mapping[str, Mapping[str, float]]) -> str:
    values = [seen[name] for seen in arms.values() for name in QUANTILES]
    known = [value for value in values if math.isfinite(value) and value > 0]
    if not known:
        return ""
    low, high = 10 ** math.floor(math.log10(min(known))), 10 ** math.ceil(math.log10(max(known)))
    lines = [f'<h2>{escape(title)}</h2><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
             f'aria-label="{escape(title)}: milliseconds by quantile">']
    lines += _grid(low, high)
    lines += [_line(place, arm, [seen[name] for name in QUANTILES], low, high)
              for place, (arm, seen) in enumerate(arms.items())]
    return "".join(lines) + "</svg>"


def _grid(low: float, high: float) -> list[str]:
    marks = [low * 10 ** k for k in range(round(math.log10(high / low)) + 1)]
    heights = [_y(mark, low, high) for mark in marks]
    lines = [f'<line x1="{MARGIN}" x2="{WIDTH - 130}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>'
             f'<text x="{MARGIN - 6}" y="{y + 4:.1f}" text-anchor="end" font-size="12">{mark:g} ms'
             "</text>" for mark, y in zip(marks, heights, strict=True)]
    return lines + [f'<text x="{_x(k):.1f}" y="{HEIGHT - 8}" text-anchor="middle" font-size="12">'
                    f"{name}</text>" for k, name in enumerate(QUANTILES)]


def _line(place: int, arm: str, values: Sequence[float], low: float, high: float) -> str:
    colour = COLOURS[place % len(COLOURS)]
    points = [(_x(k), _y(value, low, high)) for k, value in enumerate(values)
              if math.isfinite(value) and value > 0]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points)
    return (f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>{dots}'
            f'<text x="{WIDTH - 120}" y="{30 + 18 * place}" fill="{colour}" font-size="13">'
            f"{escape(arm)} {values[0]:.2f}</text>")


def _x(place: int) -> float:
    return MARGIN + 30 + place * (WIDTH - MARGIN - 200) / (len(QUANTILES) - 1)


def _y(value: float, low: float, high: float) -> float:
    share = math.log10(value / low) / max(math.log10(high / low), 1e-9)
    return HEIGHT - 30 - share * (HEIGHT - 50)
