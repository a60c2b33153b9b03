"""The weighted sum of models' probabilities, and how a grid of weights is walked.

Legend: M models, N frames, C classes, P points (vectors of M weights).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

CERTAIN = 1e-12
"""Lead of a winner that rounding (some 1e-16) cannot take away."""


def fuse(weights: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """The weighted sum over models, added up in their order: (M,) and (M, ...) to (...)."""
    total = weights[0] * probability[0]
    for weight, of_model in zip(weights[1:], probability[1:], strict=True):
        total += weight * of_model
    return total


def batches(count: int, size: int) -> Iterator[slice]:
    """`count` items in order, `size` at a time: so few that their arrays stay in the processor's cache."""
    return (slice(begin, begin + size) for begin in range(0, count, size))


def lines(points: np.ndarray) -> list[slice]:
    """Points (P, M) in runs within which two models alone exchange their weights."""
    begins = np.flatnonzero((points[1:, :-2] != points[:-1, :-2]).any(axis=1)) + 1
    edges = [0, *begins.tolist(), len(points)]
    return [slice(begin, end) for begin, end in itertools.pairwise(edges)]


def unanimous(probability: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Frames whose likeliest class is the same in each of several (M, N, C), bool (N,), and that class, int (N,).

    It is then also that of every weighted mean: only leads beyond rounding are believed.
    """
    winner = probability.argmax(axis=-1)
    highest = np.partition(probability, -2, axis=-1)[..., -2:]
    clear = highest[..., 1] - highest[..., 0] > CERTAIN
    return ((winner == winner[0]) & clear).all(axis=0), winner[0]
