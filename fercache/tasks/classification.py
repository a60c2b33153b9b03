"""What the two kinds of classification share: F1 and accuracy, from counts.

Legend: N frames, C classes, G groups of frames, R samples of groups.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fercache.tasks.base import Scores, Task


@dataclass(frozen=True)
class Measure:
    """The challenge's measure E = `f1` x macro F1 + `accuracy` x accuracy."""

    f1: float
    accuracy: float


@dataclass(frozen=True)
class Tally:
    """What F1 and accuracy need to know of each group; it adds up over groups."""

    right: np.ndarray
    """float64 (G, C): frames of each class that were decided so."""
    decided: np.ndarray
    """float64 (G, C): counted frames that were decided to be of each class."""
    labelled: np.ndarray
    """float64 (G, C): counted frames that are of each class."""
    correct: np.ndarray
    """float64 (G,): right decisions; for action units elements, absent ones included."""
    counted: np.ndarray
    """float64 (G,): of so many."""


@dataclass(frozen=True)
class Classification(Task):
    """Frames are of classes, or not."""

    measure: Measure

    @property
    def measure_in_words(self) -> str:
        """As in `0.67 F1 + 0.33 accuracy`."""
        return f"{self.measure.f1:g} F1 + {self.measure.accuracy:g} accuracy"

    def tally(self, decisions: np.ndarray, labels: np.ndarray, group: np.ndarray) -> Tally:
        """Counts by group."""
        is_class, known = self.by_class(labels)
        is_decided = self.by_class(decisions)[0] & known
        right, decided, labelled = (
            np.stack([np.bincount(group, column) for column in part.T], axis=1)
            for part in (is_class & is_decided, is_decided, is_class)
        )
        counted = self.as_columns(self.counted(labels))
        correct = self.as_columns(decisions == labels) & counted
        return Tally(
            right, decided, labelled, np.bincount(group, correct.sum(axis=1)), np.bincount(group, counted.sum(axis=1))
        )

    def score_tally(self, tally: Tally, weight: np.ndarray) -> np.ndarray:
        """The score of each sample; a class that neither occurs nor is decided counts 0."""
        either = weight @ (tally.decided + tally.labelled)
        return self.score_counts(weight @ tally.right, either, weight @ tally.correct, weight @ tally.counted)

    def score_counts(
        self, right: np.ndarray, either: np.ndarray, correct: np.ndarray, counted: np.ndarray | float
    ) -> np.ndarray:
        """The measure E from counts: (...,).

        right: (..., C), frames of each class that were decided so; either: (..., C), frames decided to be of the class
        plus frames that are; correct and counted: (...,), right decisions and all.
        """
        f1 = f1_of_counts(right, either)
        return self.measure.f1 * f1.mean(axis=-1) + self.measure.accuracy * (correct / np.maximum(1, counted))

    def unknown_share(self, tally: Tally) -> float:
        """The part of F1 that is 0 since no group has a label of the class."""
        missing = tally.labelled.sum(axis=0) == 0
        return self.measure.f1 * float(missing.mean())

    def score(self, decisions: np.ndarray, labels: np.ndarray) -> Scores:
        """Macro F1 over all classes, each over its counted frames, as scikit-learn's with zero_division=0."""
        frames = self.labelled(labels)
        if not frames.any():
            raise ValueError("no labelled frame")
        decisions, labels = decisions[frames], labels[frames]
        one_group = self.tally(decisions, labels, np.zeros(len(labels), np.int64))
        right, decided, labelled = one_group.right[0], one_group.decided[0], one_group.labelled[0]
        f1 = f1_of_counts(right, decided + labelled)
        occurring = labelled > 0
        macro, accuracy = float(f1.mean()), float(one_group.correct[0] / one_group.counted[0])
        all_right = self.as_columns((decisions == labels) | ~self.counted(labels)).all(axis=1)
        return Scores(
            score=self.measure.f1 * macro + self.measure.accuracy * accuracy,
            f1=macro,
            accuracy=accuracy,
            f1_occurring=float(f1[occurring].mean()) if occurring.any() else 0.0,
            exact_match=float(all_right.mean()),
            f1_per_class=tuple(map(float, f1)),
            count_per_class=tuple(map(int, labelled)),
            frames=len(labels),
            confusion=self.confusion(decisions, labels),
        )

    def confusion(self, decisions: np.ndarray, labels: np.ndarray) -> np.ndarray | None:
        """Labels x decisions, int64 (C, C), of annotated frames; None where a frame may be of several classes."""
        return None


def f1_of_counts(right: np.ndarray, either: np.ndarray) -> np.ndarray:
    """F1 from the frames rightly decided to be of a class, and those decided to be plus those that are: 0 for none."""
    return np.divide(2.0 * right, either, out=np.zeros(np.shape(right)), where=either > 0)
