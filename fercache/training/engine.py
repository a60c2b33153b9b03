"""One step of training, and one pass of inference, over any network and any batches.

Legend: B samples of a batch, ... further axes, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from fercache import runtime
from fercache.training.losses import Criterion


class Batch(NamedTuple):
    """Some samples."""

    index: torch.Tensor
    """int64 (B,): their places in the set."""
    inputs: Any
    """What the network takes: (B, ...) on its device (rows after the B-th only fill up), or named ones of such."""
    labels: torch.Tensor
    """(B, ...), on the processor."""


Batches = Iterable[Batch]
Autocast = Callable[[], AbstractContextManager]


@dataclass(frozen=True)
class Trainer:
    """What a step is made of."""

    network: nn.Module
    criterion: Criterion
    optimizer: torch.optim.Optimizer
    autocast: Autocast
    scaler: torch.amp.GradScaler
    """Keeps small gradients in fp16; passes everything through where it is not enabled."""
    clip_norm: float | None
    """Longest gradient over all parameters; None does not clip."""
    ranks: int
    """Processes over which the network averages its gradients."""

    def step(self, batch: Batch, lr: float, weight: float) -> torch.Tensor:
        """Learn from a batch; returns its summed loss, on the device.

        `weight` is what the losses of all ranks' batches of this step are to be divided by. A group of the
        optimizer's parameters learns at `lr` times its own `lr_scale`.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["lr_scale"]
        self.optimizer.zero_grad(set_to_none=True)  # before the pass, whose activations need the room
        with self.autocast():
            logits = self.network(batch.inputs)
        total = self.criterion.total(logits, runtime.to_device(batch.labels, logits.device))
        # The ranks' gradients are averaged, where their sum over the common weight is meant.
        self.scaler.scale(total * (self.ranks / weight)).backward()
        if self.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.network.parameters(), self.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return total.detach()


class NotFiniteError(Exception):
    """A loss that is not finite: `step` from 1, and the `index` of its batch."""

    def __init__(self, step: int, value: float, index: torch.Tensor) -> None:
        super().__init__(f"the loss of step {step} is {value}")
        self.index = index


@dataclass
class LossSum:
    """The losses of an epoch, added up without waiting for the device at every step."""

    every: int
    """Steps between looks at the values; what is not finite is found that late, and named right."""
    total: float = 0.0
    weight: float = 0.0
    _waiting: list[tuple[int, torch.Tensor, torch.Tensor]] = field(default_factory=list)

    def add(self, step: int, index: torch.Tensor, total: torch.Tensor, weight: float) -> None:
        """Note the summed loss of a batch."""
        self.weight += weight
        self._waiting.append((step, index, total))
        if len(self._waiting) >= self.every:
            self.settle()

    def settle(self) -> None:
        """Add what is waiting; NotFiniteError at the first loss that is not finite."""
        if not self._waiting:
            return
        values = torch.stack([total for _, _, total in self._waiting]).double().cpu().tolist()
        for (step, index, _), value in zip(self._waiting, values, strict=True):
            if not np.isfinite(value):
                raise NotFiniteError(step, value, index)
            self.total += value
        self._waiting.clear()


@torch.inference_mode()
def infer(network: nn.Module, batches: Batches, autocast: Autocast, check: Callable[[], None]) -> np.ndarray:
    """The logits of all batches in their order, float32 (N, ..., C). `check` is called before each and may raise."""
    network.eval()
    logits = []
    for batch in batches:
        check()
        with autocast():
            logits.append(network(batch.inputs)[: len(batch.index)].float())
    return torch.cat(logits).cpu().numpy()  # a GPU is waited for once, at the end
