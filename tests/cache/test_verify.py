"""Verifying and packing a cache."""

from __future__ import annotations

from dataclasses import replace

import h5py
import numpy as np
import pytest
from support.caches import FRAME, MADE_BY, SHAPE, parts, write

from fercache.cache.pack import pack
from fercache.cache.provenance import CacheRecord, begin_record
from fercache.cache.reader import Cache
from fercache.cache.verify import Finding, check_video
from fercache.cache.writer import write_video
from fercache.errors import CacheError


@pytest.fixture
def cache(tmp_path):
    begin_record(tmp_path / "cache", CacheRecord(MADE_BY, {"backend": "eager"}))
    return Cache(tmp_path / "cache")


def test_what_was_written_is_whole(cache):
    write(cache)
    write_video(cache.file("n"), MADE_BY, SHAPE, np.empty(0, int), np.empty(0, bool), [])
    write_video(cache.file("s"), MADE_BY, SHAPE, FRAME, np.array([True, False, True]), parts([0, 2]))
    assert [check_video(cache, video) for video in ("v", "n", "s")] == [Finding()] * 3


def damage_by_a_bit(file):
    file["embedding"][1, 2] = np.nextafter(file["embedding"][1, 2], np.float16(9), dtype=np.float16)


def damage_the_number(file):
    file["embedding"][0, 0] = np.nan


def damage_the_order(file):
    file["frame"][:] = [1, 5, 2]


def damage_the_skipped(file):
    del file["skipped"]
    file["skipped"] = np.array([2], np.int32)


def damage_the_type(file):
    rows = file["embedding"][:]
    del file["embedding"]
    file["embedding"] = rows.astype(np.float32)


def damage_the_length(file):
    rows = file["logits"][:2]
    del file["logits"]
    file["logits"] = rows


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (damage_by_a_bit, ["another checksum"]),
        (damage_the_number, ["embedding: has numbers that are not finite", "another checksum"]),
        (damage_the_order, ["frame: the frame numbers do not ascend from 1", "another checksum"]),
        (damage_the_skipped, ["skipped: has frames that have a row, too", "another checksum"]),
        (damage_the_type, ["/embedding is float32 (3, 4), expected float16 (3, any)"]),
        (damage_the_length, ["/logits is float32 (2, 7), expected float32 (3, 7)"]),
    ],
)
def test_every_damage_is_found(cache, damage, words):
    write(cache)
    with h5py.File(cache.file("v"), "a") as file:
        damage(file)
    finding = check_video(cache, "v")
    problems = finding.problems
    assert finding.broken
    assert len(problems) == len(words), problems
    for problem, expected in zip(problems, words, strict=True):
        assert str(cache.file("v")) in problem and expected in problem


