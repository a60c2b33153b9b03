"""Whether what a cache holds of a video is what was once written.

Legend: F present frames of a video, S skipped ones, D embedding, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import h5py
import numpy as np

from fercache.cache.provenance import Provenance
from fercache.cache.reader import Cache, ForeignError, UnreachableError
from fercache.cache.rows import Entry, blocks, content_checksum
from fercache.errors import CacheError
from fercache.tasks import TASKS


@dataclass(frozen=True)
class Finding:
    """What is wrong with a video."""

    problems: tuple[str, ...] = ()
    broken: bool = False
    """Whether its file is damaged: not where it is another cache's, or out of reach."""


def check_video(cache: Cache, video_id: str) -> Finding:
    """Look at everything there is of a video: shapes and types, ascending frames, finite numbers, checksum."""
    where = f"{cache.file(video_id)}: " + (f"video {video_id}: " if cache.packed else "")
    try:
        with cache.open(video_id) as (file, entry):
            found = list(_wrong_shapes(file, cache.provenance))
            # Values of another shape or type cannot be looked at in the same way.
            found = found or list(_wrong_values(file, entry))
            return Finding(tuple(where + problem for problem in found), bool(found))
    except CacheError as error:
        return Finding(tuple(str(error).splitlines()), not isinstance(error, ForeignError | UnreachableError))


def _wrong_shapes(file: h5py.File, provenance: Provenance) -> Iterator[str]:
    classes = len(TASKS[provenance.task].classes) if provenance.task in TASKS else None
    rows = file["frame"].shape[0] if file["frame"].shape else None
    expected = {
        "embedding": ((rows, None), provenance.dtype),
        "frame": ((rows,), "int32"),
        "skipped": ((None,), "int32"),
    }
    if provenance.classifier:
        expected["logits"] = ((rows, classes), "float32")
    for name, (shape, dtype) in expected.items():
        data = file[name]
        same = len(data.shape) == len(shape) and all(
            want in (None, got) for want, got in zip(shape, data.shape, strict=True)
        )
        if not same or data.dtype != dtype:
            words = ", ".join("any" if size is None else str(size) for size in shape)
            yield f"{name}: found {data.dtype} {data.shape}, expected {dtype} ({words})"


def _wrong_values(file: h5py.File, entry: Entry) -> Iterator[str]:
    frame, skipped = file["frame"][entry.of("frame")], file["skipped"][entry.of("skipped")]
    for name, numbers in (("frame", frame), ("skipped", skipped)):
        if (np.diff(numbers, prepend=0) < 1).any():
            yield f"{name}: the numbers are not ascending from 1"
    if np.intersect1d(frame, skipped).size:
        yield "skipped: has frames that are there, too"
    for name in ("embedding", "logits"):
        if name in file and not all(np.isfinite(block).all() for block in blocks(file[name], entry.of(name))):
            yield f"{name}: has numbers that are not finite"
    if content_checksum(file, entry) != entry.checksum:
        yield "its content is not what was written: another checksum"
