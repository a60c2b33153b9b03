"""Predictions of several models and the labels, brought together by (video, frame).

Legend: M models, N frames, C classes.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import numpy as np

from fercache.cache.predictions import Predictions, VideoPredictions, read_predictions
from fercache.data.annotations import labelled
from fercache.data.manifest import Manifest
from fercache.errors import CacheError, DataError, raise_problems
from fercache.scoring.metrics import probabilities
from fercache.tasks import Task

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Labelled:
    """The labelled frames that all models have predicted."""

    probability: np.ndarray
    """float64 (M, N, C)."""
    labels: np.ndarray
    """int8 (N,) or (N, C)."""
    recording: np.ndarray
    """int64 (N,): number of the recording (the manifest's group) that a frame is of, from 0."""
    missing: int
    """Labelled frames without a prediction (no face found, or a video not predicted): they are not scored."""


def read_all(paths: Sequence[Path]) -> list[Predictions]:
    """The predictions in `paths`, which must be of one task and one split."""
    found, problems = [], []
    for path in paths:
        try:
            found.append(read_predictions(path))
        except CacheError as error:
            problems += str(error).splitlines()
    raise_problems(problems, CacheError)
    for what, values in (("task", [p.task.name for p in found]), ("split", [p.split for p in found])):
        if len(set(values)) > 1:
            listed = ", ".join(f"{path} is of {value}" for path, value in zip(paths, values, strict=True))
            raise DataError(f"the predictions are of different {what}s: {listed}")
    return found


def common_frames(predictions: Sequence[Predictions]) -> dict[str, list[VideoPredictions]]:
    """Per video the frames that all have, one entry a model; frames that only some have are counted and left out."""
    videos = [video for video in predictions[0].videos if all(video in p.videos for p in predictions)]
    common: dict[str, list[VideoPredictions]] = {}
    for video in videos:
        parts = [p.videos[video] for p in predictions]
        frame = reduce(np.intersect1d, [part.frame for part in parts])
        common[video] = [VideoPredictions(frame, part.logits[np.isin(part.frame, frame)]) for part in parts]
    kept = sum(len(parts[0].frame) for parts in common.values())
    if not kept:
        raise DataError("the predictions have no frame in common")
    lost = [sum(len(v.frame) for v in p.videos.values()) - kept for p in predictions]
    if any(lost):
        log.warning("frames that not all models have are left out: %s", ", ".join(map(str, lost)))
    return common


def with_labels(predictions: Sequence[Predictions], data: Manifest) -> Labelled:
    """The labelled common frames. Raises DataError for videos the manifest lacks, or where nothing is labelled."""
    task = data.task
    if predictions[0].task != task:
        raise DataError(f"the predictions are of task {predictions[0].task.name}, the manifest of task {task.name}")
    known = {video.video_id: video for video in data.videos}
    common = common_frames(predictions)
    raise_problems([f"video {v}: is predicted, but not in the manifest" for v in common if v not in known], DataError)
    split = data.split(predictions[0].split)
    absent = [video.video_id for video in split if video.video_id not in common]
    if absent:
        log.warning("videos of the split that not all predictions have: %s", ", ".join(absent))
    logits, labels, groups, missing, problems = [], [], [], 0, []
    for video in {video.video_id: video for video in [*split, *(known[v] for v in common)]}.values():
        try:
            video_labels = video.labels(task)
            parts = common.get(video.video_id, [])
            frame = parts[0].frame if parts else np.empty(0, dtype=np.int32)
            if len(frame) and frame[-1] > len(video_labels):
                beyond = f"frame {frame[-1]} is predicted, but it has {len(video_labels)} frames"
                raise DataError(f"video {video.video_id}: {beyond}")
        except DataError as error:
            problems += str(error).splitlines()
            continue
        counts = labelled(video_labels[frame - 1], task)
        missing += int(labelled(video_labels, task).sum() - counts.sum())
        if parts:
            logits.append(np.stack([part.logits[counts] for part in parts]))
            labels.append(video_labels[frame - 1][counts])
            groups += [video.group] * int(counts.sum())
    raise_problems(problems, DataError)
    if not sum(map(len, labels)):
        raise DataError(f"split {predictions[0].split}: no predicted frame is labelled")
    recording = np.unique(groups, return_inverse=True)[1]
    return Labelled(probabilities(task, np.concatenate(logits, axis=1)), np.concatenate(labels), recording, missing)


def to_logits(task: Task, probability: np.ndarray) -> np.ndarray:
    """Logits whose `probabilities` are the given ones: the log, or for many of many the logit; float32 (N, C)."""
    tiny = np.finfo(np.float32).tiny
    if task.kind == "one":
        return np.log(np.maximum(probability, tiny)).astype(np.float32)
    epsilon = np.finfo(np.float64).eps
    inside = np.clip(probability, epsilon, 1 - epsilon)
    return (np.log(inside) - np.log1p(-inside)).astype(np.float32)
