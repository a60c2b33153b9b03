from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fercache.data.datasets import MIXED_BLOCKS, EpochBatches, ahead, in_blocks, in_order, share_of
from fercache.data.frames import FramePaths, JoinedPaths, decode, list_frames
from fercache.data.loader import FrameLoader
from fercache.errors import DataError


def jpeg(path, colour=(10, 200, 30), size=(48, 48)):
    Image.new("RGB", size, colour).save(path, "JPEG", quality=95)


def test_frames_come_in_the_order_of_their_numbers(tmp_path):
    for name in ("00010.jpg", "2.png", "00001.JPG", "notes.txt", ".DS_Store", "x.jpg"):
        (tmp_path / name).touch()
    frames = list_frames(tmp_path)
    assert frames.frame.tolist() == [1, 2, 10]
    assert list(frames.paths) == [str(tmp_path / name) for name in ("00001.JPG", "2.png", "00010.jpg")]
    assert list_frames(tmp_path, 5).frame.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("names", "words"), [(("1.jpg", "00001.jpg"), "duplicate frame 1"), (("00000.jpg",), "from 1")]
)
def test_numbers_that_cannot_be(tmp_path, names, words):
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(DataError, match=words):
        list_frames(tmp_path)


def test_a_frame_is_rgb(tmp_path):
    jpeg(tmp_path / "1.jpg")
    pixels = decode(str(tmp_path / "1.jpg"))
    assert pixels.shape == (48, 48, 3) and pixels.dtype == np.uint8
    assert np.abs(pixels.mean(axis=(0, 1)) - (10, 200, 30)).max() < 3


def test_grey_frames_become_rgb(tmp_path):
    Image.new("L", (8, 8), 77).save(tmp_path / "1.png")
    assert (decode(str(tmp_path / "1.png")) == 77).all()


def broken(tmp_path):
    whole = io.BytesIO()
    Image.effect_noise((112, 112), 80).convert("RGB").save(whole, "JPEG")
    contents = {
        "cut.jpg": whole.getvalue()[: len(whole.getvalue()) // 2],
        "empty.jpg": b"",
        "text.jpg": b"no image" * 9,
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    return contents


@pytest.mark.parametrize(
    ("name", "words"),
    [("cut.jpg", "not a whole image"), ("empty.jpg", "is empty"), ("text.jpg", "is not an image in JPEG")],
)
def test_broken_frames_are_named(tmp_path, name, words):
    broken(tmp_path)
    with pytest.raises(DataError, match=words) as caught:
        decode(str(tmp_path / name))
    assert str(tmp_path / name) in str(caught.value)


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_keep_the_order_and_report_broken_frames(tmp_path, workers):
    paths = []
    for number in range(5):
        jpeg(tmp_path / f"{number}.jpg", (number * 40, 0, 0))
        paths.append(str(tmp_path / f"{number}.jpg"))
    (tmp_path / "1.jpg").write_bytes(b"")
    batches = list(FrameLoader(paths, in_order(range(5), 3), workers))
    assert [batch.index.tolist() for batch in batches] == [[0, 2], [3, 4]]
    assert [list(batch.failures) for batch in batches] == [[1], []]
    assert batches[1].frames.shape == (2, 3, 48, 48) and batches[1].frames.dtype == torch.uint8
    assert abs(int(batches[1].frames[1, 0, 0, 0]) - 160) < 4


def test_frames_of_different_sizes_come_as_a_list(tmp_path):
    jpeg(tmp_path / "1.jpg")
    jpeg(tmp_path / "2.jpg", size=(20, 30))
    (batch,) = FrameLoader([str(tmp_path / "1.jpg"), str(tmp_path / "2.jpg")], [[0, 1]], 0)
    assert [tuple(frame.shape) for frame in batch.frames] == [(3, 48, 48), (3, 30, 20)]


def test_each_epoch_has_its_own_order():
    first = list(EpochBatches(50, 8, seed=3).start(0))
    assert first == list(EpochBatches(50, 8, seed=3).start(0))
    assert first != list(EpochBatches(50, 8, seed=3).start(1)) != list(EpochBatches(50, 8, seed=4).start(1))


@given(samples=st.integers(1, 200), batch_size=st.integers(1, 250), ranks=st.integers(1, 5), start=st.floats(0, 1))
def test_every_sample_is_in_one_step_of_one_rank(samples, batch_size, ranks, start):
    try:
        dealt = [EpochBatches(samples, batch_size, 0, rank, ranks) for rank in range(ranks)]
    except ValueError:
        assert batch_size < 2 * ranks or samples < ranks
        return
    steps = [list(order) for order in dealt]
    assert sorted(place for own in steps for part in own for place in part) == list(range(samples))
    sizes = [sum(map(len, parts)) for parts in zip(*steps, strict=True)]
    assert len(sizes) == -(-samples // batch_size) and max(sizes) <= batch_size and max(sizes) - min(sizes) <= 1
    assert all(part for own in steps for part in own)
    later = int(start * len(sizes))
    for order, own in zip(dealt, steps, strict=True):
        assert list(order.start(0, later)) == own[later:] and len(order) == len(sizes) - later


@given(count=st.integers(1, 50), ranks=st.integers(1, 7))
def test_shares_are_equally_long_and_leave_nothing_out(count, ranks):
    shares = [share_of(count, rank, ranks) for rank in range(ranks)]
    assert {len(share) for share in shares} == {-(-count // ranks)}
    assert [place for share in shares for place in share][:count] == list(range(count))


def test_places_in_order():
    assert in_order(range(5), 2) == [[0, 1], [2, 3], [4]]
    assert in_order([7, 9], 3) == [[7, 9]]


@given(samples=st.integers(1, 300), block=st.integers(1, 40), seed=st.integers(0, 5))
def test_blocks_mix_neighbours_and_leave_nothing_out(samples, block, seed):
    order = in_blocks(samples, block, np.random.default_rng(seed))
    assert sorted(order) == list(range(samples))
    for number in range(-(-samples // block)):
        places = np.flatnonzero(order // block == number)
        assert places[-1] - places[0] < MIXED_BLOCKS * block
    steps = list(EpochBatches(samples, 7, seed, block=block))
    assert sorted(place for part in steps for place in part) == list(range(samples))


def test_work_ahead_keeps_the_order_and_raises_where_it_fails():
    assert list(ahead(range(5), lambda item: item**2, active=True)) == [0, 1, 4, 9, 16]
    assert list(ahead(range(5), lambda item: item**2, active=False)) == [0, 1, 4, 9, 16]
    results = ahead([1, 0, 2], lambda item: 1 // item, active=True)
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_paths_are_joined_and_found_by_place(tmp_path):
    parts = [FramePaths(tmp_path / "a", ["1.jpg", "00002.jpg"]), FramePaths(tmp_path / "n", []), ["x.png"]]
    joined = JoinedPaths(parts)
    assert list(joined) == [str(tmp_path / "a" / "1.jpg"), str(tmp_path / "a" / "00002.jpg"), "x.png"]
    assert (len(joined), joined.start.tolist()) == (3, [0, 2, 2, 3])
    assert [joined.part(place) for place in range(3)] == [0, 0, 2]
