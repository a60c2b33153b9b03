"""What an ensemble is worth: in sample, across folds, with intervals over recordings.

Legend: F frames, C classes, R samples of recordings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fercache.scoring.choice import AcrossFolds, Choice, Progress, Recipe, across_folds, choose
from fercache.scoring.intervals import draws, interval, tally, unknown_share
from fercache.scoring.metrics import score
from fercache.scoring.outputs import LabelledOutputs


@dataclass(frozen=True)
class Value:
    """A number, and the 95 % interval over recordings in which the true one lies; nan where there is one recording."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Result:
    """How some decisions do."""

    score: Value
    f1: float
    accuracy: float
    samples: np.ndarray
    """The score in each sample of recordings, (R,)."""

    def less(self, other: Result) -> Value:
        """The difference of the scores, paired: on the same samples."""
        return Value(self.score.value - other.score.value, *interval(self.samples - other.samples))


@dataclass(frozen=True)
class Worth:
    """The ensemble, and beside it what it should beat."""

    choices: dict[str, Choice]
    """Chosen on all frames, by weighting."""
    in_sample: dict[str, Result]
    """By weighting, on the frames that it was chosen on: an upper bound."""
    folds: AcrossFolds | None
    across: dict[str, Result]
    """By weighting, on frames that it was not chosen on; {} without folds."""


def results(outputs: LabelledOutputs, decisions: Mapping[str, np.ndarray], seed: int) -> dict[str, Result]:
    """How decisions (F,) or (F, C), each under a name, do; all on the same samples of the recordings with labels."""
    task, counted, by_name = outputs.task, outputs.counted, {}
    labels, (present, recording) = outputs.labels[counted], np.unique(outputs.recording[counted], return_inverse=True)
    weight = draws(len(present), seed)
    for name, decided in decisions.items():
        scores = score(task, decided[counted], labels)
        counts = tally(task, decided[counted], labels, recording)
        samples = counts.scores(task, weight)
        bounds = interval(samples, unknown_share(task, counts), (0.0, 1.0))
        by_name[name] = Result(Value(scores.score, *bounds), scores.f1, scores.accuracy, samples)
    return by_name


def worth(
    outputs: LabelledOutputs, recipe: Recipe, fold: np.ndarray | None, seed: int, progress: Progress = iter
) -> Worth:
    """Choose on all frames, and on all folds but one for each one; fold: int (F,), or None for no folds."""
    choices = choose(outputs, np.ones(len(outputs.frame), bool), recipe)
    own = results(outputs, {name: chosen.decide(outputs) for name, chosen in choices.items()}, seed)
    if fold is None:
        return Worth(choices, own, None, {})
    across = across_folds(outputs, fold, recipe, progress)
    return Worth(choices, own, across, results(outputs, across.decisions, seed))
