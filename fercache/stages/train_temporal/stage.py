"""Stage two: train a temporal head on windows of cached rows, or on frames together with the frame network.

Legend: N windows, L positions, C classes.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import nn

from fercache import runtime
from fercache.config import TrainTemporalConfig
from fercache.data.datasets import EpochBatches
from fercache.data.manifest import Manifest, read_manifest
from fercache.errors import ConfigError, raise_problems
from fercache.models.checkpoint import HEAD
from fercache.models.heads import get_head, head_entry
from fercache.models.temporal import MiddleOutput, TemporalNetwork
from fercache.scoring.metrics import epoch_scores
from fercache.stages.train_temporal.inputs import Inputs, from_cache, from_frames
from fercache.tasks import Task, get_task
from fercache.training.engine import Batch, make_learner
from fercache.training.fit import fit, measure_training
from fercache.training.losses import make_criterion
from fercache.training.start import TrainingJob, training_job
from fercache.training.validation import validation_logits

log = logging.getLogger(__name__)

MIDDLE_BATCH, MIDDLE_BATCH_FRAMES = 512, 32
"""Windows a pass in validation, over cached rows and over frames."""


def train_temporal(
    manifest: Path,
    cache: Path | None,
    out: Path,
    settings: TrainTemporalConfig | None = None,
    *,
    task: str | None = None,
    seed: int = 0,
    threads: int | None = None,
) -> Path:
    """Train the head `settings.head` on the training split's windows; returns the run folder `out`.

    Many to many in training, the middle frame of each frame's own window in validation. With
    `settings.end_to_end` the frames are opened again, and the frame network in `settings.weights` learns together with
    the head; no `cache` is read then. An interrupted run resumes. Under torchrun all ranks train one head, and the
    first one writes. Raises CacheError for what is wrong with the cache, DataError with manifest, labels or frames,
    ConfigError for settings that do not fit, RunError where `out` contains something else.
    """
    settings = settings or TrainTemporalConfig()
    _check(settings, get_head(settings.head).sees, cache)
    if not head_entry(settings.head).learns:
        settings = replace(settings, epochs=1, warmup=0.0)  # its scores are measured once
    remedy = f"lower batch_size (found {settings.batch_size})"
    if settings.end_to_end and not settings.checkpointing:
        remedy += ", or set checkpointing to true"
    with training_job(out, settings, seed, threads, remedy) as job:
        data = read_manifest(manifest, task, frames=settings.end_to_end)
        inputs = from_frames(data, settings, seed) if cache is None else from_cache(data, settings, cache)
        _train(manifest, data, inputs, settings, job)
    return out


def measure_head(
    head: str, settings: TrainTemporalConfig, task: str, embedding_dim: int, *, threads: int | None = None
) -> float:
    """Windows a second that a head would learn from in one process here, over a few steps on random numbers.

    How fast they come from the disk is left out.
    """
    record = get_task(task)
    runtime.configure_torch(threads)
    precision, device = runtime.resolve_precision(settings.precision), runtime.device()
    runtime.seed_everything(0)
    network = TemporalNetwork(get_head(head)(len(record.classes), embedding_dim)).to(device)
    shape = (settings.batch_size, settings.window)
    labels = torch.zeros(*shape, *record.label_shape(1)[1:], dtype=torch.int64)
    learner = make_learner(network, make_criterion(record, settings, labels.numpy()), settings, precision)
    if learner is None:
        raise ConfigError(f"head: {head} learns nothing, so that there is nothing to measure")
    batch = Batch(torch.arange(shape[0]), torch.randn(*shape, embedding_dim, device=device), labels)
    with runtime.memory_errors(f"lower train_temporal.batch_size (found {settings.batch_size})"):
        return measure_training(learner, itertools.repeat(batch), settings.lr)


def _check(settings: TrainTemporalConfig, seen: str, cache: Path | None) -> None:
    """Raise ConfigError for what cannot be asked for together."""
    ends = settings.end_to_end
    rules = (
        (ends and not settings.weights, "end_to_end: needs `weights`, the run folder of a frame network"),
        (ends and cache is not None, "end_to_end: opens the frames, and reads no cache"),
        (ends and settings.standardise, "standardise: is of cached embeddings; with end_to_end it comes with `init`"),
        (not ends and cache is None, "cache: is missing; a head is trained on it, or with end_to_end on frames"),
        (
            seen == "logits" and (ends or settings.standardise),
            f"head: {settings.head} is of cached logits, without end_to_end and standardise",
        ),
    )
    raise_problems([problem for broken, problem in rules if broken], ConfigError)


def _train(manifest: Path, data: Manifest, inputs: Inputs, settings: TrainTemporalConfig, job: TrainingJob) -> None:
    training, validation = inputs.splits["train"], inputs.splits["validation"]
    criterion = make_criterion(data.task, settings, training.labels)
    order = job.order(len(training.windows), settings.shuffle_block)
    if not job.begin("train_temporal", manifest, data, inputs.values, inputs.check):
        return
    log.info(
        "%s head%s on %s, %s, %d threads: %d training windows of %d frames, %d validation frames",
        *(settings.head, " and frame network" if settings.end_to_end else "", runtime.device(), job.precision),
        *(job.threads, len(training.windows), settings.window, len(validation.windows)),
    )
    runtime.seed_everything(job.seed)
    network = inputs.network().to(runtime.device()).to(memory_format=torch.channels_last)
    header = {
        "head": settings.head,
        "task": data.task.name,
        "window": settings.window,
        "precision": job.precision,
        "train_prior": data.task.prior(training.labels).tolist(),
        **inputs.header,
    }
    windows = WindowTrainingData(data.task, inputs, order, job)
    cnn_scale = settings.cnn_lr / settings.lr
    fit(
        job,
        network,
        criterion,
        windows,
        kind=inputs.kind,
        header=header,
        lr_scale=lambda name: cnn_scale if name.startswith("backbone.") else 1.0,
    )


class WindowTrainingData:
    """Windows as the batches of this rank: many to many for training, the middle frame for validation."""

    def __init__(self, task: Task, inputs: Inputs, order: EpochBatches, job: TrainingJob) -> None:
        self.task, self.inputs, self.order, self.job = task, inputs, order, job
        self.steps = order.steps

    def batches(self, epoch: int, first_step: int) -> Iterator[Batch]:
        """The training windows in the epoch's order, from a step on."""
        split, steps = self.inputs.splits["train"], self.order.start(epoch, first_step)
        batches = split.source.training(split.windows, steps, epoch)
        for batch in runtime.progress(batches, f"epoch {epoch + 1}", len(steps)):
            labels = split.position_labels(batch.rows, batch.present, self.task.invalid)
            yield Batch(torch.as_tensor(batch.chosen), batch.inputs, labels)

    def names(self, index: Sequence[int]) -> list[str]:
        """Video and centre of training windows."""
        return self.inputs.splits["train"].windows.names(np.asarray(index))

    def validate(self, network: nn.Module, check: Callable[[], None]) -> dict[str, float]:
        """The scores of the middle outputs, for every labelled frame."""
        split = self.inputs.splits["validation"]
        batch_size = MIDDLE_BATCH if self.inputs.kind == HEAD else MIDDLE_BATCH_FRAMES
        steps = self.job.share(len(split.windows), batch_size)
        batches = runtime.progress(split.source.middle(split.windows, steps), "validation", len(steps))
        labels = split.middle_labels()
        logits = validation_logits(
            MiddleOutput(cast(TemporalNetwork, network)),
            (Batch(torch.as_tensor(chosen), windows, torch.empty(0)) for chosen, windows in batches),
            len(labels),
            self.job.precision,
            check,
            lambda index: split.windows.names(np.asarray(index)),
        )
        return epoch_scores(self.task, logits, labels)
