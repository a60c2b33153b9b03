"""Everything that an ensemble chooses - weights, temperatures, smoothing, thresholds - on some frames, for others.

Legend: M models, F frames, C classes, K folds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from fercache.scoring.calibration import temperature
from fercache.scoring.grid import fuse, simplex
from fercache.scoring.metrics import decide
from fercache.scoring.objectives import EQUAL, Objective, objective
from fercache.scoring.outputs import LabelledOutputs, Outputs
from fercache.scoring.search import search
from fercache.scoring.thresholds import Units, best_thresholds

Weighting = Callable[[Objective, int], tuple[np.ndarray, float]]
"""The score of an ensemble, and one over the grid's step -> weights (M,) and their score."""


Progress = Callable[[Iterable[int]], Iterable[int]]
"""Gives what it is given, and may show how far that is."""


@dataclass(frozen=True)
class Recipe:
    """What is chosen, and among what."""

    steps: int = 100
    """One over the distance of the grid's weights."""
    half_widths: tuple[int, ...] = (0,)
    """Of the box over time, in frames; the best is taken, the narrowest among equals."""
    temperatures: bool = False
    """Whether each model's logits are divided by a temperature."""
    thresholds: bool = True
    """Whether action units have thresholds of their own."""


@dataclass(frozen=True)
class Choice:
    """What was chosen."""

    weights: np.ndarray
    """(M,)."""
    temperatures: tuple[float, ...]
    """(M,)."""
    half_width: int
    thresholds: np.ndarray | None
    """(C,), of many of many; None: .5."""
    score: float
    """On the frames that it was chosen on."""

    def probability(self, outputs: Outputs) -> np.ndarray:
        """Fused probabilities of models' outputs, (F, C)."""
        return fuse(self.weights, outputs.probability(self.temperatures, self.half_width))

    def decide(self, outputs: Outputs) -> np.ndarray:
        """Decisions, (F,) or (F, C)."""
        return decide(outputs.task, self.probability(outputs), self.thresholds)


def _single(of: Objective, steps: int) -> tuple[np.ndarray, float]:
    scores = [of.score(weights) for weights in np.eye(of.models)]
    best = int(np.argmax(scores))
    return np.eye(of.models)[best], scores[best]


def _equal(of: Objective, steps: int) -> tuple[np.ndarray, float]:
    weights = np.full(of.models, 1 / of.models)
    return weights, of.score(weights)


def _searched(of: Objective, steps: int) -> tuple[np.ndarray, float]:
    found = search(of, steps)
    return found.weights, found.score


SINGLE, EQUAL_WEIGHTS, SEARCHED = "best single model", "equal weights", "searched"
WEIGHTINGS: Mapping[str, Weighting] = {SINGLE: _single, EQUAL_WEIGHTS: _equal, SEARCHED: _searched}
"""All go through the same choice of temperatures, smoothing and thresholds; only the weights differ."""


def choose(outputs: LabelledOutputs, on: np.ndarray, recipe: Recipe) -> dict[str, Choice]:
    """For every weighting, the best on the frames `on`, bool (F,): no other frame's label is looked at."""
    task = outputs.task
    labels = outputs.labels[on]
    scales = tuple(temperature(task, logits[on], labels) if recipe.temperatures else 1.0 for logits in outputs.logits)
    best: dict[str, Choice] = {}
    for half_width in sorted(recipe.half_widths):
        probability = outputs.probability(scales, half_width)[:, on]
        of = objective(task, probability, labels, thresholds=recipe.thresholds)
        for name, weighting in WEIGHTINGS.items():
            weights, score = weighting(of, recipe.steps)
            if name in best and score <= best[name].score + EQUAL:
                continue
            thresholds = None
            if task.kind == "many" and recipe.thresholds:
                thresholds, _ = best_thresholds(Units(task, labels), fuse(weights, probability))
            best[name] = Choice(weights, scales, half_width, thresholds, score)
    return best


def surface(outputs: LabelledOutputs, chosen: Choice, steps: int, *, thresholds: bool) -> tuple[np.ndarray, np.ndarray]:
    """The score at every weight in multiples of 1 / steps, with a choice's temperatures and smoothing: (P, M) and (P,).

    With `thresholds` each action unit has its best one at each of the weights, where the score is a lower bound, exact
    at those that may be the best.
    """
    probability = outputs.probability(chosen.temperatures, chosen.half_width)
    of = objective(outputs.task, probability, outputs.labels, thresholds=thresholds)
    return simplex(len(probability), steps), of.grid(steps)


@dataclass(frozen=True)
class AcrossFolds:
    """What each weighting decides for frames that it was not chosen on."""

    decisions: dict[str, np.ndarray]
    """(F,) or (F, C)."""
    choices: tuple[dict[str, Choice], ...]
    """Of each fold: what was chosen on the others."""


def across_folds(outputs: LabelledOutputs, fold: np.ndarray, recipe: Recipe, progress: Progress = iter) -> AcrossFolds:
    """Choose on all folds but one, decide on that one, fold by fold through `progress`; fold: int (F,), from 0."""
    choices = tuple(choose(outputs, fold != held, recipe) for held in progress(range(int(fold.max()) + 1)))
    decisions = {}
    for name in WEIGHTINGS:
        found = [chosen[name].decide(outputs) for chosen in choices]
        decisions[name] = np.stack(found)[fold, np.arange(len(fold))]
    return AcrossFolds(decisions, choices)
