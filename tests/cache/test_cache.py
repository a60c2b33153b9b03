from __future__ import annotations

import json
import multiprocessing
import pickle
from dataclasses import replace

import h5py
import numpy as np
import pytest
from support.caches import FRAME, MADE_BY, SHAPE, parts, predictions, write

from fercache.cache.pack import pack
from fercache.cache.predictions import (
    VideoPredictions,
    check_replaceable,
    read_predictions,
    write_predictions,
)
from fercache.cache.provenance import PROVENANCE_FILE, CacheRecord, begin_record, read_record
from fercache.cache.reader import Cache
from fercache.cache.rows import Part, as_stored
from fercache.cache.writer import write_video
from fercache.errors import CacheError
from fercache.tasks import TASKS


@pytest.fixture
def cache(tmp_path):
    begin_record(tmp_path, CacheRecord(MADE_BY, {"backend": "eager"}))
    return Cache(tmp_path)


def test_what_is_written_is_read_back(cache):
    write(cache)
    video = cache.read("v")
    assert video.frame.tolist() == [1, 2, 5] and video.frame.dtype == np.int32
    assert video.embedding.tolist() == [[0] * 4, [1.5] * 4, [3] * 4] and video.embedding.dtype == np.float16
    assert video.logits.dtype == np.float32 and video.logits[2].tolist() == [2] * 7
    assert cache.frame("v").tolist() == [1, 2, 5]


def test_rows_lie_contiguous_and_uncompressed(cache):
    write(cache)
    with h5py.File(cache.file("v")) as file:
        data = file["embedding"]
        assert data.chunks is None and data.compression is None and data.id.get_offset() is not None


def test_a_video_without_a_face(cache):
    write_video(cache.file("n"), MADE_BY, SHAPE, np.empty(0, int), np.empty(0, bool), [])
    assert cache.read("n").embedding.shape == (0, 4)


def test_rows_may_come_in_any_order_and_skipped_frames_are_recorded(cache):
    face = np.array([True, False, True, True])
    both = Part(np.array([3, 0]), np.array([[3] * 4, [0] * 4], np.float16), np.array([[3] * 7, [0] * 7], np.float32))
    write_video(cache.file("v"), MADE_BY, SHAPE, np.array([1, 2, 5, 6]), face, [both, *parts([2], 1)])
    video = cache.read("v")
    assert video.frame.tolist() == [1, 5, 6] and cache.skipped("v").tolist() == [2]
    assert video.embedding[:, 0].tolist() == [0, 2, 3] and video.logits[:, 6].tolist() == [0, 2, 3]


def test_a_file_appears_only_when_whole(cache):
    with pytest.raises(CacheError, match="2 of 3 rows"):
        write(cache, rows=range(2))

    def interrupted():
        yield from parts([0])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_video(cache.file("v"), MADE_BY, SHAPE, FRAME, np.ones(3, bool), interrupted())
    assert sorted(p.name for p in cache.path.iterdir()) == [PROVENANCE_FILE]
    assert not cache.has("v")


def test_what_the_stored_type_cannot_hold_is_found():
    embedding, logits = np.array([[1.0, 2], [70_000, 0], [0, 0]]), np.array([[0.0], [0], [np.nan]])
    stored, bad = as_stored(embedding, logits, "float16")
    assert stored.dtype == np.float16 and bad.tolist() == [False, True, True]
    assert as_stored(embedding, None, "float32")[1].tolist() == [False, False, False]


def test_missing_and_foreign_videos_are_all_named(cache):
    write(cache, "good")
    write(cache, "foreign", made_by=replace(MADE_BY, precision="bf16", weights="other"))
    cache.file("torn").write_bytes(cache.file("good").read_bytes()[:100])
    cache.file("renamed").write_bytes(cache.file("good").read_bytes())
    with pytest.raises(CacheError) as caught:
        cache.check(["good", "foreign", "torn", "renamed", "absent"])
    lines = str(caught.value).splitlines()
    assert len(lines) == 4
    assert "precision: found 'bf16', expected 'fp32'" in lines[0] and "weights: found 'other'" in lines[0]
    assert "torn.h5: cannot be read" in lines[1] and "renamed.h5: holds video 'good'" in lines[2]
    assert "video absent is missing; `fercache extract` makes it" in lines[3]


def test_an_unfinished_file_is_refused(cache):
    write(cache)
    with h5py.File(cache.file("v"), "a") as file:
        file.attrs["complete"] = False
    with pytest.raises(CacheError, match="not complete"):
        cache.read("v")
    with h5py.File(cache.file("v"), "a") as file:
        file.attrs["complete"] = True
        del file["logits"]
    with pytest.raises(CacheError, match="is damaged: /logits is missing"):
        cache.read("v")


def _frames_in_a_fork(cache, pipe):
    pipe.send(cache.read("v").frame.tolist())
    pipe.close()


