from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fercache.data.annotations import read_annotation, write_annotation
from fercache.errors import DataError
from fercache.tasks import TASKS

EXPR, AU = TASKS["expr"], TASKS["au"]
HEADER = "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise"


def test_a_file_as_aff_wild2_has_it(tmp_path):
    path = tmp_path / "v.txt"
    path.write_bytes(f"\ufeff{HEADER}\r\n0\r\n -1 \r\n6\r\n\r\n".encode())
    assert read_annotation(path, EXPR).tolist() == [0, -1, 6]


@given(st.data())
def test_what_is_written_is_read_back(tmp_path_factory, data):
    task = data.draw(st.sampled_from(list(TASKS.values())))
    length = data.draw(st.integers(0, 20))
    shape = task.label_shape(length)
    highest = 1 if len(shape) == 2 else len(task.classes) - 1
    labels = data.draw(arrays(np.int8, shape, elements=st.integers(-1, highest)))
    path = tmp_path_factory.mktemp("a") / "v.txt"
    write_annotation(path, task, labels)
    again = read_annotation(path, task)
    assert again.dtype == np.int8
    np.testing.assert_array_equal(again, labels)
    assert len(path.read_text().splitlines()) == length + 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "line 1: the header is ''"),
        ("0\n1\n", "line 1: the header is '0'"),
        (HEADER + ",Other\n0\n", "line 1: the header"),
        (f"{HEADER}\n0\nx\n", "line 3: found 'x', expected an integer from -1 to 6"),
        (f"{HEADER}\n7\n", "line 2: found 7, expected an integer from -1 to 6"),
        (f"{HEADER}\n-2\n", "line 2: found -2"),
        (f"{HEADER}\n1_0\n", "line 2: found '1_0'"),
        (f"{HEADER}\n0,1\n", "line 2: found 2 values, expected 1"),
        (f"{HEADER}\n0\n\n1\n", "line 3: found ''"),
    ],
)
def test_bad_files_are_named_with_their_line(tmp_path, text, words):
    path = tmp_path / "v.txt"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        read_annotation(path, EXPR)
    assert words in str(caught.value) and str(path) in str(caught.value)


def test_all_bad_lines_come_at_once(tmp_path):
    path = tmp_path / "v.txt"
    path.write_text(f"{AU.header}\n{','.join('0' * 12)}\n{','.join('2' * 12)}\n0\n")
    with pytest.raises(DataError) as caught:
        read_annotation(path, AU)
    assert "line 3: found 2, expected an integer from -1 to 1" in str(caught.value)
    assert "line 4: found 1 values, expected 12" in str(caught.value)


def test_labelled_frames():
    assert EXPR.labelled(np.array([0, -1, 3])).tolist() == [True, False, True]
    rows = np.full((2, 12), -1)
    rows[1, 3] = 0
    assert AU.labelled(rows).tolist() == [False, True]


def test_the_prior_by_hand():
    assert EXPR.prior(np.array([0, 0, 4, -1])).tolist() == [2 / 3, 0, 0, 0, 1 / 3, 0, 0]
    units = np.full((3, 12), -1)
    units[:, 0] = [1, 0, -1]
    assert AU.prior(units)[:2].tolist() == [0.5, 0.0]
