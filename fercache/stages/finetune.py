"""Stage one, first half: fine-tune the frame network on labelled frames.

Legend: N labelled frames of a split, B batch, C classes.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fercache import runtime
from fercache.config import FinetuneConfig
from fercache.data.labelled import LabelledFrames, labelled_frames
from fercache.data.loader import FrameBatch, FrameLoader, raise_bad_frames
from fercache.data.manifest import Manifest, read_manifest
from fercache.errors import ConfigError
from fercache.models.checkpoint import FRAME
from fercache.models.frame_network import FrameNetwork
from fercache.models.preprocessing import Preprocessing, filled, normalise, prepare
from fercache.models.weights import NONE, FrameWeights, load_weights
from fercache.scoring.metrics import epoch_scores
from fercache.tasks import Task
from fercache.training.augment import crop, epoch_boxes
from fercache.training.engine import Batch
from fercache.training.fit import Fit, Scores, fit, measure
from fercache.training.losses import Criterion, make_criterion
from fercache.training.start import Job, training_job
from fercache.training.validation import validation_logits

log = logging.getLogger(__name__)

VALIDATION_BATCH = 64
"""Frames a pass in validation, always that many: a frame's score then depends on no other setting."""
MEASURED_STEPS = 4
"""By which a plan says how long it would take."""


def finetune(
    manifest: Path,
    out: Path,
    settings: FinetuneConfig | None = None,
    *,
    task: str | None = None,
    seed: int = 0,
    threads: int | None = None,
) -> Path:
    """Fine-tune the frame network on the training split of `manifest`; returns the run folder `out`.

    A run that was stopped goes on; a finished one is left as it is. Under torchrun all ranks train
    one network, and the first writes. Raises DataError for what is wrong with manifest, labels or
    frames, WeightsError for the weights, ConfigError for settings that do not fit them, RunError
    where `out` holds something else.
    """
    settings = settings or FinetuneConfig()
    with training_job(out, settings, seed, threads, _memory_remedy(settings)) as job:
        _finetune(manifest, settings, task, job)
    return out


def measure_finetune(
    manifest: Path,
    settings: FinetuneConfig,
    *,
    task: str | None = None,
    seed: int = 0,
    threads: int | None = None,
) -> float:
    """Frames a second that `finetune` would learn from in one process here, over a few steps; nothing is written."""
    remedy = _memory_remedy(settings)
    with tempfile.TemporaryDirectory() as nowhere, training_job(Path(nowhere), settings, seed, threads, remedy) as job:
        prepared = _prepare(manifest, settings, task, job)
        with runtime.tuned_convolutions():
            return measure(prepared.fit(), MEASURED_STEPS)


def _memory_remedy(settings: FinetuneConfig) -> str:
    return f"lower batch_size (found {settings.batch_size}) or image_size"


@dataclass(frozen=True)
class _Prepared:
    """A fine-tuning with everything that was given checked."""

    data: Manifest
    frames: dict[str, LabelledFrames]
    weights: FrameWeights
    criterion: Criterion
    loaders: _Loaders
    settings: FinetuneConfig
    job: Job

    def fit(self) -> Fit:
        """The training."""
        network = self.weights.network(len(self.data.task.classes))
        network = network.to(runtime.device(), memory_format=torch.channels_last)
        loaders, task, job = self.loaders, self.data.task, self.job
        return Fit(
            network=network,
            steps=loaders.steps,
            batches=loaders.training,
            validate=lambda check: _validate(network, loaders, task, job.precision, check),
            describe=lambda index: self.frames["train"].names(index.tolist()),
            criterion=self.criterion,
            settings=self.settings,
            precision=job.precision,
            seed=job.seed,
            kind=FRAME,
            header=_header(task, self.weights, self.frames["train"].labels.numpy()),
        )


def _prepare(manifest: Path, settings: FinetuneConfig, task: str | None, job: Job) -> _Prepared:
    data = read_manifest(manifest, task, frames=True)
    frames = labelled_frames(data, settings.every_nth_frame)
    weights = _starting_weights(settings, data.task, job.seed)
    criterion = make_criterion(data.task, settings, frames["train"].labels.numpy())
    loaders = _Loaders(frames, settings, weights.preprocessing, job)
    return _Prepared(data, frames, weights, criterion, loaders, settings, job)


