"""Tasks in which each frame is of one class.

Legend: N frames, C classes, G groups of frames, R samples of groups, M models, P points, L points of a line.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fercache.tasks.base import Progress, parse_integers
from fercache.tasks.classification import Classification
from fercache.tasks.fusion import batches, fuse, lines, unanimous

BATCH = 1024
"""Frames that are fused at a time."""


@dataclass(frozen=True)
class Multiclass(Classification):
    """A frame's label is the index of its class: labels (N,)."""

    loss: ClassVar[str] = "cross_entropy"
    loss_settings: ClassVar[tuple[str, ...]] = ("class_balance",)
    scored_unit: ClassVar[str] = "frames"

    @property
    def label_columns(self) -> tuple[str, ...]:
        """One value."""
        return ("label",)

    def label_shape(self, frames: int) -> tuple[int, ...]:
        """(N,)."""
        return (frames,)

    def parse(self, line: str) -> int:
        """One integer."""
        (label,) = parse_integers(line, 1, self.invalid, len(self.classes) - 1)
        return label

    def by_class(self, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """One-hot rows; an annotation says so of every class."""
        is_class = labels[:, None] == np.arange(len(self.classes))
        return is_class, np.broadcast_to(self.counted(labels)[:, None], is_class.shape)

    def strata(self, labels: np.ndarray) -> np.ndarray:
        """The class."""
        return labels.astype(np.int64)

    def prior(self, labels: np.ndarray) -> np.ndarray:
        """The share of each class."""
        counts = np.bincount(labels[self.counted(labels)], minlength=len(self.classes))
        return counts / max(1, counts.sum())

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Softmax."""
        logits = logits.astype(np.float64)
        powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
        return powers / powers.sum(axis=-1, keepdims=True)

    def logits(self, probability: np.ndarray) -> np.ndarray:
        """The logarithm."""
        return np.log(np.maximum(probability, np.finfo(np.float32).tiny)).astype(np.float32)

    def decide(self, probability: np.ndarray, thresholds: np.ndarray | None = None) -> np.ndarray:
        """The likeliest class, the first one on a tie: (N,)."""
        return probability.argmax(axis=-1)

    def certainty(self, probability: np.ndarray, thresholds: np.ndarray | None = None) -> np.ndarray:
        """The probability of the likeliest class."""
        return probability.max(axis=-1)

    def confidence(self, probability: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The probability of the likeliest class, and whether it is right."""
        counted = self.counted(labels)
        return probability[counted].max(axis=1), probability[counted].argmax(axis=1) == labels[counted]

    def loss_slope(self, logits: np.ndarray, labels: np.ndarray, scale: float) -> tuple[float, float]:
        """Of the cross entropy with the softmax."""
        counted = self.counted(labels)
        z, y = logits[counted], labels[counted].astype(np.int64)
        p = self.probabilities(scale * z)
        mean = (p * z).sum(axis=1)
        of_label = np.take_along_axis(z, y[:, None], axis=1)[:, 0]
        return float((mean - of_label).sum()), float(((p * z**2).sum(axis=1) - mean**2).sum())

    def confusion(self, decisions: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Labels x decisions."""
        classes = len(self.classes)
        pairs = labels.astype(np.int64) * classes + decisions
        return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)

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
        """As `Task.grid_scores`, from confusion matrices that are exactly those of `decide` at each point.

        Frames on which all models agree are counted once for the whole grid, and those on which both ends of a line of
        points agree once for the line: a weighted mean keeps the order of two classes that all its parts have.
        """
        counted, classes = self.counted(labels), len(self.classes)
        probability = probability[:, counted]
        row = (group[counted].astype(np.int64) * classes + labels[counted]) * classes
        cells = weight.shape[1] * classes**2

        def confusions(row: np.ndarray, decisions: np.ndarray) -> np.ndarray:
            """Of each group, flat: int64 (G x C x C,)."""
            return np.bincount(row + decisions, minlength=cells)

        agreed, winner = unanimous(probability)
        everywhere = confusions(row[agreed], winner[agreed])
        probability, row = probability[:, ~agreed], row[~agreed]
        scores = np.empty((len(weight), len(points)))
        for line in progress(lines(points)):
            of_line = points[line]
            ends = of_line[[of_line[:, -1].argmin(), of_line[:, -1].argmax()]]
            agreed, winner = unanimous(np.stack([fuse(end, probability) for end in ends]))
            counts = np.tile(everywhere + confusions(row[agreed], winner[agreed]), (len(of_line), 1))
            changing, changing_row = probability[:, ~agreed], row[~agreed]
            for batch in batches(len(changing_row), BATCH):
                part = np.ascontiguousarray(changing[:, batch])
                for index, point in enumerate(of_line):
                    counts[index] += confusions(changing_row[batch], fuse(point, part).argmax(axis=-1))
            by_group = counts.reshape(len(of_line), -1, classes**2)
            scores[:, line] = self._score_confusions(np.einsum("rg,lgc->rlc", weight, by_group))
        return scores

    def _score_confusions(self, flat: np.ndarray) -> np.ndarray:
        """The score of confusion matrices (..., C x C): (...,)."""
        confusion = flat.reshape(*flat.shape[:-1], len(self.classes), len(self.classes))
        right = np.diagonal(confusion, axis1=-2, axis2=-1)
        either = confusion.sum(axis=-1) + confusion.sum(axis=-2)
        return self.score_counts(right, either, right.sum(axis=-1), confusion.sum(axis=(-2, -1)))
