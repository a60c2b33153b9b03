"""The store in which each video has a file of its own: the one that extraction writes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import h5py

from fercache.cache.hdf5 import file_identity, numbers, opened, text
from fercache.cache.hdf5_video import HDF5Video, check_datasets
from fercache.cache.provenance import Provenance, read_record
from fercache.cache.rows import Entry
from fercache.cache.store import ForeignError, Store
from fercache.errors import CacheError


class FolderStore(Store):
    """`provenance.json` and a file `<video_id>.h5` for each video."""

    title: ClassVar[str] = "a file a video"
    one_file: ClassVar[bool] = False

    def __init__(self, path: Path) -> None:
        self.path = path
        self.record = read_record(path)
        # By path and identity: a stage opens each file several times, and has it checked once.
        self._entries: dict[tuple[object, ...], Entry] = {}

    @staticmethod
    def recognises(path: Path) -> bool:
        """Whether it is no file: a folder without a record is refused by name."""
        return not path.is_file()

    def file(self, video_id: str) -> Path:
        """The file of a video."""
        return self.path / f"{video_id}.h5"

    def has(self, video_id: str) -> bool:
        """Whether the video has a file."""
        return self.file(video_id).exists()

    def video_ids(self) -> list[str]:
        """The videos by name."""
        return sorted(path.stem for path in self.path.glob("*.h5") if not path.name.startswith("."))

    @contextmanager
    def open(self, video_id: str) -> Iterator[HDF5Video]:
        """A video, open for reading."""
        path = self.file(video_id)
        with opened(path) as file:
            key = (path, *file_identity(file))
            if key not in self._entries:
                self._entries[key] = self._checked(path, file)
            yield HDF5Video(path, file, self._entries[key])

    def _checked(self, path: Path, file: h5py.File) -> Entry:
        """What the file records; CacheError unless it is whole and of this cache."""
        if "schema" not in file.attrs:
            raise ForeignError(f"{path}: is no video of a cache")
        if "complete" not in file.attrs or not numbers(path, file, "complete", ()):
            raise CacheError(f"{path}: is not complete")
        if text(path, file, "fingerprint", "") != self.record.provenance.fingerprint:
            raise ForeignError(f"{path}: is of another cache than {self.path}: {self._differences(path, file)}")
        if (video_id := text(path, file, "video_id", "")) != path.stem:
            raise ForeignError(f"{path}: holds video {video_id!r}: was it renamed?")
        rows, skipped = check_datasets(path, file, self.record.provenance)
        return Entry(
            start=0,
            count=rows,
            skipped_start=0,
            skipped_count=skipped,
            source=text(path, file, "source", ""),
            checksum=text(path, file, "checksum", ""),
            checksum_beside=text(path, file, "checksum_beside", ""),
        )

    def _differences(self, path: Path, file: h5py.File) -> str:
        """In what the file's provenance differs from the cache's."""
        expected = self.record.provenance
        try:
            actual = Provenance.from_json(text(path, file, "provenance"))
        except (CacheError, TypeError, ValueError):
            return f"its fingerprint is {text(path, file, 'fingerprint', '')}, this cache's {expected.fingerprint}"
        return "; ".join(actual.differences(expected)) or "its fingerprint is not that of its record"
