"""Rows of many videos gathered from a memory map."""

from __future__ import annotations

import gc
import pickle
import resource
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fercache.cache.mapped import MappedRows
from fercache.cache.pack import pack
from fercache.cache.provenance import CacheRecord, Provenance, begin_record
from fercache.cache.reader import Cache
from fercache.cache.rows import Part, Shape
from fercache.cache.writer import write_video
from fercache.errors import CacheError

MADE_BY = Provenance("w" * 64, "c" * 64, "expr", "resnet50-vggface2", {"image_size": 224}, "fp32", "float16")
COUNTS = {"a": 3, "none": 0, "b": 1, "long": 2500, "end": 5}


def write(cache: Cache, video: str, embedding: np.ndarray, seed: int) -> None:
    count = len(embedding)
    logits = np.random.default_rng(seed).normal(size=(count, 7)).astype("f4")
    shape = Shape(embedding.shape[1], str(embedding.dtype), 7)
    number = np.arange(2, count + 2)
    parts = [Part(np.arange(count), embedding, logits)]
    write_video(cache.file(video), cache.provenance, shape, number, np.ones(count, bool), parts)


def make(folder: Path, width=6, dtype="float16") -> Cache:
    begin_record(folder, CacheRecord(Provenance(**{**MADE_BY.__dict__, "dtype": dtype}), {}))
    cache = Cache(folder)
    for seed, (video, count) in enumerate(COUNTS.items()):
        write(cache, video, np.random.default_rng(seed).normal(size=(count, width)).astype(dtype), seed)
    return cache


@pytest.fixture(scope="module", params=[("float16", False), ("float16", True), ("float32", False), ("float32", True)])
def cache(request, tmp_path_factory):
    dtype, packed = request.param
    folder = tmp_path_factory.mktemp("cache")
    made = make(folder / "cache", dtype=dtype)
    if not packed:
        return made
    pack(made, list(COUNTS), folder / "packed.h5")
    return Cache(folder / "packed.h5")


def all_rows(cache, name):
    return np.concatenate([getattr(cache.read(video), name) for video in COUNTS])


@pytest.mark.parametrize("name", ["embedding", "logits"])
def test_all_rows_in_the_videos_order(cache, name):
    rows, expected = MappedRows(cache, list(COUNTS), name), all_rows(cache, name)
    assert (len(rows), rows.width, rows.first.tolist()) == (2509, expected.shape[1], [0, 3, 3, 4, 2504, 2509])
    gathered = rows.gather(np.arange(2509))
    assert gathered.numpy().dtype == expected.dtype
    np.testing.assert_array_equal(gathered.numpy(), expected)
    starts, blocks = zip(*rows.blocks(), strict=True)
    assert starts == (0, 3, 4, 4 + 2048, 2504)
    np.testing.assert_array_equal(torch.cat(blocks).numpy(), expected)


@settings(max_examples=25)
@given(chosen=st.lists(st.integers(0, 2508), max_size=30))
def test_any_rows_in_any_order(cache, chosen):
    rows, chosen = MappedRows(cache, list(COUNTS)), np.array(chosen, np.int64)
    np.testing.assert_array_equal(rows.gather(chosen).numpy(), all_rows(cache, "embedding")[chosen])
    assert rows.gather(np.zeros((2, 3), np.int64)).shape == (2, 3, 6)


def test_rows_that_are_neighbours_by_number_alone(cache):
    """Row 0 of the first video and row 1 of the fourth, one after the other."""
    rows, chosen = MappedRows(cache, list(COUNTS)), np.array([0, 5, 2, 2504 + 3])
    np.testing.assert_array_equal(rows.gather(chosen).numpy(), all_rows(cache, "embedding")[chosen])


def test_some_videos_in_another_order(cache):
    rows = MappedRows(cache, ["end", "a"])
    expected = np.concatenate([cache.read(video).embedding for video in ("end", "a")])
    np.testing.assert_array_equal(rows.gather(np.arange(8)).numpy(), expected)
    for outside in (-1, 8):
        with pytest.raises(IndexError):
            rows.gather(np.array([0, outside]))


