"""The rows of a video that is not finished: a file that survives a kill at any moment.

HDF5 does not survive a writer that is killed, so rows are first appended to a journal, each part with
its checksum. A reader takes the whole parts and nothing behind them. Every process writes a journal of
its own, into which it first copies the rows of earlier journals of the same video. So nothing has to be
locked, and nothing that a kill leaves behind stands in the way.

A journal is a sequence of records: length of the content (8 bytes, little endian), its SHA-256 (32
bytes), the content. The first content is the header in JSON; the others are parts: the number of rows
(int32), the rows (int32), their embeddings, their logits.

Legend: F frames of a video, n rows of a part, D embedding, C classes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import struct
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from fercache.cache.hdf5 import unwritable
from fercache.cache.provenance import Provenance
from fercache.cache.rows import Part, Shape
from fercache.errors import CacheError
from fercache.files import OWNER, PARTIAL, check_target, is_abandoned, open_regular, partial_path

log = logging.getLogger(__name__)

ENDING = f".rows{PARTIAL}"
NAME = re.compile(rf"\.(?P<video>.+)\.{OWNER}{re.escape(ENDING)}")
HEAD = struct.Struct("<Q32s")
MOST_BYTES = 1 << 27
"""Of a record; a torn length must not be believed."""
SYNC_S = 30.0
"""Seconds after which rows are on the disk, and survive the machine's end too."""


def journal_path(video: Path) -> Path:
    """A new journal's name for the video whose file will be `video`."""
    return partial_path(video, ENDING)


class Journal:
    """The rows of one video as they come."""

    def __init__(self, video: Path, header: bytes, shape: Shape, frames: int) -> None:
        self.video, self.header, self.shape = video, header, shape
        self.path = journal_path(video)
        self.saved = np.zeros(frames, bool)
        """bool (F,): the frames whose rows it holds."""
        self._synced = time.monotonic()
        # Opened with the first rows: thousands of short videos may be begun before their rows come.
        self._file: BinaryIO | None = None

    @classmethod
    def begin(cls, video: Path, provenance: Provenance, shape: Shape, number: np.ndarray, source: str) -> Journal:
        """A journal for the video whose file will be `video`, with the rows of all its earlier journals.

        Rows of other frames than `number` (F,), of another source or provenance are ignored. Journals of processes
        that no longer run are removed; one that a running process writes is only copied.
        """
        check_target(video)
        header = header_of(video, provenance, shape, number, source)
        journal = cls(video, header, shape, len(number))
        while True:
            earlier = [path for path in journals_of(video) if path != journal.path]
            # One that is gone was copied by another process first, into a journal to be looked for.
            if all(journal._take_over(path) for path in earlier):
                break
        journal.sync()
        for other in earlier:
            if is_abandoned(other, ENDING):
                other.unlink(missing_ok=True)
        return journal

    def append(self, part: Part) -> None:
        """Add rows; CacheError where the disk does not take them."""
        content = [struct.pack("<i", len(part.rows)), part.rows.astype("<i4").tobytes(), part.embedding.tobytes()]
        if part.logits is not None:
            content.append(part.logits.tobytes())
        with unwritable(self.path):
            if self._file is None:
                self._file = self.path.open("x+b", buffering=0)
                self._write(self.header)
            self._write(b"".join(content))
            if time.monotonic() - self._synced > SYNC_S:
                self.sync()
        self.saved[part.rows] = True

    def parts(self) -> Iterator[Part]:
        """All rows, in parts, as they were appended."""
        if self._file is None:
            return
        self._file.seek(0)
        contents = _records(self._file)
        next(contents)
        for content in contents:
            part = _parse(content, self.shape)
            if part is None:
                raise CacheError(f"{self.path}: was changed while it was written")
            yield part

    def sync(self) -> None:
        """Wait until all rows are on the disk."""
        if self._file is not None:
            with unwritable(self.path):
                os.fsync(self._file.fileno())
        self._synced = time.monotonic()

    def close(self) -> None:
        """Leave the rows to the next process."""
        self.sync()
        if self._file is not None:
            self._file.close()

    def remove(self) -> None:
        """The video is finished: throw its rows away, those of other processes, too."""
        if self._file is not None:
            self._file.close()
        for path in journals_of(self.video):
            path.unlink(missing_ok=True)

    def _write(self, content: bytes) -> None:
        # Unbuffered: what was handed to the system outlives this process.
        assert self._file is not None
        self._file.seek(0, os.SEEK_END)
        remaining = memoryview(HEAD.pack(len(content), hashlib.sha256(content).digest()) + content)
        while remaining:
            remaining = remaining[self._file.write(remaining) :]

    def _take_over(self, path: Path) -> bool:
        """Copy the rows of another process's journal that this one lacks; False where the journal is gone."""
        before = int(self.saved.sum())
        try:
            for part in _whole_parts(path, self.header, self.shape, len(self.saved)):
                new = ~self.saved[part.rows]
                if new.any():
                    logits = None if part.logits is None else part.logits[new]
                    self.append(Part(part.rows[new], part.embedding[new], logits))
        except FileNotFoundError:
            return False
        log.info("%s: %d frames recovered", path, int(self.saved.sum()) - before)
        return True


