"""Reading the cache. Files are opened for each video and closed again, so a reader may be forked or pickled.

Legend: F present frames of a video, S skipped ones, D embedding, C classes.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fercache.cache.folder import FolderStore
from fercache.cache.hdf5 import check_frames
from fercache.cache.packed import PackedStore
from fercache.cache.provenance import CacheRecord, Provenance
from fercache.cache.rows import Entry
from fercache.cache.store import Store, StoredVideo
from fercache.errors import CacheError, raise_problems

STORES: dict[str, type[Store]] = {"folder": FolderStore, "packed": PackedStore}
"""The registry of stores; the last that recognises a path reads it. A new store is a `Store` in a file of its own, and
an entry here."""


@dataclass(frozen=True)
class VideoEmbeddings:
    """The cache of one video."""

    frame: np.ndarray
    """int32 (F,), from 1, ascending; a number that is missing is a frame without a face, or one that was skipped."""
    embedding: np.ndarray
    """float16 or float32 (F, D)."""
    logits: np.ndarray | None
    """float32 (F, C), where the cache comes from a fine-tuned network."""


class Cache:
    """The embeddings of a data set, and where they come from; CacheError where `path` is no cache."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store = next(store for store in reversed(STORES.values()) if store.recognises(path))(path)

    @property
    def record(self) -> CacheRecord:
        """What made it, and what was recorded beside that."""
        return self.store.record

    @property
    def provenance(self) -> Provenance:
        """What made it."""
        return self.store.record.provenance

    def file(self, video_id: str) -> Path:
        """The file that holds a video."""
        return self.store.file(video_id)

    def video_ids(self) -> list[str]:
        """The videos that exist, whole or not: a packed cache's in its order, a folder's by name."""
        return self.store.video_ids()

    def has(self, video_id: str) -> bool:
        """Whether the video exists, with this cache's fingerprint; CacheError where it is another's."""
        if not self.store.has(video_id):
            return False
        with self.open(video_id):
            return True

    def check(self, video_ids: Iterable[str], *, allow_missing: bool = False) -> set[str]:
        """Those of the videos that exist.

        Raises CacheError naming every video that is unfinished or of another fingerprint, or missing where that is
        not allowed.
        """
        problems, present = [], set()
        for video_id in video_ids:
            try:
                if self.has(video_id):
                    present.add(video_id)
                elif not allow_missing:
                    problems.append(f"{self.path}: video {video_id} is missing; `fercache extract` makes it")
            except CacheError as error:
                problems += error.problems
        raise_problems(problems, CacheError)
        return present

    def frame(self, video_id: str) -> np.ndarray:
        """The frame numbers alone, int32 (F,)."""
        return self._frame_numbers(video_id, "frame")

    def skipped(self, video_id: str) -> np.ndarray:
        """Frames that could not be decoded and were skipped, int32 (S,)."""
        return self._frame_numbers(video_id, "skipped")

    def entry(self, video_id: str) -> Entry:
        """What the file records of the video."""
        with self.open(video_id) as video:
            return video.entry

    def read(self, video_id: str) -> VideoEmbeddings:
        """One video, in memory."""
        with self.open(video_id) as video:
            logits = None if video.shape.classes is None else video.read("logits")
            return VideoEmbeddings(video.read("frame"), video.read("embedding"), logits)

    def open(self, video_id: str) -> AbstractContextManager[StoredVideo]:
        """A video, open for reading; CacheError where it is not whole, or another cache's."""
        return self.store.open(video_id)

    def _frame_numbers(self, video_id: str, name: str) -> np.ndarray:
        with self.open(video_id) as video:
            numbers = video.read(name)
        check_frames(f"{self.file(video_id)}: video {video_id}: /{name}", numbers)
        return numbers
