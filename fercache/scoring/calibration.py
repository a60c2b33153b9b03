"""Whether confidence matches accuracy, and the temperature that brings them closer.

Legend: N frames, C classes, E annotations (frames, or a frame's single elements), B bins.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fercache.scoring.intervals import draws, interval
from fercache.tasks.base import Task

BINS = 15
"""Of equal width, as in Guo et al. 2017 (arXiv:1706.04599)."""
SHARPEST, FLATTEST = 0.05, 20.0
"""Temperatures between which the best one is sought."""
COVERAGES = (1.0, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5)


def temperature(task: Task, logits: np.ndarray, labels: np.ndarray) -> float:
    """The number that logits (N, C) are to be divided by for the least cross entropy with the labels.

    Guo et al. 2017, 4.2. The loss is convex in one over the temperature: Newton's steps, kept in a bracket, find it.
    """
    logits = logits.astype(np.float64)
    low, high = 1 / FLATTEST, 1 / SHARPEST
    scale = 1.0
    for _ in range(60):
        slope, curvature = task.loss_slope(logits, labels, scale)
        low, high = (scale, high) if slope < 0 else (low, scale)
        step = scale - slope / curvature if curvature > 0 else np.inf
        following = step if low < step < high else (low + high) / 2
        if abs(following - scale) < 1e-6 * scale:
            break
        scale = following
    return float(1 / scale)


@dataclass(frozen=True)
class Calibration:
    """Confidence beside accuracy, in bins of confidence."""

    ece: float
    """Expected calibration error: the mean over annotations of the distance between the two in their bin."""
    count: np.ndarray
    """int64 (B,): annotations in each bin of [0, 1]."""
    confidence: np.ndarray
    """(B,): mean probability in the bin; nan where it is empty."""
    accuracy: np.ndarray
    """(B,): share of the bin in which the event occurred."""


def calibration(task: Task, probability: np.ndarray, labels: np.ndarray) -> Calibration:
    """Of the probabilities (N, C) that the task's `confidence` takes."""
    confidence, occurred = task.confidence(probability, labels)
    bins = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    count, sums, right = (np.bincount(bins, weight, BINS) for weight in (None, confidence, occurred))
    divisor = np.maximum(count, 1)
    mean, share = np.where(count, sums / divisor, np.nan), np.where(count, right / divisor, np.nan)
    ece = float(np.abs(sums - right).sum() / max(1, count.sum()))
    return Calibration(ece, count, mean, share)


def coverage(
    task: Task,
    probability: np.ndarray,
    labels: np.ndarray,
    recording: np.ndarray,
    thresholds: np.ndarray | None = None,
) -> dict[float, tuple[float, float, float]]:
    """Share of annotations that are kept when the least certain ones are dropped -> accuracy on them, low, high.

    The bounds are those of `intervals`, over recordings; recording: int (N,).
    """
    counted = task.counted(labels)
    frame = np.nonzero(counted)[0]
    right = (task.decide(probability, thresholds) == labels)[counted]
    order = np.argsort(-task.certainty(probability, thresholds)[counted], kind="stable")
    present, number = np.unique(recording[frame], return_inverse=True)
    samples = _accuracies(right[order], number[order], draws(len(present), 0))
    return {
        share: (float(values[0]), *interval(values, limits=(0.0, 1.0)))
        for share, values in zip(COVERAGES, samples.T, strict=True)
    }


def _accuracies(right: np.ndarray, recording: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Accuracy on the first share of what each sample of recordings has, for each of `COVERAGES`: (R, shares)."""
    accuracies = np.empty((len(weight), len(COVERAGES)))
    for sample, row in zip(accuracies, weight, strict=True):
        remaining = right[row[recording] > 0]
        sums = remaining.cumsum()
        kept = [max(1, round(share * len(remaining))) for share in COVERAGES]
        sample[:] = [sums[count - 1] / count if len(sums) else np.nan for count in kept]
    return accuracies
