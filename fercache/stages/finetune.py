"""Stage one, first half: fine-tune the frame network on labelled frames.

Legend: N labelled frames of a split, B batch, C classes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fercache import runtime
from fercache.config import FinetuneConfig, as_plain
from fercache.data.annotations import class_shares, labelled
from fercache.data.datasets import EpochOrder, FrameBatch, frame_loader
from fercache.data.manifest import Manifest, read_manifest
from fercache.errors import DataError, raise_problems
from fercache.models.checkpoint import FRAME
from fercache.models.preprocessing import Preprocessing, normalise, prepare
from fercache.models.resnet import FrameNetwork
from fercache.models.weights import ARCHITECTURE, NONE, FrameWeights, load_weights
from fercache.rundir import RunDir
from fercache.stages.common import run_values, validation_scores
from fercache.tasks import Task
from fercache.training.augment import crop, random_boxes
from fercache.training.engine import Batches, infer
from fercache.training.fit import Fit, Scores, fit
from fercache.training.losses import get_criterion

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LabelledFrames:
    """The labelled frames of a split that have an image."""

    paths: list[str]
    labels: torch.Tensor
    """int8 (N,) or (N, C)."""


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

    A run that was stopped goes on; a finished one is left as it is. Raises DataError for what is
    wrong with manifest, labels or frames, WeightsError for the weights, RunError where `out` holds
    something else.
    """
    settings = settings or FinetuneConfig()
    run = RunDir(out)
    recorded = run.recorded()
    threads = runtime.use_threads(threads)
    data = read_manifest(manifest, task, frames=True)
    frames = _labelled_frames(data)
    runtime.seed_everything(seed)
    weights = load_weights(settings.weights, settings.zero_init_residual).with_image_size(settings.image_size)
    if settings.weights == NONE:
        log.warning("weights: none; the network starts from random numbers")
    precision = runtime.resolve_precision(settings.precision, recorded.get("precision"))
    values = {
        **run_values("finetune", manifest, data, seed, threads),
        **as_plain(replace(settings, precision=precision)),
        "image_size": weights.preprocessing.image_size,
        "weights_digest": weights.backbone_digest,
    }
    run.begin(values, runtime.environment(seed, threads))
    if run.finished(settings.epochs):
        log.info("%s: is finished already", out)
        return out
    device = runtime.device()
    network = weights.network(len(data.task.classes)).to(device, memory_format=torch.channels_last)
    loaders = _Loaders(frames, settings, weights.preprocessing, seed)
    plan = Fit(
        network=network,
        batches=loaders.training,
        validate=lambda: _validate(network, loaders, data.task, precision),
        criterion=get_criterion(data.task),
        settings=settings,
        precision=precision,
        seed=seed,
        kind=FRAME,
        header=_header(data.task, weights, frames["train"].labels.numpy()),
    )
    size = weights.preprocessing.image_size
    log.info("%s on %s, %s, %d threads, %d px", ARCHITECTURE, device, precision, threads, size)
    fit(plan, run)
    return out


def _labelled_frames(data: Manifest) -> dict[str, LabelledFrames]:
    """Those of training and validation; DataError with what is wrong in both."""
    frames, problems = {}, []
    for split in ("train", "validation"):
        paths: list[str] = []
        labels: list[np.ndarray] = []
        unlabelled = faceless = 0
        for video in data.split(split):
            try:
                found, video_labels = video.frames(), video.labels(data.task)
            except DataError as error:
                problems += str(error).splitlines()
                continue
            row_labels = video_labels[found.number - 1]
            counts = labelled(row_labels, data.task)
            paths += [path for path, keep in zip(found.path, counts, strict=True) if keep]
            labels.append(row_labels[counts])
            unlabelled += len(counts) - int(counts.sum())
            faceless += video.num_frames - len(counts)
        log.info(
            "%s: %d videos, %d labelled frames; not used: %d frames without a label, %d without a face",
            *(split, len(data.split(split)), len(paths), unlabelled, faceless),
        )
        if paths:
            frames[split] = LabelledFrames(paths, torch.from_numpy(np.concatenate(labels)))
        elif not problems:
            problems.append(f"split {split}: the manifest has no labelled frame in it")
    raise_problems(problems, DataError)
    return frames


def _header(task: Task, weights: FrameWeights, labels: np.ndarray) -> dict[str, Any]:
    """What the checkpoint says beside its tensors."""
    return {
        "architecture": ARCHITECTURE,
        "task": task.name,
        "preprocessing": weights.preprocessing.as_plain(),
        "train_prior": class_shares(labels, task).tolist(),
    }


class _Loaders:
    """Batches of both splits on the network's device."""

    def __init__(
        self, frames: dict[str, LabelledFrames], settings: FinetuneConfig, record: Preprocessing, seed: int
    ) -> None:
        self.frames, self.settings, self.record, self.seed = frames, settings, record, seed
        self.device = runtime.device()
        workers, pin = runtime.decoding_workers(settings.workers), self.device.type == "cuda"
        self.order = EpochOrder(len(frames["train"].paths), seed)
        self.loaders = {
            "train": frame_loader(frames["train"].paths, settings.batch_size, workers, self.order, pin=pin),
            "validation": frame_loader(frames["validation"].paths, 2 * settings.batch_size, workers, pin=pin),
        }

    def training(self, epoch: int) -> Batches:
        """Augmented batches in the epoch's order; crops depend on seed, epoch and frame alone."""
        self.order.epoch = epoch
        generator = torch.Generator().manual_seed(int(np.random.SeedSequence([self.seed, epoch]).generate_state(1)[0]))
        boxes = random_boxes(len(self.order), self.settings.crop_scale, self.settings.flip, generator)
        for batch in self._batches("train", f"epoch {epoch + 1}"):
            cropped = crop(batch.to(self.device), boxes[batch.index].to(self.device), self.record.image_size)
            yield self._inputs(normalise(cropped, self.record)), self._labels("train", batch)

    def validation(self) -> Batches:
        """Every validation frame once, in order."""
        for batch in self._batches("validation", "validation"):
            yield self._inputs(prepare(batch.to(self.device), self.record)), self._labels("validation", batch)

    def _batches(self, split: str, what: str) -> Iterator[FrameBatch]:
        loader = self.loaders[split]
        for batch in runtime.progress(loader, what, len(loader)):
            if batch.failures:
                self._raise_all_failures()
            yield batch

    def _raise_all_failures(self) -> None:
        """One frame is broken: look at all, so that nobody mends them one run at a time."""
        log.warning("a frame cannot be decoded; looking for others")
        workers, problems = runtime.decoding_workers(self.settings.workers), []
        for part in self.frames.values():
            for batch in frame_loader(part.paths, 256, workers):
                problems += batch.failures.values()
        raise_problems(problems, DataError)

    def _inputs(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.contiguous(memory_format=torch.channels_last)

    def _labels(self, split: str, batch: FrameBatch) -> torch.Tensor:
        return self.frames[split].labels[batch.index].to(self.device, non_blocking=True)


def _validate(network: FrameNetwork, loaders: _Loaders, task: Task, precision: str) -> Scores:
    logits = infer(network, loaders.validation(), lambda: runtime.autocast(precision))
    return validation_scores(task, logits, loaders.frames["validation"].labels.numpy())
