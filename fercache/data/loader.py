"""Frames as batches, decoded in worker processes. A worker that dies or cannot hand over is answered, not waited for.

Legend: B batch, H x W pixels of a stored frame.
"""

from __future__ import annotations

import logging
import multiprocessing
import signal
from collections import deque
from collections.abc import Iterable, Iterator, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from multiprocessing.process import BaseProcess
from typing import NoReturn

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from fercache.data.datasets import in_order
from fercache.data.images import DecodedImage, ImageSurvey, read_image
from fercache.errors import DataError, RunError, raise_problems
from fercache.runtime import (
    SHARED_MEMORY,
    begin_worker,
    decoding_workers,
    end_workers_at_exit,
    keep_child_signal,
)

log = logging.getLogger(__name__)

CAUSES = {
    signal.SIGKILL: "as the system does where memory is short",
    signal.SIGBUS: f"as where {SHARED_MEMORY} is full",
    signal.SIGSEGV: "as where a decoder crashes on a file",
}
"""What usually sends a signal that ends a worker."""
Frames = torch.Tensor | list[torch.Tensor]
"""Frames of a batch: uint8 (B, 3, H, W), RGB; a list of (3, H, W) where their sizes differ."""


@dataclass(frozen=True)
class FrameBatch:
    """The frames that could be decoded, and those that could not."""

    index: torch.Tensor
    """int64 (B,): which of the loader's paths."""
    frames: Frames
    failures: dict[int, str]
    """Index of a path -> what is wrong with the file."""

    def to(self, device: torch.device) -> Frames:
        """The frames on a device."""
        if isinstance(self.frames, list):
            return [frame.to(device, non_blocking=True) for frame in self.frames]
        return self.frames.to(device, non_blocking=True)


@dataclass(frozen=True)
class PackedBatch:
    """A batch on its way between processes: all pixels in one tensor, which is one file of shared memory."""

    index: tuple[int, ...]
    sizes: tuple[tuple[int, int], ...]
    """Height and width of each frame."""
    pixels: torch.Tensor | None
    """uint8, flat: the frames' (H, W, 3) one after another. None: shared memory had no room for them."""
    failures: dict[int, str]
    reoriented: tuple[int, ...]
    """Indices of frames whose EXIF orientation was applied."""

    def pin_memory(self) -> PackedBatch:
        """The same in page-locked memory, from which copies to a GPU overlap with its work."""
        return self if self.pixels is None else replace(self, pixels=self.pixels.pin_memory())

    def unpack(self) -> FrameBatch:
        """The batch; its frames are views, channels last."""
        assert self.pixels is not None
        parts = self.pixels.split([3 * height * width for height, width in self.sizes])
        frames: Frames = [
            part.view(height, width, 3).permute(2, 0, 1)
            for part, (height, width) in zip(parts, self.sizes, strict=True)
        ]
        if len(set(self.sizes)) == 1:
            frames = self.pixels.view(len(parts), *self.sizes[0], 3).permute(0, 3, 1, 2)
        return FrameBatch(torch.tensor(self.index, dtype=torch.int64), frames, self.failures)


class FrameDataset(Dataset[PackedBatch]):
    """Frames by lists of indices: an item is a whole batch."""

    def __init__(self, paths: Sequence[str]) -> None:
        self.paths = paths
        self._cannot_hand_over = False

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, indices: list[int]) -> PackedBatch:
        """A decoded batch; in a worker its pixels are moved to shared memory here, where a failure can be answered."""
        if self._cannot_hand_over:
            return PackedBatch((), (), None, {}, ())
        batch = self.decode(indices)
        if get_worker_info() is not None and batch.index and batch.pixels is not None:
            try:
                batch.pixels.share_memory_()
            except RuntimeError:  # torch's, of a full disk
                # The main process decodes what this worker cannot hand over, now and later.
                self._cannot_hand_over = True
                return self[indices]
        return batch

    def decode(self, indices: Sequence[int], pool: ThreadPoolExecutor | None = None) -> PackedBatch:
        """A batch in this process; the threads of a `pool` share the work."""
        results = list(zip(indices, (pool.map if pool else map)(self._read, indices), strict=True))
        images = [(index, image) for index, image in results if isinstance(image, DecodedImage)]
        pixels = [torch.from_numpy(image.pixels).view(-1) for _, image in images]
        return PackedBatch(
            index=tuple(index for index, _ in images),
            sizes=tuple(image.pixels.shape[:2] for _, image in images),
            pixels=torch.cat(pixels) if pixels else torch.empty(0, dtype=torch.uint8),
            failures={index: problem for index, problem in results if isinstance(problem, str)},
            reoriented=tuple(index for index, image in images if image.reoriented),
        )

    def _read(self, index: int) -> DecodedImage | str:
        """An image, or what is wrong with its file: the caller decides what a broken frame means."""
        try:
            return read_image(self.paths[index])
        except DataError as error:
            return str(error)


