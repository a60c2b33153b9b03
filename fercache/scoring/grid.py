"""The confusion matrix at every point of a grid of weights, without a visit to every point.

Along a straight line of weights the score of each class is a straight line, too. So where the same class wins at both
ends it wins between them, and elsewhere the winner changes only where two classes' scores cross. The grid is covered
with such lines; in each, a frame is looked at at the two ends of every stretch between its crossings. A frame that all
models decide alike is counted once for the whole grid.

What is claimed is what `argmax` finds at each point: the ends are computed as `fuse` computes them, and where the
winner's lead is within rounding every point of the stretch is.

Legend: M models, N frames, C classes, P points of the grid, n frames of a part.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

CERTAIN = 1e-12
"""Lead of a winner that rounding (some 1e-16) cannot take away."""
MOST_AT_ONCE = 500_000
"""Points of frames that are looked at one by one."""


def simplex(models: int, steps: int) -> np.ndarray:
    """All weights in multiples of 1 / steps that sum to 1, float64 (P, M), in lexicographic order."""
    bars = np.array(list(itertools.combinations(range(steps + models - 1), models - 1))).reshape(-1, models - 1)
    edges = np.hstack([np.full((len(bars), 1), -1), bars, np.full((len(bars), 1), steps + models - 1)])
    return (np.diff(edges, axis=1) - 1) / steps


def point_count(models: int, steps: int) -> int:
    """P: points of `simplex`."""
    return math.comb(steps + models - 1, models - 1)


def fuse(weights: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """The weighted sum over models, added up in their order: (M,) and (M, ...) to (...)."""
    total = np.zeros(probability.shape[1:])
    for weight, one in zip(weights, probability, strict=True):
        if weight:
            total += weight * one
    return total


def winners(scores: np.ndarray) -> np.ndarray:
    """The winning class of scores (C, n), the first one on a tie: int64 (n,)."""
    best, winner = scores[0].copy(), np.zeros(scores.shape[1], np.int64)
    for place in range(1, len(scores)):
        np.copyto(winner, place, where=scores[place] > best)
        np.maximum(best, scores[place], out=best)
    return winner


def leads(scores: np.ndarray, winner: np.ndarray) -> np.ndarray:
    """Whether the classes `winner` (n,) lead for certain in scores (C, n), which are overwritten: bool (n,)."""
    columns = np.arange(scores.shape[1])
    own = scores[winner, columns]
    scores[winner, columns] = -np.inf
    return own - scores.max(axis=0) > CERTAIN


def grid_confusions(probability: np.ndarray, labels: np.ndarray, steps: int) -> np.ndarray:
    """Labels x decisions at each point of `simplex(M, steps)`: int64 (P, C, C).

    probability: float64 (M, N, C), two or more models; labels: int (N,), from 0.
    """
    by_class = np.ascontiguousarray(probability.transpose(0, 2, 1))
    return _covered(np.zeros(by_class.shape[1:]), by_class, labels, steps)


def grid_detections(probability: np.ndarray, present: np.ndarray, threshold: float, steps: int) -> np.ndarray:
    """What is present x what is decided to be, at each point of `simplex(M, steps)`: int64 (P, 2, 2).

    probability: float64 (M, N), two or more models, decided to be present above the threshold; present: bool (N,).
    """
    nothing = np.zeros_like(probability)
    # The threshold is a class that all weights leave as it is; it wins a tie.
    against = np.stack([np.full(nothing.shape[1], threshold), nothing[0]])
    return _covered(against, np.stack([nothing, probability], axis=1), present, steps)


def _covered(base: np.ndarray, by_class: np.ndarray, labels: np.ndarray, steps: int) -> np.ndarray:
    """Labels x winners at each point, (P, C, C), of scores `base` (C, N) and the weighted ones of models (M, C, N)."""
    models, classes, _ = by_class.shape
    changes = np.zeros((point_count(models, steps) + 1, classes**2), np.int64)
    row = labels.astype(np.int64) * classes
    _Cover(steps, changes).part(_Frames(base, list(by_class), row), 0, steps)
    return np.cumsum(changes[:-1], axis=0).reshape(-1, classes, classes)


@dataclass(frozen=True)
class _Frames:
    """Frames in a part of the grid in which some models have their weights already."""

    base: np.ndarray
    """(C, n): the scores from those models."""
    others: list[np.ndarray]
    """(C, n) each: the probabilities of the models that share what is left."""
    row: np.ndarray
    """int64 (n,): where the label's row of a flat confusion matrix begins."""

    def of(self, some: np.ndarray) -> _Frames:
        """Those frames among them."""
        return _Frames(self.base[:, some], [one[:, some] for one in self.others], self.row[some])


