"""The learning rate of every step, as a function of the step alone: nothing to save, nothing to take up again."""

from __future__ import annotations

import math

from fercache.config import TrainingConfig


def learning_rate(settings: TrainingConfig, step: int, steps_per_epoch: int) -> float:
    """The rate of step `step`, counted from 0 over the whole training.

    `schedule: step` multiplies by `gamma` after each epoch in `milestones`; `cosine` goes to 0 in half a
    cosine after the warm-up (Loshchilov and Hutter 2017, arXiv:1608.03983, eq. 5, without restarts). During
    `warmup` epochs the rate rises in a straight line (Goyal et al. 2017, arXiv:1706.02677, 2.2).
    """
    warmup = settings.warmup * steps_per_epoch
    if settings.schedule == "cosine":
        share = max(0.0, step - warmup) / max(1.0, settings.epochs * steps_per_epoch - warmup)
        factor = 0.5 * (1 + math.cos(math.pi * share))
    else:
        factor = settings.gamma ** sum(step // steps_per_epoch >= milestone for milestone in settings.milestones)
    return settings.lr * factor * (min(1.0, (step + 1) / warmup) if warmup else 1.0)
