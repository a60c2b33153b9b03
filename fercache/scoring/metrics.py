"""The challenge's scores.

Legend: N frames, C classes. Labels and decisions are integers (N,) for one of many, and 0/1 (N, C)
for many of many; -1 = does not count.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.metrics import confusion_matrix, f1_score

from fercache.tasks import Task

THRESHOLD = 0.5
"""Probability above which an action unit counts as present."""


@dataclass(frozen=True)
class Scores:
    """All scores of one set of decisions."""

    score: float
    """The task's measure E, from `f1` and `accuracy`."""
    f1: float
    """Macro F1 over all classes; a class that does not occur, and is not predicted, counts 0."""
    accuracy: float
    """Share of right frames; for action units of right elements."""
    f1_occurring: float
    """Macro F1 over the classes that occur in the labels."""
    exact_match: float
    """Share of frames with every labelled element right; for one of many the accuracy."""
    f1_per_class: tuple[float, ...]
    count_per_class: tuple[int, ...]
    """Labelled frames of each class; for action units those where it is present."""
    frames: int
    """Frames that counted."""
    confusion: np.ndarray | None
    """(C, C) labels x decisions, for one of many."""


def probabilities(task: Task, logits: np.ndarray) -> np.ndarray:
    """Softmax or sigmoid of logits (N, C), in float64."""
    logits = logits.astype(np.float64)
    if task.kind == "many":
        # By halves, so that neither side overflows.
        return 0.5 * (1 + np.tanh(0.5 * logits))
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def decide(task: Task, probability: np.ndarray, thresholds: np.ndarray | None = None) -> np.ndarray:
    """The decision for each frame: the likeliest class (N,), or each action unit above its threshold (N, C).

    thresholds: (C,), of many of many; None: `THRESHOLD` for all.
    """
    if task.kind == "one":
        return probability.argmax(axis=-1)
    return (probability > (THRESHOLD if thresholds is None else thresholds)).astype(np.int64)


def score(task: Task, decisions: np.ndarray, labels: np.ndarray) -> Scores:
    """Scores of decisions against labels; frames and elements at -1 are left out.

    EXPR: scikit-learn's f1_score over all classes with zero_division=0, the official one. AU: the
    mean of the F1 of each unit over its own labelled frames, accuracy by element.
    """
    return _score_one(task, decisions, labels) if task.kind == "one" else _score_many(task, decisions, labels)


def epoch_scores(task: Task, logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """What a training records of an epoch, from logits (N, C) and labels (N,) or (N, C); `score` is what decides."""
    result = score(task, decide(task, probabilities(task, logits)), labels)
    return {
        "score": result.score,
        "f1": result.f1,
        "accuracy": result.accuracy,
        "f1_occurring": result.f1_occurring,
    }


def f1_of_counts(right: np.ndarray, either: np.ndarray) -> np.ndarray:
    """F1 from the frames rightly decided to be of a class, and those decided to be plus those that are: 0 for none."""
    return np.divide(2.0 * right, either, out=np.zeros(np.shape(right)), where=either > 0)


def score_of_counts(
    task: Task, right: np.ndarray, either: np.ndarray, correct: np.ndarray, counted: np.ndarray | float
) -> np.ndarray:
    """The task's measure E from counts, as `score` finds it: (...,).

    right: (..., C), frames of each class that were decided so; either: (..., C), frames decided to be of the class plus
    frames that are; correct and counted: (...,), right decisions and all, for action units by element.
    """
    f1 = f1_of_counts(right, either)
    return task.score.f1 * f1.mean(axis=-1) + task.score.accuracy * (correct / np.maximum(1, counted))


def _score_one(task: Task, decisions: np.ndarray, labels: np.ndarray) -> Scores:
    counted = labels != task.invalid
    decisions, labels = decisions[counted], labels[counted]
    classes = np.arange(len(task.classes))
    if not len(labels):
        raise ValueError("no labelled frame")
    f1 = f1_score(labels, decisions, labels=classes, average=None, zero_division=0)
    counts = np.bincount(labels, minlength=len(classes))
    accuracy = float((decisions == labels).mean())
    return _scores(
        task, f1, counts, accuracy, accuracy, len(labels), confusion_matrix(labels, decisions, labels=classes)
    )


def _score_many(task: Task, decisions: np.ndarray, labels: np.ndarray) -> Scores:
    counted = labels != task.invalid
    frames = counted.any(axis=1)
    if not frames.any():
        raise ValueError("no labelled frame")
    f1 = np.array(
        [
            f1_score(y[m], d[m], zero_division=0) if m.any() else 0.0
            for y, d, m in zip(labels.T, decisions.T, counted.T, strict=True)
        ]
    )
    right = (decisions == labels) | ~counted
    accuracy = float((decisions == labels)[counted].mean())
    counts = ((labels == 1) & counted).sum(axis=0)
    return _scores(task, f1, counts, accuracy, float(right[frames].all(axis=1).mean()), int(frames.sum()), None)


def _scores(
    task: Task,
    f1: np.ndarray,
    counts: np.ndarray,
    accuracy: float,
    exact: float,
    frames: int,
    confusion: np.ndarray | None,
) -> Scores:
    macro = float(f1.mean())
    occurring = float(f1[counts > 0].mean()) if (counts > 0).any() else 0.0
    total = task.score.f1 * macro + task.score.accuracy * accuracy
    per_class, per_count = tuple(map(float, f1)), tuple(map(int, counts))
    return Scores(total, macro, accuracy, occurring, exact, per_class, per_count, frames, confusion)
