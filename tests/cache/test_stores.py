"""A store from outside the package, read as the built-in ones are."""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from support.caches import MADE_BY, SHAPE, write

from fercache.cache.mapped import MappedRows
from fercache.cache.pack import pack
from fercache.cache.provenance import CacheRecord, begin_record, read_record
from fercache.cache.reader import STORES, Cache
from fercache.cache.rows import DATASETS, Entry, content_checksum
from fercache.cache.store import Span, Store
from fercache.cache.verify import Finding, check_video
from fercache.errors import CacheError


class RawVideo:
    """Arrays written one after another into a file."""

    shape, identity = SHAPE, ("a",)

    def __init__(self, folder: Path, video_id: str) -> None:
        self.path = folder / f"{video_id}.raw"
        content = json.loads((folder / f"{video_id}.json").read_text())
        self.entry, self.offset = Entry(**content["entry"]), content["offset"]
        data = self.path.read_bytes()
        self.arrays = {
            name: np.frombuffer(data, dtype, int(np.prod(shape)), self.offset[name]).reshape(shape)
            for name, (dtype, shape) in content["arrays"].items()
        }

    def read(self, name):
        return self.arrays[name]

    def blocks(self, name):
        yield self.arrays[name]

    def span(self, name):
        array = self.arrays[name]
        return Span(self.path, self.offset[name], *array.shape, array.dtype)

    def checksum(self, names, look):
        return content_checksum(self.arrays, self.entry, names, look)


class RawStore(Store):
    """A folder `*.raw` with a file of bytes for each video."""

    title: ClassVar[str] = "raw bytes"
    one_file: ClassVar[bool] = False

    def __init__(self, path: Path) -> None:
        self.path, self.record = path, read_record(path)

    @staticmethod
    def recognises(path):
        return path.suffix == ".raw"

    def file(self, video_id):
        return self.path / f"{video_id}.raw"

    def has(self, video_id):
        return self.file(video_id).exists()

    def video_ids(self):
        return sorted(path.stem for path in self.path.glob("*.raw"))

    @contextmanager
    def open(self, video_id):
        if not self.has(video_id):
            raise CacheError(f"{self.path}: has no video {video_id}")
        yield RawVideo(self.path, video_id)


def write_raw(folder: Path, cache: Cache) -> None:
    begin_record(folder, cache.record)
    for video_id in cache.video_ids():
        with cache.open(video_id) as video:
            arrays, entry = {name: video.read(name) for name in DATASETS}, video.entry
        # An odd byte before each: values need not be aligned.
        parts = [b"-" + arrays[name].tobytes() for name in DATASETS]
        ends = np.cumsum([len(part) for part in parts])
        content = {
            "entry": vars(entry),
            "offset": {n: int(end) - arrays[n].nbytes for n, end in zip(DATASETS, ends, strict=True)},
            "arrays": {name: (array.dtype.str, array.shape) for name, array in arrays.items()},
        }
        (folder / f"{video_id}.raw").write_bytes(b"".join(parts))
        (folder / f"{video_id}.json").write_text(json.dumps(content))


@pytest.fixture
def cache(tmp_path):
    begin_record(tmp_path / "cache", CacheRecord(MADE_BY, {"backend": "eager"}))
    cache = Cache(tmp_path / "cache")
    for number, video in enumerate(("a", "b", "c")):
        write(cache, video, value=number + 0.5)
    return cache


def test_a_store_from_outside_is_read_verified_mapped_and_packed(cache, tmp_path, monkeypatch):
    monkeypatch.setitem(STORES, "raw", RawStore)
    write_raw(tmp_path / "other.raw", cache)
    raw = Cache(tmp_path / "other.raw")
    assert raw.video_ids() == ["a", "b", "c"] and raw.check(["a", "b"]) == {"a", "b"}
    assert check_video(raw, "b") == Finding()
    for name in ("embedding", "logits"):
        rows, expected = (MappedRows(one, ["c", "a"], name).gather(np.array([5, 0, 1, 3])) for one in (raw, cache))
        np.testing.assert_array_equal(rows, expected)
    pack(raw, ["b", "c"], tmp_path / "p.h5")
    np.testing.assert_array_equal(Cache(tmp_path / "p.h5").read("c").embedding, cache.read("c").embedding)
    with pytest.raises(CacheError, match="video d is missing"):
        raw.check(["d"])
