"""One epoch of training, and one pass of inference, over any network and any batches.

Legend: B samples of a batch, ... further axes, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager

import numpy as np
import torch
from torch import nn

from fercache.errors import RunError
from fercache.training.losses import Criterion

Batches = Iterable[tuple[torch.Tensor, torch.Tensor]]
"""Inputs and labels, on the network's device."""
Autocast = Callable[[], AbstractContextManager]


def train_epoch(
    network: nn.Module,
    batches: Batches,
    criterion: Criterion,
    optimizer: torch.optim.Optimizer,
    autocast: Autocast,
    after_step: Callable[[], None],
) -> float:
    """One pass over the batches; returns the mean loss of a sample.

    `after_step` is called after every step and may raise to stop. Raises RunError as soon as a
    loss is not finite: what follows would be lost time.
    """
    network.train()
    total = torch.zeros((), dtype=torch.float64)
    samples = 0
    for step, (inputs, labels) in enumerate(batches, start=1):
        with autocast():
            logits = network(inputs)
        loss = criterion(logits, labels)
        value = loss.detach().cpu().double()
        if not torch.isfinite(value):
            raise RunError(f"the loss of step {step} is {value.item()}: lower the learning rate, or compute in fp32")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        total += value * len(inputs)
        samples += len(inputs)
        after_step()
    return (total / samples).item()


@torch.inference_mode()
def infer(network: nn.Module, batches: Batches, autocast: Autocast) -> np.ndarray:
    """The logits of all batches in their order, float32 (N, ..., C)."""
    network.eval()
    logits = []
    for inputs, _ in batches:
        with autocast():
            logits.append(network(inputs).float().cpu())
    return torch.cat(logits).numpy()