@dataclass(frozen=True)
class _Cover:
    """The grid while it is covered."""

    steps: int
    changes: np.ndarray
    """int64 (P + 1, C x C): how a point's confusion matrix differs from that of the point before."""

    def part(self, frames: _Frames, point: int, rest: int) -> None:
        """Cover the part in which the models that are left share `rest` steps; its first point is `point`."""
        if len(frames.others) == 2:
            self._line(frames, point, rest)
        else:
            self._slab(frames, point, rest, 0, rest)

    def _slab(self, frames: _Frames, point: int, rest: int, low: int, high: int) -> None:
        """Cover the points in which the first model that is left takes `low` to `high` steps of the `rest`."""
        first, *others = frames.others
        corners = (
            frames.base + taken / self.steps * first + (rest - taken) / self.steps * one
            for taken in {low, high}
            for one in others
        )
        winner = winners(corner := next(corners))
        settled = leads(corner, winner)
        for corner in corners:
            settled &= leads(corner, winner)
        sizes = [point_count(len(others), rest - taken) for taken in range(low, high + 1)]
        begin, end = np.zeros(1, np.int64), np.full(1, sum(sizes) - 1)
        self._count(frames.row[settled] + winner[settled], point, begin, end)
        if settled.all():
            return
        frames = frames.of(~settled)
        if low == high:
            own = frames.base + low / self.steps * frames.others[0]
            self.part(_Frames(own, frames.others[1:], frames.row), point, rest - low)
            return
        middle = (low + high) // 2
        self._slab(frames, point, rest, low, middle)
        self._slab(frames, point + sum(sizes[: middle - low + 1]), rest, middle + 1, high)

    def _line(self, frames: _Frames, point: int, rest: int) -> None:
        """Cover a line of points, in which the last two models share `rest` steps."""
        base, (ours, theirs), share = frames.base, frames.others, rest / self.steps

        def at(which: np.ndarray, taken: np.ndarray) -> np.ndarray:
            scores = base[:, which] + taken / self.steps * ours[:, which]
            scores += (rest - taken) / self.steps * theirs[:, which]
            return scores

        which, winner, first, last = _stretches(base + share * theirs, base + share * ours, rest)
        certain = leads(at(which, first), winner) & leads(at(which, last), winner)
        self._count(frames.row[which[certain]] + winner[certain], point, first[certain], last[certain])
        for some in _parts(np.flatnonzero(~certain), last - first + 1):
            frame, places = _points(which[some], first[some], last[some])
            self._count(frames.row[frame] + winners(at(frame, places)), point, places, places)

    def _count(self, pair: np.ndarray, point: int, first: np.ndarray, last: np.ndarray) -> None:
        """Frames of these places in the flat confusion matrix are so from the `first` to the `last` behind `point`."""
        if not len(pair):
            return
        width = self.changes.shape[1]
        for places, sign in ((first, 1), (last + 1, -1)):
            low, points = int(places.min()), int(np.ptp(places)) + 1
            found = np.bincount((places - low) * width + pair, minlength=points * width)
            self.changes[point + low : point + low + points] += sign * found.reshape(points, width)


def crossings(start: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Where winners change between two ends: frame, place from 0 (start) to 1 (end), the class before and behind it.

    start, end: scores (C, n). Each frame's crossings come in their order; they are right up to rounding.
    """
    slope = end - start
    frames = np.arange(start.shape[1])
    now, at, found = winners(start), np.zeros(len(frames)), []
    while len(frames):
        columns = np.arange(len(frames))
        faster = slope - slope[now, columns]
        behind = start[now, columns] - start
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            place = np.where(faster > 0, behind / faster, np.inf)
        # A class that was passed before cannot come again; rounding may say so.
        place = np.maximum(place, at)
        then = place.argmin(axis=0)
        at = place[then, columns]
        on = at < 1
        frames, at, then, now = frames[on], at[on], then[on], now[on]
        start, slope = start[:, on], slope[:, on]
        found.append((frames, at, now, then))
        now = then
    empty = [np.empty(0, kind) for kind in (np.int64, np.float64, np.int64, np.int64)]
    return tuple(np.concatenate(parts) for parts in zip(empty, *found, strict=False))


def _stretches(start: np.ndarray, end: np.ndarray, rest: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Frame, winner, first and last point of each stretch of a line between crossings that has a point in it.

    start, end: scores (C, n) at the first point, 0, and at the last one, `rest`.
    """
    frame, place, _, winner = crossings(start, end)
    frame = np.concatenate([np.arange(start.shape[1]), frame])
    winner = np.concatenate([winners(start), winner])
    first = np.concatenate([np.zeros(start.shape[1], np.int64), np.ceil(place * rest).astype(np.int64)])
    order = frame.argsort(kind="stable")  # a frame's crossings come in their order
    frame, winner, first = frame[order], winner[order], first[order]
    last = np.full(len(frame), rest)
    same = frame[1:] == frame[:-1]
    last[:-1][same] = first[1:][same] - 1
    some = first <= last
    return frame[some], winner[some], first[some], last[some]


def _parts(chosen: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
    """The chosen stretches in parts of about `MOST_AT_ONCE` points, so that memory stays what it is."""
    behind = lengths[chosen].cumsum()
    return np.split(chosen, np.flatnonzero(np.diff(behind // MOST_AT_ONCE)) + 1) if len(chosen) else []


def _points(which: np.ndarray, first: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every point of some stretches: the frame, and the point."""
    lengths = last - first + 1
    begin = np.repeat(np.cumsum(lengths) - lengths, lengths)
    return np.repeat(which, lengths), np.arange(len(begin)) - begin + np.repeat(first, lengths)
