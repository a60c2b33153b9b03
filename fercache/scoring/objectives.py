"""What a search of weights maximises: the task's score, at a point, over a grid, and along a line.

Legend: M models, N counting frames, C classes or units, P points of a grid, E places on a line.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from fercache.scoring.grid import crossings, fuse, grid_confusions, grid_detections, leads, simplex, winners
from fercache.scoring.metrics import THRESHOLD, score_of_counts
from fercache.scoring.thresholds import Units, best_thresholds, grid_bounds
from fercache.tasks import Task

EQUAL = 1e-12
"""Scores that differ by less are equal up to rounding."""


class Objective(Protocol):
    """The score of an ensemble of M models."""

    models: int

    def score(self, weights: np.ndarray) -> float:
        """At weights (M,)."""

    def grid(self, steps: int) -> np.ndarray:
        """At the points of `simplex(M, steps)`, (P,); exact at the best ones, and nowhere too high."""

    def along(self, start: np.ndarray, end: np.ndarray, now: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """On the way from weights `start` to `end` through `now`: where decisions change, and the scores between.

        Places (E,), ascending from 0 to 1, and the score before, between and behind them, (E + 1,).
        """


def objective(task: Task, probability: np.ndarray, labels: np.ndarray, *, thresholds: bool) -> Objective:
    """The task's score for probabilities float64 (M, N, C) and labels (N,) or (N, C), -1 = does not count.

    `thresholds`: of many of many the score is that of the best thresholds; else of .5.
    """
    counted = (labels != task.invalid).reshape(len(labels), -1).any(axis=1)
    probability, labels = probability[:, counted], labels[counted]
    if task.kind == "one":
        return OneOfMany(task, probability, labels.astype(np.int64))
    return ManyOfMany(task, probability, Units(task, labels), thresholds)


@dataclass(frozen=True)
class OneOfMany:
    """Each frame is decided to be of the likeliest class."""

    task: Task
    probability: np.ndarray
    labels: np.ndarray

    @property
    def models(self) -> int:
        """M."""
        return len(self.probability)

    @cached_property
    def _open(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Frames that weights can change, (M, C, n), their labels (n,), and the confusion matrix of the others."""
        by_class = self.probability.transpose(0, 2, 1)
        winner = winners(by_class[0])
        settled = np.logical_and.reduce([leads(one.copy(), winner) for one in by_class])
        others = _confusion(self.labels[settled], winner[settled], by_class.shape[1])
        return np.ascontiguousarray(by_class[:, :, ~settled]), self.labels[~settled], others

    def score(self, weights: np.ndarray) -> float:
        """At weights (M,)."""
        probability, labels, others = self._open
        found = _confusion(labels, winners(fuse(weights, probability)), len(others))
        return float(self._of_confusions(found + others))

    def grid(self, steps: int) -> np.ndarray:
        """At each point of `simplex(M, steps)`, (P,)."""
        return self._of_confusions(grid_confusions(self.probability, self.labels, steps))

    def along(self, start: np.ndarray, end: np.ndarray, now: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As the protocol says."""
        probability, labels, others = self._open
        first, last = fuse(start, probability), fuse(end, probability)
        frame, place, before, behind = crossings(first, last)
        order = place.argsort(kind="stable")
        label, before, behind = labels[frame[order]], before[order], behind[order]
        classes = np.arange(len(others))
        left, entered = before[:, None] == classes, behind[:, None] == classes  # (E, C)
        is_class = label[:, None] == classes
        begun = others + _confusion(labels, winners(first), len(others))
        right = _from(begun.diagonal(), (entered & is_class).astype(np.int64) - (left & is_class))
        decided = _from(begun.sum(axis=0), entered.astype(np.int64) - left)
        either, count = decided + begun.sum(axis=1), len(self.labels)
        return place[order], score_of_counts(self.task, right, either, right.sum(axis=1), count)

    def _of_confusions(self, confusion: np.ndarray) -> np.ndarray:
        right = np.diagonal(confusion, axis1=-2, axis2=-1)
        either = confusion.sum(axis=-1) + confusion.sum(axis=-2)
        return score_of_counts(self.task, right, either, right.sum(axis=-1), len(self.labels))


@dataclass(frozen=True)
class ManyOfMany:
    """Each unit is decided to be present above its threshold."""

    task: Task
    probability: np.ndarray
    units: Units
    thresholds: bool

    @property
    def models(self) -> int:
        """M."""
        return len(self.probability)

    def score(self, weights: np.ndarray) -> float:
        """At weights (M,)."""
        return self._best(fuse(weights, self.probability))[1]

    def grid(self, steps: int) -> np.ndarray:
        """At the points of `simplex(M, steps)`, (P,): exact at those that may be the best, a lower bound elsewhere."""
        if not self.thresholds:
            units = range(self.probability.shape[2])
            found = np.stack([self._detections(unit, steps) for unit in units], axis=1)  # (P, C, 2, 2)
            return self.units.worth(found[..., 1, 1], found[..., 0, 1]).sum(axis=1)
        points = simplex(self.models, steps)
        scores, high = grid_bounds(self.units, self.probability, steps)
        best = scores.max()
        for place in high.argsort()[::-1]:
            if high[place] < best - EQUAL:
                break
            scores[place] = self.score(points[place])
            best = max(best, scores[place])
        return scores

    def along(self, start: np.ndarray, end: np.ndarray, now: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As the protocol says, with the thresholds that are the best at `now`."""
        threshold, _ = self._best(fuse(now, self.probability))
        first, last = fuse(start, self.probability), fuse(end, self.probability)
        frame, unit = np.nonzero(((first > threshold) != (last > threshold)) & self.units.counted)
        place = (threshold[unit] - first[frame, unit]) / (last[frame, unit] - first[frame, unit])
        order = place.argsort(kind="stable")
        place, frame, unit = place[order], frame[order], unit[order]
        grows = np.where(last[frame, unit] > threshold[unit], 1, -1)
        present = self.units.present[frame, unit]
        decided = first > threshold
        begun = [
            (decided & kind).sum(axis=0) for kind in (self.units.present, self.units.counted & ~self.units.present)
        ]
        is_unit = unit[:, None] == np.arange(len(threshold))  # (E, C)
        right = _from(begun[0], is_unit * (grows * present)[:, None])
        false = _from(begun[1], is_unit * (grows * ~present)[:, None])
        return place, self.units.worth(right, false).sum(axis=1)

    def _detections(self, unit: int, steps: int) -> np.ndarray:
        """Frames that have a unit or not x that are decided to, at each point of the grid, (P, 2, 2)."""
        counted = self.units.counted[:, unit]
        return grid_detections(self.probability[:, counted, unit], self.units.present[counted, unit], THRESHOLD, steps)

    def _best(self, fused: np.ndarray) -> tuple[np.ndarray, float]:
        """Thresholds and score."""
        if self.thresholds:
            return best_thresholds(self.units, fused)
        decided = fused > THRESHOLD
        right, false = decided & self.units.present, decided & self.units.counted & ~self.units.present
        worth = self.units.worth(right.sum(axis=0), false.sum(axis=0))
        return np.full(fused.shape[1], THRESHOLD), float(worth.sum())


def _confusion(labels: np.ndarray, decisions: np.ndarray, classes: int) -> np.ndarray:
    """Labels x decisions, (C, C)."""
    return np.bincount(labels * classes + decisions, minlength=classes**2).reshape(classes, classes)


def _from(begun: np.ndarray, changes: np.ndarray) -> np.ndarray:
    """Counts (C,) and how they change (E, C) to the counts before, between and behind, (E + 1, C)."""
    return np.concatenate([begun[None], begun + changes.cumsum(axis=0)])
