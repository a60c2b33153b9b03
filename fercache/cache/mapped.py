"""The rows of many videos as if they lay one after another in memory, while they stay on disk.

Files are mapped into memory: what is asked for is read once, stays in the system's cache as long as there is room, and
is no memory of the process's own.

Legend: N rows of all videos, W values of a row.
"""

from __future__ import annotations

import resource
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from fercache.cache.reader import Cache
from fercache.cache.rows import BLOCK_ROWS
from fercache.cache.store import Span
from fercache.errors import CacheError, raise_problems

MANY_FILES = 100
"""Up to which every system lets a process open them."""


class MappedRows:
    """The rows of one dataset (`embedding` or `logits`) of some videos of a cache, in the videos' order.

    Raises CacheError with all videos that are missing, damaged, of another cache or of another shape.
    """

    def __init__(self, cache: Cache, video_ids: Sequence[str], name: str = "embedding") -> None:
        self.video_ids = tuple(video_ids)
        spans = _find(cache, self.video_ids, name)
        dtype = np.dtype(cache.provenance.dtype if name == "embedding" else "float32")
        self.dtype = torch.from_numpy(np.empty(0, dtype)).dtype
        self.width = spans[0].width if spans else 0
        self.first = np.cumsum([0, *(span.rows for span in spans)], dtype=np.int64)
        """int64 (V + 1,): number of the first row of each of the V videos, and N."""
        by_file: dict[Path, list[Span]] = {}
        for span in spans:
            if span.rows:  # nothing cannot be mapped
                by_file.setdefault(span.path, []).append(span)
        files = {path: _joined(in_file) for path, in_file in by_file.items()}
        if len(files) > MANY_FILES:
            _raise_file_limit()
        self._maps = [_map(span) for span in files.values()]
        self._only_map = _as_tensor(self._maps[0]) if len(files) == 1 else None
        # Of each video: its map, and what to add to a row's number to have its row in that map.
        map_of = {path: number for number, path in enumerate(files)}
        self._map = np.array([map_of.get(span.path, 0) for span in spans], np.int64)
        starts = [(span.offset - files[span.path].offset) // span.row_bytes if span.rows else 0 for span in spans]
        self._shift = np.array(starts, np.int64) - self.first[:-1]

    def __len__(self) -> int:
        return int(self.first[-1])

    def gather(self, rows: np.ndarray) -> torch.Tensor:
        """Rows by number, int64 (...) from 0 to N - 1, to (..., W) in the stored type: a copy."""
        if not rows.size:
            return torch.empty((*rows.shape, self.width), dtype=self.dtype)
        if rows.min() < 0 or rows.max() >= len(self):
            raise IndexError(f"rows from {rows.min()} to {rows.max()} of {len(self)}")
        numbers = rows.reshape(-1)
        video = np.searchsorted(self.first, numbers, side="right") - 1
        source = numbers + self._shift[video]
        # numpy's memory, unlike torch's, comes in large pages, which saves half the time.
        values = np.empty((len(numbers), self._maps[0].shape[1]), np.uint8)
        result = torch.from_numpy(values)
        if self._only_map is not None:
            torch.index_select(self._only_map, 0, torch.from_numpy(source), out=result)
        else:
            self._copy_runs(source, self._map[video], values)
        return result.view(self.dtype).view(*rows.shape, self.width)

    def _copy_runs(self, source: np.ndarray, maps: np.ndarray, values: np.ndarray) -> None:
        """Copy rows `source` of `maps`, both int64 (n,), to `values` (n, bytes of a row): neighbours at once."""
        begins = np.flatnonzero((np.diff(source, prepend=-2) != 1) | (np.diff(maps, prepend=-1) != 0))
        ends = np.append(begins[1:], len(source))
        runs = zip(begins.tolist(), ends.tolist(), source[begins].tolist(), maps[begins].tolist(), strict=True)
        for begin, end, row, number in runs:
            values[begin:end] = self._maps[number][row : row + end - begin]

    def blocks(self) -> Iterator[tuple[int, torch.Tensor]]:
        """All rows in their order: the first one's number, and (n, W), a few at a time and never of two videos."""
        for begin, end in zip(self.first[:-1], self.first[1:], strict=True):
            for start in range(begin, end, BLOCK_ROWS):
                yield start, self.gather(np.arange(start, min(start + BLOCK_ROWS, end)))


def _find(cache: Cache, video_ids: Sequence[str], name: str) -> list[Span]:
    """Where each video's rows lie; CacheError with all videos that cannot be read."""
    spans: list[Span] = []
    problems: list[str] = []
    for video_id in video_ids:
        try:
            with cache.open(video_id) as video:
                spans.append(video.span(name))
        except CacheError as error:
            problems += error.problems
    widths = {span.width for span in spans}
    if len(widths) > 1:
        problems.append(f"{cache.path}: its videos have rows of different lengths: {sorted(widths)}")
    raise_problems(problems, CacheError)
    return spans


def _joined(spans: Sequence[Span]) -> Span:
    """Several spans of one dataset, and what lies between them."""
    begin = min(span.offset for span in spans)
    if any((span.offset - begin) % span.row_bytes or span.dtype != spans[0].dtype for span in spans):
        raise CacheError(f"{spans[0].path}: its videos' rows are not of one dataset, and cannot be read together")
    end = max(span.offset + span.rows * span.row_bytes for span in spans)
    return replace(spans[0], offset=begin, rows=(end - begin) // spans[0].row_bytes)


def _map(span: Span) -> np.ndarray:
    """Bytes of a file as uint8 (rows, row_bytes): values of a larger type need not be aligned in it."""
    try:
        return np.asarray(np.memmap(span.path, np.uint8, "r", span.offset, (span.rows, span.row_bytes)))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CacheError(
            f"{span.path}: cannot be mapped into memory: {reason}; `fercache cache pack` makes one file of all"
        ) from error


def _as_tensor(values: np.ndarray) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch cannot say that a tensor is not to be written to
        return torch.from_numpy(values)


def _raise_file_limit() -> None:
    """Let this process open as many files as the system allows: Python keeps the file of a map open.

    The usual limit, 1024, is for programs that wait for files by select(2), which none does here.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # macOS takes no limit above one of its own
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
