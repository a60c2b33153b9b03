"""Line charts, intervals, reliability and the simplex: each function lays one chart out and fills in its template."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle

import numpy as np
from markupsafe import Markup

from fercache.report.colours import DASHES, SERIES, shade
from fercache.report.rendering import LINE_PX, render, wrapped
from fercache.scoring.calibration import BINS, Calibration
from fercache.scoring.cross_validation import Estimate


@dataclass(frozen=True)
class Axes:
    """A rectangle in a picture, in pixels, the range that each side spans, and the ticks along them."""

    left: float
    top: float
    width: float
    height: float
    x: tuple[float, float]
    y: tuple[float, float]
    x_ticks: Sequence[float]
    y_ticks: Sequence[float]
    x_name: str

    def x_px(self, value: float) -> float:
        """Pixels from the picture's left edge."""
        return float(self.left + self.width * (value - self.x[0]) / (self.x[1] - self.x[0]))

    def y_px(self, value: float) -> float:
        """Pixels from the picture's top."""
        return float(self.top + self.height * (1 - (value - self.y[0]) / (self.y[1] - self.y[0])))


def curves(name: str, runs: Mapping[str, Sequence[float]]) -> Markup:
    """Values over epochs, a line for each run, and below them what each ended with; a single epoch is a dot."""
    values = [value for line in runs.values() for value in line if math.isfinite(value)]
    longest = max(2, *map(len, runs.values()))
    epochs = [tick for tick in nice_ticks(1, longest) if tick >= 1 and tick == int(tick)]
    ticks = nice_ticks(min(values), max(values))
    axes = Axes(46, 12, 300, 170, (1, longest), (ticks[0], ticks[-1]), epochs, ticks, "epoch")
    lines, legend_y = [], 236.0
    for (run, line), colour, dash in zip(runs.items(), cycle(SERIES), cycle(DASHES), strict=False):
        points = [(axes.x_px(epoch), axes.y_px(value)) for epoch, value in enumerate(line, 1) if math.isfinite(value)]
        words = wrapped(f"{run}: {line[-1]:.4f} in epoch {len(line)}", 38)
        lines.append({"points": points, "colour": colour, "dash": dash, "y": legend_y, "words": words})
        legend_y += 18 + LINE_PX * (len(words) - 1)
    return render("curves.svg", name=name, runs=runs, axes=axes, lines=lines, height=round(legend_y - 4))


def intervals(name: str, values: Mapping[str, Estimate]) -> Markup:
    """Scores as dots with their intervals as lines, a row each under its label."""
    bounds = [v for value in values.values() for v in (value.low, value.value, value.high) if math.isfinite(v)]
    ticks = nice_ticks(min(bounds), max(bounds))
    rows, y = [], 6
    for label, value in values.items():
        words = wrapped(label, 48)
        bottom = y + 20 + LINE_PX * len(words)
        rows.append({"label": label, "words": words, "y": y, "bottom": bottom, "value": value})
        y = bottom
    axes = Axes(20, 6, 320, y - 6, (ticks[0], ticks[-1]), (0, 1), ticks, [], name)
    return render("intervals.svg", name=name, rows=rows, axes=axes)


def reliability(name: str, calibration: Calibration) -> Markup:
    """Observed share over predicted probability; a dot's area is the bin's share of the frames (Guo et al. 2017)."""
    ticks = (0, 0.25, 0.5, 0.75, 1)
    axes = Axes(46, 12, 220, 220, (0, 1), (0, 1), ticks, ticks, "predicted probability")
    bins = np.flatnonzero(calibration.count)
    confidence, accuracy = calibration.confidence[bins], calibration.accuracy[bins]
    radius = 2 + 7 * np.sqrt(calibration.count[bins] / max(1, calibration.count.max()))
    dots = [
        {"from": start, "confidence": x, "accuracy": y, "xy": (axes.x_px(x), axes.y_px(y)), "radius": float(r)}
        for start, x, y, r in zip(bins / BINS, confidence, accuracy, radius, strict=True)
    ]
    return render("reliability.svg", name=name, ece=calibration.ece, axes=axes, dots=dots)


ROOT3 = math.sqrt(3) / 2


def simplex_map(
    models: Sequence[str], points: np.ndarray, scores: np.ndarray, marks: Mapping[str, np.ndarray]
) -> Markup:
    """Scores (P,) at weights (P, 3) as shades in a triangle; each of its corners is one model alone."""
    title = wrapped(models[0], 48)
    side, left, top = 280.0, 40.0, 8.0 + LINE_PX * (len(title) + 1)
    corners = np.array([(left + side / 2, top), (left, top + side * ROOT3), (left + side, top + side * ROOT3)])
    low, high = float(scores.min()), float(scores.max())
    steps = round((math.sqrt(8 * len(points) + 1) - 3) / 2)
    radius = side / steps / math.sqrt(3) * 1.03
    angle = np.deg2rad(np.arange(30, 390, 60))
    hexagon = radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    feet_y = float(corners[1, 1]) + 28
    return render(
        "simplex_map.svg",
        models=models,
        corners=corners,
        cells=zip((points @ corners)[:, None] + hexagon, shade((scores - low) / max(high - low, 1e-12)), strict=True),
        marks=[(mark, weights, *(weights @ corners).tolist()) for mark, weights in marks.items()],
        low=low,
        high=high,
        feet_y=feet_y,
        legend_y=feet_y + 10 + LINE_PX * max(len(wrapped(name, 24)) for name in models[1:]),
    )


def nice_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers that cover a range: steps of 1, 2 or 5 times a power of ten."""
    span = max(high - low, abs(high) * 0.05, 1e-9)
    power = 10 ** math.floor(math.log10(span / most))
    step = next(factor * power for factor in (1, 2, 5, 10, 20) if span / (factor * power) <= most - 1)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 12) for number in range(first, max(last, first + 1) + 1)]
