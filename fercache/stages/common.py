"""What several stages say in the same way."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from fercache.data.manifest import Manifest
from fercache.scoring.metrics import decide, probabilities, score
from fercache.tasks import Task


def run_values(stage: str, manifest: Path, data: Manifest, seed: int, threads: int) -> dict[str, Any]:
    """The values that every run records beside its stage's settings."""
    return {
        "stage": stage,
        "task": data.task.name,
        "manifest": str(manifest.resolve()),
        "manifest_sha256": hashlib.sha256(manifest.read_bytes()).hexdigest(),
        "seed": seed,
        "threads": threads,
    }


def validation_scores(task: Task, logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """The scores of an epoch: logits (N, C) against labels (N,) or (N, C)."""
    result = score(task, decide(task, probabilities(task, logits)), labels)
    return {
        "score": result.score,
        "f1": result.f1,
        "accuracy": result.accuracy,
        "f1_occurring": result.f1_occurring,
    }
