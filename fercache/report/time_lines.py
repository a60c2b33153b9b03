"""The time line of a video: its labels, what each model said, and some of its frames.

Legend: T frames of the video, F present ones, C classes, K columns of a picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from fercache.report.colours import ABSENT, RIGHT, UNKNOWN, WRONG, shade
from fercache.report.rendering import render
from fercache.tasks import Task

COLUMNS = 600
"""Most columns of a picture; in a longer video each stands for several frames."""
ROW_PX = 4
"""Height of a class in the image: room for the pattern of absent frames."""
THUMBNAILS = 8


@dataclass(frozen=True)
class VideoTimeline:
    """The labels of one video, what each model said of its frames, and some of the frames."""

    video_id: str
    why: str
    """Why this video is shown."""
    labels: np.ndarray
    """(T,) or (T, C), -1 = not annotated."""
    frame: np.ndarray
    """int (F,), from 1: the frames that all models have."""
    probability: Mapping[str, np.ndarray]
    """Model -> (F, C)."""
    decisions: Mapping[str, np.ndarray]
    """Model -> (F,) or (F, C)."""
    thumbnails: Sequence[tuple[int, np.ndarray] | None]
    """Frame number and pixels for each part of the video; None: no face in it. Empty: the frames cannot be read."""


def time_line(task: Task, video: VideoTimeline) -> Markup:
    """A video's section: thumbnails, a panel of the labels, and one of each model's probabilities."""
    length, present = len(video.labels), len(video.frame)
    columns = Columns(length, video.frame)
    label_pixels = columns.pixels(columns.label_shares(task, video.labels))
    panels = [_panel("labels", label_pixels, f"Labels of {video.video_id}: {_counts(task, video)}")]
    for model, probability in video.probability.items():
        pixels = columns.pixels(columns.mean(probability), absent=True)
        verdicts = _verdicts(columns.right(task, video.labels, video.decisions[model]))
        panels.append(_panel(model, pixels, f"Probabilities of {model}: {_mean(task, probability)}", verdicts))
    return render(
        "time_line.html",
        heading=f"{video.video_id}: {video.why}",
        length=length,
        absent=length - present,
        thumbnails=[thumbnail and (thumbnail[0], _small(thumbnail[1])) for thumbnail in video.thumbnails],
        classes=task.classes,
        panels=panels,
        ticks=[round(frame) for frame in np.linspace(1, length, 5)],
    )


@dataclass(frozen=True)
class Columns:
    """The frames of a video, spread evenly over the columns of a picture."""

    length: int
    """T."""
    frame: np.ndarray
    """int (F,), from 1."""

    @property
    def count(self) -> int:
        """K."""
        return min(self.length, COLUMNS)

    def of(self, frame: np.ndarray) -> np.ndarray:
        """The column of each frame number."""
        return (frame.astype(np.int64) - 1) * self.count // self.length

    @property
    def absent(self) -> np.ndarray:
        """Columns without a present frame, bool (K,)."""
        return np.bincount(self.of(self.frame), minlength=self.count) == 0

    def mean(self, values: np.ndarray) -> np.ndarray:
        """Mean over the present frames of each column: (F, C) to (K, C), 0 where there are none."""
        column = self.of(self.frame)
        sums = np.stack([np.bincount(column, of_class, self.count) for of_class in values.T], axis=1)
        return sums / np.maximum(1, np.bincount(column, minlength=self.count))[:, None]

    def label_shares(self, task: Task, labels: np.ndarray) -> np.ndarray:
        """Share of a column's labelled frames that are of each class, (K, C); nan where none is labelled."""
        is_class, known = task.by_class(labels)
        column = self.of(np.arange(1, self.length + 1))
        sums = np.stack([np.bincount(column, values, self.count) for values in is_class.T], axis=1)
        counts = np.stack([np.bincount(column, values, self.count) for values in known.T], axis=1)
        return np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)

    def right(self, task: Task, labels: np.ndarray, decisions: np.ndarray) -> np.ndarray:
        """Share of right decisions among the labelled present ones of a column, (K,); nan where there are none."""
        present = labels[self.frame - 1]
        counted = task.as_columns(task.counted(present))
        correct = task.as_columns(present == decisions) & counted
        column = self.of(self.frame)
        sums = np.bincount(column, correct.sum(axis=1), self.count)
        counts = np.bincount(column, counted.sum(axis=1), self.count)
        return np.divide(sums, counts, out=np.full(self.count, np.nan), where=counts > 0)

    def pixels(self, shares: np.ndarray, *, absent: bool = False) -> np.ndarray:
        """Shares (K, C) as an image, a class a row of `ROW_PX`: uint8 (C x ROW_PX, K, 3); nan is pale."""
        pixels = np.where(np.isnan(shares.T)[..., None], UNKNOWN, shade(np.nan_to_num(shares.T)))
        pixels = pixels.repeat(ROW_PX, axis=0)
        if absent:
            rows, columns = np.indices(pixels.shape[:2])
            greys = np.array(ABSENT, np.uint8)[(rows + columns) // 2 % 2]
            pixels = np.where(self.absent[None, :, None], greys, pixels)
        return pixels.astype(np.uint8)


def _panel(name: str, pixels: np.ndarray, description: str, verdicts: np.ndarray | None = None) -> dict[str, object]:
    """A row of pixels for each class, and below them, where there are decisions, whether they were right."""
    return {"name": name, "pixels": pixels, "description": description, "verdicts": verdicts}


def _verdicts(right: np.ndarray) -> np.ndarray:
    """Blue where most decisions of a column are right, orange where not, pale where nothing is labelled: (1, K, 3)."""
    colour = np.where((right >= 0.5)[:, None], RIGHT, WRONG)
    return np.where(np.isnan(right)[:, None], UNKNOWN, colour).astype(np.uint8)[None]


def _small(pixels: np.ndarray) -> np.ndarray:
    """Not much more pixels than are shown."""
    step = max(1, max(pixels.shape[:2]) // 112)
    return np.ascontiguousarray(pixels[::step, ::step])


def _counts(task: Task, video: VideoTimeline) -> str:
    counts = task.by_class(video.labels)[0].sum(axis=0)
    return ", ".join(f"{task.classes[c]} {counts[c]} frames" for c in np.flatnonzero(counts)) or "none"


def _mean(task: Task, probability: np.ndarray) -> str:
    if not len(probability):
        return "none"
    mean = probability.mean(axis=0)
    return "mean " + ", ".join(f"{name} {value:.2f}" for name, value in zip(task.classes, mean, strict=True))
