"""The logits of one model for every present frame of a split.

Legend: F present frames of a video, L positions, D embedding, C classes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fercache import runtime
from fercache.cache.predictions import Predictions, VideoPredictions, check_replaceable, write_predictions
from fercache.cache.provenance import Provenance
from fercache.cache.reader import Cache, VideoEmbeddings
from fercache.config import PredictConfig
from fercache.data import windows
from fercache.data.datasets import WindowSet, in_order
from fercache.data.manifest import read_manifest
from fercache.errors import CacheError, ConfigError, DataError, WeightsError
from fercache.models.checkpoint import FRAME, digest, load_run
from fercache.models.heads import MiddleOutput, get_head
from fercache.models.weights import from_checkpoint
from fercache.training.engine import Batch, infer

log = logging.getLogger(__name__)

Predict = Callable[[VideoEmbeddings], np.ndarray]
"""A video's cache -> logits (F, C)."""


def predict(
    model: Path,
    manifest: Path,
    cache: Path,
    out: Path,
    settings: PredictConfig | None = None,
    *,
    task: str | None = None,
    threads: int | None = None,
) -> Path:
    """Write the predictions of the run folder `model` for a split; returns the file `out`.

    A head sees the own window of every present frame and gives the middle output, computed in the
    precision it was trained in. The logits of a frame network are read from the cache, which must
    have been extracted from that very run.
    """
    settings = settings or PredictConfig()
    runtime.use_threads(threads)
    data = read_manifest(manifest, task)
    reader = Cache(cache)
    checkpoint = load_run(model)
    fingerprint = digest(checkpoint["model"])
    check_replaceable(out, fingerprint, settings.split)
    if checkpoint["task"] != data.task.name:
        raise ConfigError(f"{model}: was trained for task {checkpoint['task']}, {manifest} is of task {data.task.name}")
    videos = data.split(settings.split)
    if not videos:
        raise DataError(f"{manifest}: has no video in split {settings.split}")
    if checkpoint["kind"] == FRAME:
        _check_same_network(model, checkpoint, reader)
        run: Predict = _cached_logits
    else:
        _check_same_cache(model, checkpoint, reader)
        run = _head_logits(model, checkpoint, settings.batch_size)
    reader.check(video.video_id for video in videos)
    found: dict[str, VideoPredictions] = {}
    for video in runtime.progress(videos, "predict"):
        content = reader.read(video.video_id, embedding=checkpoint["kind"] != FRAME)
        found[video.video_id] = VideoPredictions(content.frame, run(content))
    predictions = Predictions(
        task=data.task,
        split=settings.split,
        model=fingerprint,
        cache=reader.provenance.fingerprint,
        select=checkpoint["select"],
        train_prior=np.asarray(checkpoint["train_prior"]),
        videos=found,
    )
    write_predictions(out, predictions)
    frames = sum(len(video.frame) for video in found.values())
    log.info("%s: %d frames of %d videos, split %s", out, frames, len(found), settings.split)
    return out


def _check_same_network(model: Path, checkpoint: Mapping[str, Any], cache: Cache) -> None:
    weights, made_by = from_checkpoint(model, checkpoint), cache.provenance
    here = replace(made_by, weights=weights.backbone_digest, classifier=weights.classifier_digest, task=weights.task)
    _check_same(made_by, here, f"{cache.path}: was not extracted from {model}")


def _check_same_cache(model: Path, checkpoint: Mapping[str, Any], cache: Cache) -> None:
    trained_on = Provenance(**checkpoint["provenance"])
    _check_same(cache.provenance, trained_on, f"{cache.path}: is not the cache that {model} was trained on")


def _check_same(there: Provenance, here: Provenance, sentence: str) -> None:
    if there.fingerprint != here.fingerprint:
        raise CacheError(f"{sentence}: {'; '.join(there.differences(here))}")


def _cached_logits(content: VideoEmbeddings) -> np.ndarray:
    assert content.logits is not None  # a cache with a classifier's digest has its logits
    return content.logits


def _head_logits(model: Path, checkpoint: Mapping[str, Any], batch_size: int) -> Predict:
    device = runtime.device()
    classes = len(checkpoint["train_prior"])
    head = get_head(checkpoint["head"])(classes, checkpoint["embedding_dim"])
    try:
        head.load_state_dict(checkpoint["model"])
    except RuntimeError as error:
        raise WeightsError(f"{model}: does not hold its head: {' '.join(str(error).split())[:300]}") from error
    network = MiddleOutput(head.to(device))

    def run(content: VideoEmbeddings) -> np.ndarray:
        if not len(content.frame):
            return np.empty((0, classes), np.float32)
        rows, _ = windows.rows(content.frame, content.frame, checkpoint["window"])
        frames = WindowSet(torch.from_numpy(content.embedding), torch.from_numpy(rows), torch.empty(len(rows), 0))
        batches = frames.batches(in_order(range(len(rows)), batch_size))
        return infer(
            network,
            (Batch(places, inputs.to(device), labels) for places, inputs, labels in batches),
            lambda: runtime.autocast(checkpoint["precision"]),
            lambda: None,
        )

    return run
