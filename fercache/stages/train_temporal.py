"""Stage two: train a temporal head on windows of cached embeddings.

Legend: F present frames, N windows, L positions, D embedding, C classes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

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
from fercache.training.fit import Fit, fit
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
    data = read_manifest(manifest, task)
    reader = Cache(cache)
    splits = {split: data.split(split) for split in ("train", "validation")}
    reader.check(video.video_id for videos in splits.values() for video in videos)
    precision = runtime.resolve_precision(settings.precision, recorded.get("precision"))
    labels = {split: _row_labels(data, reader, videos) for split, videos in splits.items()}
    values = {
        **run_values("train_temporal", manifest, data, seed, threads),
        **as_plain(replace(settings, precision=precision)),
        "cache": str(cache.resolve()),
        "cache_fingerprint": reader.provenance.fingerprint,
    }
    run.begin(values, runtime.environment(seed, threads))
    if run.epochs_done() >= settings.epochs:
        log.info("%s: is finished already", out)
        return out
    training, validation = (
        _window_set(reader, splits[split], labels[split], data.task, settings.window, stride)
        for split, stride in (("train", settings.stride), ("validation", None))
    )
    log.info(
        "%s head, %s, %d threads: %d training windows of %d frames, %d validation frames",
        settings.head,
        precision,
        threads,
        len(training),
        settings.window,
        len(validation),
    )
    runtime.seed_everything(seed)
    embedding_dim = training.embedding.shape[1]
    network = head_class(len(data.task.classes), embedding_dim).to(runtime.device())
    middle = MiddleOutput(network)
    order = EpochOrder(len(training), seed)

    def batches(epoch: int) -> Batches:
        order.epoch = epoch
        return _batches(training, settings.batch_size, list(order), f"epoch {epoch + 1}")

    def validate() -> dict[str, float]:
        inputs = _batches(validation, settings.batch_size, None, "validation")
        logits = infer(middle, inputs, lambda: runtime.autocast(precision))
        return validation_scores(data.task, logits, validation.labels.numpy())

    header = {
        "head": settings.head,
        "task": data.task.name,
        "window": settings.window,
        "embedding_dim": embedding_dim,
        "provenance": asdict(reader.provenance),
        "train_prior": class_shares(np.concatenate(labels["train"]), data.task).tolist(),
    }
    plan = Fit(network, batches, validate, get_criterion(data.task), settings, precision, seed, HEAD, header)
    fit(plan, run)
    return out


def _row_labels(data: Manifest, cache: Cache, videos: tuple[Video, ...]) -> list[np.ndarray]:
    """The labels of each video's present frames, int8 (F,) or (F, C)."""
    found, problems = [], []
    for video in videos:
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
        split = videos[0].split if videos else "train or validation"
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


def _window_set(
    cache: Cache, videos: tuple[Video, ...], labels: list[np.ndarray], task: Task, length: int, stride: int | None
) -> WindowSet:
    """Windows `stride` frames apart with the labels of all their present positions; or, where `stride` is None,
    the own window of each labelled frame with that frame's label.
    """
    rows, chosen_labels, start = [], [], 0
    for video, row_labels in zip(videos, labels, strict=True):
        frame = cache.frame(video.video_id)
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
        _read_embeddings(cache, videos, labels),
        torch.from_numpy(np.concatenate(rows)),
        torch.from_numpy(np.concatenate(chosen_labels)),
    )


def _batches(
    chosen: WindowSet, batch_size: int, order: list[int] | None, what: str
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    device = runtime.device()
    total = -(-len(chosen) // batch_size)
    for inputs, labels in runtime.progress(chosen.batches(batch_size, order), what, total):
        yield inputs.to(device), labels.to(device)
