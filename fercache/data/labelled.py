"""The labelled frames of training and validation.

Legend: N labelled frames of a split, C classes.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from fercache.data.manifest import Manifest
from fercache.errors import DataError, raise_problems

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LabelledFrames:
    """The labelled frames of a split that have an image."""

    paths: list[str]
    labels: torch.Tensor
    """int8 (N,) or (N, C)."""

    def names(self, index: Sequence[int]) -> list[str]:
        """The files of some of them."""
        return [self.paths[number] for number in index]


def labelled_frames(data: Manifest, every_nth: int) -> dict[str, LabelledFrames]:
    """Those of training (every n-th of each video) and validation (all); DataError with what is wrong in both."""
    frames: dict[str, LabelledFrames] = {}
    problems: list[str] = []
    for split, step in (("train", every_nth), ("validation", 1)):
        try:
            frames[split] = _read_split(data, split, step)
        except DataError as error:
            problems += error.problems
    raise_problems(problems, DataError)
    shares = data.task.prior(frames["train"].labels.numpy())
    absent = [name for name, share in zip(data.task.classes, shares, strict=True) if not share]
    if absent:
        log.warning("no training label of %s: the network will never predict them", ", ".join(absent))
    return frames


def _read_split(data: Manifest, split: str, step: int) -> LabelledFrames:
    """Every `step`-th labelled frame of each video; logs what is not used."""
    paths: list[str] = []
    labels: list[np.ndarray] = []
    without: list[str] = []
    problems: list[str] = []
    unlabelled = faceless = 0
    for video in data.split(split):
        try:
            frames, video_labels = video.frames(), video.labels(data.task)
        except DataError as error:
            problems += error.problems
            continue
        row_labels = video_labels[frames.frame - 1]
        chosen = np.flatnonzero(data.task.labelled(row_labels))
        paths += [frames.paths[row] for row in chosen[::step]]
        labels.append(row_labels[chosen[::step]])
        unlabelled += len(row_labels) - len(chosen)
        faceless += video.num_frames - len(row_labels)
        without += [] if len(chosen) else [video.video_id]
    raise_problems(
        problems or ([] if paths else [f"split {split}: the manifest has no labelled frame in it"]), DataError
    )
    log.info(
        "%s: %d videos, %d labelled frames; not used: %d frames without a label, %d without a face",
        *(split, len(data.split(split)), len(paths), unlabelled, faceless),
    )
    if without:
        shown = ", ".join(without[:10]) + (", ..." if len(without) > 10 else "")
        log.warning("%s: %d videos have no labelled frame that shows a face: %s", split, len(without), shown)
    return LabelledFrames(paths, torch.from_numpy(np.concatenate(labels)))
