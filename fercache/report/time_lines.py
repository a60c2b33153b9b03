"""A video as it went: its labels, what each model said, and some of its frames.

Legend: T frames of the video, F present ones, C classes, K columns of a picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fercache.report.colours import ABSENT, RIGHT, UNKNOWN, WRONG, shade
from fercache.report.markup import Element, element, image
from fercache.tasks import Task

COLUMNS = 600
"""At most; in a longer video each stands for several frames."""
ROW_PX = 4
"""Height of a class in the image, so that the pattern of absent frames has room in it."""
THUMBNAILS = 8


@dataclass(frozen=True)
class Story:
    """One video."""

    video_id: str
    why: str
    """Why this one is shown."""
    labels: np.ndarray
    """(T,) or (T, C), -1 = not annotated."""
    frame: np.ndarray
    """int (F,), from 1: the frames that all models have."""
    probability: Mapping[str, np.ndarray]
    """Model -> (F, C)."""
    decisions: Mapping[str, np.ndarray]
    """Model -> (F,) or (F, C)."""
    thumbnails: Sequence[tuple[int, np.ndarray] | None]
    """Frame number and pixels for each part of the video; None: no face in it. Empty: the frames are not at hand."""


def time_line(task: Task, story: Story) -> Element:
    """The story as a section of its own."""
    length = len(story.labels)
    columns = Columns(length, story.frame)
    present = len(story.frame)
    parts: list[Element] = []
    if story.thumbnails:
        parts.append(_thumbnails(story))
    shares = columns.label_shares(task, story.labels)
    parts.append(_panel(task, "labels", columns.pixels(shares), f"Labels of {story.video_id}: {_counts(task, story)}"))
    for name, probability in story.probability.items():
        right = columns.right(task, story.labels, story.decisions[name])
        pixels = columns.pixels(columns.mean(probability), absent=True)
        parts.append(_panel(task, name, pixels, f"Probabilities of {name}: {_said(task, story, name)}", right))
    ticks = [element("span", f"{round(place)}") for place in np.linspace(1, length, 5)]
    parts.append(element("div", element("div"), element("div", *ticks, class_="ticks"), class_="panel"))
    heading = f"{story.video_id}: {story.why}"
    words = f"{length} frames, {length - present} of them without a face or without all models' predictions."
    return element("section", element("h3", heading), element("p", words), *parts, class_="story")


@dataclass(frozen=True)
class Columns:
    """Frames of a video dealt into columns, as many to each as can be."""

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
        """Of the present frames in each column: (F, C) to (K, C), 0 where there are none."""
        return self._mean(self.of(self.frame), values)

    def label_shares(self, task: Task, labels: np.ndarray) -> np.ndarray:
        """Share of a column's labelled frames that are of each class, (K, C); nan where none is labelled."""
        is_class, known = task.by_class(labels)
        column = self.of(np.arange(1, self.length + 1))
        sums = np.stack([np.bincount(column, values, self.count) for values in is_class.T], axis=1)
        counts = np.stack([np.bincount(column, values, self.count) for values in known.T], axis=1)
        return np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)

    def right(self, task: Task, labels: np.ndarray, decisions: np.ndarray) -> np.ndarray:
        """Share of right decisions among the labelled present ones of a column, (K,); nan where there are none."""
        own = labels[self.frame - 1]
        counted = task.as_columns(task.counted(own))
        correct = task.as_columns(own == decisions) & counted
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

    def _mean(self, column: np.ndarray, values: np.ndarray) -> np.ndarray:
        sums = np.stack([np.bincount(column, of_class, self.count) for of_class in values.T], axis=1)
        return sums / np.maximum(1, np.bincount(column, minlength=self.count))[:, None]


def _panel(task: Task, name: str, pixels: np.ndarray, description: str, right: np.ndarray | None = None) -> Element:
    """A strip for each class beside its name, and below them where the decisions were right."""
    labels = [element("span", class_name) for class_name in task.classes]
    strips = [image(pixels, description, class_="strip", style=f"height: {len(task.classes) * 0.85:.2f}rem")]
    if right is not None:
        labels.append(element("span", "right?"))
        strips.append(image(_verdicts(right), f"Where {name} was right", class_="strip verdict"))
    title = element("h4", name)
    return element(
        "div", title, element("div", *labels, class_="names"), element("div", *strips, class_="strips"), class_="panel"
    )


def _verdicts(right: np.ndarray) -> np.ndarray:
    """Blue where most decisions of a column are right, orange where not, pale where nothing says: (1, K, 3)."""
    colour = np.where((right >= 0.5)[:, None], RIGHT, WRONG)
    return np.where(np.isnan(right)[:, None], UNKNOWN, colour).astype(np.uint8)[None]


def _thumbnails(story: Story) -> Element:
    shown = [
        element("span", "no face", class_="nobody")
        if one is None
        else image(_small(one[1]), f"frame {one[0]}", "jpeg", title=f"frame {one[0]}")
        for one in story.thumbnails
    ]
    return element("div", element("div"), element("div", *shown, class_="thumbnails"), class_="panel")


def _small(pixels: np.ndarray) -> np.ndarray:
    """Not much more pixels than are shown."""
    step = max(1, max(pixels.shape[:2]) // 112)
    return np.ascontiguousarray(pixels[::step, ::step])


def _counts(task: Task, story: Story) -> str:
    counts = task.by_class(story.labels)[0].sum(axis=0)
    return ", ".join(f"{task.classes[place]} {counts[place]} frames" for place in np.flatnonzero(counts)) or "none"


def _said(task: Task, story: Story, name: str) -> str:
    if not len(story.frame):
        return "none"
    mean = story.probability[name].mean(axis=0)
    return "mean " + ", ".join(f"{c} {value:.2f}" for c, value in zip(task.classes, mean, strict=True))
