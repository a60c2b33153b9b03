"""The windows of many videos together: which rows they take, and where labels count.

Legend: V videos, F present frames of all of them, N windows, L positions, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fercache.data import windows


@dataclass(frozen=True)
class TimeLine:
    """The present frames of many videos on one line, one video after the other, too far apart to share a window.

    So the functions for the windows of one video serve all videos at once.
    """

    video_ids: tuple[str, ...]
    first: np.ndarray
    """int64 (V + 1,): the first row of each video, and behind the last one."""
    origin: np.ndarray
    """int64 (V,): the position of each video's frame 0."""
    position: np.ndarray
    """int64 (F,), ascending: the position of each row's frame."""

    @classmethod
    def of(cls, frames: Mapping[str, np.ndarray], length: int) -> TimeLine:
        """From the frame numbers, int (F_v,) ascending, of each video; for windows of up to `length` positions."""
        windows.check_length(length)
        counts = [len(frame) for frame in frames.values()]
        spans = [int(frame[-1]) + 2 * length if len(frame) else 0 for frame in frames.values()]
        first, origin = (np.cumsum([0, *sizes], dtype=np.int64) for sizes in (counts, spans))
        position = np.empty(first[-1], np.int64)
        for start, shift, frame in zip(first, origin, frames.values(), strict=False):
            position[start : start + len(frame)] = frame
            position[start : start + len(frame)] += shift
        return cls(tuple(frames), first, origin[:-1], position)

    def training_centres(self, counts: np.ndarray, length: int, stride: int) -> np.ndarray:
        """Positions of the middles of each video's training windows; counts: bool (F,), True = the row has a label."""
        centres = [np.empty(0, np.int64)]
        for begin, end, shift in zip(self.first, self.first[1:], self.origin, strict=False):
            frame = self.position[begin:end] - shift
            centres.append(windows.training_centres(frame, counts[begin:end], length, stride) + shift)
        return np.concatenate(centres)

    def names(self, centres: np.ndarray) -> list[str]:
        """Video and frame of windows by the positions of their middles."""
        # A first window's middle may lie at its video's frame 1 although that is not present.
        video = np.searchsorted(self.origin, centres) - 1
        frame = centres - self.origin[video]
        return [f"{self.video_ids[v]}, the window at frame {f}" for v, f in zip(video, frame, strict=True)]


@dataclass(frozen=True)
class WindowSet:
    """Windows of one length over a time line."""

    line: TimeLine
    centre: np.ndarray
    """int64 (N,): positions of their middles."""
    length: int

    def __len__(self) -> int:
        return len(self.centre)

    def rows(self, chosen: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Of some windows, the row that each position takes, int64 (B, L), and whether it is its own, bool (B, L)."""
        return windows.rows(self.line.position, self.centre[chosen], self.length)

    def names(self, chosen: Sequence[int] | np.ndarray) -> list[str]:
        """Video and frame of some windows."""
        return self.line.names(self.centre[chosen])
