"""What several stages say in the same way."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fercache import runtime
from fercache.data.datasets import share_of
from fercache.data.manifest import Manifest
from fercache.errors import RunError
from fercache.scoring.metrics import decide, probabilities, score
from fercache.tasks import Task
from fercache.training.engine import Batch, infer


def run_values(stage: str, manifest: Path, data: Manifest, seed: int, threads: int) -> dict[str, Any]:
    """The values that every run records beside its stage's settings."""
    return {
        "stage": stage,
        "task": data.task.name,
        "manifest": str(manifest.resolve()),
        "manifest_sha256": hashlib.sha256(manifest.read_bytes()).hexdigest(),
        "seed": seed,
        "threads": threads,
        "ranks": runtime.ranks().count,
    }


def validation_scores(
    task: Task,
    network: nn.Module,
    batches: Iterable[Batch],
    labels: np.ndarray,
    precision: str,
    check: Callable[[], None],
    describe: Callable[[list[int]], list[str]],
) -> dict[str, float]:
    """The scores of an epoch on all validation labels (N,) or (N, C).

    `batches` are those of this rank's `share_of` the N samples, in order. The ranks' logits are put
    together by place: each sample counts once, whatever the number of ranks. Raises RunError where
    some are not finite, with the samples' names, which `describe` gives.
    """
    ranks = runtime.ranks()
    own = infer(network, batches, lambda: runtime.autocast(precision), check)  # (share, C)
    logits = np.empty((len(labels), own.shape[1]), np.float32)
    for rank, rows in enumerate(ranks.gather(torch.from_numpy(own)).numpy()):
        logits[share_of(len(labels), rank, ranks.count)] = rows
    broken = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    if len(broken):
        names = "\n".join(describe(broken[:20].tolist()))
        raise RunError(
            f"the network gives no finite numbers for {len(broken)} of {len(logits)} validation frames: lower the"
            f" learning rate, clip the gradient or compute in fp32; the first:\n{names}"
        )
    result = score(task, decide(task, probabilities(task, logits)), labels)
    return {
        "score": result.score,
        "f1": result.f1,
        "accuracy": result.accuracy,
        "f1_occurring": result.f1_occurring,
    }
