"""Predictions as files for people and challenges: every frame of a video gets its line, with or without a face.

Legend: T frames of a video, F of them present, C classes.
"""

from __future__ import annotations

import csv
import io
import logging
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from fercache.cache.predictions import Predictions, VideoPredictions, read_predictions
from fercache.data.annotations import write_annotation
from fercache.data.manifest import Manifest, Video, read_manifest
from fercache.errors import ConfigError, DataError, FercacheError, RunError, raise_problems
from fercache.files import refuse_other_contents, write_text
from fercache.scoring.metrics import decide, probabilities
from fercache.tasks import Task

log = logging.getLogger(__name__)

FORMATS = ("abaw2021", "csv")
Format = Literal["abaw2021", "csv"]
FILLED = "filled.csv"


@dataclass(frozen=True)
class Filled:
    """The probabilities of all frames of a video, and where they come from."""

    probability: np.ndarray
    """float64 (T, C)."""
    present: np.ndarray
    """bool (T,): True = predicted from a face, False = filled."""
    ranges: list[tuple[int, int, str]]
    """First and last frame of each filled range, and how: interpolated, held or prior."""


def export(predictions: Path, manifest: Path, out: Path, form: Format = "abaw2021", *, task: str | None = None) -> Path:
    """Write a file for each video of the predictions' split into the new folder `out`, and `filled.csv`.

    abaw2021: `<video>.txt`, the annotation's header and one line per frame. csv: `<video>.csv`,
    probabilities too. Raises DataError where the split has videos that were not predicted,
    RunError where `out` is not empty.
    """
    if form not in FORMATS:
        raise ConfigError(f"format: found {form!r}, expected one of {', '.join(FORMATS)}")
    data = read_manifest(manifest, task)
    found = read_predictions(predictions)
    if found.task != data.task:
        raise DataError(f"{predictions}: is of task {found.task.name}, the manifest of task {data.task.name}")
    videos = data.split(found.split)
    _check_videos(predictions, found, videos)
    if form == "csv" and any(f"{video.video_id}.csv" == FILLED for video in videos):
        raise DataError(f"a video is called {Path(FILLED).stem}, which is the name of the list of filled frames")
    refuse_other_contents(out, "a new name", RunError)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as temporary:
            folder = Path(temporary) / "files"
            folder.mkdir()
            try:
                _write_videos(folder, found, videos, data, form)
            except FercacheError as error:  # names a file of the folder that does not have its name yet
                raise RunError(str(error).replace(str(folder), str(out))) from error
            os.replace(folder, out)
    except OSError as error:
        raise RunError(f"{out}: cannot be written: {error.strerror}") from error
    return out


def fill(task: Task, video: VideoPredictions, num_frames: int, train_prior: np.ndarray) -> Filled:
    """Probabilities for all frames 1 to `num_frames`.

    Between present frames they are interpolated, before the first and after the last the nearest is
    held; a video without any face gets `train_prior` (C,).
    """
    present = np.zeros(num_frames, dtype=bool)
    present[video.frame - 1] = True
    if not present.any():
        return Filled(np.tile(train_prior, (num_frames, 1)), present, [(1, num_frames, "prior")])
    known, wanted = probabilities(task, video.logits), np.arange(1, num_frames + 1)
    probability = np.stack([np.interp(wanted, video.frame, column) for column in known.T], axis=1)
    steps = np.diff(np.concatenate([[1], present.astype(int), [1]]))
    starts, ends = np.flatnonzero(steps == -1) + 1, np.flatnonzero(steps == 1)
    inner = (starts > video.frame[0]) & (ends < video.frame[-1])
    how = np.where(inner, "interpolated", "held")
    ranges = [(int(a), int(b), str(h)) for a, b, h in zip(starts, ends, how, strict=True)]
    return Filled(probability, present, ranges)


def _check_videos(path: Path, found: Predictions, videos: tuple[Video, ...]) -> None:
    problems = [
        f"{path}: video {video.video_id} of split {found.split} is not in it"
        for video in videos
        if video.video_id not in found.videos
    ]
    problems += [
        f"{path}: video {video.video_id}: frame {found.videos[video.video_id].frame[-1]} is beyond its"
        f" {video.num_frames} frames"
        for video in videos
        if video.video_id in found.videos
        and len(found.videos[video.video_id].frame)
        and found.videos[video.video_id].frame[-1] > video.num_frames
    ]
    raise_problems(problems, DataError)
    if not videos:
        raise DataError(f"the manifest has no video in split {found.split}")


def _write_videos(folder: Path, found: Predictions, videos: tuple[Video, ...], data: Manifest, form: Format) -> None:
    ranges, without = [], []
    for video in videos:
        filled = fill(data.task, found.videos[video.video_id], video.num_frames, found.train_prior)
        if form == "abaw2021":
            write_annotation(
                folder / f"{video.video_id}.txt", data.task, decide(data.task, filled.probability, found.thresholds)
            )
        else:
            write_text(folder / f"{video.video_id}.csv", _csv(data.task, filled, found.thresholds))
        ranges += [(video.video_id, *entry) for entry in filled.ranges]
        if not filled.present.any():
            without.append(video.video_id)
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("video_id", "first_frame", "last_frame", "how"))
    rows.writerows(ranges)
    write_text(folder / FILLED, text.getvalue())
    frames = sum(last - first + 1 for _, first, last, _ in ranges)
    log.info("%d videos exported; %d frames without a face were filled, see %s", len(videos), frames, FILLED)
    if without:
        log.warning("videos without any face got the training prior: %s", ", ".join(without))


def _csv(task: Task, filled: Filled, thresholds: np.ndarray | None) -> str:
    """frame, face (1 = predicted from one), the decision, and a probability for each class."""
    decisions = decide(task, filled.probability, thresholds)
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    decided = ["label"] if task.kind == "one" else list(task.classes)
    rows.writerow(["frame", "face", *decided, *(f"p_{name}" for name in task.classes)])
    for place, (face, probability) in enumerate(zip(filled.present, filled.probability, strict=True)):
        chosen = [decisions[place]] if task.kind == "one" else decisions[place]
        rows.writerow([place + 1, int(face), *map(int, chosen), *(f"{p:.6f}" for p in probability)])
    return text.getvalue()
