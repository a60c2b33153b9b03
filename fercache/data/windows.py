"""Windows: which rows of a video's embeddings a head sees.

A window has L positions on the video's own time line (L odd); position k of the window at frame t
is frame t - (L - 1) / 2 + k. Rows are those of the cache, one a present frame. A position without
a frame (no face, before the start, after the end) takes the nearest present row of the window, the
earlier one on a tie: the face is held still.

Legend: F present frames of a video, T its length, N windows, L positions.
"""

from __future__ import annotations

import numpy as np

from fercache.errors import ConfigError


def check_length(length: int) -> None:
    """Raise ConfigError unless `length` is odd and positive: only then has a window a middle."""
    if length < 1 or length % 2 == 0:
        raise ConfigError(f"window: found {length}, expected an odd number from 1")


def positions(centres: np.ndarray, length: int) -> np.ndarray:
    """Frame numbers of all positions: int (N,) -> int64 (N, L). They may lie outside the video."""
    check_length(length)
    return np.asarray(centres, dtype=np.int64)[:, None] + np.arange(length) - length // 2


def rows(frame: np.ndarray, centres: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """The row that each position of each window takes, and where it is the position's own frame.

    frame: int (F,), ascending; centres: int (N,). Returns int64 (N, L) and bool (N, L). Every
    window must hold at least one present frame; IndexError otherwise.
    """
    wanted = positions(centres, length)  # (N, L)
    low = np.searchsorted(frame, wanted[:, :1])  # (N, 1) first row inside the window
    high = np.searchsorted(frame, wanted[:, -1:], side="right") - 1  # (N, 1) last row inside
    if (low > high).any():
        raise IndexError(f"no frame in the window at frame {int(centres[np.argmax(low > high)])}")
    after = np.searchsorted(frame, wanted)  # (N, L) first row at or after the position
    before = np.clip(after - 1, low, high)
    after = np.clip(after, low, high)
    nearest = np.where(np.abs(frame[after] - wanted) < np.abs(frame[before] - wanted), after, before)
    return nearest, frame[nearest] == wanted


def training_centres(frame: np.ndarray, counts: np.ndarray, length: int, stride: int) -> np.ndarray:
    """Centres t = 1, 1 + stride, ... of the windows with at least one position that counts.

    frame: int (F,), ascending; counts: bool (F,), True = this row has a label. With stride <= L
    every counting row lies in some window.
    """
    check_length(length)
    counted = frame[counts]
    if not len(counted):
        return np.empty(0, dtype=np.int64)
    half = length // 2
    centres = np.arange(1, int(counted[-1]) + half + 1, stride, dtype=np.int64)
    first = np.searchsorted(counted, centres - half)
    past = np.searchsorted(counted, centres + half, side="right")
    return centres[past > first]
