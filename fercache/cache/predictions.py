"""Predictions files: the logits of one model for every present frame of a split.

Legend: F present frames of a video, C classes.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from fercache.cache.hdf5 import check_frames, dataset, in_memory, member, numbers, opened, text
from fercache.cache.packed import PACKED_FORMAT
from fercache.cache.rows import all_finite
from fercache.errors import CacheError, raise_problems
from fercache.files import check_target
from fercache.tasks import TASKS, Task

log = logging.getLogger(__name__)

PREDICTIONS_FORMAT = "fercache-predictions 2"
PREDICTIONS_FORMAT_BEFORE = "fercache-predictions 1"
"""Which had no checksum."""
SELECTIONS = ("best", "last")


@dataclass(frozen=True)
class VideoPredictions:
    """The predictions for one video."""

    frame: np.ndarray
    """int32 (F,), from 1, ascending."""
    logits: np.ndarray
    """float32 (F, C)."""


@dataclass(frozen=True)
class Predictions:
    """The predictions of one model."""

    task: Task
    split: str
    model: str
    """Fingerprint of the model."""
    cache: str
    """Fingerprint of the cache it read; of an ensemble, those of all, joined by +."""
    select: str
    """best or last: how the model's epoch was chosen (best depends on the validation labels)."""
    train_prior: np.ndarray
    """float (C,): share of each class in the training labels."""
    videos: Mapping[str, VideoPredictions]
    chosen_on: str | None = None
    """Of an ensemble: the split on whose labels its weights were chosen."""
    thresholds: np.ndarray | None = None
    """float (C,): the probability above which each class of a multilabel task is present; None: .5."""


def write_predictions(path: Path, predictions: Predictions) -> None:
    """Write a predictions file whole or not at all."""
    with in_memory(path) as file:
        file.attrs.update(
            format=PREDICTIONS_FORMAT,
            task=predictions.task.name,
            split=predictions.split,
            model=predictions.model,
            cache=predictions.cache,
            select=predictions.select,
            train_prior=np.asarray(predictions.train_prior, np.float64),
            checksum=predictions_checksum(predictions),
        )
        if predictions.chosen_on is not None:
            file.attrs["chosen_on"] = predictions.chosen_on
        if predictions.thresholds is not None:
            file.attrs["thresholds"] = np.asarray(predictions.thresholds, np.float64)
        for video_id, video in predictions.videos.items():
            group = file.create_group(video_id)
            group["frame"] = video.frame.astype(np.int32)
            group["logits"] = video.logits.astype(np.float32)


def predictions_checksum(predictions: Predictions) -> str:
    """SHA-256 over everything that a predictions file says, the videos by name."""
    thresholds = predictions.thresholds
    header = {
        "task": predictions.task.name,
        "split": predictions.split,
        "model": predictions.model,
        "cache": predictions.cache,
        "select": predictions.select,
        "chosen_on": predictions.chosen_on,
        "train_prior": np.asarray(predictions.train_prior, np.float64).tolist(),
        "thresholds": None if thresholds is None else np.asarray(thresholds, np.float64).tolist(),
    }
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for video_id in sorted(predictions.videos):
        video = predictions.videos[video_id]
        digest.update(json.dumps([video_id, len(video.frame), *video.logits.shape]).encode())
        digest.update(np.ascontiguousarray(video.frame, np.int32).data)
        digest.update(np.ascontiguousarray(video.logits, np.float32).data)
    return digest.hexdigest()


def cache_of(path: Path) -> str:
    """The fingerprint of the cache that predictions were read from, as in `Predictions`; CacheError if it is none."""
    with _predictions_file(path) as file:
        return text(path, file, "cache")


def list_predictions(folder: Path, split: str) -> list[Path]:
    """The predictions files of a split in `folder`, by name; packed caches are skipped, other files with a warning."""
    paths = []
    for path in sorted(folder.glob("*.h5")):
        with opened(path) as file:
            kind = text(path, file, "format", "")
        if kind in (PREDICTIONS_FORMAT, PREDICTIONS_FORMAT_BEFORE):
            paths += [path] if read_predictions(path).split == split else []
        elif kind != PACKED_FORMAT:
            log.warning("%s: skipped: unknown format %r", path, kind)
    return paths


def read_predictions(path: Path) -> Predictions:
    """The predictions in `path`; CacheError naming the file where it holds none, or was changed or damaged."""
    with _predictions_file(path) as file:
        name = text(path, file, "task")
        if name not in TASKS:
            raise CacheError(f"{path}: is of task {name!r}, expected one of {', '.join(TASKS)}")
        classes = len(TASKS[name].classes)
        has_thresholds = "thresholds" in file.attrs
        predictions = Predictions(
            task=TASKS[name],
            split=text(path, file, "split"),
            model=text(path, file, "model"),
            cache=text(path, file, "cache"),
            select=text(path, file, "select"),
            train_prior=numbers(path, file, "train_prior", (classes,)),
            videos={video_id: _read_video(path, file, video_id, classes) for video_id in file},
            chosen_on=text(path, file, "chosen_on") if "chosen_on" in file.attrs else None,
            thresholds=numbers(path, file, "thresholds", (classes,)) if has_thresholds else None,
        )
        checksum = text(path, file, "checksum")
    raise_problems([f"{path}: {problem}" for problem in _problems(predictions)], CacheError)
    if checksum != predictions_checksum(predictions):
        raise CacheError(
            f"{path}: was changed or damaged since it was written: its content has another checksum than it records;"
            " remove it and predict again"
        )
    return predictions


@contextmanager
def _predictions_file(path: Path) -> Iterator[h5py.File]:
    """The open file, of this format."""
    if not path.exists():
        raise CacheError(f"{path}: no such predictions file")
    with opened(path) as file:
        kind = text(path, file, "format", "")
        if kind == PREDICTIONS_FORMAT_BEFORE:
            raise CacheError(f"{path}: is of an earlier version without a checksum; remove it and predict again")
        if kind != PREDICTIONS_FORMAT:
            raise CacheError(f"{path}: is no predictions file (expected format {PREDICTIONS_FORMAT!r})")
        yield file


def _read_video(path: Path, file: h5py.File, video_id: str, classes: int) -> VideoPredictions:
    group = member(path, file, video_id, h5py.Group)
    frame = dataset(path, group, "frame", "int32", (None,))
    logits = dataset(path, group, "logits", "float32", (len(frame), classes))
    return VideoPredictions(frame[:], logits[:])


def _problems(predictions: Predictions) -> list[str]:
    """What is wrong with the values of a predictions file, in words."""
    problems = []
    if predictions.select not in SELECTIONS:
        problems.append(f"select: found {predictions.select!r}, expected one of {', '.join(SELECTIONS)}")
    shares = [("train_prior", predictions.train_prior), ("thresholds", predictions.thresholds)]
    problems += [
        f"{name}: found {values.tolist()}, expected numbers from 0 to 1"
        for name, values in shares
        if values is not None and not ((values >= 0) & (values <= 1)).all()
    ]
    for video_id, video in predictions.videos.items():
        try:
            check_frames(f"video {video_id}", video.frame)
        except CacheError as error:
            problems.append(str(error))
        if not all_finite(video.logits):
            problems.append(f"video {video_id}: has logits that are not finite")
    return problems


def check_replaceable(path: Path, model: str, split: str) -> None:
    """Raise CacheError where `path` exists and is not the predictions of the same model and split."""
    if not path.exists():
        check_target(path)
        return
    existing = read_predictions(path)
    if (existing.model, existing.split) != (model, split):
        raise CacheError(f"{path}: contains another model's predictions, or another split's; choose another name")
