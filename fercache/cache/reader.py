"""Reading the cache. Files are opened for each video and closed again, so a reader may be forked or pickled.

Legend: F present frames, D embedding, C classes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from fercache.cache.provenance import Provenance, read_provenance
from fercache.errors import CacheError, raise_problems


@dataclass(frozen=True)
class VideoEmbeddings:
    """The cache of one video."""

    frame: np.ndarray
    """int32 (F,), from 1, ascending; a number that is missing is a frame without a face."""
    embedding: np.ndarray
    """float16 or float32 (F, D)."""
    logits: np.ndarray | None
    """float32 (F, C), where the cache comes from a fine-tuned network."""


class Cache:
    """The embeddings of a data set: a file a video, and one record of where they come from."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.provenance: Provenance = read_provenance(folder)

    def path(self, video_id: str) -> Path:
        """The file of a video."""
        return self.folder / f"{video_id}.h5"

    def has(self, video_id: str) -> bool:
        """Whether the video is there, of this cache's fingerprint; CacheError where it is another's."""
        if not self.path(video_id).exists():
            return False
        with self._open(video_id):
            return True

    def check(self, video_ids: Iterable[str]) -> None:
        """Raise CacheError naming every video that is missing, unfinished or of another fingerprint."""
        problems = []
        for video_id in video_ids:
            try:
                if not self.has(video_id):
                    problems.append(f"{self.folder}: video {video_id} is missing; `fercache extract` makes it")
            except CacheError as error:
                problems.append(str(error))
        raise_problems(problems, CacheError)

    def frame(self, video_id: str) -> np.ndarray:
        """The frame numbers alone, int32 (F,)."""
        with self._open(video_id) as file:
            return file["frame"][:]

    def read(self, video_id: str, *, embedding: bool = True) -> VideoEmbeddings:
        """One video; `embedding=False` leaves the embeddings on disk (they come as (F, 0))."""
        with self._open(video_id) as file:
            logits = file["logits"][:] if "logits" in file else None
            wanted = file["embedding"][:] if embedding else np.empty((len(file["frame"]), 0), np.float32)
            return VideoEmbeddings(file["frame"][:], wanted, logits)

    def read_into(self, video_id: str, target: np.ndarray) -> None:
        """The embeddings of a video straight into an array (F, D) of the cache's type."""
        with self._open(video_id) as file:
            if len(target):
                file["embedding"].read_direct(target)

    def embedding_dim(self, video_id: str) -> int:
        """D."""
        with self._open(video_id) as file:
            return int(file["embedding"].shape[1])

    def _open(self, video_id: str) -> h5py.File:
        path = self.path(video_id)
        try:
            file = h5py.File(path, "r")
        except OSError as error:
            raise CacheError(f"{path}: cannot be read: {error}") from error
        found, complete = file.attrs.get("fingerprint"), file.attrs.get("complete", False)
        wanted = {"frame", "embedding"} | ({"logits"} if self.provenance.classifier else set())
        missing = wanted - set(file)
        if found == self.provenance.fingerprint and complete and not missing:
            return file
        file.close()
        if missing:
            raise CacheError(f"{path}: is damaged: it has no {', '.join(sorted(missing))}")
        why = (
            "is not complete" if not complete else f"has fingerprint {found}, this cache {self.provenance.fingerprint}"
        )
        raise CacheError(f"{path}: {why}")
