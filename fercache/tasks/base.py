"""What every task can be asked.

Legend: T frames of a video, N frames, C classes, G groups of frames (recordings, folds), R samples of groups,
M models, P points (vectors of M ensemble weights).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from fercache.tasks.fusion import fuse

Progress = Callable[[Iterable[Any]], Iterable[Any]]
"""Yields the items that it is given, and may show how far that is."""


@dataclass(frozen=True)
class Scores:
    """All scores of one set of decisions."""

    score: float
    """The task's measure E, from `f1` and `accuracy`."""
    f1: float
    """Macro F1 over all classes; a class that neither occurs nor is predicted counts 0."""
    accuracy: float
    """Share of right frames; for action units of right elements."""
    f1_occurring: float
    """Macro F1 over the classes that occur in the labels."""
    exact_match: float
    """Share of frames with every labelled element right; the accuracy where a frame has one label."""
    f1_per_class: tuple[float, ...]
    count_per_class: tuple[int, ...]
    """Labelled frames of each class; for action units those where it is present."""
    frames: int
    """Frames that counted."""
    confusion: np.ndarray | None
    """(C, C) labels x decisions, where a frame has one label."""


@dataclass(frozen=True)
class Task(ABC):
    """One recognition task. Each kind of task is a subclass; a task is an instance of one, compared by its fields.

    Labels and decisions of N frames are arrays of `label_shape(N)`, in which `invalid` marks what was not annotated.
    """

    name: str
    classes: tuple[str, ...]
    """Class names in the order of the challenge's annotation header."""
    track: str
    """The challenge's name for its annotation folders: EXPR_Set, EXPR_Classification_Challenge, AU_Set, ..."""

    invalid: ClassVar[int] = -1
    """The label of a frame, or of one element of it, that was not annotated."""
    loss: ClassVar[str]
    """The name of the loss in `training.losses`."""
    loss_settings: ClassVar[tuple[str, ...]] = ()
    """Training settings that only some losses have, and this one does."""
    scored_unit: ClassVar[str]
    """What accuracy counts: frames or elements."""

    @property
    def header(self) -> str:
        """First line of an annotation file."""
        return ",".join(self.classes)

    # Labels

    @property
    @abstractmethod
    def label_columns(self) -> tuple[str, ...]:
        """The values of one frame's label, by name."""

    @abstractmethod
    def label_shape(self, frames: int) -> tuple[int, ...]:
        """Shape of the labels of so many frames."""

    @abstractmethod
    def parse(self, line: str) -> Any:  # noqa: ANN401 - a number, or a list of them
        """The label in a line of an annotation file; ValueError with what was found and what was expected."""

    def unlabelled(self, frames: int) -> np.ndarray:
        """Labels of so many frames, none of them annotated: int8."""
        return np.full(self.label_shape(frames), self.invalid, np.int8)

    def as_columns(self, labels: np.ndarray) -> np.ndarray:
        """Labels or decisions as a table, with a column for each of `label_columns`."""
        return labels.reshape(len(labels), len(self.label_columns))

    def counted(self, labels: np.ndarray) -> np.ndarray:
        """Where there is an annotation: bool, in the labels' shape."""
        return np.asarray(labels != self.invalid)

    def labelled(self, labels: np.ndarray) -> np.ndarray:
        """Frames with an annotation, or part of one: bool (N,)."""
        return np.asarray(self.as_columns(self.counted(labels)).any(axis=1))

    @abstractmethod
    def by_class(self, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Whether a frame is of each class, and whether its label says so or not: bool (N, C) each."""

    @abstractmethod
    def strata(self, labels: np.ndarray) -> np.ndarray:
        """What folds are to share out evenly: int (N,), -1 for frames without an annotation."""

    @abstractmethod
    def prior(self, labels: np.ndarray) -> np.ndarray:
        """What to predict where nothing is known, from training labels: float64 (C,)."""

    # Outputs

    @abstractmethod
    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Probabilities of logits (..., C), float64."""

    @abstractmethod
    def logits(self, probability: np.ndarray) -> np.ndarray:
        """Logits of which `probabilities` makes these, (N, C): float32."""

    @abstractmethod
    def decide(self, probability: np.ndarray, thresholds: np.ndarray | None = None) -> np.ndarray:
        """Decisions from probabilities (N, C); thresholds (C,) where the task has any, None for its default."""

    @abstractmethod
    def certainty(self, probability: np.ndarray, thresholds: np.ndarray | None = None) -> np.ndarray:
        """How sure each decision is, in the decisions' shape; only the order matters."""

    @abstractmethod
    def confidence(self, probability: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For each annotation the probability that calibration looks at, and whether the event occurred: (E,) each."""

    @abstractmethod
    def loss_slope(self, logits: np.ndarray, labels: np.ndarray, scale: float) -> tuple[float, float]:
        """First and second derivative by `scale` of the summed cross entropy of `scale` times the logits."""

    # Scores

    @property
    @abstractmethod
    def measure_in_words(self) -> str:
        """The formula of the score, as in `0.67 F1 + 0.33 accuracy`."""

    @abstractmethod
    def score(self, decisions: np.ndarray, labels: np.ndarray) -> Scores:
        """Scores of decisions; what was not annotated is ignored. ValueError where nothing was."""

    @abstractmethod
    def tally(self, decisions: np.ndarray, labels: np.ndarray, group: np.ndarray) -> Any:  # noqa: ANN401
        """What `score_tally` needs to know of each group; group: int (N,), from 0."""

    @abstractmethod
    def score_tally(self, tally: Any, weight: np.ndarray) -> np.ndarray:  # noqa: ANN401 - what `tally` returned
        """The score where group g is in the data weight[r, g] times: float64 (R, G) to (R,)."""

    @abstractmethod
    def unknown_share(self, tally: Any) -> float:  # noqa: ANN401 - what `tally` returned
        """How much higher the score could be for classes of which no group has a label."""

    # Ensembles

    def best_thresholds(self, probability: np.ndarray, labels: np.ndarray) -> np.ndarray | None:
        """The thresholds with the best score, (C,), for probabilities (N, C); None where the task has none."""
        return None

    def grid_scores(
        self,
        probability: np.ndarray,
        labels: np.ndarray,
        group: np.ndarray,
        weight: np.ndarray,
        points: np.ndarray,
        *,
        thresholds: bool,
        progress: Progress = iter,
    ) -> np.ndarray:
        """The score of the fused probabilities at each point, on several samples of the groups: float64 (R, P).

        probability: float64 (M, N, C); group: int (N,), from 0; weight: (R, G), as in `score_tally`; points: (P, M).
        With `thresholds` the score is that of the best thresholds at each point. This form suits every task; a kind may
        have a faster one.
        """
        scores = [
            self.score_tally(self.tally(self.decide(fuse(point, probability)), labels, group), weight)
            for point in progress(points)
        ]
        return np.stack(scores, axis=1)


def parse_integers(line: str, count: int, low: int, high: int) -> Sequence[int]:
    """So many integers from low to high, separated by commas; ValueError with what was found and what was expected."""
    fields = [field.strip() for field in line.split(",")]
    if len(fields) != count:
        raise ValueError(f"found {len(fields)} values, expected {count}")
    values = []
    for field in fields:
        # int() would also take "1_0" and digits of other scripts.
        is_number = field.isascii() and field.removeprefix("-").isdigit()
        if not is_number or not low <= int(field) <= high:
            raise ValueError(f"found {field if is_number else repr(field)}, expected an integer from {low} to {high}")
        values.append(int(field))
    return values
