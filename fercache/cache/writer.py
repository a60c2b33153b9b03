"""Writing one video's embeddings into the cache, whole or not at all.

Legend: F present frames, D embedding, C classes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import h5py
import numpy as np

from fercache.cache.provenance import SCHEMA
from fercache.errors import CacheError, DataError
from fercache.files import replacing


@contextmanager
def video_writer(
    path: Path, fingerprint: str, frame: np.ndarray, embedding_dim: int, dtype: str, classes: int | None
) -> Iterator[VideoWriter]:
    """A writer for the video whose present frames are `frame`, int (F,); `classes` = None caches no logits.

    The file appears under its name when the block ends well, and not before; CacheError where rows
    are missing then.
    """
    with replacing(path) as temporary:
        file = h5py.File(temporary, "w")
        try:
            with _told(path):
                file.attrs.update(schema=SCHEMA, fingerprint=fingerprint, complete=False)
                file.create_dataset("frame", data=frame.astype(np.int32))
                # Contiguous and uncompressed: single rows are read at the disk's speed.
                file.create_dataset("embedding", (len(frame), embedding_dim), dtype)
                if classes is not None:
                    file.create_dataset("logits", (len(frame), classes), "float32")
            writer = VideoWriter(file, path)
            yield writer
            if writer.rows != len(frame):
                raise CacheError(f"{path}: {writer.rows} of {len(frame)} rows were written")
            with _told(path):
                file.attrs["complete"] = True
                file.close()
        except BaseException:
            # The file is thrown away, and closing it may fail for the same reason as writing it.
            with suppress(RuntimeError, OSError):
                file.close()
            raise


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """HDF5's errors in writing, of a full disk above all, with the file's name."""
    try:
        yield
    except (RuntimeError, OSError) as error:
        errno = getattr(error, "errno", None)
        reason = os.strerror(errno) if errno else str(error).splitlines()[0]
        raise CacheError(f"{path}: cannot be written: {reason}") from error


class VideoWriter:
    """Takes rows in the order of the frames."""

    def __init__(self, file: h5py.File, path: Path) -> None:
        self.file, self.path, self.rows = file, path, 0

    def append(self, embedding: np.ndarray, logits: np.ndarray | None) -> None:
        """The next rows: float (n, D) and float (n, C).

        DataError where a number is not finite in the stored type, CacheError where the disk does not take them.
        """
        end = self.rows + len(embedding)
        with np.errstate(over="ignore"):
            stored = embedding.astype(self.file["embedding"].dtype)
        bad = ~np.isfinite(stored).all(axis=1)
        if logits is not None:
            bad |= ~np.isfinite(logits).all(axis=1)
        if bad.any():
            number = self.file["frame"][self.rows : end][bad][0]
            raise DataError(f"the embedding or the logits of frame {number} are not finite in {stored.dtype}")
        with _told(self.path):
            self.file["embedding"][self.rows : end] = stored
            if logits is not None:
                self.file["logits"][self.rows : end] = logits
        self.rows = end
