"""Writing HDF5 files of the cache, whole or not at all.

Legend: F frames of a video, D embedding, C classes.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import h5py
import numpy as np

from fercache.cache.hdf5 import reserved
from fercache.cache.provenance import SCHEMA, Provenance
from fercache.cache.rows import BESIDE_EMBEDDING, Entry, Part, Shape, content_checksum
from fercache.errors import CacheError


def write_video(
    path: Path,
    provenance: Provenance,
    shape: Shape,
    frame: np.ndarray,
    present: np.ndarray,
    parts: Iterable[Part],
    *,
    source: str = "",
) -> None:
    """Write the file of the video whose frames are `frame`, int (F,), and whose id is the file's name.

    `present`, bool (F,), says for which frames the parts hold a row; the others are recorded as skipped.
    The file appears under its name when it is whole, and not before. CacheError where a row is
    missing, or the disk does not take it.
    """
    row = np.cumsum(present) - 1  # of each frame, in the datasets
    written = np.zeros(len(frame), bool)
    entry = Entry(0, int(present.sum()), 0, int((~present).sum()), source, "")
    with reserved(path, shape.row_bytes * entry.count + 4 * entry.skipped_count) as file:
        create_datasets(file, shape, entry.count, entry.skipped_count)
        file["frame"][:], file["skipped"][:] = frame[present], frame[~present]
        for part in parts:
            _put(file, row[part.rows], part)
            written[part.rows] = True
        if (written != present).any():
            raise CacheError(f"{path}: {written.sum()} of {present.sum()} rows were written")
        file.attrs.update(
            schema=SCHEMA,
            fingerprint=provenance.fingerprint,
            provenance=provenance.as_json(),
            video_id=path.stem,
            source=source,
            checksum=content_checksum(file, entry),
            checksum_beside=content_checksum(file, entry, BESIDE_EMBEDDING),
            complete=True,
        )


def create_datasets(file: h5py.File, shape: Shape, rows: int, skipped: int) -> None:
    """The datasets of so many rows. Contiguous and uncompressed: single rows are read at the disk's speed."""
    file.create_dataset("embedding", (rows, shape.embedding_dim), shape.dtype)
    file.create_dataset("frame", (rows,), "int32")
    file.create_dataset("skipped", (skipped,), "int32")
    if shape.classes is not None:
        file.create_dataset("logits", (rows, shape.classes), "float32")


def _put(file: h5py.File, rows: np.ndarray, part: Part) -> None:
    """Write a part to these rows, each run of neighbours at once."""
    if not len(rows):
        return
    ends = np.flatnonzero(np.diff(rows) != 1) + 1
    for run in np.split(np.arange(len(rows)), ends):
        target = slice(rows[run[0]], rows[run[-1]] + 1)
        file["embedding"][target] = part.embedding[run]
        if part.logits is not None:
            file["logits"][target] = part.logits[run]
