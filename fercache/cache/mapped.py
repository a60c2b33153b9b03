"""The rows of many videos as if they lay behind one another in memory, while they stay on disk.

HDF5 stores our datasets as one run of bytes each, so that the operating system can map them: what is
asked for is read once, kept as long as there is room, and is no memory of the process's own. All files are
mapped into one range of addresses, so that rows of many files are gathered in one call.

Legend: V videos, N rows of all of them, W values of a row.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch

from fercache.cache.reader import Cache
from fercache.cache.rows import BLOCK_ROWS
from fercache.errors import CacheError, raise_problems

MAP_FIXED = 0x10
"""Put a mapping where it is told to be (sys/mman.h; Python's mmap lacks it)."""
TYPES = {"float16": torch.float16, "float32": torch.float32}


@dataclass(frozen=True)
class _Segment:
    """A dataset in a file."""

    path: Path
    offset: int
    """Byte of the file at which it begins."""
    bytes: int
    width: int

    @property
    def skip(self) -> int:
        """Bytes between the page that it begins in and itself."""
        return self.offset % mmap.PAGESIZE

    @property
    def span(self) -> int:
        """Bytes of whole pages that hold it."""
        return -(-(self.skip + self.bytes) // mmap.PAGESIZE) * mmap.PAGESIZE


class MappedRows:
    """The rows of one dataset (`embedding` or `logits`) of some videos of a cache, in the videos' order.

    Raises CacheError with all videos that are missing, damaged, of another cache or of another shape.
    """

    def __init__(self, cache: Cache, video_ids: Sequence[str], name: str = "embedding") -> None:
        self.video_ids = tuple(video_ids)
        dtype = cache.provenance.dtype if name == "embedding" else "float32"
        self.dtype = TYPES[dtype]
        segments, self.first, starts = _find(cache, self.video_ids, name, np.dtype(dtype))
        self.width = next(iter(segments.values())).width if segments else 0
        self._row_bytes = self.width * np.dtype(dtype).itemsize
        base, places = _map([segment for segment in segments.values() if segment.bytes])
        total = sum(segment.span for segment in segments.values() if segment.bytes)
        if base is not None:
            weakref.finalize(self, _library().munmap, base, total)
        begins = [places.get(cache.file(video_id), 0) for video_id in self.video_ids]
        # Row r of all lies at byte shift + r x row_bytes, with the shift of its video.
        self._shift = np.array(begins, np.int64) + (starts - self.first[:-1]) * self._row_bytes
        self._bytes = _every_row(base or 0, total, self._row_bytes)

    def __len__(self) -> int:
        return int(self.first[-1])

    def gather(self, rows: np.ndarray) -> torch.Tensor:
        """Rows by number, int64 (...) from 0 to N - 1, to (..., W) in the stored type: a copy."""
        if not rows.size:
            return torch.empty((*rows.shape, self.width), dtype=self.dtype)
        if rows.min() < 0 or rows.max() >= len(self):
            raise IndexError(f"rows from {rows.min()} to {rows.max()} of {len(self)}")
        video = np.searchsorted(self.first, rows, side="right") - 1
        places = torch.from_numpy((self._shift[video] + rows * self._row_bytes).reshape(-1))
        return self._bytes.index_select(0, places).view(self.dtype).view(*rows.shape, self.width)

    def blocks(self) -> Iterator[tuple[int, torch.Tensor]]:
        """All rows in their order: the first one's number, and (n, W), a few at a time and never of two videos."""
        for begin, end in zip(self.first[:-1], self.first[1:], strict=True):
            for start in range(begin, end, BLOCK_ROWS):
                yield start, self.gather(np.arange(start, min(start + BLOCK_ROWS, end)))


def _find(
    cache: Cache, video_ids: Sequence[str], name: str, dtype: np.dtype
) -> tuple[dict[Path, _Segment], np.ndarray, np.ndarray]:
    """The datasets by file; the first row of each video among all, (V + 1,); its first row in its file, (V,)."""
    segments: dict[Path, _Segment] = {}
    counts, starts, problems = [], [], []
    for video_id in video_ids:
        path = cache.file(video_id)
        try:
            with cache.open(video_id) as (file, entry):
                if path not in segments:
                    segments[path] = _segment(path, file[name], dtype)
        except CacheError as error:
            problems += error.problems
            continue
        counts.append(entry.count)
        starts.append(entry.start)
    widths = {segment.width for segment in segments.values()}
    if len(widths) > 1:
        problems.append(f"{cache.path}: its videos have rows of different lengths: {sorted(widths)}")
    raise_problems(problems, CacheError)
    return segments, np.cumsum([0, *counts], dtype=np.int64), np.array(starts, np.int64)


def _segment(path: Path, data: h5py.Dataset, dtype: np.dtype) -> _Segment:
    return _Segment(path, data.id.get_offset() or 0, data.size * dtype.itemsize, data.shape[1])


def _map(segments: Sequence[_Segment]) -> tuple[int | None, dict[Path, int]]:
    """The address of a range in which all segments lie, and where in it each begins; no address for nothing."""
    total = sum(segment.span for segment in segments)
    if not total:
        return None, {}
    library = _library()
    # The range is only kept free, and costs nothing; the files then take its pages.
    base = _mapped(library, None, total, 0, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0, "the cache")
    places, at = {}, 0
    for segment in segments:
        try:
            descriptor = os.open(segment.path, os.O_RDONLY)
        except OSError as error:
            raise CacheError(f"{segment.path}: cannot be read: {error.strerror}") from error
        try:
            flags, begin = mmap.MAP_SHARED | MAP_FIXED, segment.offset - segment.skip
            _mapped(library, base + at, segment.span, mmap.PROT_READ, flags, descriptor, begin, segment.path)
        finally:
            os.close(descriptor)
        places[segment.path] = at + segment.skip
        at += segment.span
    return base, places


def _mapped(library: ctypes.CDLL, *given: object) -> int:
    """mmap(2); CacheError with the last argument, the file's name, where the system refuses."""
    *arguments, name = given
    address = library.mmap(*arguments)
    if address == ctypes.c_void_p(-1).value:
        raise CacheError(f"{name}: cannot be mapped into memory: {os.strerror(ctypes.get_errno())}")
    return address


def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(None, use_errno=True)
    library.mmap.restype = ctypes.c_void_p
    library.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_int64]
    library.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    return library


def _every_row(base: int, total: int, row_bytes: int) -> torch.Tensor:
    """Bytes (places, row_bytes): the row that would begin at each byte of the range. Nothing is copied."""
    if not total:
        return torch.empty((0, row_bytes), dtype=torch.uint8)
    whole = torch.frombuffer((ctypes.c_char * total).from_address(base), dtype=torch.uint8)
    return whole.as_strided((total - row_bytes + 1, row_bytes), (1, 1))
