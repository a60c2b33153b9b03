"""Losses over frames or windows, in which labels at -1 do not count.

Legend: ... any leading axes (B frames, or B windows x L positions), C classes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional

from fercache.tasks import Task

Criterion = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def get_criterion(task: Task) -> Criterion:
    """The task's loss: (logits (..., C), labels (...) or (..., C)) -> scalar, the mean over what counts."""
    return {"cross_entropy": cross_entropy, "binary_cross_entropy": binary_cross_entropy}[task.loss]


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Logits (..., C), integer labels (...), -1 = does not count."""
    return functional.cross_entropy(logits.flatten(0, -2).float(), labels.flatten().long(), ignore_index=-1)


def binary_cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Logits (..., C), labels (..., C) of 0 and 1, single elements at -1 do not count."""
    counts = labels >= 0
    return functional.binary_cross_entropy_with_logits(logits[counts].float(), labels[counts].float())
