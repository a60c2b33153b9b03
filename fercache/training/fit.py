"""The loop over epochs: schedule, validation, checkpoints, going on after a stop."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from fercache import runtime
from fercache.config import TrainingConfig
from fercache.errors import RunError
from fercache.models.checkpoint import load_checkpoint, save_checkpoint
from fercache.rundir import RunDir
from fercache.training.engine import Batches, train_epoch
from fercache.training.losses import Criterion

log = logging.getLogger(__name__)

Scores = dict[str, float]
"""Names and values of an epoch's validation; `score` is the one that decides."""


@dataclass(frozen=True)
class Fit:
    """All that a training is made of."""

    network: nn.Module
    batches: Callable[[int], Batches]
    """Epoch (from 0) -> the training batches in that epoch's own order."""
    validate: Callable[[], Scores]
    criterion: Criterion
    settings: TrainingConfig
    precision: str
    seed: int
    kind: str
    """Kind of the checkpoint."""
    header: dict[str, Any]
    """What the checkpoint says beside the tensors."""


def fit(plan: Fit, run: RunDir) -> None:
    """Train to the last epoch, or on from `last.pt`; leaves `best.pt`, `last.pt` and `metrics.jsonl` in the run.

    Each epoch is seeded by its own number, so that a stopped run gives the bits of an undisturbed one.
    Stopped is raised between steps when a signal comes; the epochs finished before it are kept.
    """
    settings = plan.settings
    optimizer = torch.optim.SGD(
        plan.network.parameters(), settings.lr, momentum=settings.momentum, weight_decay=settings.weight_decay
    )
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, list(settings.milestones), settings.gamma)
    history: list[dict[str, Any]] = _go_on(plan, run, optimizer, schedule)
    with runtime.stop_signals() as stop:
        for epoch in range(len(history), settings.epochs):
            start = time.monotonic()
            runtime.seed_everything(plan.seed, epoch)
            lr = schedule.get_last_lr()[0]
            loss = train_epoch(
                plan.network,
                plan.batches(epoch),
                plan.criterion,
                optimizer,
                lambda: runtime.autocast(plan.precision),
                stop.check,
            )
            schedule.step()
            scores = plan.validate()
            line = {"epoch": epoch + 1, "lr": lr, "loss": loss, **scores, "seconds": round(time.monotonic() - start, 1)}
            history.append(line)
            _save(plan, run, optimizer, schedule, history)
            log.info("epoch %d of %d: loss %.4f, %s", epoch + 1, settings.epochs, loss, _words(line, scores))
            stop.check()


def _go_on(
    plan: Fit, run: RunDir, optimizer: torch.optim.Optimizer, schedule: torch.optim.lr_scheduler.LRScheduler
) -> list[dict[str, Any]]:
    """Take up the state of `last.pt` where there is one; returns the lines of the epochs done."""
    if not run.last.exists():
        return []
    state = load_checkpoint(run.last, plan.kind)
    try:
        plan.network.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
    except (KeyError, ValueError, RuntimeError) as error:
        raise RunError(f"{run.last}: does not fit this run: {str(error).splitlines()[0]}") from error
    log.info("%s: goes on after epoch %d of %d", run.path, len(state["history"]), plan.settings.epochs)
    run.write_metrics(state["history"])
    return state["history"]


def _save(
    plan: Fit,
    run: RunDir,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    history: list[dict[str, Any]],
) -> None:
    """Write the epoch's checkpoints; `best.pt` first, since a run goes on from what `last.pt` says."""
    model = {name: tensor.detach().cpu() for name, tensor in plan.network.state_dict().items()}
    content = {**plan.header, "select": plan.settings.select, "model": model, "history": history}
    scores = [line["score"] for line in history]
    if plan.settings.select == "last" or scores[-1] > max(scores[:-1], default=float("-inf")):
        save_checkpoint(run.best, plan.kind, content)
    state = {"optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}
    save_checkpoint(run.last, plan.kind, {**content, **state})
    run.write_metrics(history)


def _words(line: dict[str, Any], scores: Scores) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in scores.items()) + f" ({line['seconds']:.0f} s)"
