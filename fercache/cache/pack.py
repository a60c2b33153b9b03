"""A cache in one file: quicker to copy, and to read in any order.

Legend: N rows of all videos, D embedding, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np

from fercache.cache.hdf5 import reserved
from fercache.cache.reader import PACKED, TABLE, Cache
from fercache.cache.rows import DATASETS, Entry, Shape, blocks
from fercache.cache.verify import check_video
from fercache.cache.writer import create_datasets
from fercache.errors import CacheError, raise_problems

TABLE_ROW_BYTES = TABLE.itemsize + 512
"""Of a video in the table, with its id of at most 255 bytes beside it."""


def pack(cache: Cache, video_ids: Sequence[str], path: Path) -> None:
    """Write the videos behind one another into the packed cache `path`.

    CacheError with every video that `verify` would not pass: what is broken is not packed.
    """
    if not cache.packed and path.resolve().parent == cache.path.resolve():
        raise CacheError(f"{path}: lies in the cache itself, where it would be taken for a video; name another place")
    problems = [problem for video_id in video_ids for problem in check_video(cache, video_id).problems]
    raise_problems(problems, CacheError)
    if not video_ids:
        raise CacheError(f"{cache.path}: holds no video")
    entries, start, skipped = [], 0, 0
    for video_id in video_ids:
        own = cache.entry(video_id)
        entries.append(replace(own, start=start, skipped_start=skipped))
        start, skipped = start + own.count, skipped + own.skipped_count
    shape = _shape(cache, video_ids)
    table_bytes = TABLE_ROW_BYTES * len(video_ids)
    with reserved(path, shape.row_bytes * start + 4 * skipped + table_bytes) as target:
        create_datasets(target, shape, start, skipped)
        for video_id, entry in zip(video_ids, entries, strict=True):
            with cache.open(video_id) as (source, own):
                _copy(source, own, target, entry)
        rows = [
            (video_id, e.start, e.count, e.skipped_start, e.skipped_count, e.source, e.checksum, e.checksum_beside)
            for video_id, e in zip(video_ids, entries, strict=True)
        ]
        target["videos"] = np.array(rows, dtype=TABLE)
        target.attrs.update(format=PACKED, record=cache.record.as_json(), complete=True)


def _shape(cache: Cache, video_ids: Sequence[str]) -> Shape:
    """What all the videos' rows are; CacheError where they differ."""
    shapes = set()
    for video_id in video_ids:
        with cache.open(video_id) as (file, _):
            classes = file["logits"].shape[1] if "logits" in file else None
            shapes.add(Shape(file["embedding"].shape[1], cache.provenance.dtype, classes))
    if len(shapes) != 1:
        raise CacheError(f"{cache.path}: its videos have rows of different shapes: {sorted(map(str, shapes))}")
    return shapes.pop()


def _copy(source: h5py.File, own: Entry, target: h5py.File, entry: Entry) -> None:
    for name in DATASETS:
        if name in target:
            place = entry.of(name).start
            for block in blocks(source[name], own.of(name)):
                target[name][place : place + len(block)] = block
                place += len(block)
