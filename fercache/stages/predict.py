"""The logits of one model for every present frame of a split.

Legend: F present frames of a video, L positions, D embedding, C classes.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fercache import runtime
from fercache.cache.mapped import MappedRows
from fercache.cache.predictions import Predictions, VideoPredictions, check_replaceable, write_predictions
from fercache.cache.reader import Cache
from fercache.cache.verify import check_before_use
from fercache.config import PredictConfig
from fercache.data.datasets import in_order
from fercache.data.manifest import read_manifest
from fercache.data.time_line import TimeLine, WindowSet
from fercache.errors import CacheError, ConfigError, DataError, RunError, collect_errors, raise_problems
from fercache.models.checkpoint import FRAME, HEAD, digest, load_run
from fercache.models.temporal import MiddleOutput, network_of
from fercache.models.weights import from_checkpoint
from fercache.training.engine import Batch, infer
from fercache.training.sources import CachedRows, cached_videos, trained_on

log = logging.getLogger(__name__)


def predict(
    manifest: Path,
    model: Path,
    cache: Path,
    out: Path,
    settings: PredictConfig | None = None,
    *,
    task: str | None = None,
    threads: int | None = None,
) -> Path:
    """Write the predictions of the run folder `model` for a split of `manifest`; returns the file `out`.

    A head sees a window around every present frame and gives its middle output, computed in float32 whatever it was
    trained in: bf16 would move logits by up to .4 %. The logits of a frame network are read
    from the cache. The cache must be the one that the head was trained on; a frame network's, or that of one trained
    end to end, must have been extracted from it.
    """
    settings = settings or PredictConfig()
    runtime.configure_torch(threads)
    data = read_manifest(manifest, task)
    reader, checkpoint = collect_errors(lambda: Cache(cache), lambda: load_run(model))
    fingerprint = digest(checkpoint["model"])
    check_replaceable(out, fingerprint, settings.split)
    if checkpoint["task"] != data.task.name:
        raise ConfigError(f"{model}: was trained for task {checkpoint['task']}, {manifest} is of task {data.task.name}")
    split_videos = data.split(settings.split)
    if not split_videos:
        raise DataError(f"{manifest}: has no video in split {settings.split}")
    _check_cache(model, checkpoint, reader)
    videos = cached_videos(reader, split_videos, settings.allow_missing)
    if not videos:
        raise CacheError(f"{cache}: has none of the videos of split {settings.split}")
    numbers = {video.video_id: reader.frame(video.video_id) for video in videos}
    remedy = f"lower predict.batch_size (found {settings.batch_size})"
    with runtime.stop_signals() as stop, runtime.memory_errors(remedy):
        if checkpoint["kind"] == FRAME:
            check_before_use(reader, list(numbers), embedding=False, stop=stop.check)
            rows = MappedRows(reader, list(numbers), "logits")
            logits = rows.gather(np.arange(len(rows))).numpy()
        else:
            logits = _middle_logits(model, checkpoint, reader, numbers, settings.batch_size, stop)
    ends = np.cumsum([len(frame) for frame in numbers.values()])[:-1]
    parts = zip(numbers.items(), np.split(logits, ends), strict=True)
    outputs = {video_id: VideoPredictions(frame, part) for (video_id, frame), part in parts}
    _check_finite(model, outputs)
    predictions = Predictions(
        task=data.task,
        split=settings.split,
        model=fingerprint,
        cache=reader.provenance.fingerprint,
        select=checkpoint["select"],
        train_prior=np.asarray(checkpoint["train_prior"]),
        videos=outputs,
    )
    write_predictions(out, predictions)
    frames = sum(len(video.frame) for video in outputs.values())
    log.info("%s: %d frames of %d videos, split %s", out, frames, len(outputs), settings.split)
    return out


def _check_cache(model: Path, checkpoint: Mapping[str, Any], cache: Cache) -> None:
    """Raise CacheError unless the cache is what the model belongs to, with the fields that differ.

    A head needs the cache that it was trained on; any other model one that was extracted from itself.
    """
    made_by = cache.provenance
    if checkpoint["kind"] == HEAD:
        wanted, sentence = trained_on(model, checkpoint), f"is not the cache that {model} was trained on"
    else:
        weights, sentence = from_checkpoint(model, checkpoint), f"was not extracted from {model}"
        wanted = replace(
            made_by,
            weights=weights.backbone_digest,
            classifier=weights.classifier_digest,
            task=weights.task,
            architecture=weights.backbone.name,
            preprocessing=weights.preprocessing.as_plain(),
        )
    if made_by.fingerprint != wanted.fingerprint:
        raise CacheError(f"{cache.path}: {sentence}: {'; '.join(made_by.differences(wanted))}")


def _check_finite(model: Path, videos: Mapping[str, VideoPredictions]) -> None:
    """Raise RunError naming the videos and frames for which a model gives no finite numbers."""
    problems = []
    for video_id, video in videos.items():
        broken = video.frame[~np.isfinite(video.logits).all(axis=1)]
        if len(broken):
            problems.append(
                f"{model}: gives numbers that are not finite for {len(broken)} of {len(video.frame)} frames of video"
                f" {video_id}, the first is frame {broken[0]}: train it again with a lower learning rate, or in fp32"
            )
    raise_problems(problems, RunError)


def _middle_logits(
    model: Path,
    checkpoint: Mapping[str, Any],
    cache: Cache,
    numbers: Mapping[str, np.ndarray],
    batch_size: int,
    stop: runtime.StopFlag,
) -> np.ndarray:
    """A head's logits of all present frames of the videos, float32 (sum of F, C)."""
    device, network = runtime.device(), network_of(model, checkpoint)
    sees = network.head.sees
    check_before_use(cache, list(numbers), embedding=sees == "embedding", stop=stop.check)
    rows = MappedRows(cache, list(numbers), sees)
    line = TimeLine.of(numbers, checkpoint["window"])
    windows, steps = WindowSet(line, line.position, checkpoint["window"]), in_order(range(len(rows)), batch_size)
    if not steps:
        return np.empty((0, len(checkpoint["train_prior"])), np.float32)
    batches = runtime.progress(CachedRows(rows, device).middle(windows, steps), "predict", len(steps))
    return infer(
        MiddleOutput(network.to(device)),
        (Batch(torch.as_tensor(chosen), inputs, torch.empty(0)) for chosen, inputs in batches),
        lambda: runtime.autocast("fp32"),
        stop.check,
    )
