"""Reading the cache. Files are opened for each video and closed again, so a reader may be forked or pickled.

Legend: F present frames, S skipped ones, D embedding, C classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from fercache.cache.hdf5 import check_frames, dataset, file_identity, numbers, opened, text
from fercache.cache.provenance import CacheRecord, Provenance, parse_record, read_record
from fercache.cache.rows import Entry
from fercache.errors import CacheError, raise_problems
from fercache.tasks import TASKS


class ForeignError(CacheError):
    """A file that belongs to another cache, or is none of a cache."""


PACKED = "fercache-cache 1"
"""Format of a packed cache."""
TABLE = np.dtype(
    [
        ("video_id", h5py.string_dtype()),
        *((name, "int64") for name in ("start", "count", "skipped_start", "skipped_count")),
        *((name, h5py.string_dtype("ascii", 64)) for name in ("source", "checksum", "checksum_beside")),
    ]
)
"""A row of its table `videos`: an id, and the fields of its Entry."""
TABLE_BEFORE = np.dtype([(name, TABLE[name]) for name in TABLE.names if name != "checksum_beside"])
"""The same in files of earlier versions."""


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
        # What was checked in files that are still the same, since a stage opens each of them several times.
        self._checked: dict[Path, tuple[tuple[int, ...], Entry | None]] = {}
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
        with opened(path) as file:
            own = self._checked_once(path, file)
            if own is None and video_id not in self._table:
                raise CacheError(f"{path}: has no video {video_id}")
            yield file, own or self._table[video_id]

    def _read(self, video_id: str, name: str) -> np.ndarray:
        """Frame numbers, int32."""
        with self.open(video_id) as (file, entry):
            frame = file[name][entry.of(name)]
        check_frames(f"{self.file(video_id)}: video {video_id}: /{name}", frame)
        return frame

    def _checked_once(self, path: Path, file: h5py.File) -> Entry | None:
        """The entry of a video's own file; a packed cache's files have theirs in the table."""
        identity = file_identity(file)
        if self._checked.get(path, ((),))[0] != identity:
            self._checked[path] = identity, self._check(path, file)
        return self._checked[path][1]

    def _check(self, path: Path, file: h5py.File) -> Entry | None:
        """CacheError unless the file is whole and of this cache."""
        if self.packed:
            check_datasets(path, file, self.provenance)
            return None
        if "schema" not in file.attrs:
            raise ForeignError(f"{path}: is no video of a cache")
        if "complete" not in file.attrs or not numbers(path, file, "complete", ()):
            raise CacheError(f"{path}: is not complete")
        fingerprint, video_id = text(path, file, "fingerprint", ""), text(path, file, "video_id", "")
        if fingerprint != self.provenance.fingerprint:
            raise ForeignError(f"{path}: is of another cache than {self.path}: {self._differences(path, file)}")
        if video_id != path.stem:
            raise ForeignError(f"{path}: holds video {video_id!r}: was it renamed?")
        rows, skipped = check_datasets(path, file, self.provenance)
        checksums = (text(path, file, name, "") for name in ("source", "checksum", "checksum_beside"))
        return Entry(0, rows, 0, skipped, *checksums)

    def _differences(self, path: Path, file: h5py.File) -> str:
        try:
            other = Provenance.from_json(text(path, file, "provenance"))
        except (CacheError, TypeError, ValueError):
            return (
                f"its fingerprint is {text(path, file, 'fingerprint', '')}, this cache's {self.provenance.fingerprint}"
            )
        return "; ".join(other.differences(self.provenance)) or "its fingerprint is not that of its record"


def check_datasets(path: Path, file: h5py.File, provenance: Provenance) -> tuple[int, int]:
    """How many rows and skipped frames a file has; CacheError with all datasets that are not what a cache has."""
    rows = len(dataset(path, file, "frame", "int32", (None,)))
    classes = len(TASKS[provenance.task].classes) if provenance.task in TASKS else None
    wanted = {"skipped": ("int32", (None,)), "embedding": (provenance.dtype, (rows, None))}
    if provenance.classifier:
        wanted["logits"] = ("float32", (rows, classes))
    problems = []
    for name, (dtype, shape) in wanted.items():
        try:
            dataset(path, file, name, dtype, shape)
        except CacheError as error:
            problems.append(str(error))
    raise_problems(problems, CacheError)
    return rows, len(file["skipped"])


def _read_packed(path: Path) -> tuple[CacheRecord, dict[str, Entry]]:
    """The record and the table of a packed cache."""
    with opened(path) as file:
        if text(path, file, "format", "") != PACKED:
            raise CacheError(f"{path}: is no packed cache (expected format {PACKED!r})")
        record = parse_record(path, text(path, file, "record"))
        rows, skipped = check_datasets(path, file, record.provenance)
        table = _read_table(path, file)
    entries = {video_id: Entry(*fields) for video_id, *fields in table}
    problems = [f"{path}: video {video_id}: is there twice" for video_id in _duplicates([row[0] for row in table])]
    problems += [
        f"{path}: video {video_id}: its rows lie outside the file's {rows}"
        for video_id, entry in entries.items()
        if not (0 <= entry.start <= entry.start + entry.count <= rows)
        or not (0 <= entry.skipped_start <= entry.skipped_start + entry.skipped_count <= skipped)
    ]
    raise_problems(problems, CacheError)
    return record, entries


def _read_table(path: Path, file: h5py.File) -> list[tuple]:
    """Video id and fields of the entry, of each video."""
    try:
        data = dataset(path, file, "videos", TABLE, (None,))
    except CacheError:
        data = dataset(path, file, "videos", TABLE_BEFORE, (None,))
    if h5py.check_string_dtype(data.dtype["video_id"]) is None:
        raise CacheError(f"{path}: is damaged: the ids in /videos are no text")
    return [tuple(value.decode() if isinstance(value, bytes) else value for value in row.tolist()) for row in data[:]]


def _duplicates(names: Sequence[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]
