"""The weights of an ensemble: the best point of a grid over the simplex, and from there the best nearby.

Legend: M models, P points of the grid, E places on a line.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from fercache.scoring.grid import simplex
from fercache.scoring.objectives import EQUAL, Objective

STARTS = 5
"""Points of the grid from which is gone on."""
NARROW = 1e-9
"""Stretches of a line that are shorter are passed over: rounding could leave them."""


@dataclass(frozen=True)
class Found:
    """The best weights."""

    weights: np.ndarray
    """(M,), sum 1."""
    score: float
    on_grid: float
    """The best score of the grid."""
    grid: np.ndarray
    """The scores of the grid's points (P,)."""


def search(objective: Objective, steps: int) -> Found:
    """The best weights: of the grid in multiples of 1 / steps, then by `refine` from its best points and equal weights.

    Among equals the fewest models win, then the nearest to equal weights, then those of the grid.
    """
    points = simplex(objective.models, steps)
    scores = objective.grid(steps)
    distance = np.abs(points - 1 / objective.models).sum(axis=1)
    # Scores that differ by rounding alone are equal.
    rounded = np.round(scores / EQUAL)
    order = np.lexsort((distance, (points > 0).sum(axis=1), -rounded))
    on_grid = float(scores[order[0]])
    best, best_score = points[order[0]], on_grid
    equal = np.full((1, objective.models), 1 / objective.models)  # which may be no point of the grid
    for start in np.concatenate([points[order[:STARTS]], equal]):
        weights, score = refine(objective, start)
        if score > best_score + EQUAL:
            best, best_score = weights, score
    return Found(best, best_score, on_grid, scores)


def refine(objective: Objective, weights: np.ndarray) -> tuple[np.ndarray, float]:
    """From weights (M,) to better ones, and their score, until no exchange of weight between two models gains."""
    score, gained = objective.score(weights), True
    while gained:
        gained = False
        for one, other in itertools.combinations(range(len(weights)), 2):
            if weights[one] + weights[other] == 0:
                continue
            candidate = _exchanged(objective, weights, one, other)
            found = objective.score(candidate)
            if found > score + EQUAL:
                weights, score, gained = candidate, found, True
    return weights, score


def _exchanged(objective: Objective, weights: np.ndarray, one: int, other: int) -> np.ndarray:
    """The best weights that two models can come to by exchanging theirs."""
    share = weights[one] + weights[other]
    start, end = weights.copy(), weights.copy()
    start[one], start[other], end[one], end[other] = 0, share, share, 0
    places, scores = objective.along(start, end, weights)
    edges = np.concatenate([[0.0], places, [1.0]])
    widths = np.diff(edges)
    scores = np.where(widths > NARROW, scores, -np.inf)
    best = np.flatnonzero(scores >= scores.max() - EQUAL)
    widest = best[widths[best].argmax()]
    place = (edges[widest] + edges[widest + 1]) / 2
    candidate = weights.copy()
    candidate[one], candidate[other] = place * share, (1 - place) * share
    return candidate
