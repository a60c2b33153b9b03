"""The weights of an ensemble: the best point of a grid over the simplex.

Legend: M models, N frames, C classes, P points of the grid.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from fercache.scoring.metrics import THRESHOLD
from fercache.tasks import Task

CHUNK_NUMBERS = 20_000_000
"""Fused probabilities held at a time (160 MB)."""


def fuse(weights: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """The weighted sum over models: (M,) and (M, N, C) to (N, C). A model of weight 0 changes nothing."""
    used = np.flatnonzero(weights)
    return np.tensordot(np.asarray(weights, dtype=np.float64)[used], probability[used], axes=1)


def simplex(models: int, steps: int) -> np.ndarray:
    """All weights in multiples of 1 / steps that sum to 1, float64 (P, M)."""
    bars = np.array(list(itertools.combinations(range(steps + models - 1), models - 1))).reshape(-1, models - 1)
    edges = np.hstack([np.full((len(bars), 1), -1), bars, np.full((len(bars), 1), steps + models - 1)])
    return (np.diff(edges, axis=1) - 1) / steps


Track = Callable[[Sequence[int]], Iterable[int]]
"""Shows how far a loop has come."""


def search(
    task: Task, probability: np.ndarray, labels: np.ndarray, steps: int, track: Track = iter
) -> tuple[np.ndarray, float]:
    """The point of the grid with the best task score, and that score.

    probability: (M, N, C); labels: (N,) or (N, C), -1 = does not count. Among equals the fewest
    models win, then the nearest to equal weights.
    """
    points = simplex(len(probability), steps)
    scores = grid_scores(task, points, probability, labels, track)
    # Scores that differ by rounding alone are equal.
    best = points[scores >= scores.max() - 1e-12]
    distance = np.abs(best - 1 / len(probability)).sum(axis=1)
    chosen = best[np.lexsort((distance, (best > 0).sum(axis=1)))[0]]
    return chosen, float(scores.max())


def grid_scores(
    task: Task, points: np.ndarray, probability: np.ndarray, labels: np.ndarray, track: Track = iter
) -> np.ndarray:
    """The task's score at each point, float64 (P,)."""
    counted = (labels != task.invalid).reshape(len(labels), -1).any(axis=1)
    probability, labels = probability[:, counted], labels[counted]
    flat = probability.reshape(len(probability), -1)  # (M, N C)
    chunk = max(1, CHUNK_NUMBERS // flat.shape[1])
    count = _scores_one if task.kind == "one" else _scores_many
    parts = []
    for start in track(range(0, len(points), chunk)):
        fused = (points[start : start + chunk] @ flat).reshape(-1, *probability.shape[1:])  # (P, N, C)
        parts.append(count(task, fused, labels))
    return np.concatenate(parts)


def _scores_one(task: Task, fused: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Scores from the confusion matrix of each point."""
    points, _, classes = fused.shape
    pairs = labels.astype(np.int64) * classes + fused.argmax(axis=2)  # (P, N)
    pairs += np.arange(points)[:, None] * classes**2
    confusion = np.bincount(pairs.ravel(), minlength=points * classes**2).reshape(points, classes, classes)
    right = np.diagonal(confusion, axis1=1, axis2=2)  # (P, C)
    f1 = _f1(right, confusion.sum(axis=2) + confusion.sum(axis=1))
    return task.score.f1 * f1.mean(axis=1) + task.score.accuracy * right.sum(axis=1) / len(labels)


def _scores_many(task: Task, fused: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Scores from the counts of each unit at each point."""
    counted, present = labels != task.invalid, labels == 1
    decided = (fused > THRESHOLD) & counted
    right_ones = (decided & present).sum(axis=1)  # (P, C)
    f1 = _f1(right_ones, decided.sum(axis=1) + present.sum(axis=0))
    accuracy = ((decided == present) & counted).sum(axis=(1, 2)) / counted.sum()
    return task.score.f1 * f1.mean(axis=1) + task.score.accuracy * accuracy


def _f1(right: np.ndarray, decided_and_present: np.ndarray) -> np.ndarray:
    """2 TP / (2 TP + FP + FN), 0 where nothing was decided or present."""
    return np.divide(2 * right, decided_and_present, out=np.zeros(right.shape), where=decided_and_present > 0)