def test_a_torn_file_is_found(cache):
    write(cache)
    whole = cache.file("v").read_bytes()
    for length in (0, 100, len(whole) // 2, len(whole) - 1):
        cache.file("v").write_bytes(whole[:length])
        (problem,) = check_video(cache, "v").problems
        assert "cannot be read" in problem


def test_a_packed_cache_holds_the_same(cache, tmp_path):
    write(cache, "b", value=0.5)
    write_video(cache.file("n"), MADE_BY, SHAPE, np.empty(0, int), np.empty(0, bool), [])
    write_video(cache.file("a"), MADE_BY, SHAPE, FRAME, np.array([True, False, True]), parts([0, 2]))
    pack(cache, ["b", "n", "a"], tmp_path / "p.h5")
    packed = Cache(tmp_path / "p.h5")
    assert packed.video_ids() == ["b", "n", "a"] and packed.record == cache.record
    for video in ("a", "b", "n"):
        one, other = cache.read(video), packed.read(video)
        for name in ("frame", "embedding", "logits"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        assert packed.skipped(video).tolist() == cache.skipped(video).tolist()
        assert packed.entry(video).checksum == cache.entry(video).checksum
        assert check_video(packed, video) == Finding()
    assert packed.has("a") and not packed.has("other")
    with h5py.File(tmp_path / "p.h5") as file:
        assert file["embedding"].shape == (5, 4) and file["embedding"].chunks is None
        assert [row["video_id"].decode() for row in file["videos"]] == ["b", "n", "a"]
        assert file["videos"]["start"].tolist() == [0, 3, 3] and file["videos"]["count"].tolist() == [3, 0, 2]


def test_a_broken_video_is_not_packed(cache, tmp_path):
    for video in ("a", "b", "c"):
        write(cache, video)
    for video in ("a", "c"):
        with h5py.File(cache.file(video), "a") as file:
            damage_by_a_bit(file)
    with pytest.raises(CacheError) as caught:
        pack(cache, ["a", "b", "c"], tmp_path / "p.h5")
    assert len(str(caught.value).splitlines()) == 2 and not (tmp_path / "p.h5").exists()


def test_damage_in_a_packed_cache_is_found(cache, tmp_path):
    path = tmp_path / "p.h5"
    write(cache, "a")
    write(cache, "b")
    pack(cache, ["a", "b"], path)
    with h5py.File(path, "a") as file:
        file["embedding"][4, 0] = 7
    assert check_video(Cache(path), "a") == Finding()
    (problem,) = check_video(Cache(path), "b").problems
    assert "video b: its content is not what was written" in problem
    with h5py.File(path, "a") as file:
        rows = file["videos"][:]
        rows["start"][1] = 4
        file["videos"][:] = rows
    with pytest.raises(CacheError, match="video b: its rows lie outside the file's 6"):
        Cache(path)
    with h5py.File(path, "a") as file:
        del file["videos"]
    with pytest.raises(CacheError, match="is damaged"):
        Cache(path)
    with pytest.raises(CacheError, match="is no packed cache"):
        Cache(cache.file("a"))
    path.write_text("text")
    with pytest.raises(CacheError, match="no HDF5 file"):
        Cache(path)


def assert_same_video(video, expected):
    for name, value in vars(expected).items():
        np.testing.assert_array_equal(vars(video)[name], value, err_msg=name)


def test_no_flipped_bit_ends_in_a_traceback(cache, tmp_path):
    """Every byte of the structure, one at a time: the file reads as it was, or is refused by name."""
    write(cache)
    pack(cache, ["v"], tmp_path / "p.h5")
    rng, expected = np.random.default_rng(0), cache.read("v")
    for path in (cache.file("v"), tmp_path / "p.h5"):
        whole = path.read_bytes()
        for place in rng.choice(len(whole), 250, replace=False):
            content = bytearray(whole)
            content[place] ^= 1 << int(rng.integers(8))
            path.write_bytes(content)
            try:
                reader = cache if path.stem == "v" else Cache(path)
                if reader.has("v"):
                    finding = check_video(reader, "v")
                    assert all(str(path) in problem for problem in finding.problems)
                    if finding == Finding():
                        assert_same_video(reader.read("v"), expected)
            except CacheError as error:
                assert str(path) in str(error)
        path.write_bytes(whole)


@pytest.mark.parametrize("name", ["complete", "fingerprint", "video_id", "provenance"])
def test_attributes_of_another_kind_are_told(cache, name):
    write(cache)
    with h5py.File(cache.file("v"), "a") as file:
        file.attrs[name] = np.arange(3)
        if name == "provenance":
            file.attrs["fingerprint"] = "other"
    finding = check_video(cache, "v")
    assert finding.problems and str(cache.file("v")) in finding.problems[0]


def test_what_is_not_damaged_is_no_reason_to_remove(cache, tmp_path):
    write(cache, "other", made_by=replace(MADE_BY, precision="bf16"))
    with h5py.File(cache.file("letter"), "w") as file:
        file["text"] = 1
    cache.file("folder").mkdir()
    for video in ("other", "letter", "folder"):
        finding = check_video(cache, video)
        assert finding.problems and not finding.broken, video
    with pytest.raises(CacheError, match="lies in the cache itself"):
        pack(cache, ["other"], cache.path / "p.h5")
