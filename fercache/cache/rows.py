"""The rows of one video: what identifies them, how they lie in HDF5, and the checksum over them.

Legend: F present frames of a video, S skipped ones, D embedding, C classes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import h5py
import numpy as np

DATASETS = ("embedding", "frame", "logits", "skipped")
"""`logits` only where the weights were fine-tuned for a task; `skipped` are frames that could not be decoded."""
BESIDE_EMBEDDING = ("frame", "logits", "skipped")
BLOCK_ROWS = 2048
SCAN_ROWS = 256
"""A block that stays in a processor's cache while it is looked at and hashed."""
FILE_BYTES = 6000
"""Of a video's file beside its rows."""


@dataclass(frozen=True)
class Shape:
    """What each row of a cache is."""

    embedding_dim: int
    dtype: str
    """Of the embeddings: float16 or float32."""
    classes: int | None
    """Logits of a row; None: there are none."""

    @property
    def row_bytes(self) -> int:
        """Of embedding, logits and frame number."""
        return self.embedding_dim * np.dtype(self.dtype).itemsize + 4 * (self.classes or 0) + 4


@dataclass(frozen=True)
class Part:
    """Some rows of a video, in any order."""

    rows: np.ndarray
    """int32 (n,)."""
    embedding: np.ndarray
    """(n, D) in the stored type."""
    logits: np.ndarray | None
    """float32 (n, C)."""


@dataclass(frozen=True)
class Entry:
    """Where a video's rows lie in a file's datasets, and what the file says of them."""

    start: int
    count: int
    skipped_start: int
    skipped_count: int
    source: str
    """SHA-256 of the first present frame's file: other data under the same names has another."""
    checksum: str
    """Of all that there is of the video."""
    checksum_beside: str = ""
    """Of all but the embeddings; "" in files of earlier versions."""

    def of(self, name: str) -> slice:
        """The video's rows in a dataset."""
        if name == "skipped":
            return slice(self.skipped_start, self.skipped_start + self.skipped_count)
        return slice(self.start, self.start + self.count)


def as_stored(embedding: np.ndarray, logits: np.ndarray | None, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings (n, D) in the stored type, and bool (n,): which rows are not finite in it, or in their logits."""
    with np.errstate(over="ignore"):
        stored = embedding.astype(dtype)
    bad = ~np.isfinite(stored).all(axis=1)
    if logits is not None:
        bad |= ~np.isfinite(logits).all(axis=1)
    return stored, bad


def blocks(data: h5py.Dataset, rows: slice, size: int = BLOCK_ROWS) -> Iterator[np.ndarray]:
    """Rows of a dataset, a few at a time."""
    for start in range(rows.start, rows.stop, size):
        yield data[start : min(start + size, rows.stop)]


def all_finite(block: np.ndarray) -> bool:
    """Whether float16 or float32 values, contiguous, have no NaN and no infinity: these have every exponent bit set."""
    if not block.size:
        return True
    if block.dtype == np.float16:
        return int((block.view(np.uint16) & 0x7FFF).max()) < 0x7C00
    return int((block.view(np.uint32) & 0x7FFFFFFF).max()) < 0x7F800000


def content_checksum(
    file: h5py.File,
    entry: Entry,
    names: Sequence[str] = DATASETS,
    look: Callable[[str, np.ndarray], None] = lambda name, block: None,
) -> str:
    """SHA-256 over some of a video's datasets in the order of their names: name, type, shape, bytes.

    It is the same whether the video has its own file or lies in a packed one. `look` is called with each block of
    rows on its way.
    """
    digest = hashlib.sha256()
    for name in names:
        if name in file:
            data, rows = file[name], entry.of(name)
            shape = (rows.stop - rows.start, *data.shape[1:])
            digest.update(f"{name} {data.dtype.str} {shape}\n".encode())
            for block in blocks(data, rows, SCAN_ROWS):
                look(name, block)
                digest.update(np.ascontiguousarray(block).data)
    return digest.hexdigest()
