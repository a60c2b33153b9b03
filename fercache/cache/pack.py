"""A cache brought into one file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fercache.cache.packed import write_packed
from fercache.cache.reader import Cache
from fercache.cache.verify import check_video
from fercache.errors import CacheError, raise_problems


def pack(cache: Cache, video_ids: Sequence[str], path: Path) -> None:
    """Write the videos one after another into the packed cache `path`.

    CacheError with every video that `verify` would not pass: what is broken is not packed.
    """
    if not cache.store.one_file and path.resolve().parent == cache.path.resolve():
        raise CacheError(f"{path}: lies in the cache itself, where it would be read as a video; choose another folder")
    problems = [problem for video_id in video_ids for problem in check_video(cache, video_id).problems]
    raise_problems(problems, CacheError)
    if not video_ids:
        raise CacheError(f"{cache.path}: holds no video")
    write_packed(path, cache.store, video_ids)
