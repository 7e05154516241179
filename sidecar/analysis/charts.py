"""Charts as inline SVG: text in, text out, colours from the page's style sheet (light and dark).

Every chart scales to its container, names its values in ``<title>`` for pointers and screen
readers, and shows a sentence instead of axes where there is nothing to draw.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH = 720
LABEL_WIDTH = 250
ROW_HEIGHT = 22
PLOT_HEIGHT = 260
LEFT, RIGHT, TOP, BOTTOM = 62, 16, 14, 44
SERIES = 8  # colours in the style sheet
MOST_CHARACTERS = 40

Point = tuple[float, float]


def bars(values: Sequence[tuple[str, float]], *, intervals: Sequence[Point] | None = None,
         digits: int = 3) -> str:
    """Draw one horizontal bar a (label, value), with whiskers where ``intervals`` are given.

    Values may be negative; bars start at zero. A value that is not finite has no bar and reads "–".
    """
    if not values:
        return nothing()
    ends = [v for _, v in values] + [v for pair in intervals or () for v in pair]
    finite = [v for v in ends if math.isfinite(v)]
    low, high = min([0.0, *finite]), max([0.0, *finite])
    span = (high - low) or 1.0
    room = WIDTH - LABEL_WIDTH - 80

    def place(value: float) -> float:
        return LABEL_WIDTH + (value - low) / span * room

    drawn = []
    for k, (label, value) in enumerate(values):
        y = k * ROW_HEIGHT
        said = number(value, digits)
        drawn.append(_text(LABEL_WIDTH - 8, y + 15, shorten(label), "end"))
        if not math.isfinite(value):
            drawn.append(_text(place(0) + 6, y + 15, "–"))
            continue
        left, right = sorted((place(0), place(value)))
        drawn.append(f'<rect class="f0" x="{left:.1f}" y="{y + 4}" height="{ROW_HEIGHT - 8}" '
                     f'width="{max(right - left, 1):.1f}"><title>{escape(label)}: {said}</title>'
                     "</rect>")
        end = right
        if intervals and all(map(math.isfinite, intervals[k])):
            a, b = (place(v) for v in intervals[k])
            end = max(end, b)
            drawn.append(f'<path class="whisker" d="M{a:.1f} {y + 11}H{b:.1f}M{a:.1f} {y + 7}v8'
                         f'M{b:.1f} {y + 7}v8"/>')
        drawn.append(_text(end + 6, y + 15, said))
    return _svg(len(values) * ROW_HEIGHT + 4, drawn)


def lines(series: Mapping[str, Sequence[Point]], *, x_label: str, y_label: str,
          diagonal: bool = False, dots: bool = False, from_zero: bool = True,
          x_names: Sequence[str] | None = None) -> str:
    """Draw (x, y) series as lines, or as dots alone.

    ``diagonal`` adds the line y = x; ``x_names`` name the ticks at 0, 1, 2, … in place of numbers.
    """
    kept = {name: [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
            for name, points in series.items()}
    kept = {name: points for name, points in kept.items() if points}
    if not kept:
        return nothing()
    xs = [x for points in kept.values() for x, _ in points]
    ys = [y for points in kept.values() for _, y in points]
    if diagonal:
        xs, ys = [*xs, 0.0, 1.0], [*ys, 0.0, 1.0]
    frame = _Frame(min(xs), max(xs), min([0.0, *ys] if from_zero else ys), max(ys))
    drawn = frame.axes(x_label, y_label, x_names)
    if diagonal:
        drawn.append(f'<path class="diagonal" d="M{frame.x(0):.1f} {frame.y(0):.1f}'
                     f'L{frame.x(1):.1f} {frame.y(1):.1f}"/>')
    for k, (name, points) in enumerate(kept.items()):
        colour = k % SERIES
        if dots:
            drawn.append(f'<g class="f{colour} dots"><title>{escape(name)}</title>' + "".join(
                f'<circle cx="{frame.x(x):.1f}" cy="{frame.y(y):.1f}" r="2.5"/>'
                for x, y in points) + "</g>")
        else:
            path = "L".join(f"{frame.x(x):.1f} {frame.y(y):.1f}" for x, y in points)
            drawn.append(f'<path class="s{colour}" d="M{path}"><title>{escape(name)}</title>'
                         "</path>")
    return _svg(PLOT_HEIGHT, drawn) + (legend(list(kept)) if len(kept) > 1 else "")


def columns(values: Sequence[tuple[str, float]], *, x_label: str, y_label: str) -> str:
    """Draw one vertical bar a (label, value ≥ 0): a histogram whose bins are named."""
    if not values or not any(v for _, v in values):
        return nothing()
    frame = _Frame(0, len(values), 0, max(v for _, v in values))
    drawn = frame.axes(x_label, y_label, ())
    step = max(1, len(values) // 12)
    for k, (label, value) in enumerate(values):
        left, right = frame.x(k) + 1, frame.x(k + 1) - 1
        top = frame.y(value)
        drawn.append(f'<rect class="f0" x="{left:.1f}" y="{top:.1f}" '
                     f'width="{max(right - left, 0.5):.1f}" height="{frame.y(0) - top:.1f}">'
                     f"<title>{escape(label)}: {number(value)}</title></rect>")
        if k % step == 0:
            drawn.append(_text((left + right) / 2, PLOT_HEIGHT - BOTTOM + 16, label, "middle"))
    return _svg(PLOT_HEIGHT, drawn)


def heat(rows: Sequence[str], names: Sequence[str], values: Sequence[Sequence[float]]) -> str:
    """Draw a matrix of shares (0 to 1) as shaded cells, row by row, with the share in per cent."""
    if not rows or not names:
        return nothing()
    width = (WIDTH - LABEL_WIDTH - 70) / len(names)  # the last name leans out to the right
    head = 110
    drawn = [f'<text class="t" transform="translate({LABEL_WIDTH + (k + 0.5) * width + 4:.1f},'
             f'{head - 6}) rotate(-45)">{escape(shorten(name, 22))}</text>'
             for k, name in enumerate(names)]
    for r, row in enumerate(rows):
        y = head + r * ROW_HEIGHT
        drawn.append(_text(LABEL_WIDTH - 8, y + 15, shorten(row), "end"))
        for c, name in enumerate(names):
            share = values[r][c]
            drawn.append(
                f'<rect class="f0" fill-opacity="{min(max(share, 0.0), 1.0) ** 0.5:.3f}" '
                f'x="{LABEL_WIDTH + c * width:.1f}" y="{y}" width="{width - 1:.1f}" '
                f'height="{ROW_HEIGHT - 1}"><title>{escape(row)} → {escape(name)}: {share:.1%}'
                "</title></rect>")
            if width >= 30 and share >= 0.005:
                drawn.append(_text(LABEL_WIDTH + (c + 0.5) * width, y + 15, f"{share:.0%}",
                                   "middle"))
    return _svg(head + len(rows) * ROW_HEIGHT + 4, drawn)


def legend(names: Sequence[str]) -> str:
    """Return the names of series with their colours."""
    return '<p class="legend">' + " ".join(
        f'<span><i class="b{k % SERIES}"></i>{escape(name)}</span>'
        for k, name in enumerate(names)) + "</p>"


def nothing() -> str:
    """Return what stands where there is nothing to draw."""
    return '<p class="none">Nothing to show: the data hold none.</p>'


def number(value: float, digits: int = 3) -> str:
    """Return a number for readers: whole with separators, fractions with ``digits`` places."""
    if not math.isfinite(value):
        return "–"
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.{digits}f}"


def shorten(text: str, most: int = MOST_CHARACTERS) -> str:
    """Return at most so many characters of a text."""
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


class _Frame:
    """Data to pixels, and the axes."""

    def __init__(self, x_low: float, x_high: float, y_low: float, y_high: float) -> None:
        self._x = (x_low, (x_high - x_low) or 1.0)
        self._y = (y_low, (y_high - y_low) or 1.0)

    def x(self, value: float) -> float:
        low, span = self._x
        return LEFT + (value - low) / span * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        low, span = self._y
        return PLOT_HEIGHT - BOTTOM - (value - low) / span * (PLOT_HEIGHT - TOP - BOTTOM)

    def axes(self, x_label: str, y_label: str, x_names: Sequence[str] | None) -> list[str]:
        bottom = PLOT_HEIGHT - BOTTOM
        drawn = [f'<path class="axis" d="M{LEFT} {TOP}V{bottom}H{WIDTH - RIGHT}"/>',
                 _text((WIDTH + LEFT) / 2, PLOT_HEIGHT - 6, x_label, "middle"),
                 f'<text class="t" text-anchor="middle" transform="translate(13,{bottom / 2:.0f}) '
                 f'rotate(-90)">{escape(y_label)}</text>']
        for value in ticks(self._y[0], self._y[0] + self._y[1]):
            y = self.y(value)
            drawn.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
            drawn.append(_text(LEFT - 6, y + 4, _short(value), "end"))
        places = (ticks(self._x[0], self._x[0] + self._x[1]) if x_names is None
                  else [float(k) for k in range(len(x_names))])
        for value in places:
            name = _short(value) if x_names is None else x_names[int(value)]
            drawn.append(_text(self.x(value), bottom + 16, name, "middle"))
        return drawn


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Return round numbers between two bounds, about as many as wanted."""
    span = high - low
    if not math.isfinite(span) or span <= 0:
        return [low]
    step = 10.0 ** math.floor(math.log10(span / wanted))
    step *= min((1, 2, 5, 10), key=lambda m: abs(span / (step * m) - wanted))
    first = math.ceil(low / step - 1e-9)
    return [k * step for k in range(first, math.floor(high / step + 1e-9) + 1)]


def _short(value: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if letter == 'k' else size):g}{letter}"
    return f"{value:.4g}"


def _text(x: float, y: float, words: str, anchor: str = "start") -> str:
    return f'<text class="t" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def _svg(height: float, drawn: Sequence[str]) -> str:
    return (f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" '
            f'xmlns="http://www.w3.org/2000/svg">{"".join(drawn)}</svg>')
