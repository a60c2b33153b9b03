"""Predictions files: the logits of one model for every present frame of a split.

Legend: F present frames of a video, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from fercache.errors import CacheError, raise_problems
from fercache.files import check_target, replacing
from fercache.tasks import TASKS, Task

FORMAT = "fercache-predictions 1"


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
    """Fingerprint of the cache it read; of several, where they were fused, joined by +."""
    select: str
    """best or last: how the model's epoch was chosen (best saw the validation labels)."""
    train_prior: np.ndarray
    """float (C,): share of each class in the training labels."""
    videos: Mapping[str, VideoPredictions]
    chosen_on: str | None = None
    """Of an ensemble: the split on whose labels its weights were chosen."""
    thresholds: np.ndarray | None = None
    """float (C,): of many of many, the probability above which each unit is present; None: .5."""


def write_predictions(path: Path, predictions: Predictions) -> None:
    """Write a predictions file whole or not at all."""
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs.update(
            format=FORMAT,
            task=predictions.task.name,
            split=predictions.split,
            model=predictions.model,
            cache=predictions.cache,
            select=predictions.select,
            train_prior=predictions.train_prior,
        )
        if predictions.chosen_on is not None:
            file.attrs["chosen_on"] = predictions.chosen_on
        if predictions.thresholds is not None:
            file.attrs["thresholds"] = predictions.thresholds
        for video_id, video in predictions.videos.items():
            group = file.create_group(video_id)
            group["frame"] = video.frame.astype(np.int32)
            group["logits"] = video.logits.astype(np.float32)


def cache_of(path: Path) -> str:
    """The fingerprint of the cache that predictions were read from, as in `Predictions`; CacheError if it is none."""
    try:
        with h5py.File(path, "r") as file:
            return str(file.attrs["cache"])
    except (OSError, KeyError) as error:
        raise CacheError(f"{path}: is no predictions file: {error}") from error


def list_predictions(folder: Path, split: str) -> list[Path]:
    """The predictions files of a split in `folder`, by name; other HDF5 files are passed over."""
    found = []
    for path in sorted(folder.glob("*.h5")):
        try:
            with h5py.File(path, "r") as file:
                if file.attrs.get("format") == FORMAT and file.attrs.get("split") == split:
                    found.append(path)
        except OSError as error:
            raise CacheError(f"{path}: is damaged or no HDF5 file: {error}") from error
    return found


def read_predictions(path: Path) -> Predictions:
    """The predictions in `path`; CacheError naming the file where it is no such file or was damaged."""
    try:
        with h5py.File(path, "r") as file:
            if file.attrs.get("format") != FORMAT:
                raise CacheError(f"{path}: is no predictions file (expected format {FORMAT!r})")
            kept = {key: file.attrs[key] for key in ("split", "model", "cache", "select", "train_prior")}
            kept |= {key: file.attrs.get(key) for key in ("chosen_on", "thresholds")}
            task = TASKS[file.attrs["task"]]
            videos = {name: VideoPredictions(group["frame"][:], group["logits"][:]) for name, group in file.items()}
    except FileNotFoundError as error:
        raise CacheError(f"{path}: no such predictions file") from error
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise CacheError(f"{path}: is damaged or no HDF5 file: {error}") from error
    found = Predictions(task=task, videos=videos, **kept)
    raise_problems([f"{path}: {problem}" for problem in _problems(found)], CacheError)
    return found


def _problems(found: Predictions) -> list[str]:
    """What a predictions file may not hold."""
    classes = len(found.task.classes)
    problems = []
    if found.train_prior.shape != (classes,):
        problems.append(f"train_prior: found shape {found.train_prior.shape}, expected {(classes,)}")
    given = found.thresholds
    if given is not None and (given.shape != (classes,) or not ((given >= 0) & (given <= 1)).all()):
        problems.append(f"thresholds: found {given}, expected {classes} from 0 to 1")
    for video_id, video in found.videos.items():
        if (np.diff(video.frame, prepend=0) < 1).any():
            problems.append(f"video {video_id}: the frames are not ascending from 1")
        if video.logits.shape != (len(video.frame), classes) or not np.isfinite(video.logits).all():
            problems.append(f"video {video_id}: expected finite logits {(len(video.frame), classes)}")
    return problems


def check_replaceable(path: Path, model: str, split: str) -> None:
    """Raise CacheError where `path` holds anything but predictions of the same model and split."""
    if not path.exists():
        check_target(path)
        return
    before = read_predictions(path)
    if (before.model, before.split) != (model, split):
        raise CacheError(f"{path}: holds another model's predictions, or another split's; choose another name")
