"""How good an ensemble is: where it was chosen and across folds, with intervals over recordings.

Legend: F frames, C classes, R samples of recordings, K folds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from fercache.scoring.intervals import draws, interval
from fercache.scoring.outputs import LabelledOutputs
from fercache.scoring.search import Fusions, SearchSpace, Weighting, fit_fusions
from fercache.tasks.base import Progress

Name = TypeVar("Name")


@dataclass(frozen=True)
class Estimate:
    """A number, and the 95 % interval over recordings in which the true one lies; nan where there is one recording."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class DecisionScores:
    """How good some decisions are."""

    score: Estimate
    f1: float
    accuracy: float
    samples: np.ndarray
    """The score in each sample of recordings, (R,)."""

    def minus(self, other: DecisionScores) -> Estimate:
        """The difference of the scores, paired: on the same samples."""
        return Estimate(self.score.value - other.score.value, *interval(self.samples - other.samples))


@dataclass(frozen=True)
class EnsembleReport:
    """What a search chose, and how good that is beside what it should beat."""

    fusions: Fusions
    """Chosen on all frames."""
    in_sample: dict[Weighting, DecisionScores]
    """On the frames that they were chosen on: an upper bound."""
    fold_fusions: tuple[Fusions, ...]
    """Of each fold: chosen on the others; () without folds."""
    across_folds: dict[Weighting, DecisionScores]
    """On frames that they were not chosen on; {} without folds."""


def score_decisions(
    outputs: LabelledOutputs, decisions: Mapping[Name, np.ndarray], seed: int
) -> dict[Name, DecisionScores]:
    """How good decisions in the shape of labels are, each under a name; all on the same samples of the recordings."""
    task, counted, by_name = outputs.task, outputs.counted, {}
    labels, (present, recording) = outputs.labels[counted], np.unique(outputs.recording[counted], return_inverse=True)
    weight = draws(len(present), seed)
    for name, decided in decisions.items():
        scores = task.score(decided[counted], labels)
        tally = task.tally(decided[counted], labels, recording)
        samples = task.score_tally(tally, weight)
        bounds = interval(samples, task.unknown_share(tally), (0.0, 1.0))
        by_name[name] = DecisionScores(Estimate(scores.score, *bounds), scores.f1, scores.accuracy, samples)
    return by_name


def cross_validate(
    outputs: LabelledOutputs, space: SearchSpace, fold: np.ndarray | None, seed: int, progress: Progress = iter
) -> EnsembleReport:
    """Choose on all frames, and on all folds but one for each one; fold: int (F,), or None for no folds."""
    chosen, *by_fold = fit_fusions(outputs, space, fold, progress)
    in_sample = {weighting: fusion.decide(outputs) for weighting, fusion in chosen.items()}
    across = {} if fold is None else score_decisions(outputs, held_out_decisions(outputs, fold, by_fold), seed)
    return EnsembleReport(chosen, score_decisions(outputs, in_sample, seed), tuple(by_fold), across)


def held_out_decisions(
    outputs: LabelledOutputs, fold: np.ndarray, by_fold: list[Fusions]
) -> dict[Weighting, np.ndarray]:
    """Decisions for all frames, each by the fusion that was chosen on the other folds."""
    decisions = {}
    for weighting in Weighting:
        of_folds = [fusions[weighting].decide(outputs) for fusions in by_fold]
        decisions[weighting] = np.stack(of_folds)[fold, np.arange(len(fold))]
    return decisions
