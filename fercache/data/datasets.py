"""Which samples make up a batch, and work done ahead of its use.

Legend: N samples.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from torch.utils.data import Sampler

MIXED_BLOCKS = 16
"""Blocks whose samples are mixed, where they are shuffled in blocks."""
Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(indices: Sequence[int] | range, batch_size: int) -> list[list[int]]:
    """The indices in batches; the last one may be smaller."""
    return [list(indices[start : start + batch_size]) for start in range(0, len(indices), batch_size)]


def share_of(count: int, rank: int, ranks: int) -> list[int]:
    """The indices from 0 to `count` - 1 that are a rank's, neighbours together; all ranks have equally many.

    Each index is some rank's. Where `count` does not divide, the last rank is filled up with the first indices.
    """
    each = -(-count // ranks)
    return [index % count for index in range(rank * each, (rank + 1) * each)]


class EpochBatches(Sampler[list[int]]):
    """An epoch's steps: N samples in random order, dealt into steps and among ranks.

    The order depends on seed and epoch alone, and with `block` it is that of `in_blocks`. The steps are as even
    as possible, at most `batch_size` samples over all ranks: no small last batch spoils a batch norm's statistics.
    Each sample is in one step of one rank. ValueError where some step would leave a rank without a sample.
    """

    def __init__(
        self, samples: int, batch_size: int, seed: int, rank: int = 0, ranks: int = 1, block: int | None = None
    ) -> None:
        self.samples, self.seed, self.rank, self.ranks, self.block = samples, seed, rank, ranks, block
        self.steps = -(-samples // batch_size)
        if samples // self.steps < ranks:
            raise ValueError(f"{samples} samples in {self.steps} steps are too few for {ranks} ranks")
        self.epoch = self.first_step = 0

    def __len__(self) -> int:
        return self.steps - self.first_step

    def start(self, epoch: int, step: int = 0) -> EpochBatches:
        """These batches, from a step of an epoch on."""
        self.epoch, self.first_step = epoch, step
        return self

    def __iter__(self) -> Iterator[list[int]]:
        random = np.random.default_rng([self.seed, self.epoch])
        order = random.permutation(self.samples) if self.block is None else in_blocks(self.samples, self.block, random)
        for part in np.array_split(order, self.steps)[self.first_step :]:
            yield part[self.rank :: self.ranks].tolist()


def in_blocks(samples: int, block: int, random: np.random.Generator) -> np.ndarray:
    """A random order of 0..N-1, int64 (N,), that reads neighbours soon after one another.

    Blocks of `block` neighbours come in a random order, and the samples of each `MIXED_BLOCKS` of them in turn
    in a random order. So at any time only that part of the data is read, and each part once an epoch.
    """
    blocks = np.split(np.arange(samples), np.arange(block, samples, block))
    chosen = [blocks[index] for index in random.permutation(len(blocks))]
    groups = (chosen[start : start + MIXED_BLOCKS] for start in range(0, len(chosen), MIXED_BLOCKS))
    return np.concatenate([random.permutation(np.concatenate(group)) for group in groups])


def ahead(items: Iterable[Item], work: Callable[[Item], Result], *, active: bool) -> Iterator[Result]:
    """`work` on each item in turn; where `active`, on the next one in a thread while the last one is used."""
    if not active:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(1) as pool:
        waiting: deque[Future[Result]] = deque()
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > 1:
                yield waiting.popleft().result()
        yield from (future.result() for future in waiting)
