"""Reading the cache. Files are opened for each video and closed again, so a reader may be forked or pickled.

Legend: F present frames, S skipped ones, D embedding, C classes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from fercache.cache.provenance import CacheRecord, Provenance, parse_record, read_record
from fercache.cache.rows import Entry
from fercache.errors import CacheError, raise_problems


class UnreachableError(CacheError):
    """A file that the system does not give us: what is in it may be whole."""


class ForeignError(CacheError):
    """A file that belongs to another cache, or is none of a cache."""


PACKED = "fercache-cache 1"
"""Format of a packed cache."""
TABLE = np.dtype(
    [
        ("video_id", h5py.string_dtype()),
        *((name, "int64") for name in ("start", "count", "skipped_start", "skipped_count")),
        *((name, h5py.string_dtype("ascii", 64)) for name in ("source", "checksum")),
    ]
)
"""A row of its table `videos`: an id, and the fields of its Entry."""


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
    """The embeddings of a data set: a folder with a file a video, or one packed file; and where they come from."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.packed = path.is_file()
        self._table: dict[str, Entry] = {}
        if self.packed:
            self.record, self._table = _read_packed(path)
        else:
            self.record: CacheRecord = read_record(path)

    @property
    def provenance(self) -> Provenance:
        """What made it."""
        return self.record.provenance

    def file(self, video_id: str) -> Path:
        """The file that holds a video."""
        return self.path if self.packed else self.path / f"{video_id}.h5"

    def video_ids(self) -> list[str]:
        """The videos that are there, whole or not: a packed cache's in its order, a folder's by name."""
        if self.packed:
            return list(self._table)
        return sorted(path.stem for path in self.path.glob("*.h5") if not path.name.startswith("."))

    def has(self, video_id: str) -> bool:
        """Whether the video is there, of this cache's fingerprint; CacheError where it is another's."""
        if not (video_id in self._table if self.packed else self.file(video_id).exists()):
            return False
        with self.open(video_id):
            return True

    def check(self, video_ids: Iterable[str], *, allow_missing: bool = False) -> set[str]:
        """Those of the videos that are there.

        Raises CacheError naming every video that is unfinished or of another fingerprint, or missing where that is
        not allowed.
        """
        problems, there = [], set()
        for video_id in video_ids:
            try:
                if self.has(video_id):
                    there.add(video_id)
                elif not allow_missing:
                    problems.append(f"{self.path}: video {video_id} is missing; `fercache extract` makes it")
            except CacheError as error:
                problems.append(str(error))
        raise_problems(problems, CacheError)
        return there

    def frame(self, video_id: str) -> np.ndarray:
        """The frame numbers alone, int32 (F,)."""
        return self._read(video_id, "frame")

    def skipped(self, video_id: str) -> np.ndarray:
        """Frames that could not be decoded and were left out, int32 (S,)."""
        return self._read(video_id, "skipped")

    def entry(self, video_id: str) -> Entry:
        """What the file says of the video."""
        with self.open(video_id) as (_, entry):
            return entry

    def read(self, video_id: str) -> VideoEmbeddings:
        """One video, in memory."""
        with self.open(video_id) as (file, entry):
            rows = entry.of("frame")
            logits = file["logits"][rows] if "logits" in file else None
            return VideoEmbeddings(file["frame"][rows], file["embedding"][rows], logits)

    @contextmanager
    def open(self, video_id: str) -> Iterator[tuple[h5py.File, Entry]]:
        """The open file of a video and where its rows lie; CacheError where it is not whole, or another cache's."""
        path = self.file(video_id)
        with _told_as_unreadable(path), h5py.File(path, "r") as file:
            yield file, self._table[video_id] if self.packed else self._check(path, file)

    def _read(self, video_id: str, name: str) -> np.ndarray:
        with self.open(video_id) as (file, entry):
            return file[name][entry.of(name)]

    def _check(self, path: Path, file: h5py.File) -> Entry:
        """The entry of a video's own file, if it is whole and of this cache."""
        attributes = dict(file.attrs)
        if "schema" not in attributes:
            raise ForeignError(f"{path}: is no video of a cache")
        if not bool(attributes.get("complete", False)):
            raise CacheError(f"{path}: is not complete")
        if str(attributes.get("fingerprint")) != self.provenance.fingerprint:
            raise ForeignError(f"{path}: is of another cache than {self.path}: {self._differences(attributes)}")
        if str(attributes.get("video_id")) != path.stem:
            raise ForeignError(f"{path}: holds video {attributes.get('video_id')!r}: was it renamed?")
        check_datasets(path, file, self.provenance)
        source, checksum = str(attributes.get("source", "")), str(attributes.get("checksum", ""))
        return Entry(0, len(file["frame"]), 0, len(file["skipped"]), source, checksum)

    def _differences(self, attributes: dict[str, Any]) -> str:
        try:
            there = Provenance.from_json(attributes["provenance"])
        except (KeyError, TypeError, ValueError):
            return f"its fingerprint is {attributes.get('fingerprint')}, this cache's {self.provenance.fingerprint}"
        return "; ".join(there.differences(self.provenance)) or "its fingerprint is not that of its record"


@contextmanager
def _told_as_unreadable(path: Path) -> Iterator[None]:
    """What HDF5 and numpy say of files that are damaged, tampered with or out of reach, with the file's name."""
    try:
        yield
    except OSError as error:
        if error.errno:
            raise UnreachableError(f"{path}: cannot be read: {error.strerror or os.strerror(error.errno)}") from error
        raise CacheError(f"{path}: cannot be read: is damaged or no HDF5 file: {_first_line(error)}") from error
    except (RuntimeError, KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
        raise CacheError(f"{path}: cannot be read: is damaged: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def check_datasets(path: Path, file: h5py.File, provenance: Provenance) -> None:
    """Raise CacheError where a dataset is missing."""
    wanted = {"frame", "embedding", "skipped"} | ({"logits"} if provenance.classifier else set())
    missing = sorted(name for name in wanted if not isinstance(file.get(name), h5py.Dataset))
    if missing:
        raise CacheError(f"{path}: is damaged: it has no {', '.join(missing)}")


def _read_packed(path: Path) -> tuple[CacheRecord, dict[str, Entry]]:
    """The record and the table of a packed cache."""
    with _told_as_unreadable(path), h5py.File(path, "r") as file:
        if str(file.attrs.get("format")) != PACKED:
            raise CacheError(f"{path}: is no packed cache (expected format {PACKED!r})")
        record = parse_record(path, file.attrs["record"])
        check_datasets(path, file, record.provenance)
        table = [row.tolist() for row in file["videos"][:]]
        rows, skipped = len(file["frame"]), len(file["skipped"])
        entries = {
            name.decode(): Entry(*where, source.decode(), checksum.decode()) for name, *where, source, checksum in table
        }
    outside = [
        f"{path}: video {video_id}: its rows lie outside the file's {rows}"
        for video_id, entry in entries.items()
        if not (0 <= entry.start <= entry.start + entry.count <= rows)
        or not (0 <= entry.skipped_start <= entry.skipped_start + entry.skipped_count <= skipped)
    ]
    raise_problems(outside, CacheError)
    return record, entries
