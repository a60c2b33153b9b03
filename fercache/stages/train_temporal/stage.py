"""Stage two: train a temporal head on windows of cached rows, or on frames together with the frame network.

Legend: N windows, L positions, C classes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from fercache import runtime
from fercache.config import TrainTemporalConfig
from fercache.data.datasets import EpochBatches
from fercache.data.manifest import Manifest, read_manifest
from fercache.errors import ConfigError, raise_problems
from fercache.models.checkpoint import HEAD
from fercache.models.heads import get_head, seen_by
from fercache.models.temporal import MiddleOutput, TemporalNetwork
from fercache.scoring.metrics import epoch_scores
from fercache.stages.train_temporal.inputs import Inputs, from_cache, from_frames
from fercache.tasks import get_task
from fercache.training.engine import Batch, Batches
from fercache.training.fit import Fit, Scores, fit, measure
from fercache.training.losses import make_criterion
from fercache.training.start import Job, training_job
from fercache.training.validation import validation_logits

log = logging.getLogger(__name__)

MIDDLE_BATCH, MIDDLE_BATCH_FRAMES = 512, 32
"""Windows a pass in validation, over cached rows and over frames."""
MEASURED_STEPS = 4
"""By which a plan says how long it would take."""


def train_temporal(
    manifest: Path,
    cache: Path | None,
    out: Path,
    settings: TrainTemporalConfig,
    *,
    task: str | None = None,
    seed: int = 0,
    threads: int | None = None,
) -> Path:
    """Train the head `settings.head` on the training split's windows; returns the run folder `out`.

    Many to many in training, the middle frame of each frame's own window in validation. With
    `settings.end_to_end` the frames are opened again, and the frame network in `settings.weights` learns together with
    the head; no `cache` is read then. A run that was stopped goes on. Under torchrun all ranks train one head, and
    the first writes. Raises CacheError for what is wrong with the cache, DataError with manifest, labels or
    frames, ConfigError for settings that do not fit, RunError where `out` holds something else.
    """
    head = get_head(settings.head)
    _check(settings, seen_by(head), cache)
    with torch.device("meta"):
        learns = any(True for _ in head(1, 1).parameters())
    if not learns:
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
    record, kind = get_task(task), get_head(head)
    runtime.configure_torch(threads)
    precision, device = runtime.resolve_precision(settings.precision), runtime.device()
    runtime.seed_everything(0)
    network = TemporalNetwork(kind(len(record.classes), embedding_dim)).to(device)
    shape = (settings.batch_size, settings.window)
    labels = torch.zeros(*shape, *record.label_shape(1)[1:], dtype=torch.int64)
    batch = Batch(torch.arange(shape[0]), torch.randn(*shape, embedding_dim, device=device), labels)
    plan = Fit(
        network=network,
        steps=MEASURED_STEPS + 1,
        batches=lambda _epoch, _step: [batch] * (MEASURED_STEPS + 1),
        validate=lambda _check: {},
        describe=lambda _index: [],
        criterion=make_criterion(record, settings, labels.numpy()),
        settings=settings,
        precision=precision,
        seed=0,
        kind=HEAD,
        header={},
    )
    with runtime.memory_errors(f"lower train_temporal.batch_size (found {settings.batch_size})"):
        return measure(plan, MEASURED_STEPS)


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


def _train(manifest: Path, data: Manifest, inputs: Inputs, settings: TrainTemporalConfig, job: Job) -> None:
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
    network = inputs.network().to(runtime.device(), memory_format=torch.channels_last)
    loops = _Loops(network, data, inputs, order, job)
    header = {
        "head": settings.head,
        "task": data.task.name,
        "window": settings.window,
        "precision": job.precision,
        "train_prior": data.task.prior(training.labels).tolist(),
        **inputs.header,
    }
    plan = Fit(
        network=network,
        steps=order.steps,
        batches=loops.training,
        validate=loops.validate,
        describe=lambda index: training.windows.names(index.tolist()),
        criterion=criterion,
        settings=settings,
        precision=job.precision,
        seed=job.seed,
        kind=inputs.kind,
        header=header,
        lr_scale=lambda name: settings.cnn_lr / settings.lr if name.startswith("backbone.") else 1.0,
    )
    fit(plan, job.run, job.ranks, job.stop)


@dataclass(frozen=True)
class _Loops:
    """The training batches, and the validation."""

    network: TemporalNetwork
    data: Manifest
    inputs: Inputs
    order: EpochBatches
    job: Job

    def training(self, epoch: int, step: int) -> Batches:
        """The training windows in the epoch's order, from a step on."""
        split, steps = self.inputs.splits["train"], self.order.start(epoch, step)
        batches = split.source.training(split.windows, steps, epoch)
        for batch in runtime.progress(batches, f"epoch {epoch + 1}", len(steps)):
            labels = split.position_labels(batch.rows, batch.present, self.data.task.invalid)
            yield Batch(torch.as_tensor(batch.chosen), batch.inputs, labels)

    def validate(self, check: Callable[[], None]) -> Scores:
        """The scores of the middle outputs."""
        split = self.inputs.splits["validation"]
        batch_size = MIDDLE_BATCH if self.inputs.kind == HEAD else MIDDLE_BATCH_FRAMES
        steps = self.job.share(len(split.windows), batch_size)
        found = runtime.progress(split.source.middle(split.windows, steps), "validation", len(steps))
        labels = split.middle_labels()
        logits = validation_logits(
            MiddleOutput(self.network),
            (Batch(torch.as_tensor(chosen), windows, torch.empty(0)) for chosen, windows in found),
            len(labels),
            self.job.precision,
            check,
            lambda places: split.windows.names(np.asarray(places)),
        )
        return epoch_scores(self.data.task, logits, labels)
