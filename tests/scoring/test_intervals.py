from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fercache.scoring.intervals import draws, interval, tally
from fercache.scoring.metrics import score
from fercache.tasks import TASKS

EXPR, AU = TASKS["expr"], TASKS["au"]


def sample(task, seed, frames):
    rng = np.random.default_rng(seed)
    shape = (frames,) if task.kind == "one" else (frames, 12)
    high = len(task.classes) if task.kind == "one" else 2
    labels, decisions = rng.integers(-1, high, shape), rng.integers(0, high, shape)
    labels[0] = 0  # something counts
    return labels, decisions, rng.integers(0, 4, frames)


@pytest.mark.parametrize("task", [EXPR, AU], ids=["expr", "au"])
@settings(max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), frames=st.integers(1, 40))
def test_every_recording_once_is_the_score(task, seed, frames):
    labels, decisions, recording = sample(task, seed, frames)
    counts = tally(task, decisions, labels, recording)
    found = counts.scores(task, np.ones((1, len(counts.counted))))
    assert found[0] == pytest.approx(score(task, decisions, labels).score)


@pytest.mark.parametrize("task", [EXPR, AU], ids=["expr", "au"])
@settings(max_examples=40)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_recording_that_is_drawn_twice_counts_twice(task, seed):
    labels, decisions, recording = sample(task, seed, 40)
    recording[:4] = range(4)
    counts = tally(task, decisions, labels, recording)
    weight = np.array([[2.0, 0, 1, 3]])
    chosen = np.concatenate(
        [np.flatnonzero(recording == g) for g, times in enumerate(weight[0]) for _ in range(int(times))]
    )
    try:
        expected = score(task, decisions[chosen], labels[chosen]).score
    except ValueError:  # nothing labelled was drawn
        expected = 0.0
    assert counts.scores(task, weight)[0] == pytest.approx(expected)


def test_counts_by_hand():
    labels, decisions = np.array([0, 0, 4, -1, 4]), np.array([0, 4, 4, 0, 0])
    counts = tally(EXPR, decisions, labels, np.array([0, 0, 0, 1, 1]))
    assert counts.right[:, [0, 4]].tolist() == [[1, 1], [0, 0]]
    assert counts.decided[:, [0, 4]].tolist() == [[1, 2], [1, 0]]
    assert counts.labelled[:, [0, 4]].tolist() == [[2, 1], [0, 1]]
    assert counts.correct.tolist() == [2, 0] and counts.counted.tolist() == [3, 1]


def test_as_many_recordings_are_drawn_as_there_are():
    weight = draws(5, seed=1, count=400)
    assert weight.shape == (400, 5) and (weight.sum(axis=1) == 5).all()
    assert weight.mean(axis=0) == pytest.approx(np.ones(5), abs=0.2)
    np.testing.assert_array_equal(weight, draws(5, seed=1, count=400))


def test_an_interval_leaves_a_fortieth_out_on_either_side():
    assert interval(np.arange(1001) / 1000) == pytest.approx((0.025, 0.975))


def test_recordings_that_are_alike_leave_no_doubt():
    labels = np.tile([0, 1, 2, 3], 6)
    decisions = np.tile([0, 1, 2, 0], 6)
    counts = tally(EXPR, decisions, labels, np.repeat(np.arange(6), 4))
    low, high = interval(counts.scores(EXPR, draws(6, seed=0)))
    assert low == pytest.approx(high) == pytest.approx(score(EXPR, decisions, labels).score)


def test_one_recording_says_nothing_of_others():
    counts = tally(EXPR, np.array([0, 1]), np.array([0, 0]), np.zeros(2, int))
    assert np.isnan(interval(counts.scores(EXPR, draws(1, seed=0)))).all()
