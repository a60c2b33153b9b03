"""The outputs of several models for the same frames, and their probabilities.

Legend: M models, F present frames of all videos, V videos, C classes.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fercache.tasks.base import Task


@dataclass(frozen=True)
class Outputs:
    """The logits of models for the present frames of some videos, one video behind the other."""

    task: Task
    logits: np.ndarray
    """float32 (M, F, C)."""
    first: np.ndarray
    """int64 (V + 1,): the first frame of each video among all, and behind the last one."""
    frame: np.ndarray
    """int (F,): frame numbers, ascending within a video."""

    def probability(self, temperatures: Sequence[float] | None = None, half_width: int = 0) -> np.ndarray:
        """Each model's probabilities, float64 (M, F, C): of its logits over its temperature, smoothed over time."""
        scale = temperatures or [1.0] * len(self.logits)
        return np.stack(
            [
                box_mean(self.task.probabilities(logits / t), self.first, self.frame, half_width)
                for logits, t in zip(self.logits.astype(np.float64), scale, strict=True)
            ]
        )


@dataclass(frozen=True)
class LabelledOutputs(Outputs):
    """The same with labels."""

    labels: np.ndarray
    """int8 (F,) or (F, C), -1 = does not count."""
    recording: np.ndarray
    """int64 (F,): number of the recording (the manifest's group), from 0."""

    @property
    def counted(self) -> np.ndarray:
        """Frames with a label, or some, bool (F,)."""
        return self.task.labelled(self.labels)


def box_mean(values: np.ndarray, first: np.ndarray, frame: np.ndarray, half_width: int) -> np.ndarray:
    """The mean over the present frames of a video at most `half_width` frame numbers away: (F, C) to (F, C).

    first: (V + 1,), where videos begin; frame: (F,), frame numbers. What is not present has no part in a mean.
    """
    if half_width == 0:
        return values
    smooth = np.empty_like(values)
    for begin, end in itertools.pairwise(first):
        number = frame[begin:end].astype(np.int64)
        low = np.searchsorted(number, number - half_width)
        high = np.searchsorted(number, number + half_width, side="right")
        sums = np.concatenate([np.zeros((1, values.shape[1])), values[begin:end].cumsum(axis=0)])
        smooth[begin:end] = (sums[high] - sums[low]) / (high - low)[:, None]
    # Differences of sums may leave the range by rounding.
    return smooth.clip(0, 1)
