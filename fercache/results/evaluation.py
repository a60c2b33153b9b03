"""Everything that is scored of one model's predictions."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from fercache.cache.predictions import Predictions
from fercache.data.manifest import Manifest
from fercache.results.aligned import Aligned, with_labels
from fercache.scoring.calibration import Calibration, calibration, coverage
from fercache.scoring.cross_validation import score_decisions
from fercache.tasks.base import Scores, Task


@dataclass(frozen=True)
class Evaluation:
    """The scores of one predictions file."""

    name: str
    task: Task
    split: str
    select: str
    """How the model's epoch was chosen: best saw these labels, where the split is validation."""
    scores: Scores
    interval: tuple[float, float]
    """Of the score, 95 % over recordings; nan for one recording."""
    recordings: int
    """With labels."""
    missing: int
    """Labelled frames without a prediction; they are not scored."""
    calibration: Calibration
    coverage: dict[float, tuple[float, float, float]]
    """Share of frames that are kept, the surest ones -> accuracy on them, and its interval."""
    videos: dict[str, Scores]
    """Of each video with labels."""
    chosen_on: str | None
    """Of an ensemble: the split on whose labels its weights were chosen."""

    @property
    def caution(self) -> str | None:
        """What is to be known of the score; None where nothing was chosen on these labels."""
        if self.chosen_on == self.split:
            return "the ensemble was chosen on these labels; what it is worth is its score across folds"
        if self.select == "best" and self.split == "validation":
            return "the epoch was chosen on these labels (select: best)"
        return None


def evaluate_one(name: str, predictions: Predictions, data: Manifest) -> Evaluation:
    """Score predictions on their own labelled frames."""
    frames = with_labels([predictions], data)
    task, outputs = data.task, frames.outputs
    (probability,) = outputs.probability()
    decisions = task.decide(probability, predictions.thresholds)
    (result,) = score_decisions(outputs, {name: decisions}, seed=0).values()
    return Evaluation(
        name=name,
        task=task,
        split=predictions.split,
        select=predictions.select,
        scores=task.score(decisions, outputs.labels),
        interval=(result.score.low, result.score.high),
        recordings=len(np.unique(outputs.recording[outputs.counted])),
        missing=frames.missing,
        calibration=calibration(task, probability, outputs.labels),
        coverage=coverage(task, probability, outputs.labels, outputs.recording, predictions.thresholds),
        videos=_by_video(frames, decisions),
        chosen_on=predictions.chosen_on,
    )


def _by_video(frames: Aligned, decisions: np.ndarray) -> dict[str, Scores]:
    task, outputs = frames.outputs.task, frames.outputs
    by_video = {}
    for video_id, (begin, end) in zip(frames.video_ids, itertools.pairwise(outputs.first), strict=True):
        labels = outputs.labels[begin:end]
        if task.labelled(labels).any():
            by_video[video_id] = task.score(decisions[begin:end], labels)
    return by_video
