"""The loop over epochs: steps, validation, checkpoints; resuming after a stop or a kill."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import torch
from torch import nn

from fercache import runtime
from fercache.errors import RunError, Stopped
from fercache.training.engine import Batch, Learner, LossSum, NotFiniteError, make_learner, over_ranks
from fercache.training.losses import Criterion
from fercache.training.schedule import learning_rate
from fercache.training.start import TrainingJob
from fercache.training.state import Checkpoints, EpochScores, TrainingState, describe_scores, save_untrained

log = logging.getLogger(__name__)

GPU_LOOK = 10
"""Steps between looks at the losses on a GPU, which must not wait for them."""
MEASURED_STEPS = 4
"""From which a plan estimates the time."""


class TrainingData(Protocol):
    """What a network is trained and validated on: this rank's part of it."""

    steps: int
    """Steps of an epoch."""

    def batches(self, epoch: int, first_step: int) -> Iterable[Batch]:
        """The training batches of an epoch (from 0) in its own order, from that step (from 0) on."""

    def names(self, index: Sequence[int]) -> list[str]:
        """The names of training samples by their number."""

    def validate(self, network: nn.Module, check: Callable[[], None]) -> EpochScores:
        """The network's scores, of which `score` decides; `check` is called between batches, on all ranks alike."""


def fit(
    job: TrainingJob,
    network: nn.Module,
    criterion: Criterion,
    data: TrainingData,
    *,
    kind: str,
    header: dict[str, Any],
    lr_scale: Callable[[str], float] = lambda _name: 1.0,
) -> None:
    """Train to the last epoch, or resume from `last.pt`; leaves `best.pt`, `last.pt` and `metrics.jsonl` in the run.

    `kind` and `header` are what checkpoints record beside the tensors; `lr_scale` maps a parameter's name to its share
    of the learning rate. The random numbers of a step depend on seed, epoch, step and rank alone, and `last.pt` is
    saved within an epoch too, so that a stopped run ends with the bits of an undisturbed one. A signal to any rank
    raises Stopped on all, with everything saved, before the next step. RunError as soon as a loss is not finite,
    naming the batch's samples.
    """
    settings, ranks = job.settings, job.ranks
    learner = make_learner(network, criterion, settings, job.precision, lr_scale)
    if learner is None:
        save_untrained(job, network, kind, header, data.validate(network, job.check_stop))
        return
    checkpoints = Checkpoints(job, learner, kind, header)
    state = checkpoints.resume(data.steps)
    if settings.compile:
        network.compile()
    if ranks.count > 1:
        learner = over_ranks(learner, ranks.count)
    for epoch in range(len(state.history), settings.epochs):
        state.start_clock()
        loss = train_epoch(epoch, job, learner, data, state, checkpoints)
        _share_batch_norm_statistics(network, ranks)
        try:
            scores = data.validate(network, job.check_stop)
        except Stopped:
            checkpoints.save_within_epoch(state)
            raise
        lr = learning_rate(settings, epoch * data.steps, data.steps)
        seconds = round(state.elapsed(), 1)
        state.finish_epoch({"epoch": epoch + 1, "lr": lr, "loss": loss, **scores, "seconds": seconds})
        checkpoints.save_epoch(state)
        log.info(
            "epoch %d of %d: loss %.4f, %s (%.0f s)", epoch + 1, settings.epochs, loss, describe_scores(scores), seconds
        )


def train_epoch(
    epoch: int,
    job: TrainingJob,
    learner: Learner,
    data: TrainingData,
    state: TrainingState,
    checkpoints: Checkpoints,
) -> float:
    """The remaining steps of an epoch; returns the mean loss of all its steps, over all ranks."""
    learner.network.train()
    losses = LossSum(every=1 if runtime.device().type == "cpu" else GPU_LOOK)
    if job.ranks.first:  # one rank brings along what a stopped run had summed up over all
        losses.total, losses.weight = state.total, state.weight

    def sum_over_ranks() -> None:
        losses.settle()
        state.total, state.weight = job.ranks.sums([losses.total, losses.weight])

    try:
        for batch in data.batches(epoch, state.step):
            weight = learner.criterion.weight(batch.labels)
            flags = [job.stop.signal is not None, job.ranks.first and checkpoints.due()]
            weight_of_all, stopping, saving = job.ranks.sums([weight, *flags])
            if stopping or saving:
                sum_over_ranks()
                checkpoints.save_within_epoch(state)
            if stopping:
                raise job.stopped()
            runtime.seed_everything(job.seed, epoch, state.step, job.ranks.rank)
            lr = learning_rate(job.settings, epoch * data.steps + state.step, data.steps)
            loss = learner.step(batch, lr, weight_of_all)
            state.step += 1
            losses.add(state.step, batch.index, loss, weight)
        sum_over_ranks()
    except NotFiniteError as error:
        names = "\n".join(data.names(error.index.tolist()))
        raise RunError(
            f"epoch {epoch + 1}: {error}: lower the learning rate, clip the gradient or compute in fp32;"
            f" its batch:\n{names}"
        ) from error
    return state.total / state.weight


def measure_training(learner: Learner, batches: Iterable[Batch], lr: float) -> float:
    """Samples a second that this process learns from, over `MEASURED_STEPS` after a first one; nothing is kept."""
    samples, started = 0, 0.0
    learner.network.train()
    for step, batch in enumerate(itertools.islice(batches, MEASURED_STEPS + 1)):
        float(learner.step(batch, lr, max(1.0, learner.criterion.weight(batch.labels))))
        if step == 0:
            started = time.monotonic()
        else:
            samples += len(batch.index)
    return samples / (time.monotonic() - started)


def _share_batch_norm_statistics(network: nn.Module, ranks: runtime.Ranks) -> None:
    """Give all ranks the first one's statistics, which are those that are saved."""
    if ranks.count > 1:
        for buffer in network.buffers():
            torch.distributed.broadcast(buffer, src=0)
