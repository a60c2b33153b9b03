"""The threshold of each action unit that gives the best score, found exactly.

The score is a sum over units of what each unit's own decisions are worth, so that each threshold is chosen by itself.

Legend: N frames, C units, V different probabilities of a unit, B bins.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fercache.scoring.metrics import THRESHOLD, f1_of_counts
from fercache.tasks import Task

BINS = 1024
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


def bounds(units: Units, probability: np.ndarray) -> tuple[float, float]:
    """Two scores between which that of the best thresholds lies, from histograms of probabilities (N, C): quickly."""
    classes = probability.shape[1]
    bins = np.minimum((probability * BINS).astype(np.int64), BINS - 1) + np.arange(classes) * BINS
    histograms = [
        np.bincount(bins[kind], minlength=classes * BINS).reshape(classes, BINS)[:, ::-1]
        for kind in (units.present, units.counted & ~units.present)
    ]
    right, false = (np.pad(part, ((0, 0), (1, 0))).cumsum(axis=1).T for part in histograms)  # (B + 1, C), from 1 down
    low = units.worth(right, false)[:-1].max(axis=0).sum()
    # Within a bin nothing could be better than that all frames with the unit come first.
    high = np.maximum(units.worth(right[1:], false[:-1]).max(axis=0), units.worth(right[:1], false[:1])[0]).sum()
    return float(low), float(high)
