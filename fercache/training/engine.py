"""One step of training, and one pass of inference, over any network and any batches.

Legend: B samples of a batch, ... further axes, C classes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from fercache import runtime
from fercache.config import TrainingConfig
from fercache.training.losses import Criterion


class Batch(NamedTuple):
    """Some samples."""

    index: torch.Tensor  # type: ignore[assignment]  # hides tuple.index
    """int64 (B,): their numbers in the set."""
    inputs: Any
    """What the network takes: (B, ...) on its device (rows after the B-th only fill up), or named ones of such."""
    labels: torch.Tensor
    """(B, ...), on the processor."""


Autocast = Callable[[], AbstractContextManager]


@dataclass(frozen=True)
class Learner:
    """A network and all that a step of training takes."""

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


def make_learner(
    network: nn.Module,
    criterion: Criterion,
    settings: TrainingConfig,
    precision: str,
    lr_scale: Callable[[str], float] = lambda _name: 1.0,
) -> Learner | None:
    """A network with its optimizer, in one process; None where the network has nothing to train.

    `lr_scale` maps a parameter's name to its share of the learning rate.
    """
    by_scale: dict[float, list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            by_scale.setdefault(lr_scale(name), []).append(parameter)
    if not by_scale:
        return None
    groups = [{"params": parameters, "lr_scale": scale} for scale, parameters in by_scale.items()]
    decay = settings.weight_decay
    if settings.optimizer == "adamw":
        betas = (settings.momentum, 0.999)
        optimizer: torch.optim.Optimizer = torch.optim.AdamW(groups, settings.lr, betas=betas, weight_decay=decay)
    else:
        optimizer = torch.optim.SGD(groups, settings.lr, momentum=settings.momentum, weight_decay=decay)
    return Learner(
        network,
        criterion,
        optimizer,
        autocast=lambda: runtime.autocast(precision),
        scaler=torch.amp.GradScaler(runtime.device().type, enabled=precision == "fp16"),
        clip_norm=settings.clip_norm,
        ranks=1,
    )


def over_ranks(learner: Learner, ranks: int) -> Learner:
    """The same with gradients averaged over the ranks; each keeps its own batch-norm statistics within an epoch."""
    device = runtime.device()
    # The setting's name changed in torch, and the old one warns.
    known = inspect.signature(DistributedDataParallel.__init__).parameters
    buffers_setting = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    network = DistributedDataParallel(
        learner.network,
        device_ids=[device.index] if device.type == "cuda" else None,
        gradient_as_bucket_view=True,
        **{buffers_setting: False},  # type: ignore[arg-type]
    )
    return replace(learner, network=network, ranks=ranks)


class NotFiniteError(Exception):
    """A loss that is not finite: `step` from 1, and the `index` of its batch."""

    def __init__(self, step: int, value: float, index: torch.Tensor) -> None:
        super().__init__(f"the loss of step {step} is {value}")
        self.index = index


@dataclass
class LossSum:
    """The losses of an epoch, added up without waiting for the device at every step."""

    every: int
    """Steps between looks at the values. A loss that is not finite is noticed that late, but its own step is named."""
    total: float = 0.0
    weight: float = 0.0
    _waiting: list[tuple[int, torch.Tensor, torch.Tensor]] = field(default_factory=list)

    def add(self, step: int, index: torch.Tensor, total: torch.Tensor, weight: float) -> None:
        """Add the summed loss of a batch."""
        self.weight += weight
        self._waiting.append((step, index, total))
        if len(self._waiting) >= self.every:
            self.settle()

    def settle(self) -> None:
        """Look at the values that wait; NotFiniteError at the first loss that is not finite."""
        if not self._waiting:
            return
        values = torch.stack([total for _, _, total in self._waiting]).double().cpu().tolist()
        for (step, index, _), value in zip(self._waiting, values, strict=True):
            if not np.isfinite(value):
                raise NotFiniteError(step, value, index)
            self.total += value
        self._waiting.clear()


@torch.inference_mode()
def infer(network: nn.Module, batches: Iterable[Batch], autocast: Autocast, check: Callable[[], None]) -> np.ndarray:
    """The logits of all batches in their order, float32 (N, ..., C). `check` is called before each and may raise."""
    network.eval()
    logits = []
    for batch in batches:
        check()
        with autocast():
            logits.append(network(batch.inputs)[: len(batch.index)].float())
    return torch.cat(logits).cpu().numpy()  # a GPU is waited for once, at the end
