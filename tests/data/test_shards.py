"""Dealing videos among jobs."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fercache.data.manifest import Video
from fercache.data.shards import Shard, deal, imbalance
from fercache.errors import ConfigError


def videos(*lengths):
    return [Video(f"v{n}", "train", Path("f"), None, length, f"v{n}") for n, length in enumerate(lengths)]


def ids(shards):
    return [[video.video_id for video in shard] for shard in shards]


def test_the_longest_first_onto_the_least_loaded():
    assert ids(deal(videos(5, 9, 2, 4, 7), 2)) == [["v1", "v3"], ["v0", "v2", "v4"]]
    assert imbalance(deal(videos(5, 9, 2, 4, 7), 2)) == 14 / 13.5 - 1


@given(st.lists(st.integers(1, 50_000), min_size=1, max_size=60), st.integers(1, 9))
def test_each_video_is_in_one_shard_and_no_shard_is_longer_than_need_be(lengths, count):
    every = videos(*lengths)
    shards = deal(every, count)
    assert len(shards) == count
    assert sorted(video for shard in ids(shards) for video in shard) == sorted(video.video_id for video in every)
    # Graham's bound: no shard is above the mean by more than the longest video.
    assert max(sum(v.num_frames for v in s) for s in shards) <= sum(lengths) / count + max(lengths)
    # The order of the manifest does not matter, but for the order within a shard.
    assert [set(shard) for shard in ids(deal(every[::-1], count))] == [set(shard) for shard in ids(shards)]


def test_seven_shards_of_a_data_set_like_aff_wild2_are_even():
    lengths = [200 + 97 * n % 9000 for n in range(548)] + [47_434]
    shards = deal(videos(*lengths), 7)
    assert sum(map(len, shards)) == 549 and imbalance(shards) <= 0.05


def test_a_video_without_a_face_weighs_nothing():
    faceless = [Video("n", "test", None, None, 99_999, "n")]
    assert ids(deal([*videos(3, 3), *faceless], 2)) == [["v0", "n"], ["v1"]]
    assert imbalance(deal(faceless, 3)) == 0


@pytest.mark.parametrize("text", ["", "0/3", "4/3", "1", "1/0", "-1/3", "a/b", "1/3/5", " 1/3"])
def test_what_is_no_shard_is_refused(text):
    with pytest.raises(ConfigError, match="expected I/N with I from 1 to N"):
        Shard.parse(text)


def test_a_shard_is_read_as_it_is_written():
    assert Shard.parse("2/7") == Shard(2, 7) and str(Shard(2, 7)) == "2/7"
