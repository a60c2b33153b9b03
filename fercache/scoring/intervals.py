"""How far a score could be another one had other recordings been drawn: the bootstrap over recordings.

Frames of one recording are alike, so recordings are drawn again, not frames (Davison and Hinkley 1997, 3.8).
Legend: N frames, G recordings, R draws, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fercache.scoring.metrics import score_of_counts
from fercache.tasks import Task

DRAWS = 2000
LEVEL = 0.95


@dataclass(frozen=True)
class Tally:
    """What a task's score needs to know of each recording; it adds up over recordings."""

    right: np.ndarray
    """float64 (G, C): frames of each class that were decided so."""
    decided: np.ndarray
    """float64 (G, C): counted frames that were decided to be of each class."""
    labelled: np.ndarray
    """float64 (G, C): counted frames that are of each class."""
    correct: np.ndarray
    """float64 (G,): right decisions; for action units elements, absent ones included."""
    counted: np.ndarray
    """float64 (G,): of so many."""

    def scores(self, task: Task, weight: np.ndarray) -> np.ndarray:
        """The task's score where recording g stands in the data weight[r, g] times: float64 (R, G) to (R,).

        The numbers are those of `metrics.score`: a class that neither occurs nor is decided counts 0.
        """
        either = weight @ (self.decided + self.labelled)
        return score_of_counts(task, weight @ self.right, either, weight @ self.correct, weight @ self.counted)


def tally(task: Task, decisions: np.ndarray, labels: np.ndarray, recording: np.ndarray) -> Tally:
    """Count by recording.

    Decisions and labels are integers (N,) or 0/1 (N, C), -1 = does not count; recording: int (N,), from 0.
    """
    counted = labels != task.invalid
    if task.kind == "one":
        classes = np.arange(len(task.classes))
        is_class, is_decided = labels[:, None] == classes, (decisions[:, None] == classes) & counted[:, None]
        correct, count = (decisions == labels) & counted, counted
    else:
        is_class, is_decided = labels == 1, (decisions == 1) & counted
        correct, count = ((decisions == labels) & counted).sum(axis=1), counted.sum(axis=1)
    columns = (is_class & is_decided, is_decided, is_class)
    sums = [np.stack([np.bincount(recording, column) for column in part.T], axis=1) for part in columns]
    return Tally(*sums, np.bincount(recording, correct), np.bincount(recording, count))


def draws(recordings: int, seed: int, count: int = DRAWS) -> np.ndarray:
    """How often each recording is drawn when as many are drawn again as there are: float64 (R, G).

    One recording alone says nothing of others: nan.
    """
    if recordings < 2:
        return np.full((count, recordings), np.nan)
    chances = np.full(recordings, 1 / recordings)
    return np.random.default_rng(seed).multinomial(recordings, chances, size=count).astype(np.float64)


def interval(values: np.ndarray) -> tuple[float, float]:
    """The bounds between which `LEVEL` of the drawn values (R,) lie, equally many outside on either side."""
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