def _finetune(manifest: Path, settings: FinetuneConfig, task: str | None, job: Job) -> None:
    prepared = _prepare(manifest, settings, task, job)
    weights = prepared.weights
    values = {
        "arch": weights.architecture.family,
        "architecture": weights.architecture.name,
        "image_size": weights.preprocessing.image_size,
        "weights_digest": weights.backbone_digest,
    }
    if not job.begin("finetune", manifest, prepared.data, values):
        return
    plan = prepared.fit()
    log.info(
        "%s on %s, %s, %d threads, %d px; %d steps of at most %d frames an epoch, over %d ranks",
        *(weights.architecture.name, runtime.device(), job.precision, job.threads, weights.preprocessing.image_size),
        *(plan.steps, settings.batch_size, job.ranks.count),
    )
    with runtime.tuned_convolutions():
        fit(plan, job.run, job.ranks, job.stop)


def _starting_weights(settings: FinetuneConfig, task: Task, seed: int) -> FrameWeights:
    """What training starts from, with the classifier's first values chosen by the seed."""
    runtime.seed_everything(seed)
    weights = load_weights(
        settings.weights,
        arch=settings.arch,
        form=settings.weights_format,
        zero_init_residual=settings.zero_init_residual,
    ).with_image_size(settings.image_size)
    if settings.weights == NONE:
        log.warning("weights: none; the network starts from random numbers")
    if weights.task not in (None, task.name):
        raise ConfigError(
            f"{settings.weights}: is a network of task {weights.task}, and this is task {task.name};"
            f" `fercache weights convert {settings.weights} backbone.pt` takes its backbone alone"
        )
    return weights


def _header(task: Task, weights: FrameWeights, labels: np.ndarray) -> dict[str, Any]:
    """What the checkpoint says beside its tensors."""
    return {
        "architecture": weights.architecture.name,
        "task": task.name,
        "preprocessing": weights.preprocessing.as_plain(),
        "train_prior": task.prior(labels).tolist(),
    }


class _Loaders:
    """The batches of both splits that this rank works on."""

    def __init__(
        self,
        frames: dict[str, LabelledFrames],
        settings: FinetuneConfig,
        record: Preprocessing,
        job: Job,
    ) -> None:
        self.frames, self.settings, self.record, self.seed = frames, settings, record, job.seed
        self.device = runtime.device()
        count = len(frames["train"].paths)
        if settings.batch_size > count:
            raise ConfigError(f"batch_size: found {settings.batch_size}, but there are {count} training frames")
        self.order = job.order(count)
        self.steps = self.order.steps
        own = job.share(len(frames["validation"].paths), VALIDATION_BATCH)
        workers, pin = runtime.decoding_workers(settings.workers), self.device.type == "cuda"
        self.loaders = {
            "train": FrameLoader(frames["train"].paths, self.order, workers, pin=pin),
            "validation": FrameLoader(frames["validation"].paths, own, workers, pin=pin),
        }

    def training(self, epoch: int, step: int) -> Iterator[Batch]:
        """Augmented batches in the epoch's order; crops depend on seed, epoch and frame alone."""
        self.order.start(epoch, step)
        boxes = epoch_boxes(self.order.samples, self.settings.crop_scale, self.settings.flip, self.seed, epoch)
        for batch in self._batches("train", f"epoch {epoch + 1}"):
            own = runtime.to_device(boxes[batch.index], self.device)
            cropped = crop(batch.to(self.device), own, self.record.image_size)
            yield self._batch("train", batch, normalise(cropped, self.record))

    def validation(self) -> Iterator[Batch]:
        """The share of the validation frames, in order."""
        for batch in self._batches("validation", "validation"):
            yield self._batch(
                "validation", batch, filled(prepare(batch.to(self.device), self.record), VALIDATION_BATCH)
            )

    def _batches(self, split: str, what: str) -> Iterator[FrameBatch]:
        loader = self.loaders[split]
        for batch in runtime.progress(loader, what, len(loader)):
            if batch.failures:
                raise_bad_frames([part.paths for part in self.frames.values()], self.settings.workers)
            yield batch

    def _batch(self, split: str, batch: FrameBatch, pixels: torch.Tensor) -> Batch:
        inputs = pixels.contiguous(memory_format=torch.channels_last)
        return Batch(batch.index, inputs, self.frames[split].labels[batch.index])


def _validate(
    network: FrameNetwork, loaders: _Loaders, task: Task, precision: str, check: Callable[[], None]
) -> Scores:
    frames = loaders.frames["validation"]
    labels = frames.labels.numpy()
    logits = validation_logits(network, loaders.validation(), len(labels), precision, check, frames.names)
    return epoch_scores(task, logits, labels)
