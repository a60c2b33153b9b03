"""Frames for the loader's processes, and cached windows for the heads, as torch batches.

Legend: N samples, B batch, H x W pixels of a stored frame, L positions of a window, D embedding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from fercache.data.frames import decode
from fercache.errors import DataError
from fercache.runtime import ignore_interrupts

Frames = torch.Tensor | list[torch.Tensor]
"""Frames of a batch: uint8 (B, 3, H, W), RGB; a list of (3, H, W) where their sizes differ."""


@dataclass(frozen=True)
class Failure:
    """A frame that could not be decoded, with the sentence that says so."""

    message: str


class FrameDataset(Dataset[tuple[int, "torch.Tensor | Failure"]]):
    """Frames as (index, uint8 (3, H, W) or Failure): the caller decides what a broken one means."""

    def __init__(self, paths: Sequence[str]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[int, torch.Tensor | Failure]:
        try:
            pixels = decode(self.paths[index])
        except DataError as error:
            return index, Failure(str(error))
        return index, torch.from_numpy(pixels.copy()).permute(2, 0, 1)


@dataclass(frozen=True)
class FrameBatch:
    """The frames that could be decoded, and those that could not."""

    index: torch.Tensor
    """int64 (B,): the frames' places in the dataset."""
    frames: Frames
    failures: dict[int, str]
    """Place in the dataset -> what is wrong."""

    def to(self, device: torch.device) -> Frames:
        """The frames on a device."""
        if isinstance(self.frames, list):
            return [frame.to(device, non_blocking=True) for frame in self.frames]
        return self.frames.to(device, non_blocking=True)

    def pin_memory(self) -> FrameBatch:
        """The same in page-locked memory, from which copies to a GPU overlap with its work."""
        pinned = [f.pin_memory() for f in self.frames] if isinstance(self.frames, list) else self.frames.pin_memory()
        return FrameBatch(self.index, pinned, self.failures)


def collate_frames(items: list[tuple[int, torch.Tensor | Failure]]) -> FrameBatch:
    """A batch of the dataset's items."""
    failures = {index: item.message for index, item in items if isinstance(item, Failure)}
    good = [(index, item) for index, item in items if isinstance(item, torch.Tensor)]
    frames = [item for _, item in good]
    same = len({frame.shape for frame in frames}) == 1
    index = torch.tensor([index for index, _ in good], dtype=torch.int64)
    return FrameBatch(index, torch.stack(frames) if same else frames, failures)


def frame_loader(
    paths: Sequence[str], batch_size: int, workers: int, order: Sampler[int] | None = None, *, pin: bool = False
) -> DataLoader[FrameBatch]:
    """Batches of decoded frames in the order of `paths`, or of `order`; `workers` = 0 decodes in this process."""
    return DataLoader(
        FrameDataset(paths),
        batch_size=batch_size,
        sampler=order,
        num_workers=workers,
        collate_fn=collate_frames,
        pin_memory=pin,
        worker_init_fn=ignore_interrupts,
        persistent_workers=workers > 0,
    )


class EpochOrder(Sampler[int]):
    """A random order of N samples that depends on seed and epoch alone."""

    def __init__(self, size: int, seed: int) -> None:
        self.size, self.seed, self.epoch = size, seed, 0

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[int]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.size)
        return iter(order.tolist())


@dataclass(frozen=True)
class WindowSet:
    """Windows over the embeddings of many videos, which lie behind one another in one array."""

    embedding: torch.Tensor
    """(F, D) float16 or float32, all videos."""
    rows: torch.Tensor
    """int64 (N, L), into `embedding`."""
    labels: torch.Tensor
    """int64 (N, L) or (N, L, C), -1 where a position does not count; (N, 0) where there are none."""

    def __len__(self) -> int:
        return len(self.rows)

    def batches(
        self, batch_size: int, order: Sequence[int] | None = None
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """(B, L, D) float32 and the labels, batch by batch."""
        chosen = torch.arange(len(self)) if order is None else torch.as_tensor(order)
        for part in chosen.split(batch_size):
            yield self.embedding[self.rows[part]].float(), self.labels[part]
