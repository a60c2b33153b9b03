"""Stage two: train a temporal head on windows of cached embeddings.

Legend: F present frames, N windows, L positions, D embedding, C classes.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fercache import runtime
from fercache.cache.reader import Cache
from fercache.config import TrainTemporalConfig, as_plain
from fercache.data import windows
from fercache.data.annotations import class_shares, labelled
from fercache.data.datasets import EpochOrder, WindowSet
from fercache.data.manifest import Manifest, Video, read_manifest
from fercache.errors import DataError, raise_problems
from fercache.models.checkpoint import HEAD
from fercache.models.heads import MiddleOutput, get_head
from fercache.rundir import RunDir
from fercache.stages.common import run_values, validation_scores
from fercache.tasks import Task
from fercache.training.engine import Batches, infer
from fercache.training.fit import Fit, Scores, fit
from fercache.training.losses import get_criterion

log = logging.getLogger(__name__)


def train_temporal(
    manifest: Path,
    cache: Path,
    out: Path,
    settings: TrainTemporalConfig,
    *,
    task: str | None = None,
    seed: int = 0,
    threads: int | None = None,
) -> Path:
    """Train the head `settings.head` on the training split's windows; returns the run folder `out`.

    Many to many in training, the middle frame of each frame's own window in validation. The
    windows' embeddings are held in memory. A run that was stopped goes on. Raises CacheError for
    videos that the cache lacks, RunError where `out` holds something else.
    """
    head_class = get_head(settings.head)
    run = RunDir(out)
    recorded = run.recorded()
    threads = runtime.use_threads(threads)
    inputs = _read_inputs(manifest, task, cache)
    precision = runtime.resolve_precision(settings.precision, recorded.get("precision"))
    values = {
        **run_values("train_temporal", manifest, inputs.data, seed, threads),
        **as_plain(replace(settings, precision=precision)),
        "cache": str(cache.resolve()),
        "cache_fingerprint": inputs.cache.provenance.fingerprint,
    }
    run.begin(values, runtime.environment(seed, threads))
    if run.finished(settings.epochs):
        log.info("%s: is finished already", out)
        return out
    training = _window_set(inputs, "train", settings.window, settings.stride)
    validation = _window_set(inputs, "validation", settings.window, None)
    log.info(
        "%s head on %s, %s, %d threads: %d training windows of %d frames, %d validation frames",
        *(settings.head, runtime.device(), precision, threads, len(training), settings.window, len(validation)),
    )
    runtime.seed_everything(seed)
    network = head_class(len(inputs.data.task.classes), training.embedding.shape[1]).to(runtime.device())
    loops = _Loops(network, training, validation, inputs.data.task, settings.batch_size, precision, seed)
    plan = Fit(
        network=network,
        batches=loops.training_batches,
        validate=loops.validate,
        criterion=get_criterion(inputs.data.task),
        settings=settings,
        precision=precision,
        seed=seed,
        kind=HEAD,
        header=_header(settings, precision, inputs, training.embedding.shape[1]),
    )
    fit(plan, run)
    return out


@dataclass(frozen=True)
class _Inputs:
    """What the head learns from, checked."""

    data: Manifest
    cache: Cache
    labels: dict[str, list[np.ndarray]]
    """Split -> the labels of each video's present frames, int8 (F,) or (F, C)."""


def _read_inputs(manifest: Path, task: str | None, cache: Path) -> _Inputs:
    data, reader = read_manifest(manifest, task), Cache(cache)
    splits = ("train", "validation")
    reader.check(video.video_id for split in splits for video in data.split(split))
    labels, problems = {}, []
    for split in splits:
        try:
            labels[split] = _row_labels(data, reader, split)
        except DataError as error:
            problems += str(error).splitlines()
    raise_problems(problems, DataError)
    return _Inputs(data, reader, labels)


