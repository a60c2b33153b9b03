"""Predictions of several models and the labels, brought together by (video, frame).

Legend: N frames, C classes.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import numpy as np

from fercache.cache.predictions import Predictions, read_predictions
from fercache.data.manifest import Manifest, Video
from fercache.errors import CacheError, DataError, raise_problems
from fercache.scoring.outputs import LabelledOutputs, Outputs
from fercache.tasks import Task

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Aligned:
    """The frames that all models have predicted, and their labels."""

    video_ids: tuple[str, ...]
    """In the order of `outputs`."""
    outputs: LabelledOutputs
    missing: int
    """Labelled frames without a prediction (no face found, or a video not predicted): they are not scored."""


def read_all(paths: Sequence[Path]) -> list[Predictions]:
    """The predictions in `paths`, which must be of one task and one split."""
    predictions: list[Predictions] = []
    problems: list[str] = []
    for path in paths:
        try:
            predictions.append(read_predictions(path))
        except CacheError as error:
            problems += error.problems
    raise_problems(problems, CacheError)
    for what, values in (("task", [p.task.name for p in predictions]), ("split", [p.split for p in predictions])):
        if len(set(values)) > 1:
            listed = ", ".join(f"{path} is of {value}" for path, value in zip(paths, values, strict=True))
            raise DataError(f"the predictions are of different {what}s: {listed}")
    return predictions


def common_frames(predictions: Sequence[Predictions]) -> tuple[tuple[str, ...], Outputs]:
    """The videos and the frames that all have; those that only some have are counted and left out."""
    videos = tuple(video for video in predictions[0].videos if all(video in p.videos for p in predictions))
    frames, logits = [np.empty(0, np.int32)], []
    for video in videos:
        parts = [p.videos[video] for p in predictions]
        frame = reduce(np.intersect1d, [part.frame for part in parts])
        frames.append(frame)
        logits.append(np.stack([part.logits[np.isin(part.frame, frame)] for part in parts]))
    counts = [len(frame) for frame in frames]
    kept = sum(counts)
    if not kept:
        raise DataError("the predictions have no frame in common")
    lost = [sum(len(v.frame) for v in p.videos.values()) - kept for p in predictions]
    if any(lost):
        log.warning("frames that not all models have are left out: %s", ", ".join(map(str, lost)))
    first = np.cumsum(counts, dtype=np.int64)
    return videos, Outputs(predictions[0].task, np.concatenate(logits, axis=1), first, np.concatenate(frames))


def with_labels(predictions: Sequence[Predictions], data: Manifest) -> Aligned:
    """The common frames and their labels. DataError for videos the manifest lacks, or where nothing is labelled."""
    task = data.task
    if predictions[0].task != task:
        raise DataError(f"the predictions are of task {predictions[0].task.name}, the manifest of task {task.name}")
    known = {video.video_id: video for video in data.videos}
    video_ids, outputs = common_frames(predictions)
    split = predictions[0].split
    raise_problems([problem for v in video_ids if (problem := _misplaced(v, known.get(v), split))], DataError)
    absent = [video for video in data.split(split) if video.video_id not in video_ids]
    if absent:
        names = ", ".join(video.video_id for video in absent)
        log.warning("videos of the split that not all predictions have: %s", names)
    labels: list[np.ndarray] = []
    problems: list[str] = []
    missing = 0
    for video, begin, end in zip(
        (known[video_id] for video_id in video_ids), outputs.first, outputs.first[1:], strict=False
    ):
        try:
            every, of_predicted = _labels(video, outputs.frame[begin:end], task)
        except DataError as error:
            problems += error.problems
            continue
        labels.append(of_predicted)
        missing += int(task.labelled(every).sum() - task.labelled(of_predicted).sum())
    for video in absent:
        try:
            missing += int(task.labelled(video.labels(task)).sum())
        except DataError as error:
            problems += error.problems
    raise_problems(problems, DataError)
    of_all = np.concatenate(labels)
    if not task.labelled(of_all).any():
        raise DataError(f"split {split}: no predicted frame is labelled")
    groups = np.repeat([known[video_id].group for video_id in video_ids], np.diff(outputs.first))
    recording = np.unique(groups, return_inverse=True)[1]
    return Aligned(video_ids, LabelledOutputs(**vars(outputs), labels=of_all, recording=recording), missing)


def _misplaced(video_id: str, video: Video | None, split: str) -> str | None:
    """Why the manifest is not the one that a video was predicted with."""
    if video is None:
        return f"video {video_id}: is predicted, but not in the manifest"
    if video.split != split:
        return f"video {video_id}: is predicted as of split {split}, in the manifest it is of {video.split}"
    return None


def _labels(video: Video, frame: np.ndarray, task: Task) -> tuple[np.ndarray, np.ndarray]:
    """The labels of all frames of a video, and those of some."""
    every = video.labels(task)
    if len(frame) and frame[-1] > len(every):
        raise DataError(f"video {video.video_id}: frame {frame[-1]} is predicted, but it has {len(every)} frames")
    return every, every[frame - 1]