class FrameLoader:
    """Decoded frames by their indices in `paths`, a list of indices a batch; may be iterated again, as for each epoch.

    `workers` processes decode ahead; 0 decodes in this process, and so does what shared memory has no room for, with
    as many threads. RunError within seconds where a worker was killed. What is unusual about the images is logged at
    the end, once for a `survey`.
    """

    def __init__(
        self,
        paths: Sequence[str],
        batches: Iterable[list[int]],
        workers: int,
        *,
        pin: bool = False,
        survey: ImageSurvey | None = None,
    ) -> None:
        self._dataset, self._batches = FrameDataset(paths), batches
        self._workers = workers if workers and _can_share(workers) else 0
        self._pin, self._survey = pin, survey or ImageSurvey(paths)
        self._issued: deque[list[int]] = deque()
        """Batches that were begun, in the order in which they are returned."""
        self._processes: set[BaseProcess] = set()

    def __len__(self) -> int:
        assert isinstance(self._batches, Sized)
        return len(self._batches)

    def __iter__(self) -> Iterator[FrameBatch]:
        """The batches, whose loading begins at once."""
        self._issued.clear()
        return self._unpacked(self._start())

    def _unpacked(self, items: Iterator[PackedBatch]) -> Iterator[FrameBatch]:
        while (packed := self._next(items)) is not None:
            indices = self._issued.popleft()
            if packed.pixels is None:
                packed = self._decode_here(indices)
            for index, (height, width) in zip(packed.index, packed.sizes, strict=True):
                self._survey.add(index, width, height, index in packed.reoriented)
            yield packed.unpack()
        self._survey.report()

    @cached_property
    def _loader(self) -> DataLoader[PackedBatch]:
        return DataLoader(
            self._dataset,
            batch_size=None,
            sampler=_Recorded(self._batches, self._issued),
            num_workers=self._workers,
            collate_fn=_unchanged,  # type: ignore[arg-type]
            pin_memory=self._pin,
            worker_init_fn=begin_worker,
            multiprocessing_context=start_method(self._pin) if self._workers else None,
            persistent_workers=self._workers > 0,
            # The loader's own random numbers choose nothing here; the network's stay untouched.
            generator=torch.Generator(),
        )

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        log.warning(
            "%s has no room for a batch: frames are decoded in threads of this process, which takes longer; more room,"
            " or smaller batches, would change that",
            SHARED_MEMORY,
        )
        return ThreadPoolExecutor(max(1, self._workers), "decode")

    def _start(self) -> Iterator[PackedBatch]:
        if not self._workers:
            return iter(self._loader)
        end_workers_at_exit()
        before = set(multiprocessing.active_children())
        # torch would raise in the main thread wherever it is when a worker dies; it also looks while it waits.
        with keep_child_signal():
            try:
                return iter(self._loader)
            finally:
                self._processes |= set(multiprocessing.active_children()) - before

    def _next(self, items: Iterator[PackedBatch]) -> PackedBatch | None:
        try:
            return next(items, None)
        except (RuntimeError, OSError, EOFError) as error:
            self._raise_dead_worker(error)

    def _raise_dead_worker(self, error: Exception) -> NoReturn:
        for process in self._processes:
            process.join(1)
            if process.exitcode:
                raise RunError(
                    f"{_death(process.exitcode)}, {self._where()}; `workers: 0` decodes without it"
                ) from error
        raise error

    def _where(self) -> str:
        return f"at or after {self._dataset.paths[self._issued[0][0]]}" if self._issued else "at the end"

    def _decode_here(self, indices: list[int]) -> PackedBatch:
        batch = self._dataset.decode(indices, self._pool)
        return batch.pin_memory() if self._pin else batch


def raise_bad_frames(parts: Iterable[Sequence[str]], workers: int | None) -> NoReturn:
    """A frame among these files is broken: look at all, so that nobody mends them one run at a time; DataError."""
    log.warning("a frame cannot be decoded; looking for others")
    problems: list[str] = []
    for paths in parts:
        for batch in FrameLoader(paths, in_order(range(len(paths)), 256), decoding_workers(workers)):
            problems += batch.failures.values()
    raise_problems(problems, DataError)
    raise DataError("a frame could not be decoded, and now all can: were they changed meanwhile?")


class _Recorded:
    """Batches that are noted down as they are handed out."""

    def __init__(self, batches: Iterable[list[int]], issued: deque[list[int]]) -> None:
        self._batches, self._issued = batches, issued

    def __iter__(self) -> Iterator[list[int]]:
        for indices in self._batches:
            self._issued.append(indices)
            yield indices


def start_method(on_gpu: bool) -> str:
    """How decoding processes begin: a copy of this process, or of a small one where CUDA lives in this process.

    CUDA does not survive a copy, and copies of page-locked memory and of its driver's threads are best not made.
    """
    if not on_gpu and not torch.cuda.is_initialized():
        return "fork"
    multiprocessing.set_forkserver_preload(["fercache.data.fork_server"])
    return "forkserver"


def _unchanged(batch: PackedBatch) -> PackedBatch:
    return batch


def _death(exitcode: int) -> str:
    if exitcode > 0:
        return f"a process that decodes frames ended with status {exitcode}"
    number = signal.Signals(-exitcode)
    cause = f" ({CAUSES[number]})" if number in CAUSES else ""
    return f"a process that decodes frames was killed by {number.name}{cause}"


def _can_share(workers: int) -> bool:
    """Whether so many processes can share work here: the locks of torch's loader lie in shared memory, too."""
    try:
        [multiprocessing.Lock() for _ in range(3 * workers + 8)]
    except OSError as error:
        log.warning("%s: %s: frames are decoded in this process, which takes longer", SHARED_MEMORY, error.strerror)
        return False
    return True
