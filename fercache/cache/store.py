"""What every store is: a form in which a cache lies on disk.

Legend: F present frames of a video, S skipped ones, D embedding, C classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np

from fercache.cache.provenance import CacheRecord
from fercache.cache.rows import Entry, Shape
from fercache.errors import CacheError


class ForeignError(CacheError):
    """A file that belongs to another cache, or to none."""


@dataclass(frozen=True)
class Span:
    """Where a video's rows of one dataset lie: one run of bytes in a file."""

    path: Path
    offset: int
    """Byte of the file at which the first row begins."""
    rows: int
    width: int
    """Values of a row."""
    dtype: np.dtype

    @property
    def row_bytes(self) -> int:
        """Of one row."""
        return self.width * self.dtype.itemsize


class StoredVideo(Protocol):
    """One video of a store, open for reading. Its datasets are `frame`, `skipped`, `embedding` and maybe `logits`."""

    entry: Entry

    @property
    def shape(self) -> Shape:
        """What each row is."""

    @property
    def identity(self) -> tuple[object, ...]:
        """Changes when the file does."""

    def read(self, name: str) -> np.ndarray:
        """A dataset: frame int32 (F,), skipped int32 (S,), embedding (F, D), logits float32 (F, C)."""

    def blocks(self, name: str) -> Iterator[np.ndarray]:
        """The same, a few rows at a time."""

    def span(self, name: str) -> Span:
        """Where `embedding` or `logits` lie."""

    def checksum(self, names: Sequence[str], look: Callable[[str, np.ndarray], None]) -> str:
        """SHA-256 over some datasets, as the entry records it; `look` is called with each block of rows read."""


class Store(ABC):
    """The videos of a cache, read only. Made of the path where it lies; CacheError where it is none of its kind.

    It may be pickled, and keeps no file open.
    """

    title: ClassVar[str]
    """What `fercache cache info` calls it."""
    one_file: ClassVar[bool]
    """Whether all videos lie in one file: no video can be removed from it, or added."""
    record: CacheRecord

    def __init__(self, path: Path) -> None:
        self.path = path

    @staticmethod
    @abstractmethod
    def recognises(path: Path) -> bool:
        """Whether what lies at `path` is for this store to read."""

    @abstractmethod
    def file(self, video_id: str) -> Path:
        """The file that holds a video, or would hold it."""

    @abstractmethod
    def has(self, video_id: str) -> bool:
        """Whether the video exists, whole or not."""

    @abstractmethod
    def video_ids(self) -> list[str]:
        """The videos that exist, whole or not."""

    @abstractmethod
    def open(self, video_id: str) -> AbstractContextManager[StoredVideo]:
        """A video, open for reading for the time of the block.

        CacheError, naming the file, where it does not exist, is not whole, or is another cache's (ForeignError).
        """
