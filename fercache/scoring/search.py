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


def search(objective: Objective, steps: int) -> Found:
    """The best weights: of the grid in multiples of 1 / steps, then by `refine` from its best points and equal weights.

    Among equals the fewest models win, then the nearest to equal weights, then those of the grid.
    """
    points = simplex(objective.models, steps)
    scores = objective.grid(steps)
    order = _by_preference(points, scores)[:STARTS]
    equal = np.full((1, objective.models), 1 / objective.models)  # which may be no point of the grid
    refined = [refine(objective, start) for start in np.concatenate([points[order], equal])]
    points = np.stack([points[order[0]], *(weights for weights, _ in refined)])
    scores = np.array([scores[order[0]], *(score for _, score in refined)])
    best = _by_preference(points, scores)[0]
    return Found(points[best], float(scores[best]))


def _by_preference(points: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The order of points (P, M): by score; among equals the fewest models, then the nearest to equal weights."""
    distance = np.abs(points - 1 / points.shape[1]).sum(axis=1)
    # Scores that differ by rounding alone are equal.
    return np.lexsort((distance, (points > 0).sum(axis=1), -np.round(scores / EQUAL)))


def refine(objective: Objective, weights: np.ndarray) -> tuple[np.ndarray, float]:
    """From weights (M,) to better ones, and their score, until no exchange between two models gains or saves one."""
    score, gained = objective.score(weights), True
    while gained:
        gained = False
        for one, other in itertools.combinations(range(len(weights)), 2):
            if weights[one] + weights[other] == 0:
                continue
            for candidate in _exchanged(objective, weights, one, other):
                found = objective.score(candidate)
                fewer = (candidate > 0).sum() < (weights > 0).sum()
                if found > score + EQUAL or (fewer and found > score - EQUAL):
                    weights, score, gained = candidate, found, True
    return weights, score


def _exchanged(objective: Objective, weights: np.ndarray, one: int, other: int) -> list[np.ndarray]:
    """The best weights that two models can come to by exchanging theirs: those that leave one of the two out, where
    they are among the best, then the middle of the widest stretch of the best.
    """
    share = weights[one] + weights[other]
    start, end = weights.copy(), weights.copy()
    start[one], start[other], end[one], end[other] = 0, share, share, 0
    places, scores = objective.along(start, end, weights)
    edges = np.concatenate([[0.0], places, [1.0]])
    widths = np.diff(edges)
    scores = np.where(widths > NARROW, scores, -np.inf)
    best = np.flatnonzero(scores >= scores.max() - EQUAL)
    widest = best[widths[best].argmax()]
    ends = [float(end) for end, stretch in ((0, 0), (1, len(scores) - 1)) if stretch in best]
    places = [*ends, float(edges[widest] + edges[widest + 1]) / 2]
    candidates = []
    for place in places:
        candidates.append(weights.copy())
        candidates[-1][one], candidates[-1][other] = place * share, (1 - place) * share
    return candidates
