"""Predictions as files for people and challenges: every frame of a video gets its line, with or without a face.

Legend: T frames of a video, F of them present, C classes.
"""

from __future__ import annotations

import csv
import io
import logging
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fercache.cache.predictions import Predictions, VideoPredictions, read_predictions
from fercache.data.manifest import Video, read_manifest
from fercache.errors import DataError, FercacheError, RunError, raise_problems
from fercache.files import refuse_other_contents, write_text
from fercache.results.export_formats import ExportFormat, FilledVideo, get_export_format
from fercache.tasks import Task

log = logging.getLogger(__name__)

FILLED = "filled.csv"


def export(manifest: Path, predictions: Path, out: Path, form: str = "abaw2021", *, task: str | None = None) -> Path:
    """Write a file for each video of the predictions' split into the new folder `out`, and `filled.csv`; returns `out`.

    form: a name in `EXPORT_FORMATS`; ConfigError otherwise. DataError where the split has videos that were not
    predicted, RunError where `out` is not empty.
    """
    export_format = get_export_format(form)
    data = read_manifest(manifest, task)
    model = read_predictions(predictions)
    if model.task != data.task:
        raise DataError(f"{predictions}: is of task {model.task.name}, the manifest of task {data.task.name}")
    videos = data.split(model.split)
    _check_videos(predictions, model, videos)
    if any(video.video_id + export_format.suffix == FILLED for video in videos):
        raise DataError(f"a video is called {Path(FILLED).stem}, which is the name of the list of filled frames")
    refuse_other_contents(out, "a new name", RunError)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as temporary:
            folder = Path(temporary) / "files"
            folder.mkdir()
            try:
                _write_videos(folder, model, videos, export_format)
            except FercacheError as error:  # names a file of the folder that does not have its name yet
                raise RunError(str(error).replace(str(folder), str(out))) from error
            os.replace(folder, out)
    except OSError as error:
        raise RunError(f"{out}: cannot be written: {error.strerror}") from error
    return out


def fill(
    task: Task,
    video: VideoPredictions,
    num_frames: int,
    train_prior: np.ndarray,
    thresholds: np.ndarray | None = None,
) -> FilledVideo:
    """Probabilities and decisions for all frames 1 to `num_frames`.

    Probabilities are interpolated between present frames; before the first and after the last one the nearest is held.
    A video without any face gets `train_prior` (C,).
    """
    present = np.zeros(num_frames, dtype=bool)
    present[video.frame - 1] = True
    if not present.any():
        probability, ranges = np.tile(train_prior, (num_frames, 1)), [(1, num_frames, "prior")]
    else:
        of_present, frames = task.probabilities(video.logits), np.arange(1, num_frames + 1)
        probability = np.stack([np.interp(frames, video.frame, column) for column in of_present.T], axis=1)
        steps = np.diff(np.concatenate([[1], present.astype(int), [1]]))
        starts, ends = np.flatnonzero(steps == -1) + 1, np.flatnonzero(steps == 1)
        inner = (starts > video.frame[0]) & (ends < video.frame[-1])
        how = np.where(inner, "interpolated", "held")
        ranges = list(zip(starts.tolist(), ends.tolist(), how.tolist(), strict=True))
    return FilledVideo(task, probability, task.decide(probability, thresholds), present, ranges)


def _check_videos(path: Path, model: Predictions, videos: Sequence[Video]) -> None:
    """Raise DataError where the split has no video, or predictions lack one or go beyond its frames."""
    if not videos:
        raise DataError(f"the manifest has no video in split {model.split}")
    problems = []
    for video in videos:
        of_video = model.videos.get(video.video_id)
        if of_video is None:
            problems.append(f"{path}: video {video.video_id} of split {model.split} is not in it")
        elif len(of_video.frame) and of_video.frame[-1] > video.num_frames:
            last = of_video.frame[-1]
            problems.append(f"{path}: video {video.video_id}: frame {last} is beyond its {video.num_frames} frames")
    raise_problems(problems, DataError)


def _write_videos(folder: Path, model: Predictions, videos: Sequence[Video], export_format: ExportFormat) -> None:
    table, without, frames = io.StringIO(), [], 0
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(("video_id", "first_frame", "last_frame", "how"))
    for video in videos:
        of_video = model.videos[video.video_id]
        filled = fill(model.task, of_video, video.num_frames, model.train_prior, model.thresholds)
        write_text(folder / f"{video.video_id}{export_format.suffix}", export_format.text(filled))
        rows.writerows((video.video_id, *entry) for entry in filled.ranges)
        frames += int((~filled.present).sum())
        if not filled.present.any():
            without.append(video.video_id)
    write_text(folder / FILLED, table.getvalue())
    log.info("%d videos exported; %d frames without a face were filled, see %s", len(videos), frames, FILLED)
    if without:
        log.warning("videos without any face got the training prior: %s", ", ".join(without))
