"""Labels, decisions and scores of the tasks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score

from fercache.errors import ConfigError
from fercache.tasks import TASK_NAMES, TASKS, Task, get_task
from fercache.tasks.multiclass import Multiclass

EXPR, AU = TASKS["expr"], TASKS["au"]


def test_expr_by_hand():
    # Class 0: TP 2, FP 1, FN 1 -> 2/3; class 4: TP 1, FP 1, FN 1 -> 1/2; the other five 0.
    labels, decisions = np.array([0, 0, 0, 4, 4, -1]), np.array([0, 0, 4, 4, 0, 6])
    scores = EXPR.score(decisions, labels)
    assert scores.f1_per_class == pytest.approx((2 / 3, 0, 0, 0, 1 / 2, 0, 0))
    assert scores.f1 == pytest.approx((2 / 3 + 1 / 2) / 7)
    assert scores.f1_occurring == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert scores.accuracy == scores.exact_match == pytest.approx(3 / 5)
    assert scores.score == pytest.approx(0.67 * scores.f1 + 0.33 * 0.6)
    assert (scores.count_per_class, scores.frames) == ((3, 0, 0, 0, 2, 0, 0), 5)
    assert scores.confusion[0].tolist() == [2, 0, 0, 0, 1, 0, 0]


def test_the_weights_of_the_tasks():
    labels, decisions = np.array([0, 1, 1]), np.array([0, 1, 0])
    by_task = {name: TASKS[name].score(decisions, labels) for name in ("expr", "expr8")}
    assert by_task["expr8"].score == by_task["expr8"].f1 == pytest.approx((2 / 3 + 2 / 3) / 8)
    assert by_task["expr"].score == pytest.approx(0.67 * (2 / 3 + 2 / 3) / 7 + 0.33 * 2 / 3)


@given(st.integers(0, 2**32 - 1), st.integers(1, 60))
def test_expr_is_the_official_score(seed, frames):
    rng = np.random.default_rng(seed)
    labels, decisions = rng.integers(-1, 7, frames), rng.integers(0, 7, frames)
    counted = labels >= 0
    if not counted.any():
        with pytest.raises(ValueError, match="no labelled frame"):
            EXPR.score(decisions, labels)
        return
    y, d = labels[counted], decisions[counted]
    official = f1_score(y, d, labels=range(7), average="macro", zero_division=0)
    assert EXPR.score(decisions, labels).score == pytest.approx(0.67 * official + 0.33 * accuracy_score(y, d))


def test_au_by_hand_with_single_elements_masked():
    labels = np.full((3, 12), -1)
    labels[:, 0] = [1, 1, 0]
    labels[:2, 1] = [0, 1]
    decisions = np.zeros((3, 12), int)
    decisions[:, 0] = [1, 0, 1]
    decisions[:2, 1] = [0, 1]
    decisions[:, 5] = 1  # not labelled: must not count
    scores = AU.score(decisions, labels)
    # AU1: TP 1, FP 1, FN 1 -> 1/2. AU2: TP 1 -> 1. Ten units without labels count 0.
    assert scores.f1_per_class[:3] == pytest.approx((0.5, 1.0, 0.0))
    assert scores.f1 == pytest.approx(1.5 / 12)
    assert scores.f1_occurring == pytest.approx(0.75)
    assert scores.accuracy == pytest.approx(3 / 5)
    assert scores.exact_match == pytest.approx(1 / 3)
    assert scores.score == pytest.approx(0.5 * 1.5 / 12 + 0.5 * 3 / 5)
    assert TASKS["au_f1"].score(decisions, labels).score == pytest.approx(1.5 / 12)
    assert (scores.frames, scores.count_per_class[:2], scores.confusion) == (3, (2, 1), None)


def test_probabilities_are_stable_and_exact():
    np.testing.assert_allclose(EXPR.probabilities(np.log([[1, 2, 1, 1, 1, 1, 1.0]])), [[1 / 8, 1 / 4] + [1 / 8] * 5])
    assert EXPR.probabilities(np.array([[1e4] + [-1e4] * 6])).tolist() == [[1, 0, 0, 0, 0, 0, 0]]
    np.testing.assert_allclose(AU.probabilities(np.array([-1e4, 0, np.log(3), 1e4])), [0, 0.5, 0.75, 1])


def test_decisions():
    assert EXPR.decide(np.array([[0.1, 0.6, 0.3, 0, 0, 0, 0]])).tolist() == [1]
    assert AU.decide(np.array([[0.5, 0.51, 0.49]])).tolist() == [[0, 1, 0]]


def test_the_registry():
    assert tuple(TASKS) == TASK_NAMES and all(get_task(name) is task for name, task in TASKS.items())
    assert isinstance(EXPR, Task) and EXPR == get_task("expr") != TASKS["expr8"] and len({EXPR, AU, EXPR}) == 2
    with pytest.raises(ConfigError, match="'smile' is not a task; the tasks are expr, au, expr8, au_f1"):
        get_task("smile")


def test_a_task_may_be_registered_from_outside(monkeypatch):
    task = Multiclass("smile", ("no", "yes"), "SMILE", EXPR.measure)
    monkeypatch.setitem(TASKS, "smile", task)
    assert get_task("smile").prior(np.array([0, 1, 1, -1])).tolist() == [1 / 3, 2 / 3]


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_labels_have_the_shape_that_the_task_says(task):
    labels = task.unlabelled(3)
    assert labels.shape == task.label_shape(3) and labels.dtype == np.int8 and not task.labelled(labels).any()
    assert task.as_columns(labels).shape == (3, len(task.label_columns)) == (3, task.as_columns(labels).shape[1])
    is_class, known = task.by_class(labels)
    assert is_class.shape == known.shape == (3, len(task.classes)) and not is_class.any() and not known.any()
    assert task.as_columns(task.unlabelled(0)).shape == (0, len(task.label_columns))


@pytest.mark.parametrize(
    ("task", "line", "label"),
    [(EXPR, " 6", 6), (EXPR, "-1", -1), (AU, "0,1,-1" + ",0" * 9, [0, 1, -1] + [0] * 9)],
)
def test_a_line_is_parsed(task, line, label):
    assert task.parse(line) == label


@pytest.mark.parametrize(
    ("task", "line", "words"),
    [
        (EXPR, "7", "found 7, expected an integer from -1 to 6"),
        (EXPR, "1_0", "found '1_0', expected an integer"),
        (EXPR, "0,1", "found 2 values, expected 1"),
        (AU, "0,2" + ",0" * 10, "found 2, expected an integer from -1 to 1"),
    ],
)
def test_a_bad_line_says_what_was_expected(task, line, words):
    with pytest.raises(ValueError, match=words):
        task.parse(line)


@pytest.mark.parametrize("task", [EXPR, AU], ids=["expr", "au"])
def test_logits_and_probabilities_are_each_others_inverse(task):
    p = task.probabilities(np.random.default_rng(0).normal(size=(5, len(task.classes))))
    np.testing.assert_allclose(task.probabilities(task.logits(p)), p, rtol=1e-6)
    assert np.isfinite(task.logits(np.eye(len(task.classes)))).all()
