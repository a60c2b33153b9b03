"""Whether probabilities mean what they say, and what to divide logits by so that they do.

Legend: N frames (for many of many, labelled elements), C classes, B bins.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fercache.scoring.intervals import draws, interval
from fercache.scoring.metrics import THRESHOLD, decide, probabilities
from fercache.tasks import Task

BINS = 15
"""Of equal width, as in Guo et al. 2017 (arXiv:1706.04599)."""
SHARPEST, FLATTEST = 0.05, 20.0
"""Temperatures between which the best is looked for."""
COVERAGES = (1.0, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5)


def temperature(task: Task, logits: np.ndarray, labels: np.ndarray) -> float:
    """The number that logits (N, C) are to be divided by for the least cross entropy with labels (N,) or (N, C).

    Guo et al. 2017, 4.2. The loss is convex in one over the temperature: Newton's steps, kept in a bracket, find it.
    """
    counted = labels != task.invalid
    logits = logits.astype(np.float64)
    low, high = 1 / FLATTEST, 1 / SHARPEST
    scale = 1.0
    for _ in range(60):
        slope, curvature = _derivatives(task, logits, labels, counted, scale)
        low, high = (scale, high) if slope < 0 else (low, scale)
        step = scale - slope / curvature if curvature > 0 else np.inf
        then = step if low < step < high else (low + high) / 2
        if abs(then - scale) < 1e-6 * scale:
            break
        scale = then
    return float(1 / scale)


def _derivatives(
    task: Task, logits: np.ndarray, labels: np.ndarray, counted: np.ndarray, scale: float
) -> tuple[float, float]:
    """Of the summed cross entropy of `scale` times the logits, by scale: the first and the second."""
    found = probabilities(task, scale * logits)
    if task.kind == "many":
        z, p, y = logits[counted], found[counted], labels[counted]
        return float(((p - y) * z).sum()), float((p * (1 - p) * z**2).sum())
    z, p, y = logits[counted], found[counted], labels[counted].astype(np.int64)
    mean = (p * z).sum(axis=1)
    own = np.take_along_axis(z, y[:, None], axis=1)[:, 0]
    return float((mean - own).sum()), float(((p * z**2).sum(axis=1) - mean**2).sum())


@dataclass(frozen=True)
class Calibration:
    """How probabilities compare with what is so."""

    ece: float
    """Expected calibration error: the mean over frames of the distance, in each bin."""
    count: np.ndarray
    """int64 (B,): frames in each bin of [0, 1]."""
    said: np.ndarray
    """(B,): mean probability in the bin; nan where it is empty."""
    found: np.ndarray
    """(B,): share of the bin in which it was so."""


def calibration(task: Task, probability: np.ndarray, labels: np.ndarray) -> Calibration:
    """Of the likeliest class's probability, and whether it was right; of many of many, that a unit is present."""
    counted = labels != task.invalid
    if task.kind == "one":
        said = probability[counted].max(axis=1)
        true = probability[counted].argmax(axis=1) == labels[counted]
    else:
        said, true = probability[counted], labels[counted] == 1
    bins = np.minimum((said * BINS).astype(np.int64), BINS - 1)
    count, sums, right = (np.bincount(bins, weight, BINS) for weight in (None, said, true))
    some = np.maximum(count, 1)
    mean, share = np.where(count, sums / some, np.nan), np.where(count, right / some, np.nan)
    ece = float(np.abs(sums - right).sum() / max(1, count.sum()))
    return Calibration(ece, count, mean, share)


def coverage(
    task: Task,
    probability: np.ndarray,
    labels: np.ndarray,
    recording: np.ndarray,
    thresholds: np.ndarray | None = None,
) -> dict[float, tuple[float, float, float]]:
    """Share of frames (elements) that are kept when the least sure ones are left out -> accuracy on them, low, high.

    The bounds are those of `intervals`, over recordings; recording: int (N,). Sure is, for one of many, how likely the
    likeliest class is; for many, how far a unit is from its threshold.
    """
    counted = labels != task.invalid
    frame = np.nonzero(counted)[0]
    right = (decide(task, probability, thresholds) == labels)[counted]
    if task.kind == "one":
        sure = probability[counted].max(axis=1)
    else:
        sure = np.abs(probability - (THRESHOLD if thresholds is None else thresholds))[counted]
    order = np.argsort(-sure, kind="stable")
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
