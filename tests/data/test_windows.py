from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fercache.data import windows
from fercache.errors import ConfigError

lengths = st.sampled_from([1, 3, 5, 9, 15])
present_frames = st.lists(st.integers(1, 60), min_size=1, max_size=40, unique=True).map(sorted).map(np.array)


def plain_row(frame, centre, position, length):
    """The contract, word by word: the nearest present row of the window, the earlier one on a tie."""
    wanted = centre - (length - 1) // 2 + position
    first, last = centre - (length - 1) // 2, centre + (length - 1) // 2
    inside = [row for row, number in enumerate(frame) if first <= number <= last]
    return min(inside, key=lambda row: (abs(frame[row] - wanted), frame[row]))


@given(present_frames, lengths)
def test_rows_are_those_of_the_contract(frame, length):
    rows, present = windows.rows(frame, frame, length)
    expected = [[plain_row(frame, t, k, length) for k in range(length)] for t in frame]
    assert rows.tolist() == expected
    np.testing.assert_array_equal(present, frame[rows] == windows.positions(frame, length))


def test_a_gap_by_hand():
    frame = np.array([1, 2, 5, 9])
    rows, present = windows.rows(frame, np.array([5]), 9)
    # Positions 1..9; 3 is nearer to 2, 4 and 6 to 5, 7 is as near to 5 as to 9: the earlier.
    assert rows.tolist() == [[0, 1, 1, 2, 2, 2, 2, 3, 3]]
    assert present.tolist() == [[True, True, False, False, True, False, False, False, True]]


def test_a_long_gap_is_not_crossed():
    rows, _ = windows.rows(np.array([1, 2, 50]), np.array([2]), 9)
    assert rows.tolist() == [[0, 0, 0, 0, 1, 1, 1, 1, 1]]


def test_a_video_of_one_frame():
    rows, present = windows.rows(np.array([7]), np.array([7]), 9)
    assert rows.tolist() == [[0] * 9]
    assert present.tolist() == [[False] * 4 + [True] + [False] * 4]


@given(present_frames, lengths)
def test_each_present_frame_is_the_middle_of_exactly_one_inference_window(frame, length):
    rows, present = windows.rows(frame, frame, length)
    assert rows[:, length // 2].tolist() == list(range(len(frame)))
    assert present[:, length // 2].all()


@given(present_frames, lengths, st.data())
def test_training_windows_cover_every_labelled_present_frame(frame, length, data):
    counts = np.array(data.draw(st.lists(st.booleans(), min_size=len(frame), max_size=len(frame))))
    stride = data.draw(st.integers(1, length))
    centres = windows.training_centres(frame, counts, length, stride)
    assert (centres % stride == 1 % stride).all()
    if not counts.any():
        assert len(centres) == 0
        return
    rows, present = windows.rows(frame, centres, length)
    assert set(np.flatnonzero(counts)) <= set(rows[present])
    # Every window that is kept has a position that counts.
    assert (counts[rows] & present).any(axis=1).all()


def test_centres_by_hand():
    frame = np.arange(1, 11)
    assert windows.training_centres(frame, np.ones(10, bool), 9, 4).tolist() == [1, 5, 9, 13]
    assert windows.training_centres(frame, frame == 10, 3, 3).tolist() == [10]


@pytest.mark.parametrize("length", [0, 2, 8, -1])
def test_even_lengths_are_refused(length):
    with pytest.raises(ConfigError, match="odd"):
        windows.rows(np.array([1]), np.array([1]), length)


def test_a_window_without_a_frame_is_refused():
    with pytest.raises(IndexError, match="frame 30"):
        windows.rows(np.array([1, 2]), np.array([1, 30]), 9)
