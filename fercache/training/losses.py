"""Losses over frames or windows, in which labels at -1 do not count.

A loss is a sum and what to divide it by, so that a mean over several ranks is the mean over all of
their labels. Legend: ... any leading axes (B frames, or B windows x L positions), C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch.nn import functional

from fercache import runtime
from fercache.config import TrainingConfig
from fercache.errors import ConfigError, raise_problems
from fercache.tasks import Task


class Criterion(Protocol):
    """A loss: its sum over what counts, and the weight of what counts."""

    def total(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The summed loss of logits (..., C), a scalar in float32."""

    def weight(self, labels: torch.Tensor) -> float:
        """What the sum over these labels is to be divided by."""


@dataclass(frozen=True)
class CrossEntropy:
    """Of integer labels (...), -1 = does not count."""

    class_weight: torch.Tensor | None = None
    """float32 (C,)."""
    label_smoothing: float = 0.0

    def total(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The sum; with class weights that of the weighted losses."""
        weight = None if self.class_weight is None else runtime.to_device(self.class_weight, logits.device)
        return functional.cross_entropy(
            logits.flatten(0, -2).float(),
            labels.flatten().long(),
            weight,
            ignore_index=-1,
            reduction="sum",
            label_smoothing=self.label_smoothing,
        )

    def weight(self, labels: torch.Tensor) -> float:
        """The number of labels that count; with class weights the sum of theirs."""
        counted = labels[labels >= 0].long()
        return float(len(counted)) if self.class_weight is None else self.class_weight[counted].sum().item()


@dataclass(frozen=True)
class BinaryCrossEntropy:
    """Of labels (..., C) that are 0 or 1; single elements at -1 do not count."""

    positive_weight: torch.Tensor | None = None
    """float32 (C,)."""
    label_smoothing: float = 0.0

    def total(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The sum over elements; with weights positive elements count that much more."""
        counts = labels >= 0
        target = labels.float() * (1 - self.label_smoothing) + 0.5 * self.label_smoothing
        weight = None if self.positive_weight is None else runtime.to_device(self.positive_weight, logits.device)
        losses = functional.binary_cross_entropy_with_logits(
            logits.float(), target, pos_weight=weight, reduction="none"
        )
        return torch.where(counts, losses, 0.0).sum()

    def weight(self, labels: torch.Tensor) -> float:
        """The number of elements that count."""
        return float((labels >= 0).sum())


def make_criterion(task: Task, settings: TrainingConfig, labels: np.ndarray) -> Criterion:
    """The task's loss with what `settings` add to it; `labels`: all of the training's, in any leading shape.

    ConfigError for a setting that the task's loss does not have.
    """
    balancing = {"class_balance": settings.class_balance, "positive_weights": settings.positive_weights}
    problems = [
        f"{name}: task {task.name} has the loss {task.loss}; take {', '.join(task.loss_settings) or 'neither'}"
        for name, value in balancing.items()
        if value and name not in task.loss_settings
    ]
    raise_problems(problems, ConfigError)
    return LOSSES[task.loss](task, settings, labels)


def _cross_entropy(task: Task, settings: TrainingConfig, labels: np.ndarray) -> CrossEntropy:
    balance = settings.class_balance
    weights = class_balanced_weights(labels, len(task.classes), balance) if balance else None
    return CrossEntropy(weights, settings.label_smoothing)


def _binary_cross_entropy(task: Task, settings: TrainingConfig, labels: np.ndarray) -> BinaryCrossEntropy:
    weights = positive_weights(labels) if settings.positive_weights else None
    return BinaryCrossEntropy(weights, settings.label_smoothing)


LOSSES: dict[str, Callable[[Task, TrainingConfig, np.ndarray], Criterion]] = {
    "cross_entropy": _cross_entropy,
    "binary_cross_entropy": _binary_cross_entropy,
}
"""What a task may name as its loss."""


def class_balanced_weights(labels: np.ndarray, classes: int, beta: float) -> torch.Tensor:
    """(1 - beta) / (1 - beta^n) for a class of n labels, mean 1 over the classes that occur; float32 (classes,).

    The effective number of samples (Cui et al. 2019, arXiv:1901.05555, eq. 3); beta = 1 is its limit, 1 / n.
    """
    count = np.bincount(labels[labels >= 0].ravel(), minlength=classes).astype(np.float64)
    effective = count if beta == 1 else (1 - beta**count) / (1 - beta)
    weight = np.divide(1, effective, out=np.zeros(classes), where=count > 0)
    return torch.from_numpy(weight * (count > 0).sum() / weight.sum()).float()


def positive_weights(labels: np.ndarray) -> torch.Tensor:
    """Negative over positive labels of each class, 1 for a class without either; float32 (C,).

    So both weigh the same (`pos_weight` of PyTorch's BCEWithLogitsLoss). `labels` (..., C), -1 does not count.
    """
    rows = labels.reshape(-1, labels.shape[-1])
    positive, negative = ((rows == value).sum(axis=0).astype(np.float64) for value in (1, 0))
    weight = np.divide(negative, positive, out=np.ones_like(positive), where=(positive > 0) & (negative > 0))
    return torch.from_numpy(weight).float()