def test_no_rows_at_all(cache):
    rows = MappedRows(cache, ["none"])
    assert len(rows) == 0 and rows.gather(np.empty((0, 9), np.int64)).shape == (0, 9, rows.width)
    assert list(rows.blocks()) == []
    assert len(MappedRows(cache, [])) == 0


def test_what_was_gathered_outlives_the_map(cache):
    rows = MappedRows(cache, list(COUNTS))
    gathered = rows.gather(np.arange(9))
    del rows
    gc.collect()
    np.testing.assert_array_equal(gathered.numpy(), all_rows(cache, "embedding")[:9])


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="/proc is Linux's")
def test_more_files_than_a_process_may_usually_open(tmp_path):
    begin_record(tmp_path / "cache", CacheRecord(MADE_BY, {}))
    cache, videos = Cache(tmp_path / "cache"), [f"v{number:03}" for number in range(150)]
    for number, video in enumerate(videos):
        write(cache, video, np.full((2, 6), number, np.float16), number)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = len(list(Path("/proc/self/fd").iterdir()))
    resource.setrlimit(resource.RLIMIT_NOFILE, (before + 20, hard))
    try:
        rows = MappedRows(cache, videos)
        assert rows.gather(np.arange(300))[:, 0].tolist() == np.repeat(np.arange(150), 2).tolist()
        del rows
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="RssAnon is Linux's")
def test_the_rows_are_no_memory_of_the_process(tmp_path):
    begin_record(tmp_path, CacheRecord(MADE_BY, {}))
    cache = Cache(tmp_path)
    write(cache, "v", np.ones((40_000, 1024), np.float16), 0)

    def anonymous_mb():
        (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon")]
        return int(line.split()[1]) / 1000

    gc.collect()
    before = anonymous_mb()
    rows = MappedRows(cache, ["v"])
    rows.gather(np.arange(0, 40_000, 100))
    for _ in rows.blocks():
        pass
    # The rows are 82 MB; torch's own first memory and a block of them are there.
    assert anonymous_mb() - before < 50


def test_what_cannot_be_mapped_is_told_with_all_its_files(tmp_path):
    cache = make(tmp_path / "cache")
    with h5py.File(cache.file("a"), "a") as file:
        values = file["embedding"][:]
        del file["embedding"]
        file.create_dataset("embedding", data=values, compression="gzip")
    with h5py.File(cache.file("b"), "a") as file:
        del file["embedding"]
        file.create_dataset("embedding", data=np.zeros((1, 6), "f4"))
    cache.file("end").write_bytes(cache.file("end").read_bytes()[:-4000])
    with pytest.raises(CacheError) as caught:
        MappedRows(cache, list(COUNTS))
    text = str(caught.value)
    assert "a.h5: is damaged: /embedding is chunked, compressed or outside" in text and "end.h5: cannot be read" in text
    assert "b.h5: is damaged: /embedding is float32 (1, 6), expected float16" in text


def test_a_dataset_that_is_too_short_is_refused(tmp_path):
    """What lies behind it in the file would be taken for its rows."""
    cache = make(tmp_path / "cache")
    with h5py.File(cache.file("end"), "a") as file:
        values = file["embedding"][:2]
        del file["embedding"]
        file.create_dataset("embedding", data=values)
        file.create_dataset("other", data=np.ones((50, 6), "f2"))
    with pytest.raises(
        CacheError, match=r"end\.h5: is damaged: /embedding is float16 \(2, 6\), expected float16 \(5, any\)"
    ):
        MappedRows(cache, list(COUNTS))


def test_videos_of_different_widths_are_refused(tmp_path):
    cache = make(tmp_path / "cache")
    write(cache, "wide", np.zeros((2, 8), "f2"), 0)
    with pytest.raises(CacheError, match=r"rows of different lengths: \[6, 8\]"):
        MappedRows(cache, ["a", "wide"])


def test_a_reader_is_still_pickled(cache):
    assert pickle.loads(pickle.dumps(cache)).video_ids() == cache.video_ids()