def header_of(video: Path, provenance: Provenance, shape: Shape, number: np.ndarray, source: str) -> bytes:
    """What a journal's rows belong to: JSON, to be compared as it is."""
    header = {
        "fingerprint": provenance.fingerprint,
        "video_id": video.stem,
        "frames": hashlib.sha256(number.astype("<i4").tobytes()).hexdigest(),
        "source": source,
        "embedding_dim": shape.embedding_dim,
        "classes": shape.classes,
    }
    return json.dumps(header).encode()


def journals_of(video: Path) -> list[Path]:
    """The journals of the video with the file `video`."""
    return [path for path in journals(video.parent) if _video_name(path) == video.name]


def journals(folder: Path) -> list[Path]:
    """All journals of a cache, finished videos' too where a kill came before their removal."""
    return sorted(path for path in folder.glob(f".*{ENDING}") if NAME.fullmatch(path.name))


def _video_name(journal: Path) -> str:
    """The name of the file that a journal's video will have."""
    match = NAME.fullmatch(journal.name)
    assert match is not None  # as `journals` lists them
    return match["video"]


def begun_videos(folder: Path) -> dict[str, list[Path]]:
    """Names of the files of videos that were begun and not finished, and their journals."""
    journals_by_video: dict[str, list[Path]] = {}
    for path in journals(folder):
        journals_by_video.setdefault(_video_name(path), []).append(path)
    return {name: paths for name, paths in journals_by_video.items() if not (folder / name).exists()}


def saved_rows(paths: Sequence[Path], header: bytes, shape: Shape, frames: int) -> np.ndarray:
    """Which rows of a video some journals hold, of those with this header: bool (F,) for F = `frames`."""
    saved = np.zeros(frames, bool)
    for path in paths:
        with contextlib.suppress(FileNotFoundError):  # its rows are in another journal now, or in the finished video
            for part in _whole_parts(path, header, shape, frames):
                saved[part.rows] = True
    return saved


def remove_useless(folder: Path) -> None:
    """Remove what killed processes left: halves of files, and journals of videos that are finished."""
    halves = [path for path in folder.glob(f".*{PARTIAL}") if not path.name.endswith(ENDING) and is_abandoned(path)]
    finished = [path for path in journals(folder) if (folder / _video_name(path)).exists()]
    for path in (*halves, *finished):
        path.unlink(missing_ok=True)


def _whole_parts(path: Path, header: bytes, shape: Shape, frames: int) -> Iterator[Part]:
    """The parts of a journal up to the first that is torn or damaged; none where its header is another.

    FileNotFoundError where another process has removed it: the video is finished, or its rows were taken over.
    """
    with open_regular(path) as file:
        contents = _records(file)
        if next(contents, b"") != header:
            log.info("%s: rows of other frames, or a torn header: ignored", path)
            return
        for content in contents:
            part = _parse(content, shape)
            if part is None or not ((part.rows >= 0) & (part.rows < frames)).all():
                log.warning("%s: contains a damaged part: ignored, and what follows it", path)
                return
            yield part


def _records(file: BinaryIO) -> Iterator[bytes]:
    """The contents of the whole records, up to the first that is torn."""
    while len(head := file.read(HEAD.size)) == HEAD.size:
        length, digest = HEAD.unpack(head)
        if length > MOST_BYTES:
            return
        content = file.read(length)
        if hashlib.sha256(content).digest() != digest:
            return
        yield content


def _parse(content: bytes, shape: Shape) -> Part | None:
    """The rows of a record; None where its length is not that of so many rows."""
    count = struct.unpack_from("<i", content)[0] if len(content) >= 4 else -1
    if len(content) != 4 + count * shape.row_bytes:
        return None
    rows = np.frombuffer(content, "<i4", count, 4)
    start = 4 + rows.nbytes
    embedding = np.frombuffer(content, shape.dtype, count * shape.embedding_dim, start)
    logits = None
    if shape.classes is not None:
        logits = np.frombuffer(content, "float32", count * shape.classes, start + embedding.nbytes)
        logits = logits.reshape(count, shape.classes)
    return Part(rows, embedding.reshape(count, shape.embedding_dim), logits)
