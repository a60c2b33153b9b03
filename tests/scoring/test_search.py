from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fercache.scoring.metrics import decide, score
from fercache.scoring.search import fuse, grid_scores, search, simplex
from fercache.tasks import TASKS

EXPR = TASKS["expr"]


def rows(*pairs):
    """Probabilities of classes 0 and 1; the other five are 0."""
    return np.array([[a, b, 0, 0, 0, 0, 0] for a, b in pairs])


def test_the_simplex():
    assert len(simplex(3, 100)) == 5151 and len(simplex(2, 100)) == 101 and len(simplex(4, 10)) == 286
    assert simplex(2, 2).tolist() == [[0, 1], [0.5, 0.5], [1, 0]]
    points = simplex(3, 100)
    np.testing.assert_allclose(points.sum(axis=1), 1)
    assert len(np.unique(points, axis=0)) == 5151 and points.min() == 0


def test_weights_worked_out_by_hand():
    a = rows((0.6, 0.4), (0.8, 0.2))
    b = rows((0.2, 0.8), (0.1, 0.9))
    labels = np.array([1, 0])
    # Class 1 wins frame 1 where .4w + .8(1 - w) > .6w + .2(1 - w), so w < .75; class 0 wins frame 2 where
    # .8w + .1(1 - w) > .2w + .9(1 - w), so w > 4/7. Nearest to equal weights on the grid: .58.
    weights, best = search(EXPR, np.stack([a, b]), labels, 100)
    assert weights.tolist() == [0.58, 0.42]
    assert best == pytest.approx(0.67 * 2 / 7 + 0.33)


def test_among_equals_the_fewest_models_win():
    a = rows((0.9, 0.1), (0.1, 0.9))
    b = rows((0.8, 0.2), (0.2, 0.8))
    weights, _ = search(EXPR, np.stack([a, b]), np.array([0, 1]), 100)
    assert sorted(weights.tolist()) == [0, 1]


@pytest.mark.parametrize("name", ["expr", "au"])
def test_a_model_of_weight_0_equals_leaving_it_out(name):
    task = TASKS[name]
    rng = np.random.default_rng(0)
    p = rng.random((3, 50, len(task.classes)))
    np.testing.assert_array_equal(fuse(np.array([0.3, 0.0, 0.7]), p), fuse(np.array([0.3, 0.7]), p[[0, 2]]))
    labels = rng.integers(-1, 2, (50, 12) if task.kind == "many" else 50)
    with_zero = simplex(2, 20)
    three = np.insert(with_zero, 1, 0.0, axis=1)
    np.testing.assert_allclose(grid_scores(task, three, p, labels), grid_scores(task, with_zero, p[[0, 2]], labels))


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.sampled_from(sorted(TASKS)), st.integers(2, 4))
def test_every_point_has_the_official_score(seed, name, models):
    task = TASKS[name]
    rng = np.random.default_rng(seed)
    classes = len(task.classes)
    p = rng.dirichlet(np.ones(classes), (models, 30)) if task.kind == "one" else rng.random((models, 30, classes))
    labels = rng.integers(-1, 2, (30, classes)) if task.kind == "many" else rng.integers(-1, classes, 30)
    labels[0] = 1
    points = simplex(models, 4)
    expected = [score(task, decide(task, fuse(w, p)), labels).score for w in points]
    np.testing.assert_allclose(grid_scores(task, points, p, labels), expected, atol=1e-12)
    weights, best = search(task, p, labels, 4)
    assert best == pytest.approx(max(expected))
    assert score(task, decide(task, fuse(weights, p)), labels).score == pytest.approx(best)


def test_chunks_change_nothing(monkeypatch):
    rng = np.random.default_rng(1)
    p, labels = rng.dirichlet(np.ones(7), (3, 40)), rng.integers(0, 7, 40).astype(np.int8)
    whole = grid_scores(EXPR, simplex(3, 10), p, labels)
    monkeypatch.setattr("fercache.scoring.search.CHUNK_NUMBERS", 1000)
    np.testing.assert_array_equal(grid_scores(EXPR, simplex(3, 10), p, labels), whole)
