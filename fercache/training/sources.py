"""Where the windows of a head come from: the cache's rows, or the frames themselves.

Legend: B windows, L positions, F present frames of a split, D embedding, S side of the network's input, C classes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from fercache import runtime
from fercache.cache.mapped import MappedRows
from fercache.cache.provenance import Provenance
from fercache.cache.reader import Cache
from fercache.data.datasets import EpochBatches, ahead
from fercache.data.images import ImageSurvey
from fercache.data.loader import FrameBatch, FrameLoader, raise_bad_frames
from fercache.data.manifest import Video
from fercache.data.time_line import WindowSet
from fercache.errors import WeightsError
from fercache.models.preprocessing import Preprocessing, normalise, prepare
from fercache.models.temporal import IndexedWindows
from fercache.training.augment import crop, epoch_boxes

log = logging.getLogger(__name__)

Steps = Sequence[list[int]] | EpochBatches
"""The windows of each step."""


class WindowBatch(NamedTuple):
    """The windows of a training step."""

    chosen: list[int]
    """Which windows."""
    inputs: torch.Tensor | IndexedWindows
    """On the device."""
    rows: np.ndarray
    """int64 (B, L): the row of each position."""
    present: np.ndarray
    """bool (B, L): whether that is the position's own frame."""


class Source(Protocol):
    """What the windows of one split are made of."""

    def training(self, windows: WindowSet, steps: Steps, epoch: int) -> Iterator[WindowBatch]:
        """The windows of each step, whole."""

    def middle(self, windows: WindowSet, steps: Steps) -> Iterator[tuple[list[int], IndexedWindows]]:
        """The windows of each step over the rows that they share, each row once."""


@dataclass(frozen=True)
class CachedRows:
    """Windows gathered from a cache; on a GPU the next ones while it computes."""

    rows: MappedRows
    device: torch.device

    def training(self, windows: WindowSet, steps: Steps, epoch: int) -> Iterator[WindowBatch]:
        """As float32 (B, L, D)."""

        def load(chosen: list[int]) -> tuple[list[int], torch.Tensor, np.ndarray, np.ndarray]:
            rows, present = windows.rows(chosen)
            return chosen, self._gather(rows), rows, present

        for chosen, gathered, rows, present in ahead(steps, load, active=self._on_gpu):
            yield WindowBatch(chosen, gathered.to(self.device, non_blocking=True).float(), rows, present)

    def middle(self, windows: WindowSet, steps: Steps) -> Iterator[tuple[list[int], IndexedWindows]]:
        """Over float32 (F, D)."""

        def load(chosen: list[int]) -> tuple[list[int], torch.Tensor, torch.Tensor]:
            unique, index = each_once(windows.rows(chosen)[0])
            return chosen, self._gather(unique), index

        for chosen, gathered, index in ahead(steps, load, active=self._on_gpu):
            rows = gathered.to(self.device, non_blocking=True).float()
            yield chosen, IndexedWindows(rows, runtime.to_device(index, self.device))

    @property
    def _on_gpu(self) -> bool:
        return self.device.type == "cuda"

    def _gather(self, rows: np.ndarray) -> torch.Tensor:
        gathered = self.rows.gather(rows)
        return gathered.pin_memory() if self._on_gpu else gathered


