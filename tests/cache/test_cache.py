from __future__ import annotations

import json
import pickle
from dataclasses import replace

import h5py
import numpy as np
import pytest

from fercache.cache.predictions import (
    Predictions,
    VideoPredictions,
    check_replaceable,
    read_predictions,
    write_predictions,
)
from fercache.cache.provenance import FILE_NAME, Provenance, read_provenance, write_provenance
from fercache.cache.reader import Cache
from fercache.cache.writer import video_writer
from fercache.errors import CacheError, DataError
from fercache.tasks import TASKS

MADE_BY = Provenance("w" * 64, "c" * 64, "expr", "resnet50-vggface2", {"image_size": 112}, "fp32", "float16")
FRAME = np.array([1, 2, 5])


@pytest.fixture
def cache(tmp_path):
    write_provenance(tmp_path, MADE_BY, {"backend": "eager"})
    return Cache(tmp_path)


def write(cache, video="v", rows=3, fingerprint=None, value=1.5):
    path = cache.path(video)
    with video_writer(path, fingerprint or MADE_BY.fingerprint, FRAME, 4, "float16", 7) as writer:
        for row in range(rows):
            writer.append(np.full((1, 4), row * value, np.float32), np.full((1, 7), row, np.float32))


def test_what_is_written_is_read_back(cache):
    write(cache)
    video = cache.read("v")
    assert video.frame.tolist() == [1, 2, 5] and video.frame.dtype == np.int32
    assert video.embedding.tolist() == [[0] * 4, [1.5] * 4, [3] * 4] and video.embedding.dtype == np.float16
    assert video.logits.dtype == np.float32 and video.logits[2].tolist() == [2] * 7
    target = np.empty((3, 4), np.float16)
    cache.read_into("v", target)
    np.testing.assert_array_equal(target, video.embedding)
    assert (cache.embedding_dim("v"), cache.frame("v").tolist()) == (4, [1, 2, 5])
    assert cache.read("v", embedding=False).embedding.shape == (3, 0)


def test_rows_lie_contiguous_and_uncompressed(cache):
    write(cache)
    with h5py.File(cache.path("v")) as file:
        data = file["embedding"]
        assert data.chunks is None and data.compression is None and data.id.get_offset() is not None


def test_a_video_without_a_face(cache):
    with video_writer(cache.path("n"), MADE_BY.fingerprint, np.empty(0, int), 4, "float16", 7):
        pass
    assert cache.read("n").embedding.shape == (0, 4)
    cache.read_into("n", np.empty((0, 4), np.float16))


def test_a_file_appears_only_when_whole(cache):
    with pytest.raises(CacheError, match="2 of 3 rows"):
        write(cache, rows=2)
    with pytest.raises(DataError, match="frame 5 are not finite in float16"):
        write(cache, value=50_000)
    with pytest.raises(KeyboardInterrupt), video_writer(cache.path("v"), "x", FRAME, 4, "float16", 7):
        raise KeyboardInterrupt
    assert sorted(p.name for p in cache.folder.iterdir()) == [FILE_NAME]
    assert not cache.has("v")


def test_missing_and_foreign_videos_are_all_named(cache):
    write(cache, "good")
    write(cache, "foreign", fingerprint="f" * 64)
    cache.path("torn").write_bytes(cache.path("good").read_bytes()[:100])
    with pytest.raises(CacheError) as caught:
        cache.check(["good", "foreign", "torn", "absent"])
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert "fingerprint ffff" in lines[0] and "torn.h5: cannot be read" in lines[1]
    assert "video absent is missing; `fercache extract` makes it" in lines[2]


def test_an_unfinished_file_is_refused(cache):
    write(cache)
    with h5py.File(cache.path("v"), "a") as file:
        file.attrs["complete"] = False
    with pytest.raises(CacheError, match="not complete"):
        cache.read("v")
    with h5py.File(cache.path("v"), "a") as file:
        del file["logits"]
    with pytest.raises(CacheError, match="it has no logits"):
        cache.read("v")


def test_a_reader_travels_to_another_process(cache):
    write(cache)
    assert pickle.loads(pickle.dumps(cache)).read("v").frame.tolist() == [1, 2, 5]


def test_the_fingerprint_depends_on_every_field():
    other = {
        "weights": "x",
        "classifier": None,
        "task": "au",
        "architecture": "vgg",
        "preprocessing": {"image_size": 224},
        "precision": "bf16",
        "dtype": "float32",
        "schema": 2,
    }
    prints = {replace(MADE_BY, **{key: value}).fingerprint for key, value in other.items()}
    assert len(prints | {MADE_BY.fingerprint}) == len(other) + 1
    assert MADE_BY.differences(replace(MADE_BY, precision="bf16")) == ["precision is 'fp32' there, 'bf16' here"]


def test_a_record_that_was_edited_is_refused(cache):
    assert read_provenance(cache.folder) == MADE_BY
    file = cache.folder / FILE_NAME
    content = json.loads(file.read_text())
    content["fields"]["precision"] = "bf16"
    file.write_text(json.dumps(content))
    with pytest.raises(CacheError, match="was edited"):
        Cache(cache.folder)
    file.write_text("{")
    with pytest.raises(CacheError, match="cannot be read"):
        Cache(cache.folder)
    file.unlink()
    with pytest.raises(CacheError, match="is no cache"):
        Cache(cache.folder)


def predictions(**changes):
    videos = {"b": VideoPredictions(FRAME, np.eye(3, 7)), "a": VideoPredictions(FRAME[:0], np.empty((0, 7)))}
    base = Predictions(TASKS["expr"], "validation", "m", "c", "best", np.full(7, 1 / 7), videos)
    return replace(base, **changes)


def test_predictions_come_back(tmp_path):
    path = tmp_path / "p.h5"
    write_predictions(path, predictions())
    found = read_predictions(path)
    assert (found.task, found.split, found.model, found.cache, found.select) == (
        TASKS["expr"],
        "validation",
        "m",
        "c",
        "best",
    )
    np.testing.assert_allclose(found.train_prior, 1 / 7)
    assert set(found.videos) == {"a", "b"} and found.videos["a"].logits.shape == (0, 7)
    np.testing.assert_array_equal(found.videos["b"].logits, np.eye(3, 7, dtype=np.float32))


def test_files_that_are_no_predictions_are_named(tmp_path, cache):
    path = tmp_path / "p.h5"
    with pytest.raises(CacheError, match="no such predictions file"):
        read_predictions(path)
    path.write_text("x")
    with pytest.raises(CacheError, match="no HDF5 file"):
        read_predictions(path)
    write(cache)
    with pytest.raises(CacheError, match="is no predictions file"):
        read_predictions(cache.path("v"))
    path.unlink()
    bad = {
        "v": VideoPredictions(FRAME, np.full((3, 7), np.nan)),
        "w": VideoPredictions(np.array([2, 2, 3]), np.zeros((3, 7))),
        "x": VideoPredictions(np.array([0, 2, 3]), np.zeros((3, 7))),
    }
    write_predictions(path, predictions(videos=bad, train_prior=np.zeros(3)))
    with pytest.raises(CacheError) as caught:
        read_predictions(path)
    assert len(str(caught.value).splitlines()) == 4
    for words in (
        "train_prior: found shape (3,)",
        "video v: expected finite",
        "video w: the frames",
        "video x: the frames",
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
        with pytest.raises(CacheError, match="holds another model's predictions"):
            check_replaceable(path, model, split)
    path.write_text("a letter")
    with pytest.raises(CacheError):
        check_replaceable(path, "m", "validation")
