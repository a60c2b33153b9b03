from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fercache.scoring.intervals import MOST_GROUPS, draws, interval
from fercache.tasks import TASKS

EXPR, AU = TASKS["expr"], TASKS["au"]


def sample(task, seed, frames):
    rng = np.random.default_rng(seed)
    shape, high = task.label_shape(frames), 7 if task is EXPR else 2
    labels, decisions = rng.integers(-1, high, shape), rng.integers(0, high, shape)
    labels[0] = 0  # something counts
    return labels, decisions, rng.integers(0, 4, frames)


@pytest.mark.parametrize("task", [EXPR, AU], ids=["expr", "au"])
@settings(max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), frames=st.integers(1, 40))
def test_every_recording_once_is_the_score(task, seed, frames):
    labels, decisions, recording = sample(task, seed, frames)
    counts = task.tally(decisions, labels, recording)
    scores = task.score_tally(counts, np.ones((1, len(counts.counted))))
    assert scores[0] == pytest.approx(task.score(decisions, labels).score)


@pytest.mark.parametrize("task", [EXPR, AU], ids=["expr", "au"])
@settings(max_examples=40)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_recording_that_is_drawn_twice_counts_twice(task, seed):
    labels, decisions, recording = sample(task, seed, 40)
    recording[:4] = range(4)
    counts = task.tally(decisions, labels, recording)
    weight = np.array([[2.0, 0, 1, 3]])
    chosen = np.concatenate(
        [np.flatnonzero(recording == g) for g, times in enumerate(weight[0]) for _ in range(int(times))]
    )
    try:
        expected = task.score(decisions[chosen], labels[chosen]).score
    except ValueError:  # nothing labelled was drawn
        expected = 0.0
    assert task.score_tally(counts, weight)[0] == pytest.approx(expected)


def test_counts_by_hand():
    labels, decisions = np.array([0, 0, 4, -1, 4]), np.array([0, 4, 4, 0, 0])
    counts = EXPR.tally(decisions, labels, np.array([0, 0, 0, 1, 1]))
    assert counts.right[:, [0, 4]].tolist() == [[1, 1], [0, 0]]
    assert counts.decided[:, [0, 4]].tolist() == [[1, 2], [1, 0]]
    assert counts.labelled[:, [0, 4]].tolist() == [[2, 1], [0, 1]]
    assert counts.correct.tolist() == [2, 0] and counts.counted.tolist() == [3, 1]


def test_all_recordings_come_first_and_then_all_but_each():
    assert draws(3, seed=1).tolist() == [[1, 1, 1], [0, 1, 1], [1, 0, 1], [1, 1, 0]]
    assert draws(1, seed=1).tolist() == [[1], [0]]


def test_many_recordings_are_left_out_in_groups():
    weight = draws(2500, seed=1)
    assert weight.shape == (MOST_GROUPS + 1, 2500) and (weight[0] == 1).all()
    # Each recording is left out once, with one or two others.
    assert (weight[1:].sum(axis=0) == MOST_GROUPS - 1).all()
    assert sorted(set((2500 - weight[1:].sum(axis=1)).tolist())) == [2, 3]
    np.testing.assert_array_equal(weight, draws(2500, seed=1))
    assert not np.array_equal(weight, draws(2500, seed=2))


def test_the_interval_of_a_mean_is_students():
    """The jackknife of a mean is the textbook's: mean plus and minus t s / sqrt(n); here n = 4, t = 3.18245."""
    sample = np.array([1.0, 2.0, 4.0, 9.0])
    weight = draws(4, seed=0)
    values = weight @ sample / weight.sum(axis=1)
    # Mean 4, standard deviation sqrt(38 / 3).
    assert interval(values) == pytest.approx(
        (4 - 3.18245 * np.sqrt(38 / 3) / 2, 4 + 3.18245 * np.sqrt(38 / 3) / 2), 1e-5
    )


def test_a_bias_of_one_over_n_is_taken_away():
    """The variance divided by n is low by a share of 1 / n; the middle of the interval is that divided by n - 1."""
    sample = np.array([1.0, 2.0, 4.0, 9.0, 3.0])
    weight = draws(5, seed=0)
    mean = weight @ sample / weight.sum(axis=1)
    low, high = interval(weight @ sample**2 / weight.sum(axis=1) - mean**2)
    assert (low + high) / 2 == pytest.approx(sample.var(ddof=1))


def test_bounds_include_the_score_keep_to_limits_and_reach_to_what_is_unknown():
    # T = .2, all T_i = .1: the estimate is .5 with no error.
    values = np.array([0.2, 0.1, 0.1, 0.1, 0.1])
    assert interval(values) == pytest.approx((0.2, 0.5))
    assert interval(values, unknown=0.3) == pytest.approx((0.2, 0.8))
    assert interval(values, unknown=0.7, limits=(0, 1)) == pytest.approx((0.2, 1.0))


def test_classes_that_no_recording_shows_leave_the_upper_bound_open():
    labels = np.array([0, 0, 1, 1])
    counts = EXPR.tally(labels, labels, np.array([0, 0, 1, 1]))
    assert EXPR.unknown_share(counts) == pytest.approx(0.67 * 5 / 7)
    units = np.zeros((2, 12), int)
    units[0, :3] = 1
    assert AU.unknown_share(AU.tally(units, units, np.array([0, 1]))) == pytest.approx(0.5 * 9 / 12)


def test_recordings_that_are_alike_leave_no_doubt():
    labels = np.tile([0, 1, 2, 3], 6)
    decisions = np.tile([0, 1, 2, 0], 6)
    counts = EXPR.tally(decisions, labels, np.repeat(np.arange(6), 4))
    low, high = interval(EXPR.score_tally(counts, draws(6, seed=0)))
    assert low == pytest.approx(high) == pytest.approx(EXPR.score(decisions, labels).score)


def test_one_recording_says_nothing_of_others():
    counts = EXPR.tally(np.array([0, 1]), np.array([0, 0]), np.zeros(2, int))
    assert np.isnan(interval(EXPR.score_tally(counts, draws(1, seed=0)))).all()


def recordings_of(random, count):
    """Labels and decisions of recordings in each of which one or two classes occur."""
    shares = np.array([0.4, 0.1, 0.07, 0.05, 0.2, 0.12, 0.06])
    parts = []
    for _ in range(count):
        frames, skill = int(random.integers(20, 90)), random.beta(2, 1.2)
        labels = random.choice(random.choice(7, size=2, p=shares), size=frames)
        guess = random.choice(7, size=frames, p=shares)
        parts.append((labels, np.where(random.random(frames) < skill, labels, guess)))
    labels, decisions = (np.concatenate(part) for part in zip(*parts, strict=True))
    return labels, decisions, np.repeat(np.arange(count), [len(part[0]) for part in parts])


def test_intervals_hold_the_true_score_as_often_as_they_say():
    """Percentiles of a bootstrap hold it in 72 % of such sets."""
    random = np.random.default_rng(0)
    labels, decisions, _ = recordings_of(random, 4000)
    truth, held = EXPR.score(decisions, labels).score, []
    for _ in range(200):
        labels, decisions, recording = recordings_of(random, 20)
        low, high = interval(EXPR.score_tally(EXPR.tally(decisions, labels, recording), draws(20, seed=0)))
        held.append(low <= truth <= high)
    assert 0.91 <= np.mean(held) <= 0.99