def _header(settings: TrainTemporalConfig, precision: str, inputs: _Inputs, embedding_dim: int) -> dict[str, Any]:
    """What the checkpoint says beside its tensors."""
    task = inputs.data.task
    return {
        "head": settings.head,
        "task": task.name,
        "window": settings.window,
        "embedding_dim": embedding_dim,
        "precision": precision,
        "provenance": asdict(inputs.cache.provenance),
        "train_prior": class_shares(np.concatenate(inputs.labels["train"]), task).tolist(),
    }


@dataclass(frozen=True)
class _Loops:
    """The batches of both splits, and the validation."""

    network: nn.Module
    training: WindowSet
    validation: WindowSet
    task: Task
    batch_size: int
    precision: str
    seed: int

    def training_batches(self, epoch: int) -> Batches:
        """All training windows in the epoch's order."""
        order = EpochOrder(len(self.training), self.seed)
        order.epoch = epoch
        return self._batches(self.training, list(order), f"epoch {epoch + 1}")

    def validate(self) -> Scores:
        """The scores of the middle outputs."""
        batches = self._batches(self.validation, None, "validation")
        logits = infer(MiddleOutput(self.network), batches, lambda: runtime.autocast(self.precision))
        return validation_scores(self.task, logits, self.validation.labels.numpy())

    def _batches(self, windows: WindowSet, order: list[int] | None, what: str) -> Batches:
        device, total = runtime.device(), -(-len(windows) // self.batch_size)
        for inputs, labels in runtime.progress(windows.batches(self.batch_size, order), what, total):
            yield inputs.to(device), labels.to(device)


def _row_labels(data: Manifest, cache: Cache, split: str) -> list[np.ndarray]:
    found, problems = [], []
    for video in data.split(split):
        frame = cache.frame(video.video_id)
        try:
            if len(frame) and frame[-1] > video.num_frames:
                raise DataError(
                    f"{video.video_id}: the cache has frame {frame[-1]}, the manifest {video.num_frames} frames"
                )
            found.append(video.labels(data.task)[frame - 1])
        except DataError as error:
            problems += str(error).splitlines()
    raise_problems(problems, DataError)
    if not any(labelled(labels, data.task).any() for labels in found):
        raise DataError(f"split {split}: the manifest has no labelled frame in it")
    return found


def _read_embeddings(cache: Cache, videos: tuple[Video, ...], labels: list[np.ndarray]) -> torch.Tensor:
    """All rows of the videos behind one another, (sum of F, D) in the cache's type."""
    count = sum(len(row_labels) for row_labels in labels)
    width = cache.embedding_dim(videos[0].video_id)
    embedding = np.empty((count, width), cache.provenance.dtype)
    start = 0
    for video, row_labels in zip(videos, labels, strict=True):
        cache.read_into(video.video_id, embedding[start : start + len(row_labels)])
        start += len(row_labels)
    return torch.from_numpy(embedding)


def _window_set(inputs: _Inputs, split: str, length: int, stride: int | None) -> WindowSet:
    """Windows `stride` frames apart with the labels of all their present positions; or, where `stride` is None,
    the own window of each labelled frame with that frame's label.
    """
    task, videos = inputs.data.task, inputs.data.split(split)
    rows, chosen_labels, start = [], [], 0
    for video, row_labels in zip(videos, inputs.labels[split], strict=True):
        frame = inputs.cache.frame(video.video_id)
        counts = labelled(row_labels, task)
        centres = frame[counts] if stride is None else windows.training_centres(frame, counts, length, stride)
        if len(centres):
            found, present = windows.rows(frame, centres, length)
            rows.append(found + start)
            position_labels = row_labels[found]
            position_labels[~present] = task.invalid
            chosen_labels.append(row_labels[counts] if stride is None else position_labels)
        start += len(frame)
    return WindowSet(
        _read_embeddings(inputs.cache, videos, inputs.labels[split]),
        torch.from_numpy(np.concatenate(rows)),
        torch.from_numpy(np.concatenate(chosen_labels)),
    )