@dataclass(frozen=True)
class OpenedFrames:
    """Windows over the frames of a split, decoded anew; in training each window is cropped and mirrored as one."""

    paths: Sequence[str]
    """F files."""
    every: Sequence[Sequence[str]]
    """Those of all splits, which are checked when one cannot be decoded."""
    record: Preprocessing
    crop_scale: tuple[float, float]
    flip: bool
    workers: int | None
    seed: int
    device: torch.device

    @cached_property
    def _survey(self) -> ImageSurvey:
        return ImageSurvey(self.paths)

    def training(self, windows: WindowSet, steps: Steps, epoch: int) -> Iterator[WindowBatch]:
        """Over prepared frames, float32 (n, 3, S, S); a frame of two windows appears twice."""
        boxes = None
        if self.flip or self.crop_scale != (1.0, 1.0):
            boxes = epoch_boxes(len(windows), self.crop_scale, self.flip, self.seed, epoch)
        frames = self._decoded(each_once_a_window(windows.rows(chosen)[0])[0].tolist() for chosen in steps)
        for chosen, batch in zip(steps, frames, strict=True):
            rows, present = windows.rows(chosen)
            _, index, window = each_once_a_window(rows)
            if boxes is None:
                pixels = prepare(batch.to(self.device), self.record)
            else:
                frame_boxes = runtime.to_device(boxes[torch.as_tensor(chosen)[window]], self.device)
                pixels = normalise(crop(batch.to(self.device), frame_boxes, self.record.image_size), self.record)
            yield WindowBatch(chosen, self._windows(pixels, index), rows, present)

    def middle(self, windows: WindowSet, steps: Steps) -> Iterator[tuple[list[int], IndexedWindows]]:
        """Over prepared frames, float32 (n, 3, S, S), as extraction prepares them."""
        frames = self._decoded(each_once(windows.rows(chosen)[0])[0].tolist() for chosen in steps)
        for chosen, batch in zip(steps, frames, strict=True):
            _, index = each_once(windows.rows(chosen)[0])
            yield chosen, self._windows(prepare(batch.to(self.device), self.record), index)

    def _windows(self, pixels: torch.Tensor, index: torch.Tensor) -> IndexedWindows:
        inputs = pixels.contiguous(memory_format=torch.channels_last)
        return IndexedWindows(inputs, runtime.to_device(index, self.device))

    def _decoded(self, batches: Iterable[list[int]]) -> Iterator[FrameBatch]:
        workers = runtime.decoding_workers(self.workers)
        loader = FrameLoader(self.paths, batches, workers, pin=self.device.type == "cuda", survey=self._survey)
        for batch in loader:
            if batch.failures:
                raise_bad_frames(self.every, self.workers)
            yield batch


def each_once(rows: np.ndarray) -> tuple[np.ndarray, torch.Tensor]:
    """The rows that windows (B, L) take, ascending, int64 (n,); and where among them each position's is, (B, L)."""
    unique, index = np.unique(rows, return_inverse=True)
    return unique, torch.from_numpy(index.reshape(rows.shape))


def each_once_a_window(rows: np.ndarray) -> tuple[np.ndarray, torch.Tensor, torch.Tensor]:
    """The same, but for windows that share none: rows (n,), index (B, L), and which window each row is of, (n,)."""
    new = np.ones(rows.shape, bool)
    new[:, 1:] = rows[:, 1:] != rows[:, :-1]  # within a window rows ascend, and held ones stand together
    index = torch.from_numpy(np.cumsum(new).reshape(rows.shape) - 1)
    return rows[new], index, torch.from_numpy(np.nonzero(new)[0])


def cached_videos(cache: Cache, videos: Sequence[Video], allow_missing: bool) -> list[Video]:
    """The videos that the cache has.

    Raises CacheError naming those that it lacks (a warning where they are allowed to be missing), and those that
    are unfinished or of another cache.
    """
    present = cache.check((video.video_id for video in videos), allow_missing=allow_missing)
    missing = [video.video_id for video in videos if video.video_id not in present]
    if missing:
        log.warning("%s: lacks %d of %d videos: %s", cache.path, len(missing), len(videos), ", ".join(missing))
    return [video for video in videos if video.video_id in present]


def trained_on(path: Path, checkpoint: Mapping[str, Any]) -> Provenance:
    """The cache that a head, read from `path`, was trained on; WeightsError where its record is damaged."""
    try:
        return Provenance.from_plain(checkpoint["provenance"])
    except (TypeError, ValueError) as error:
        raise WeightsError(f"{path}: is damaged: its record of the cache: {error}") from error
