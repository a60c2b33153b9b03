"""The store in one file, the packed cache: quicker to copy, and to read in any order.

Legend: N rows of all videos, D embedding, C classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import h5py
import numpy as np

from fercache.cache.hdf5 import dataset, file_identity, opened, reserved, text
from fercache.cache.hdf5_video import HDF5Video, check_datasets
from fercache.cache.provenance import CacheRecord, parse_record
from fercache.cache.rows import DATASETS, Entry, Shape
from fercache.cache.store import Store
from fercache.cache.writer import create_datasets
from fercache.errors import CacheError, raise_problems

PACKED_FORMAT = "fercache-cache 1"
TABLE = np.dtype(
    [
        ("video_id", h5py.string_dtype()),
        *((name, "int64") for name in ("start", "count", "skipped_start", "skipped_count")),
        *((name, h5py.string_dtype("ascii", 64)) for name in ("source", "checksum", "checksum_beside")),
    ]
)
"""A row of the table `videos`: an id, and the fields of its Entry."""
TABLE_BEFORE = np.dtype([(name, TABLE[name]) for name in TABLE.names or () if name != "checksum_beside"])
"""The same in files of earlier versions."""
TABLE_ROW_BYTES = TABLE.itemsize + 512
"""Of a video in the table, with its id of at most 255 bytes beside it."""


class PackedStore(Store):
    """One HDF5 file: each dataset is contiguous over all videos, and a table says which rows are whose."""

    title: ClassVar[str] = "packed"
    one_file: ClassVar[bool] = True

    def __init__(self, path: Path) -> None:
        self.path = path
        with opened(path) as file:
            self._identity = file_identity(file)
            self.record, self._entries = _read_table(path, file)

    @staticmethod
    def recognises(path: Path) -> bool:
        """Whether it is a file."""
        return path.is_file()

    def file(self, video_id: str) -> Path:
        """The one file."""
        return self.path

    def has(self, video_id: str) -> bool:
        """Whether the video is in the table."""
        return video_id in self._entries

    def video_ids(self) -> list[str]:
        """The videos in their order in the file."""
        return list(self._entries)

    @contextmanager
    def open(self, video_id: str) -> Iterator[HDF5Video]:
        """A video, open for reading."""
        with opened(self.path) as file:
            if file_identity(file) != self._identity:
                record, self._entries = _read_table(self.path, file)
                if record.provenance != self.record.provenance:
                    raise CacheError(f"{self.path}: was replaced by another cache while it was being read")
                self._identity = file_identity(file)
            if video_id not in self._entries:
                raise CacheError(f"{self.path}: has no video {video_id}")
            yield HDF5Video(self.path, file, self._entries[video_id])


def _read_table(path: Path, file: h5py.File) -> tuple[CacheRecord, dict[str, Entry]]:
    """The record, and the entry of each video; CacheError where the file is no packed cache, or is damaged."""
    if text(path, file, "format", "") != PACKED_FORMAT:
        raise CacheError(f"{path}: is no packed cache (expected format {PACKED_FORMAT!r})")
    record = parse_record(path, text(path, file, "record"))
    rows, skipped = check_datasets(path, file, record.provenance)
    table = _table_rows(path, file)
    entries = {video_id: Entry(*fields) for video_id, *fields in table}
    counts = Counter(video_id for video_id, *_ in table)
    problems = [f"{path}: video {video_id}: duplicate" for video_id, count in counts.items() if count > 1]
    problems += [
        f"{path}: video {video_id}: its rows lie outside the file's {rows}"
        for video_id, entry in entries.items()
        if not (0 <= entry.start <= entry.start + entry.count <= rows)
        or not (0 <= entry.skipped_start <= entry.skipped_start + entry.skipped_count <= skipped)
    ]
    raise_problems(problems, CacheError)
    return record, entries


def _table_rows(path: Path, file: h5py.File) -> list[tuple]:
    """Video id and fields of the entry, of each video."""
    try:
        data = dataset(path, file, "videos", TABLE, (None,))
    except CacheError:
        data = dataset(path, file, "videos", TABLE_BEFORE, (None,))
    if h5py.check_string_dtype(data.dtype["video_id"]) is None:
        raise CacheError(f"{path}: is damaged: the ids in /videos are no text")
    return [tuple(value.decode() if isinstance(value, bytes) else value for value in row.tolist()) for row in data[:]]


def write_packed(path: Path, store: Store, video_ids: Sequence[str]) -> None:
    """Write some videos of a store, one after another, as the packed cache `path`.

    CacheError where their rows have different shapes, or the disk does not take them.
    """
    shapes: set[Shape] = set()
    entries: list[Entry] = []
    start = skipped_start = 0
    for video_id in video_ids:
        with store.open(video_id) as video:
            shapes.add(video.shape)
            entries.append(replace(video.entry, start=start, skipped_start=skipped_start))
            start, skipped_start = start + video.entry.count, skipped_start + video.entry.skipped_count
    if len(shapes) != 1:
        raise CacheError(f"{path}: the videos have rows of different shapes: {sorted(map(str, shapes))}")
    (shape,) = shapes
    size = shape.row_bytes * start + 4 * skipped_start + TABLE_ROW_BYTES * len(video_ids)
    with reserved(path, size) as file:
        create_datasets(file, shape, start, skipped_start)
        for video_id, entry in zip(video_ids, entries, strict=True):
            _copy(store, video_id, file, entry)
        rows = [
            (video_id, e.start, e.count, e.skipped_start, e.skipped_count, e.source, e.checksum, e.checksum_beside)
            for video_id, e in zip(video_ids, entries, strict=True)
        ]
        file["videos"] = np.array(rows, dtype=TABLE)
        file.attrs.update(format=PACKED_FORMAT, record=store.record.as_json(), complete=True)


def _copy(store: Store, video_id: str, file: h5py.File, entry: Entry) -> None:
    """Write a video's rows to the rows of `entry` in `file`."""
    with store.open(video_id) as video:
        for name in DATASETS:
            if name in file:
                start = entry.of(name).start
                for block in video.blocks(name):
                    file[name][start : start + len(block)] = block
                    start += len(block)
