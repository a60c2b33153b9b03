"""Line charts, intervals, reliability and the simplex, as SVG."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fercache.report.colours import DASHES, SERIES, css, shade
from fercache.report.markup import Element, element, svg
from fercache.scoring.calibration import BINS, Calibration
from fercache.scoring.cross_validation import Estimate


@dataclass(frozen=True)
class Axes:
    """A rectangle in a picture, and the numbers it spans."""

    left: float
    top: float
    width: float
    height: float
    x: tuple[float, float]
    y: tuple[float, float]

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where a point lies in the picture."""
        return (
            self.left + self.width * (x - self.x[0]) / (self.x[1] - self.x[0]),
            self.top + self.height * (1 - (y - self.y[0]) / (self.y[1] - self.y[0])),
        )

    def drawn(self, x_ticks: Sequence[float], y_ticks: Sequence[float], x_name: str) -> list[Element]:
        """Grid lines with their numbers, and the name of what runs to the right."""
        bottom, right = self.top + self.height, self.left + self.width
        parts = []
        for tick in y_ticks:
            _, y = self.at(self.x[0], tick)
            parts += [_line(self.left, y, right, y, "grid"), _words(self.left - 5, y + 4, f"{tick:g}", "end")]
        for tick in x_ticks:
            x, _ = self.at(tick, self.y[0])
            parts += [_line(x, bottom, x, bottom + 4, "axis"), _words(x, bottom + 17, f"{tick:g}", "middle")]
        parts.append(_line(self.left, bottom, right, bottom, "axis"))
        parts.append(_words(self.left + self.width / 2, bottom + 33, x_name, "middle"))
        return parts


def curves(name: str, of: Mapping[str, Sequence[float]], x_name: str = "epoch") -> Element:
    """Lines over epochs, each with its name at its end; a run that is one epoch long is a dot."""
    values = [value for line in of.values() for value in line if math.isfinite(value)]
    longest = max(map(len, of.values()))
    ticks = nice_ticks(min(values), max(values))
    axes = Axes(46, 12, 300, 170, (1, max(2, longest)), (ticks[0], ticks[-1]))
    parts = axes.drawn([t for t in nice_ticks(1, max(2, longest)) if t >= 1 and t == int(t)], ticks, x_name)
    y = 236.0
    for place, (label, line) in enumerate(of.items()):
        colour, dash = SERIES[place % len(SERIES)], DASHES[place % len(DASHES)]
        points = [axes.at(epoch, value) for epoch, value in enumerate(line, 1) if math.isfinite(value)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        stroke = {"stroke": colour, "stroke_width": 2, "stroke_dasharray": dash}
        parts.append(element("polyline", points=path, fill="none", **stroke))
        parts += [element("circle", cx=x, cy=y, r=2.5, fill=colour) for x, y in points]
        parts.append(element("line", x1=46, x2=80, y1=y, y2=y, **stroke))
        words = _lines(88, y + 4, f"{label}: {line[-1]:.4f} in epoch {len(line)}", "start", 38)
        parts += words
        y += 18 + LINE * (len(words) - 1)
    said = "; ".join(f"{label} from {line[0]:.4f} to {line[-1]:.4f}" for label, line in of.items())
    return svg(360, round(y - 4), f"{name} by {x_name}: {said}", *parts)


def intervals(of: Mapping[str, Estimate], name: str) -> Element:
    """Scores as dots with their intervals as lines, a row each, the name above it."""
    bounds = [v for value in of.values() for v in (value.low, value.value, value.high) if math.isfinite(v)]
    ticks = nice_ticks(min(bounds), max(bounds))
    heights = {label: 20 + LINE * len(_lines(0, 0, label, "start", 48)) for label in of}
    height = sum(heights.values())
    axes = Axes(20, 6, 320, height, (ticks[0], ticks[-1]), (0, 1))
    parts = [
        _line(axes.at(tick, 0)[0], axes.top, axes.at(tick, 0)[0], axes.top + height, "grid") for tick in ticks
    ] + axes.drawn(ticks, [], name)
    begin = axes.top
    for label, value in of.items():
        parts += _lines(22, begin + 12, label, "start", 48)
        begin += heights[label]
        y = begin - 12
        if math.isfinite(value.low):
            low, high = axes.at(value.low, 0)[0], axes.at(value.high, 0)[0]
            parts.append(element("line", x1=low, x2=high, y1=y, y2=y, stroke=SERIES[0], stroke_width=3))
        parts.append(element("circle", cx=axes.at(value.value, 0)[0], cy=y, r=5, fill=SERIES[0]))
    said = "; ".join(f"{label} {_value(value)}" for label, value in of.items())
    return svg(360, height + 48, f"{name} with intervals: {said}", *parts)


def reliability(name: str, found: Calibration) -> Element:
    """How often it was so, over how likely it was said to be; a dot's area is the bin's share of the frames."""
    axes = Axes(46, 12, 220, 220, (0, 1), (0, 1))
    ticks = (0, 0.25, 0.5, 0.75, 1)
    parts = axes.drawn(ticks, ticks, "said to be so likely")
    start, end = axes.at(0, 0), axes.at(1, 1)
    parts.append(_line(*start, *end, "even"))
    some = found.count > 0
    share = np.sqrt(found.count / max(1, found.count.max()))
    points = [axes.at(x, y) for x, y in zip(found.confidence[some], found.accuracy[some], strict=True)]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    parts.append(element("polyline", points=path, fill="none", stroke=SERIES[0], stroke_width=1.5))
    parts += [
        element("circle", cx=x, cy=y, r=float(2 + 7 * size), fill=SERIES[0], fill_opacity=0.75)
        for (x, y), size in zip(points, share[some], strict=True)
    ]
    rows = zip(np.flatnonzero(some), found.confidence[some], found.accuracy[some], strict=True)
    said = "; ".join(f"from {place / BINS:.2f}: said {x:.2f}, so {y:.2f}" for place, x, y in rows)
    return svg(280, 272, f"Reliability of {name}, calibration error {found.ece:.4f}; {said}", *parts)


ROOT3 = math.sqrt(3) / 2


def simplex_map(
    names: Sequence[str], points: np.ndarray, scores: np.ndarray, marks: Mapping[str, np.ndarray]
) -> Element:
    """Scores (P,) at weights (P, 3) as shades in a triangle whose corners are the models alone."""
    above = _lines(180, 14, names[0], "middle", 48)
    side, left, top = 280.0, 40.0, 8.0 + LINE * (len(above) + 1)
    corners = np.array([(left + side / 2, top), (left, top + side * ROOT3), (left + side, top + side * ROOT3)])
    low, high = float(scores.min()), float(scores.max())
    shares = (scores - low) / max(high - low, 1e-12)
    steps = round((math.sqrt(8 * len(points) + 1) - 3) / 2)
    radius = side / steps / math.sqrt(3) * 1.03
    turn = np.deg2rad(np.arange(30, 390, 60))
    hexagon = radius * np.stack([np.cos(turn), np.sin(turn)], axis=1)
    parts = [
        element("polygon", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in place + hexagon), fill=css(colour))
        for place, colour in zip(points @ corners, shade(shares), strict=True)
    ]
    outline = " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)
    parts.append(element("polygon", points=outline, fill="none", class_="axis"))
    below = float(corners[1, 1]) + 28
    feet = [_lines(2, below, names[1], "start", 24), _lines(358, below, names[2], "end", 24)]
    parts += [*above, *feet[0], *feet[1]]
    base = below + 10 + LINE * max(map(len, feet))
    for place, (name, weights) in enumerate(marks.items()):
        x, y = map(float, weights @ corners)
        parts.append(_mark(place, x, y))
        parts += [_mark(place, 50, base + 20 * place), _words(64, base + 4 + 20 * place, name, "start")]
    base += 4 + 20 * len(marks)
    parts += [
        element("rect", x=40 + 28 * place, y=base, width=28, height=14, fill=css(shade(np.array(place / 9))))
        for place in range(10)
    ]
    parts.append(element("rect", x=40, y=base, width=280, height=14, fill="none", class_="axis"))
    parts += [_words(40, base + 30, f"{low:.4f}", "start"), _words(320, base + 30, f"{high:.4f}", "end")]
    said = "; ".join(f"{name}: {_weights(names, weights)}" for name, weights in marks.items())
    return svg(
        360, round(base + 40), f"Score over all weights of three models, from {low:.4f} to {high:.4f}. {said}", *parts
    )


