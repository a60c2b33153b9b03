"""The threshold of each action unit that gives the best score, found exactly.

The score is a sum over units of what each unit's own decisions are worth, so that each threshold is chosen by itself.

Legend: N frames, C units, V different probabilities of a unit, B bins,
M models, P points of a grid, E labelled elements.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fercache.scoring.grid import simplex
from fercache.scoring.metrics import THRESHOLD, f1_of_counts
from fercache.tasks import Task

BINS = 4096
"""Of a histogram of probabilities."""


@dataclass(frozen=True)
class Units:
    """Labels of action units, and what decisions about them are worth."""

    task: Task
    labels: np.ndarray
    """int (N, C), 0 or 1; -1 = does not count."""

    @cached_property
    def counted(self) -> np.ndarray:
        """Where there is a label, bool (N, C)."""
        return self.labels != self.task.invalid

    @cached_property
    def present(self) -> np.ndarray:
        """Where a unit is present, bool (N, C)."""
        return self.labels == 1

    @cached_property
    def _sizes(self) -> tuple[np.ndarray, np.ndarray]:
        """Labels of each unit that say it is present, and all: (C,) each."""
        return self.present.sum(axis=0), self.counted.sum(axis=0)

    def worth(self, right: np.ndarray, false: np.ndarray, unit: int | slice = slice(None)) -> np.ndarray:
        """The part of the score that is a unit's.

        right and false: frames that are decided to have it and do or do not, (..., C), or of one `unit` (...).
        """
        present, every = (size[unit] for size in self._sizes)
        f1 = f1_of_counts(right, right + false + present)
        correct = right + (every - present) - false
        return self.task.score.f1 / self.labels.shape[1] * f1 + self.task.score.accuracy * correct / max(
            1, self._sizes[1].sum()
        )


def best_thresholds(units: Units, probability: np.ndarray) -> tuple[np.ndarray, float]:
    """The best threshold of each unit (C,), and the score that they give together; probability: (N, C).

    A threshold lies in the middle between two probabilities that occur; among equally good ones the nearest to .5 wins,
    which is also that of a unit without labels.
    """
    found = [_best_of_unit(units, unit, column) for unit, column in enumerate(probability.T)]
    return np.array([threshold for threshold, _ in found]), float(sum(worth for _, worth in found))


def _best_of_unit(units: Units, unit: int, probability: np.ndarray) -> tuple[float, float]:
    """The best threshold of one unit with probabilities (N,), and what it is worth."""
    counted = units.counted[:, unit]
    if not counted.any():
        return THRESHOLD, 0.0
    values, place = np.unique(probability[counted], return_inverse=True)  # (V,)
    present = units.present[counted, unit]
    # Of each value and those above it; behind the last one nothing is left.
    right, false = (
        np.append(np.bincount(place, kind, len(values))[::-1].cumsum()[::-1], 0) for kind in (present, ~present)
    )
    worth = units.worth(right, false, unit)  # (V + 1,)
    edges = _between(values)
    best = np.flatnonzero((worth >= worth[edges >= 0].max() - 1e-12) & (edges >= 0))
    chosen = best[np.abs(edges[best] - THRESHOLD).argmin()]
    return float(edges[chosen]), float(worth[chosen])


def _between(values: np.ndarray) -> np.ndarray:
    """Thresholds (V + 1,) between ascending values in [0, 1] and at both ends; -1 below a value of 0, where none is."""
    lower, upper = np.append(0.0, values), np.append(values, 1.0)
    middle = (lower + upper) / 2
    middle = np.where(middle < upper, middle, lower)  # neighbours among floating-point numbers
    if values[0] == 0:
        middle[0] = -1
    return middle


def grid_bounds(units: Units, probability: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores between which that of the best thresholds lies at each point of `simplex(M, steps)`, (P,) each: quickly.

    probability: (M, N, C). Each is rounded down to a whole number of `BINS`, so that the weighted sums are whole
    numbers as well, and from one point to the next change by one addition; their histograms bound what can be counted.
    """
    frame, unit = np.nonzero(units.counted)
    level = np.minimum((probability[:, frame, unit] * BINS).astype(np.int32), BINS - 1)  # (M, E)
    part = (2 * unit + units.present[frame, unit]).astype(np.int32)
    parts = 2 * units.counted.shape[1]
    counts = np.rint(simplex(len(probability), steps) * steps).astype(np.int32)
    # Rounded up, behind the histograms that stand before.
    base = part * np.int32(BINS * steps) + np.int32(steps - 1)
    exchange, found, before = level[-2] - level[-1], [], None
    total = np.empty_like(base)
    for taken in counts:
        if before is not None and (taken[:-2] == before[:-2]).all():
            total += exchange
        else:
            total = base + sum(weight * one for weight, one in zip(taken, level, strict=True))
        histogram = np.bincount(total // steps, minlength=parts * BINS).reshape(-1, 2, BINS)
        found.append(_bounds(units, histogram))
        before = taken
    low, high = np.array(found).T
    return low, high


def _bounds(units: Units, histogram: np.ndarray) -> tuple[float, float]:
    """The bounds from how often a unit's absent and present elements are in each bin, int (C, 2, B).

    Times B, a probability of bin b is above b - 1, and at most b + 1 up to rounding.
    """
    from_bin = np.zeros((*histogram.shape[:2], BINS + 1), np.int64)
    from_bin[..., :-1] = histogram[..., ::-1].cumsum(axis=-1)[..., ::-1]
    absent, present = from_bin.transpose(1, 2, 0)  # (B + 1, C): in that bin or above
    # A threshold k: those from bin k + 1 on are above it, those before bin k - 1 are not.
    low = units.worth(present[1:], absent[np.maximum(np.arange(BINS) - 1, 0)]).max(axis=0).sum()
    # Between k and k + 1: none before bin k - 1 is above it, all from bin k + 2 on are.
    high = units.worth(present[:-1], absent[np.minimum(np.arange(BINS) + 3, BINS)]).max(axis=0).sum()
    return float(low), float(high)
