"""Stage one, first half: fine-tune the frame network on labelled frames.

Legend: N labelled frames of a split, B batch, C classes.
"""

from __future__ import annotations

import itertools
import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

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
from fercache.training.engine import Batch, make_learner
from fercache.training.fit import fit, measure_training
from fercache.training.losses import Criterion, make_criterion
from fercache.training.start import TrainingJob, training_job
from fercache.training.validation import validation_logits

log = logging.getLogger(__name__)

VALIDATION_BATCH = 64
"""Frames a pass in validation, always that many: a frame's score then depends on no other setting."""


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

    An interrupted run resumes; a finished one is left as it is. Under torchrun all ranks train one network, and the
    first one writes. Raises DataError for what is wrong with manifest, labels or frames, WeightsError for the weights,
    ConfigError for settings that do not fit them, RunError where `out` contains something else.
    """
    settings = settings or FinetuneConfig()
    with training_job(out, settings, seed, threads, _memory_remedy(settings)) as job:
        inputs = _read_inputs(manifest, settings, task, job)
        weights, record = inputs.weights, inputs.weights.preprocessing
        values = {
            "arch": weights.arch,
            "architecture": weights.backbone.name,
            "image_size": record.image_size,
            "weights_digest": weights.backbone_digest,
        }
        if not job.begin("finetune", manifest, inputs.manifest, values):
            return out
        log.info(
            "%s on %s, %s, %d threads, %d px; %d steps of at most %d frames an epoch, over %d ranks",
            *(weights.backbone.name, runtime.device(), job.precision, job.threads, record.image_size),
            *(inputs.data.steps, settings.batch_size, job.ranks.count),
        )
        task_record = inputs.manifest.task
        header = {
            "architecture": weights.backbone.name,
            "task": task_record.name,
            "preprocessing": record.as_plain(),
            "train_prior": task_record.prior(inputs.data.frames["train"].labels.numpy()).tolist(),
        }
        with runtime.tuned_convolutions():
            fit(job, inputs.network(), inputs.criterion, inputs.data, kind=FRAME, header=header)
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
        inputs = _read_inputs(manifest, settings, task, job)
        learner = make_learner(inputs.network(), inputs.criterion, settings, job.precision)
        assert learner is not None  # a frame network learns
        batches = itertools.chain(inputs.data.batches(0), inputs.data.batches(1))
        with runtime.tuned_convolutions():
            return measure_training(learner, batches, settings.lr)


def _memory_remedy(settings: FinetuneConfig) -> str:
    return f"lower batch_size (found {settings.batch_size}) or image_size"


@dataclass(frozen=True)
class _Inputs:
    """What a fine-tuning starts from, checked."""

    manifest: Manifest
    weights: FrameWeights
    criterion: Criterion
    data: FrameTrainingData

    def network(self) -> FrameNetwork:
        """The network that training starts from, on the device."""
        network = self.weights.network(len(self.manifest.task.classes))
        return network.to(runtime.device()).to(memory_format=torch.channels_last)


def _read_inputs(manifest: Path, settings: FinetuneConfig, task: str | None, job: TrainingJob) -> _Inputs:
    read = read_manifest(manifest, task, frames=True)
    frames = labelled_frames(read, settings.every_nth_frame)
    weights = _starting_weights(settings, read.task, job.seed)
    criterion = make_criterion(read.task, settings, frames["train"].labels.numpy())
    return _Inputs(read, weights, criterion, FrameTrainingData(frames, read.task, settings, weights.preprocessing, job))


def _starting_weights(settings: FinetuneConfig, task: Task, seed: int) -> FrameWeights:
    """The weights that training starts from; the seed decides the classifier's first values."""
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


class FrameTrainingData:
    """Labelled frames as the batches of this rank: augmented for training, as they are for validation."""

    def __init__(
        self,
        frames: dict[str, LabelledFrames],
        task: Task,
        settings: FinetuneConfig,
        record: Preprocessing,
        job: TrainingJob,
    ) -> None:
        self.frames, self.task, self.settings, self.record, self.job = frames, task, settings, record, job
        self.device = runtime.device()
        training, validation = frames["train"].paths, frames["validation"].paths
        if settings.batch_size > len(training):
            raise ConfigError(f"batch_size: found {settings.batch_size}, but there are {len(training)} training frames")
        self.order = job.order(len(training))
        self.steps = self.order.steps
        workers, pin = runtime.decoding_workers(settings.workers), self.device.type == "cuda"
        self.loaders = {
            "train": FrameLoader(training, self.order, workers, pin=pin),
            "validation": FrameLoader(validation, job.share(len(validation), VALIDATION_BATCH), workers, pin=pin),
        }

    def batches(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """Cropped and mirrored frames in the epoch's order; the crops depend on seed, epoch and frame alone."""
        self.order.start(epoch, first_step)
        boxes = epoch_boxes(self.order.samples, self.settings.crop_scale, self.settings.flip, self.job.seed, epoch)
        for decoded in self._decoded("train", f"epoch {epoch + 1}"):
            batch_boxes = runtime.to_device(boxes[decoded.index], self.device)
            cropped = crop(decoded.to(self.device), batch_boxes, self.record.image_size)
            yield self._batch("train", decoded, normalise(cropped, self.record))

    def names(self, index: Sequence[int]) -> list[str]:
        """The files of training frames."""
        return self.frames["train"].names(index)

    def validate(self, network: nn.Module, check: Callable[[], None]) -> dict[str, float]:
        """The scores on the validation frames, whole and in order."""
        frames = self.frames["validation"]
        batches = (
            self._batch("validation", decoded, filled(prepare(decoded.to(self.device), self.record), VALIDATION_BATCH))
            for decoded in self._decoded("validation", "validation")
        )
        labels = frames.labels.numpy()
        logits = validation_logits(network, batches, len(labels), self.job.precision, check, frames.names)
        return epoch_scores(self.task, logits, labels)

    def _decoded(self, split: str, title: str) -> Iterator[FrameBatch]:
        loader = self.loaders[split]
        for batch in runtime.progress(loader, title, len(loader)):
            if batch.failures:
                raise_bad_frames([part.paths for part in self.frames.values()], self.settings.workers)
            yield batch

    def _batch(self, split: str, decoded: FrameBatch, pixels: torch.Tensor) -> Batch:
        inputs = pixels.contiguous(memory_format=torch.channels_last)
        return Batch(decoded.index, inputs, self.frames[split].labels[decoded.index])
