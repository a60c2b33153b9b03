"""The best weights of an ensemble: every point of a grid over the simplex, and equal weights.

Legend: M models, P points of the grid, F frames, C classes, K folds, R selections of folds.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from enum import Enum

import numpy as np

from fercache.scoring.calibration import temperature
from fercache.scoring.outputs import LabelledOutputs, Outputs
from fercache.tasks.base import Progress
from fercache.tasks.fusion import fuse

EQUAL = 1e-12
"""Scores that differ by less are equal up to rounding."""


class Weighting(str, Enum):
    """The kinds of ensemble weights that are compared; temperatures, smoothing and thresholds are chosen for each."""

    BEST_SINGLE = "best single model"
    EQUAL = "equal weights"
    SEARCHED = "searched"


@dataclass(frozen=True)
class SearchSpace:
    """What a search chooses from."""

    steps: int = 100
    """One over the distance of the grid's weights."""
    half_widths: tuple[int, ...] = (0,)
    """Of the box over time, in frames; the best is taken, the narrowest among equals."""
    temperatures: bool = False
    """Whether each model's logits are divided by a temperature."""
    thresholds: bool = True
    """Whether decisions have thresholds of their own, in tasks that have any."""


@dataclass(frozen=True)
class Fusion:
    """How models' logits become decisions, and the score of that where it was chosen."""

    weights: np.ndarray
    """(M,)."""
    temperatures: tuple[float, ...]
    """(M,)."""
    half_width: int
    thresholds: np.ndarray | None
    """(C,); None: the task's default."""
    score: float = math.nan
    """On the frames that it was chosen on; nan where it comes from a file."""

    def probability(self, outputs: Outputs) -> np.ndarray:
        """Fused probabilities of models' outputs, (F, C)."""
        return fuse(self.weights, outputs.probability(self.temperatures, self.half_width))

    def decide(self, outputs: Outputs) -> np.ndarray:
        """Decisions, in the shape of labels."""
        return outputs.task.decide(self.probability(outputs), self.thresholds)


Fusions = dict[Weighting, Fusion]


def simplex(models: int, steps: int) -> np.ndarray:
    """All weights in multiples of 1 / steps that sum to 1, float64 (P, M), in lexicographic order."""
    bars = np.array(list(itertools.combinations(range(steps + models - 1), models - 1)), np.int64)
    edges = np.hstack([np.full((len(bars), 1), -1), bars, np.full((len(bars), 1), steps + models - 1)])
    return (np.diff(edges, axis=1) - 1) / steps


def point_count(models: int, steps: int) -> int:
    """P: points of `simplex`."""
    return math.comb(steps + models - 1, models - 1)


def fit_fusions(
    outputs: LabelledOutputs, space: SearchSpace, fold: np.ndarray | None = None, progress: Progress = iter
) -> list[Fusions]:
    """The best fusion of each weighting on all frames and then, with `fold`, on all folds but each one in turn.

    fold: int (F,), from 0. No label of the held-out fold is used.
    """
    if fold is None:
        fold, selections = np.zeros(len(outputs.frame), np.int64), np.ones((1, 1))
    else:
        count = int(fold.max()) + 1
        selections = np.concatenate([np.ones((1, count)), 1 - np.eye(count)])
    if not space.temperatures:
        return _fit(outputs, (1.0,) * len(outputs.logits), fold, selections, space, progress)
    fusions = []
    for selection in selections:
        selected = selection[fold] > 0
        scales = tuple(temperature(outputs.task, z[selected], outputs.labels[selected]) for z in outputs.logits)
        fusions += _fit(outputs, scales, fold, selection[None], space, progress)
    return fusions


def _fit(
    outputs: LabelledOutputs,
    scales: tuple[float, ...],
    fold: np.ndarray,
    selections: np.ndarray,
    space: SearchSpace,
    progress: Progress,
) -> list[Fusions]:
    """The best fusions on each selection of folds, bool (R, K) as numbers: one pass over the grid serves them all."""
    task, counted = outputs.task, outputs.counted
    labels, fold = outputs.labels[counted], fold[counted]
    points = _candidates(len(outputs.logits), space.steps)
    best: list[Fusions] = [{} for _ in selections]
    for half_width in sorted(space.half_widths):
        probability = outputs.probability(scales, half_width)[:, counted]
        scores = task.grid_scores(
            probability, labels, fold, selections, points, thresholds=space.thresholds, progress=progress
        )
        for fusions, selection, of_selection in zip(best, selections, scores, strict=True):
            selected = selection[fold] > 0
            for weighting in Weighting:
                index = _choose(weighting, points, of_selection)
                score = float(of_selection[index])
                if weighting in fusions and score <= fusions[weighting].score + EQUAL:
                    continue
                thresholds = None
                if space.thresholds:
                    fused = fuse(points[index], probability[:, selected])
                    thresholds = task.best_thresholds(fused, labels[selected])
                fusions[weighting] = Fusion(points[index], scales, half_width, thresholds, score)
    return best


def _candidates(models: int, steps: int) -> np.ndarray:
    """The grid, and behind it equal weights, which may be no point of it: (P + 1, M)."""
    return np.concatenate([simplex(models, steps), np.full((1, models), 1 / models)])


def _choose(weighting: Weighting, points: np.ndarray, scores: np.ndarray) -> int:
    """The index of the best of the candidate points (P, M) with these scores that a weighting allows.

    Among equals the fewest models win, then the weights nearest to equal ones, then the first point.
    """
    if weighting is Weighting.EQUAL:
        return len(points) - 1
    if weighting is Weighting.BEST_SINGLE:
        corners = points.argmax(axis=0)
        return int(corners[scores[corners].argmax()])
    best = np.flatnonzero(scores >= scores.max() - EQUAL)
    distance = np.abs(points[best] - 1 / points.shape[1]).sum(axis=1)
    return int(best[np.lexsort((distance, (points[best] > 0).sum(axis=1)))[0]])


def score_surface(
    outputs: LabelledOutputs, fusion: Fusion, steps: int, *, thresholds: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The score at every weight in multiples of 1 / steps, with a fusion's temperatures and smoothing: (P, M) and (P,).

    With `thresholds` those of the task are the best at each of the weights.
    """
    counted, points = outputs.counted, simplex(len(outputs.logits), steps)
    probability = outputs.probability(fusion.temperatures, fusion.half_width)[:, counted]
    group = np.zeros(int(counted.sum()), np.int64)
    (scores,) = outputs.task.grid_scores(
        probability, outputs.labels[counted], group, np.ones((1, 1)), points, thresholds=thresholds
    )
    return points, scores
