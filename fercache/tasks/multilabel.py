"""Tasks in which each frame has each of several units or not.

Legend: N frames, C units, G groups of frames, R samples of groups, M models, P points, K thresholds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fercache.tasks.base import Progress, parse_integers
from fercache.tasks.classification import Classification, f1_of_counts
from fercache.tasks.fusion import batches, fuse

THRESHOLD = 0.5
"""Probability above which a unit is present, where no other threshold was chosen."""
STEPS = 1024
"""Thresholds are multiples of one over this power of two, so that comparisons with them do not round."""
BATCH = 16_384
"""Frames of a unit that are fused at a time."""
MOST_HISTOGRAMS = 512
"""Points times groups whose histograms are kept at a time."""


@dataclass(frozen=True)
class Multilabel(Classification):
    """A frame's label is a row of zeros and ones, any of which may be missing: labels (N, C)."""

    loss: ClassVar[str] = "binary_cross_entropy"
    loss_settings: ClassVar[tuple[str, ...]] = ("positive_weights",)
    scored_unit: ClassVar[str] = "elements"

    @property
    def label_columns(self) -> tuple[str, ...]:
        """The units."""
        return self.classes

    def label_shape(self, frames: int) -> tuple[int, ...]:
        """(N, C)."""
        return (frames, len(self.classes))

    def parse(self, line: str) -> list[int]:
        """A zero or a one for each unit."""
        return list(parse_integers(line, len(self.classes), self.invalid, 1))

    def by_class(self, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The labels themselves."""
        return labels == 1, self.counted(labels)

    def strata(self, labels: np.ndarray) -> np.ndarray:
        """1 + the rarest unit that is present, by its rank; 0 where none is."""
        present = labels == 1
        by_rarity = np.argsort(present.sum(axis=0), kind="stable")
        ranked = present[:, by_rarity]
        stratum = np.where(ranked.any(axis=1), 1 + ranked.argmax(axis=1), 0)
        return np.where(self.labelled(labels), stratum, -1)

    def prior(self, labels: np.ndarray) -> np.ndarray:
        """The share of present ones among each unit's own labels."""
        return (labels == 1).sum(axis=0) / np.maximum(1, self.counted(labels).sum(axis=0))

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Sigmoid, by halves, so that neither side overflows."""
        return 0.5 * (1 + np.tanh(0.5 * logits.astype(np.float64)))

    def logits(self, probability: np.ndarray) -> np.ndarray:
        """The log odds."""
        epsilon = np.finfo(np.float64).eps
        inside = np.clip(probability, epsilon, 1 - epsilon)
        return (np.log(inside) - np.log1p(-inside)).astype(np.float32)

    def decide(self, probability: np.ndarray, thresholds: np.ndarray | None = None) -> np.ndarray:
        """Whether each unit is above its threshold: 0 or 1, (N, C)."""
        return (probability > (THRESHOLD if thresholds is None else thresholds)).astype(np.int64)

    def certainty(self, probability: np.ndarray, thresholds: np.ndarray | None = None) -> np.ndarray:
        """The distance from the threshold."""
        return np.abs(probability - (THRESHOLD if thresholds is None else thresholds))

    def confidence(self, probability: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The probability that a unit is present, and whether it is."""
        counted = self.counted(labels)
        return probability[counted], labels[counted] == 1

    def loss_slope(self, logits: np.ndarray, labels: np.ndarray, scale: float) -> tuple[float, float]:
        """Of the cross entropy with the sigmoid."""
        counted = self.counted(labels)
        z, y = logits[counted], labels[counted]
        p = self.probabilities(scale * z)
        return float(((p - y) * z).sum()), float((p * (1 - p) * z**2).sum())

    def best_thresholds(self, probability: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Multiples of 1 / `STEPS`; among equally good ones the nearest to .5, which a unit without labels gets."""
        counted, present = self.counted(labels), labels == 1
        histograms = np.empty((2, len(self.classes), STEPS + 1))
        for unit, column in enumerate((STEPS * probability).T):
            for state, chosen in enumerate((counted & ~present, present)):
                histograms[state, unit] = _histogram(column[chosen[:, unit]])
        absent_histogram, present_histogram = histograms
        gain = self._threshold_scores(absent_histogram, present_histogram, counted.sum())
        thresholds = np.arange(STEPS + 1) / STEPS
        distance = np.abs(thresholds - THRESHOLD)
        best = gain >= gain.max(axis=-1, keepdims=True) - 1e-12
        return thresholds[np.where(best, distance, np.inf).argmin(axis=-1)]

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
        """As `Task.grid_scores`, with the scores of all thresholds from one histogram of each unit at each point.

        The score is a sum over units, so that each one's threshold is chosen by itself.
        """
        groups = weight.shape[1]
        counted = np.array([self.counted(labels)[group == index].sum() for index in range(groups)])
        units = [
            _in_cells(STEPS * probability[:, :, unit], labels[:, unit], group, groups)
            for unit in range(len(self.classes))
        ]
        scores = np.zeros((len(weight), len(points)))
        for some in progress(list(batches(len(points), max(1, MOST_HISTOGRAMS // groups)))):
            for cells in units:
                histograms = np.zeros((2, groups, len(points[some]), STEPS + 1))
                for state, index, part in cells:
                    for histogram, point in zip(histograms[state, index], points[some], strict=True):
                        histogram += _histogram(fuse(point, part))
                absent, present = np.tensordot(histograms, weight, (1, 1)).transpose(0, 3, 1, 2)  # (R, P, K)
                gain = self._threshold_scores(absent, present, (weight @ counted)[:, None, None])
                scores[:, some] += gain.max(axis=-1) if thresholds else gain[..., round(THRESHOLD * STEPS)]
        return scores

    def _threshold_scores(self, absent: np.ndarray, present: np.ndarray, counted: np.ndarray | int) -> np.ndarray:
        """What a unit's decisions add to the score at each threshold, from its histograms: (..., K) to (..., K)."""
        all_absent, all_present = (part.sum(axis=-1, keepdims=True) for part in (absent, present))
        rejected = absent.cumsum(axis=-1)  # at or below the threshold
        right = all_present - present.cumsum(axis=-1)
        f1 = f1_of_counts(right, right + all_absent - rejected + all_present)
        return self.measure.f1 / len(self.classes) * f1 + self.measure.accuracy * (right + rejected) / np.maximum(
            1, counted
        )


def _histogram(scaled: np.ndarray) -> np.ndarray:
    """How many of the probabilities times `STEPS` are above k - 1 and at most k, for each k: int64 (K,)."""
    # Weights that sum up to a rounding above 1 take a probability of 1 there, too.
    return np.bincount(np.minimum(np.ceil(scaled), STEPS).astype(np.intp), minlength=STEPS + 1)


def _in_cells(
    scaled: np.ndarray, labels: np.ndarray, group: np.ndarray, groups: int
) -> list[tuple[int, int, np.ndarray]]:
    """One unit's probabilities (M, N) by label (0 absent, 1 present) and group, in batches (M, n)."""
    cells = []
    for state in (0, 1):
        for index in range(groups):
            chosen = np.flatnonzero((labels == state) & (group == index))
            cells += [
                (state, index, np.ascontiguousarray(scaled[:, chosen[batch]])) for batch in batches(len(chosen), BATCH)
            ]
    return cells
