"""Whether a video's rows in a cache are those that were written.

Legend: F present frames of a video, S skipped ones, D embedding, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from fercache.cache.hdf5 import UnreachableError, check_frames
from fercache.cache.reader import Cache
from fercache.cache.rows import BESIDE_EMBEDDING, DATASETS, all_finite
from fercache.cache.store import ForeignError, StoredVideo
from fercache.errors import CacheError, raise_problems

_verified: set[tuple[object, ...]] = set()
"""What this process has verified: identity of the file, video, datasets."""


class SourceFrames(Protocol):
    """The present frames of a video, F of them, from which a cache may come."""

    @property
    def frame(self) -> np.ndarray:
        """int32 (F,), ascending."""

    @property
    def paths(self) -> Sequence[str]:
        """Their files."""

    def digest(self, row: int) -> str:
        """SHA-256 of a frame's file; "" where it cannot be read."""


@dataclass(frozen=True)
class Finding:
    """What is wrong with a video."""

    problems: tuple[str, ...] = ()
    broken: bool = False
    """Whether its file is damaged: not where it is another cache's, or cannot be opened."""


def check_video(cache: Cache, video_id: str, names: Sequence[str] = DATASETS) -> Finding:
    """Read some datasets of a video: types and shapes, ascending frames, finite numbers, checksum."""
    where = f"{cache.file(video_id)}: " + (f"video {video_id}: " if cache.store.one_file else "")
    try:
        with cache.open(video_id) as video:
            problems = list(_wrong_values(video, names))
            return Finding(tuple(where + problem for problem in problems), bool(problems))
    except CacheError as error:
        return Finding(error.problems, not isinstance(error, ForeignError | UnreachableError))


def check_before_use(
    cache: Cache, video_ids: Sequence[str], *, embedding: bool, stop: Callable[[], None] = lambda: None
) -> None:
    """Read the videos, once a process; CacheError with all that are not what was written. `stop` may raise, to end it.

    Without `embedding` only the other datasets are read.
    """
    problems: list[str] = []
    for video_id in video_ids:
        stop()
        with cache.open(video_id) as video:
            names = DATASETS if embedding or not video.entry.checksum_beside else BESIDE_EMBEDDING
            key = (*video.identity, video_id, *names)
        if key not in _verified:
            finding = check_video(cache, video_id, names)
            problems += finding.problems
            if not finding.problems:
                _verified.add(key)
    if problems:
        remedy = (
            "pack the cache again from whole files"
            if cache.store.one_file
            else "`fercache cache verify --fix` removes such files, `fercache extract` makes them again"
        )
        problems = [f"{problem}; {remedy}" for problem in problems]
    raise_problems(problems, CacheError)


def _wrong_values(video: StoredVideo, names: Sequence[str]) -> Iterator[str]:
    frame, skipped = video.read("frame"), video.read("skipped")
    for name, numbers in (("frame", frame), ("skipped", skipped)):
        try:
            check_frames(name, numbers)
        except CacheError as error:
            yield str(error)
    if np.intersect1d(frame, skipped).size:
        yield "skipped: has frames that have a row, too"
    infinite: dict[str, int] = {}
    rows_read = dict.fromkeys(names, 0)

    def look(name: str, block: np.ndarray) -> None:
        if block.dtype.kind == "f" and name not in infinite and not all_finite(block):
            infinite[name] = rows_read[name] + int(np.argmin(np.isfinite(block).all(axis=1)))
        rows_read[name] += len(block)

    checksum = video.checksum(names, look)
    for name, row in infinite.items():
        yield f"{name}: has numbers that are not finite, the first at frame {frame[row]}"
    if checksum != (video.entry.checksum if tuple(names) == DATASETS else video.entry.checksum_beside):
        yield "its content is not what was written: another checksum"


def source_problem(cache: Cache, video_id: str, frames: SourceFrames, folder: object) -> str | None:
    """Why the cache of a video was not made from these frames, which lie in `folder`; None where it was.

    The frame numbers must be equal, and the first frame's file must be the one that was read.
    """
    number = cache.frame(video_id)
    known = np.union1d(number, cache.skipped(video_id))
    file = cache.file(video_id)
    if not np.array_equal(known, frames.frame):
        return f"{file}: its {len(known)} frames are not the {len(frames.frame)} that {folder} has: another data set?"
    if len(number):
        row = int(np.searchsorted(frames.frame, number[0]))
        digest, recorded = frames.digest(row), cache.entry(video_id).source
        if digest and recorded and digest != recorded:
            return f"{file}: was made from another image than {frames.paths[row]}: another data set?"
    return None