@pytest.mark.parametrize("packed", [False, True])
def test_a_reader_travels_to_another_process(cache, packed, tmp_path):
    write(cache)
    if packed:
        pack(cache, ["v"], tmp_path / "other" / "packed.h5")
        cache = Cache(tmp_path / "other" / "packed.h5")
    assert cache.read("v").frame.tolist() == [1, 2, 5]
    assert pickle.loads(pickle.dumps(cache)).read("v").frame.tolist() == [1, 2, 5]
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    child = context.Process(target=_frames_in_a_fork, args=(cache, theirs))
    child.start()
    assert ours.recv() == [1, 2, 5]
    child.join()
    # The parent's reader is still its own.
    assert cache.read("v").frame.tolist() == [1, 2, 5]


def test_the_first_record_stays(tmp_path):
    first = CacheRecord(MADE_BY, {"backend": "eager"})
    assert begin_record(tmp_path / "c", first) == first
    assert begin_record(tmp_path / "c", CacheRecord(MADE_BY, {"backend": "compile"})) == first
    assert [path.name for path in (tmp_path / "c").iterdir()] == [PROVENANCE_FILE]


def test_the_fingerprint_depends_on_every_field():
    other = {
        "weights": "x",
        "classifier": None,
        "task": "au",
        "architecture": "vgg",
        "preprocessing": {"image_size": 224},
        "precision": "bf16",
        "dtype": "float32",
        "schema": 3,
    }
    prints = {replace(MADE_BY, **{key: value}).fingerprint for key, value in other.items()}
    assert len(prints | {MADE_BY.fingerprint}) == len(other) + 1
    assert MADE_BY.differences(replace(MADE_BY, precision="bf16")) == ["precision: found 'fp32', expected 'bf16'"]


def test_a_record_that_was_edited_is_refused(cache):
    assert read_record(cache.path).provenance == MADE_BY
    file = cache.path / PROVENANCE_FILE
    content = json.loads(file.read_text())
    content["fields"]["precision"] = "bf16"
    file.write_text(json.dumps(content))
    with pytest.raises(CacheError, match="was edited"):
        Cache(cache.path)
    file.write_text("{")
    with pytest.raises(CacheError, match="is no provenance record"):
        Cache(cache.path)
    file.unlink()
    with pytest.raises(CacheError, match="is no cache"):
        Cache(cache.path)


def test_predictions_come_back(tmp_path):
    path = tmp_path / "p.h5"
    write_predictions(path, predictions())
    loaded = read_predictions(path)
    assert (loaded.task, loaded.split, loaded.model, loaded.cache, loaded.select) == (
        TASKS["expr"],
        "validation",
        "m",
        "c",
        "best",
    )
    np.testing.assert_allclose(loaded.train_prior, 1 / 7)
    assert set(loaded.videos) == {"a", "b"} and loaded.videos["a"].logits.shape == (0, 7)
    np.testing.assert_array_equal(loaded.videos["b"].logits, np.eye(3, 7, dtype=np.float32))


def test_files_that_are_no_predictions_are_named(tmp_path, cache):
    path = tmp_path / "p.h5"
    with pytest.raises(CacheError, match="no such predictions file"):
        read_predictions(path)
    path.write_text("x")
    with pytest.raises(CacheError, match="no HDF5 file"):
        read_predictions(path)
    write(cache)
    with pytest.raises(CacheError, match="is no predictions file"):
        read_predictions(cache.file("v"))
    path.unlink()
    bad = {
        "v": VideoPredictions(FRAME, np.full((3, 7), np.nan)),
        "w": VideoPredictions(np.array([2, 2, 3]), np.zeros((3, 7))),
        "x": VideoPredictions(np.array([0, 2, 3]), np.zeros((3, 7))),
    }
    write_predictions(path, predictions(videos=bad, train_prior=np.full(7, 2.0)))
    with pytest.raises(CacheError) as caught:
        read_predictions(path)
    assert len(str(caught.value).splitlines()) == 4
    for words in (
        "train_prior: found [2.0, 2.0",
        "video v: has logits that are not finite",
        "video w: the frame numbers do not ascend",
        "video x: the frame numbers do not ascend",
    ):
        assert words in str(caught.value)


def test_attributes_that_are_missing_are_told(tmp_path):
    path = tmp_path / "p.h5"
    for name in ("task", "model", "train_prior"):
        write_predictions(path, predictions())
        with h5py.File(path, "a") as file:
            del file.attrs[name]
        with pytest.raises(CacheError, match="is damaged"):
            read_predictions(path)


def test_predictions_are_replaced_by_the_same_models_only(tmp_path):
    path = tmp_path / "p.h5"
    check_replaceable(path, "m", "validation")
    write_predictions(path, predictions())
    check_replaceable(path, "m", "validation")
    for model, split in (("n", "validation"), ("m", "test")):
        with pytest.raises(CacheError, match="contains another model's predictions"):
            check_replaceable(path, model, split)
    path.write_text("a letter")
    with pytest.raises(CacheError):
        check_replaceable(path, "m", "validation")
