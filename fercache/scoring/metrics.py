"""The scores that training records after an epoch."""

from __future__ import annotations

import numpy as np

from fercache.tasks.base import Task


def epoch_scores(task: Task, logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Scores of logits (N, C) against labels; `score` decides which epoch is the best."""
    result = task.score(task.decide(task.probabilities(logits)), labels)
    return {
        "score": result.score,
        "f1": result.f1,
        "accuracy": result.accuracy,
        "f1_occurring": result.f1_occurring,
    }
