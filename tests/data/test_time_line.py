"""Windows over many videos: as those of each video by itself."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fercache.data import windows
from fercache.data.time_line import TimeLine, WindowSet

lengths = st.sampled_from([1, 3, 9, 15])
frames = st.lists(st.integers(1, 60), max_size=30, unique=True).map(sorted).map(lambda n: np.array(n, np.int32))
videos = st.lists(frames, min_size=1, max_size=6).map(lambda parts: {f"v{k}": part for k, part in enumerate(parts)})


@given(videos, lengths)
def test_inference_windows_are_those_of_each_video(found, length):
    line = TimeLine.of(found, length)
    every = WindowSet(line, line.position, length)
    assert len(every) == sum(map(len, found.values()))
    rows, present = every.rows(range(len(every)))
    for first, frame in zip(line.first, found.values(), strict=False):
        if len(frame):
            own, own_present = windows.rows(frame, frame, length)
            np.testing.assert_array_equal(rows[first : first + len(frame)], own + first)
            np.testing.assert_array_equal(present[first : first + len(frame)], own_present)


@given(videos, lengths, st.data())
def test_training_windows_are_those_of_each_video(found, length, data):
    stride = data.draw(st.integers(1, length))
    counts = {
        video: np.array(data.draw(st.lists(st.booleans(), min_size=len(frame), max_size=len(frame))), bool)
        for video, frame in found.items()
    }
    line = TimeLine.of(found, length)
    centres = line.training_centres(np.concatenate(list(counts.values())), length, stride)
    expected_rows, expected_names = [], []
    for (video, frame), first in zip(found.items(), line.first, strict=False):
        expected = windows.training_centres(frame, counts[video], length, stride)
        if len(expected):
            expected_rows += (windows.rows(frame, expected, length)[0] + first).tolist()
        expected_names += [f"{video}, the window at frame {t}" for t in expected]
    made = WindowSet(line, centres, length)
    assert made.rows(range(len(made)))[0].tolist() == expected_rows
    assert made.names(range(len(made))) == expected_names


def test_a_line_by_hand():
    line = TimeLine.of({"a": np.array([1, 4]), "none": np.array([], int), "b": np.array([2])}, 3)
    assert line.first.tolist() == [0, 2, 2, 3]
    assert line.position.tolist() == [1, 4, 12]
    made = WindowSet(line, np.array([12, 4]), 3)
    rows, present = made.rows([1, 0])
    assert rows.tolist() == [[1, 1, 1], [2, 2, 2]] and present.tolist() == [[False, True, False]] * 2
    assert made.names([0, 1]) == ["b, the window at frame 2", "a, the window at frame 4"]