def _mark(place: int, x: float, y: float) -> Element:
    """A ring, a cross or a square: white below, so that it shows on every shade."""
    shapes = (
        "M-6,0 a6,6 0 1,0 12,0 a6,6 0 1,0 -12,0",
        "M-6,-6 L6,6 M-6,6 L6,-6",
        "M-5,-5 h10 v10 h-10 z",
    )
    outlines = (("#ffffff", 5), ("#d55e00", 2.5))
    paths = [
        element("path", d=shapes[place], fill="none", stroke=colour, stroke_width=width) for colour, width in outlines
    ]
    return element("g", *paths, transform=f"translate({x:.1f},{y:.1f})")


def _weights(names: Sequence[str], weights: np.ndarray) -> str:
    return ", ".join(f"{name} {weight:.3f}" for name, weight in zip(names, weights, strict=True))


def _value(value: Estimate) -> str:
    span = f" (95 % from {value.low:.4f} to {value.high:.4f})" if math.isfinite(value.low) else ""
    return f"{value.value:.4f}{span}"


def nice_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers that cover a range: steps of 1, 2 or 5 times a power of ten."""
    span = max(high - low, abs(high) * 0.05, 1e-9)
    power = 10 ** math.floor(math.log10(span / most))
    step = next(factor * power for factor in (1, 2, 5, 10, 20) if span / (factor * power) <= most - 1)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(place * step, 12) for place in range(first, max(last, first + 1) + 1)]


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Element:
    return element("line", x1=float(x1), y1=float(y1), x2=float(x2), y2=float(y2), class_=kind)


LINE = 15
"""Height of a line of text."""


def _lines(x: float, y: float, text: str, anchor: str, most: int) -> list[Element]:
    """Text that goes on in further lines after `most` letters."""
    parts = textwrap.wrap(text, most, break_on_hyphens=False) or [text]
    return [_words(x, y + LINE * place, part, anchor) for place, part in enumerate(parts)]


def _words(x: float, y: float, text: str, anchor: str) -> Element:
    return element("text", text, x=float(x), y=float(y), text_anchor=anchor)
