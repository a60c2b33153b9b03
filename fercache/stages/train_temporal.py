"""Stage two: train a temporal head on windows of cached embeddings.

Legend: F present frames, N windows, L positions, D embedding, C classes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
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
from fercache.data.datasets import EpochBatches, WindowSet, in_order, share_of
from fercache.data.manifest import Manifest, Video, read_manifest
from fercache.errors import ConfigError, DataError, raise_problems
from fercache.models.checkpoint import HEAD
from fercache.models.heads import MiddleOutput, get_head
from fercache.rundir import RunDir
from fercache.stages.common import run_values, validation_scores
from fercache.training.engine import Batch, Batches
from fercache.training.fit import Fit, Scores, fit
from fercache.training.losses import make_criterion

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
    windows' embeddings are held in memory. A run that was stopped goes on. Under torchrun all ranks
    train one head, and the first writes. Raises CacheError for videos that the cache lacks, RunError
    where `out` holds something else.
    """
    with runtime.stop_signals() as stop, runtime.process_group() as ranks:
        return _train_temporal(manifest, cache, out, settings, task, seed, threads, ranks, stop)


def _train_temporal(
    manifest: Path,
    cache: Path,
    out: Path,
    settings: TrainTemporalConfig,
    task: str | None,
    seed: int,
    threads: int | None,
    ranks: runtime.Ranks,
    stop: runtime.StopFlag,
) -> Path:
    head_class = get_head(settings.head)
    run = RunDir(out)
    recorded = run.recorded()
    threads = runtime.use_threads(threads)
    inputs = _read_inputs(manifest, task, cache)
    precision = runtime.resolve_precision(settings.precision, recorded.get("precision"))
    if settings.compile:
        runtime.require_compiler()
    values = {
        **run_values("train_temporal", manifest, inputs.data, seed, threads),
        **as_plain(replace(settings, precision=precision)),
        "cache": str(cache.resolve()),
        "cache_fingerprint": inputs.cache.provenance.fingerprint,
    }
    training = _window_set(inputs, "train", settings.window, settings.stride)
    validation = _window_set(inputs, "validation", settings.window, None)
    criterion = make_criterion(inputs.data.task, settings, training.labels.numpy())
    if ranks.first:
        run.begin(values, runtime.environment(seed, threads))
    if ranks.same(run.finished(settings.epochs)):
        log.info("%s: is finished already", out)
        return out
    log.info(
        "%s head on %s, %s, %d threads: %d training windows of %d frames, %d validation frames",
        *(settings.head, runtime.device(), precision, threads, len(training), settings.window, len(validation)),
    )
    runtime.seed_everything(seed)
    network = head_class(len(inputs.data.task.classes), training.embedding.shape[1]).to(runtime.device())
    loops = _Loops(network, inputs, training, validation, settings, precision, seed, ranks)
    plan = Fit(
        network=network,
        steps=loops.order().steps,
        batches=loops.training_batches,
        validate=loops.validate,
        describe=lambda index: loops.names("train", index.tolist()),
        criterion=criterion,
        settings=settings,
        precision=precision,
        seed=seed,
        kind=HEAD,
        header=_header(settings, precision, inputs, training.embedding.shape[1]),
    )
    fit(plan, run, ranks, stop)
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
    inputs: _Inputs
    training: WindowSet
    validation: WindowSet
    settings: TrainTemporalConfig
    precision: str
    seed: int
    ranks: runtime.Ranks

    def order(self) -> EpochBatches:
        """How training windows are dealt into steps; ConfigError where they are too few for the ranks."""
        batch_size = self.settings.batch_size
        try:
            return EpochBatches(len(self.training), batch_size, self.seed, self.ranks.rank, self.ranks.count)
        except ValueError as error:
            raise ConfigError(f"batch_size: found {batch_size}: {error}") from error

    def training_batches(self, epoch: int, step: int) -> Batches:
        """The training windows in the epoch's order, from a step on."""
        return self._batches(self.training, self.order().start(epoch, step), f"epoch {epoch + 1}")

    def validate(self, check: Callable[[], None]) -> Scores:
        """The scores of the middle outputs."""
        own = share_of(len(self.validation), self.ranks.rank, self.ranks.count)
        return validation_scores(
            self.inputs.data.task,
            MiddleOutput(self.network),
            self._batches(self.validation, in_order(own, self.settings.batch_size), "validation"),
            self.validation.labels.numpy(),
            self.precision,
            check,
            lambda places: self.names("validation", places),
        )

    def names(self, split: str, places: Sequence[int]) -> list[str]:
        """Video and middle frame of windows of a split."""
        stride = self.settings.stride if split == "train" else None
        every = [
            f"{video.video_id}, the window at frame {centre}"
            for video, row_labels in zip(self.inputs.data.split(split), self.inputs.labels[split], strict=True)
            for centre in _centres(self.inputs, video, row_labels, self.settings.window, stride)
        ]
        return [every[place] for place in places]

    def _batches(self, windows: WindowSet, places: Collection[list[int]] | EpochBatches, what: str) -> Batches:
        for index, inputs, labels in runtime.progress(windows.batches(places), what, len(places)):
            yield Batch(index, inputs.to(runtime.device()), labels)


def _centres(inputs: _Inputs, video: Video, row_labels: np.ndarray, length: int, stride: int | None) -> np.ndarray:
    """Middle frames of a video's training windows; where `stride` is None its labelled frames."""
    frame, counts = inputs.cache.frame(video.video_id), labelled(row_labels, inputs.data.task)
    return frame[counts] if stride is None else windows.training_centres(frame, counts, length, stride)


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
        centres = _centres(inputs, video, row_labels, length, stride)
        if len(centres):
            found, present = windows.rows(frame, centres, length)
            rows.append(found + start)
            position_labels = row_labels[found]
            position_labels[~present] = task.invalid
            chosen_labels.append(position_labels if stride else row_labels[labelled(row_labels, task)])
        start += len(frame)
    return WindowSet(
        _read_embeddings(inputs.cache, videos, inputs.labels[split]),
        torch.from_numpy(np.concatenate(rows)),
        torch.from_numpy(np.concatenate(chosen_labels)),
    )
