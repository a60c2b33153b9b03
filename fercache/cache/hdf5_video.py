"""A video of a store whose files are HDF5.

Legend: F present frames of a video, S skipped ones, D embedding, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np

from fercache.cache.hdf5 import dataset, file_identity
from fercache.cache.provenance import Provenance
from fercache.cache.rows import Entry, Shape, blocks, content_checksum
from fercache.cache.store import Span
from fercache.errors import CacheError, raise_problems
from fercache.tasks import TASKS


class HDF5Video:
    """A `StoredVideo`: the rows of `entry` in the datasets of an open file, which `check_datasets` has passed."""

    def __init__(self, path: Path, file: h5py.File, entry: Entry) -> None:
        self.entry = entry
        self._path, self._file = path, file

    @property
    def identity(self) -> tuple[object, ...]:
        """Changes when the file does."""
        return file_identity(self._file)

    @property
    def shape(self) -> Shape:
        """What each row is."""
        embedding = self._file["embedding"]
        classes = self._file["logits"].shape[1] if "logits" in self._file else None
        return Shape(embedding.shape[1], str(embedding.dtype), classes)

    def read(self, name: str) -> np.ndarray:
        """A dataset."""
        return self._file[name][self.entry.of(name)]

    def blocks(self, name: str) -> Iterator[np.ndarray]:
        """A dataset, a few rows at a time."""
        return blocks(self._file[name], self.entry.of(name))

    def span(self, name: str) -> Span:
        """Where a dataset of rows lies."""
        data, rows = self._file[name], self.entry.of(name)
        # An empty dataset has no place in the file.
        begin = data.id.get_offset() or 0
        row_bytes = data.shape[1] * data.dtype.itemsize
        return Span(self._path, begin + rows.start * row_bytes, rows.stop - rows.start, data.shape[1], data.dtype)

    def checksum(self, names: Sequence[str], look: Callable[[str, np.ndarray], None]) -> str:
        """SHA-256 over some datasets."""
        return content_checksum(self._file, self.entry, names, look)


def check_datasets(path: Path, file: h5py.File, provenance: Provenance) -> tuple[int, int]:
    """How many rows and skipped frames a file has; CacheError with all datasets that are not what a cache has."""
    rows = len(dataset(path, file, "frame", "int32", (None,)))
    classes = len(TASKS[provenance.task].classes) if provenance.task in TASKS else None
    expected = {"skipped": ("int32", (None,)), "embedding": (provenance.dtype, (rows, None))}
    if provenance.classifier:
        expected["logits"] = ("float32", (rows, classes))
    problems = []
    for name, (dtype, shape) in expected.items():
        try:
            dataset(path, file, name, dtype, shape)
        except CacheError as error:
            problems.append(str(error))
    raise_problems(problems, CacheError)
    return rows, len(file["skipped"])
