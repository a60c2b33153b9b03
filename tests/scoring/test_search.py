"""The exact search: every point of the grid against argmax, the lines, the refinement, the thresholds."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fercache.scoring import grid as grid_module
from fercache.scoring.grid import crossings, fuse, grid_confusions, grid_detections, point_count, simplex
from fercache.scoring.metrics import decide, score
from fercache.scoring.objectives import objective
from fercache.scoring.search import refine, search
from fercache.scoring.thresholds import Units, best_thresholds, grid_bounds
from fercache.tasks import TASKS

EXPR, AU = TASKS["expr"], TASKS["au"]


def rows(*pairs):
    """Probabilities over seven classes with the given ones on Neutral and Anger."""
    return np.array([[a, b, 0, 0, 0, 0, 0] for a, b in pairs], dtype=float)


def found(task, probability, labels, steps, *, thresholds=False):
    return search(objective(task, probability, labels, thresholds=thresholds), steps)


def brute_force(probability, labels, steps):
    """Confusion matrices by argmax at every point, weights i / steps summed in model order."""
    classes, matrices = probability.shape[2], []
    for weights in simplex(len(probability), steps):
        fused = weights[0] * probability[0]
        for weight, one in zip(weights[1:], probability[1:], strict=True):
            fused = fused + weight * one
        matrices.append(np.bincount(labels * classes + fused.argmax(axis=1), minlength=classes**2))
    return np.array(matrices).reshape(-1, classes, classes)


KINDS = {
    "smooth": lambda p, rng: p,
    "tenths": lambda p, rng: np.round(p, 1),
    "votes": lambda p, rng: np.eye(p.shape[2])[p.argmax(axis=2)],
    "half floats, and two classes alike": lambda p, rng: (
        np.concatenate([p[..., :1], p[..., :-1]], 2).astype("f2").astype(float)
    ),
    "models alike": lambda p, rng: np.concatenate([p[:1], p[:1] * (1 + 1e-16), p[2:]])[: len(p)],
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("models", [2, 3, 4])
@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    classes=st.integers(3, 8),
    frames=st.integers(1, 40),
    sharp=st.sampled_from([0.1, 1.0, 30.0]),
)
def test_every_point_of_the_grid_has_the_confusions_of_argmax(kind, models, seed, classes, frames, sharp):
    rng = np.random.default_rng(seed)
    p = np.exp(rng.normal(size=(models, frames, classes)) * sharp)
    p = KINDS[kind](p / p.sum(axis=2, keepdims=True), rng)
    labels, steps = rng.integers(0, classes, frames), int(rng.choice([1, 3, 10] if models == 4 else [1, 7, 100]))
    matrices = grid_confusions(p, labels, steps)
    assert len(matrices) == point_count(models, steps) == len(simplex(models, steps))
    np.testing.assert_array_equal(matrices, brute_force(p, labels, steps))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("models", [2, 3, 4])
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), frames=st.integers(0, 40))
def test_every_point_of_the_grid_has_the_detections_of_the_threshold(kind, models, seed, frames):
    rng = np.random.default_rng(seed)
    one = rng.random((models, frames, 1))
    p, present = KINDS[kind](np.concatenate([one, 1 - one], axis=2), rng)[..., 0], rng.random(frames) < 0.3
    steps = int(rng.choice([1, 3, 10] if models == 4 else [1, 7, 100]))
    decided = np.stack([fuse(weights, p) > 0.5 for weights in simplex(models, steps)])  # (P, N)
    expected = [[(decided == which)[:, present == true].sum(axis=1) for which in (0, 1)] for true in (0, 1)]
    np.testing.assert_array_equal(grid_detections(p, present, 0.5, steps), np.transpose(expected, (2, 0, 1)))


def test_realistic_models_at_a_hundredth():
    """Models that agree on most frames, in float32 as they come from logits."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 7, 600)
    logits = rng.normal(size=(1, 600, 7)) + 0.3 * rng.normal(size=(3, 600, 7))
    logits[:, np.arange(600), labels] += 1.5
    p = np.exp(logits).astype("f4").astype(float)
    p /= p.sum(axis=2, keepdims=True)
    np.testing.assert_array_equal(grid_confusions(p, labels, 100), brute_force(p, labels, 100))


def test_the_simplex():
    assert simplex(2, 2).tolist() == [[0, 1], [0.5, 0.5], [1, 0]]
    assert len(simplex(3, 100)) == 5151
    assert np.allclose(simplex(4, 5).sum(axis=1), 1)


def test_crossings_by_hand():
    start, end = np.array([[0.9, 0.2], [0.1, 0.8], [0.4, 0.0]]), np.array([[0.1, 0.2], [0.7, 0.8], [0.4, 0.0]])
    frame, place, before, behind = crossings(start, end)
    assert (frame.tolist(), before.tolist(), behind.tolist()) == ([0], [0], [1])
    assert place == pytest.approx([0.8 / 1.4])
    # Three lines, of which the flat one is on top in the middle.
    frame, place, before, behind = crossings(np.array([[1.0], [0.0], [0.6]]), np.array([[0.0], [1.0], [0.6]]))
    assert (before.tolist(), behind.tolist()) == ([0, 2], [2, 1]) and place == pytest.approx([0.4, 0.6])


def test_weights_worked_out_by_hand():
    # Frame 0 is right while 0.6 w > 0.4 (1 - w), frame 1 while 0.9 (1 - w) > 0.7 w - 0.3 (1 - w) ...
    a, b = rows((0.6, 0.4), (0.8, 0.2)), rows((0.3, 0.7), (0.1, 0.9))
    labels = np.array([0, 1])
    best = found(EXPR, np.stack([a, b]), labels, 100)
    # Right on frame 0: w x 0.2 > (1 - w) x 0.4, w > 2/3. Right on frame 1: (1 - w) x 0.8 > w x 0.6, w < 4/7.
    assert best.score == pytest.approx(0.67 * (2 / 3) / 7 + 0.33 * 0.5)
    assert best.weights.tolist() in ([0.0, 1.0], [1.0, 0.0])


def test_among_equals_the_fewest_models_win_then_the_nearest_to_equal_weights():
    a = rows((0.9, 0.1), (0.2, 0.8))
    best = found(EXPR, np.stack([a, a]), np.array([0, 1]), 100)
    assert np.count_nonzero(best.weights) == 1
    # Each model is right on one frame alone, for certain; both together on both.
    b, c = rows((0.9, 0.1), (0.6, 0.4)), rows((0.4, 0.6), (0.1, 0.9))
    assert found(EXPR, np.stack([b, c]), np.array([0, 1]), 100).weights == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize("name", ["expr", "au"])
def test_a_model_of_weight_0_equals_leaving_it_out(name):
    task = TASKS[name]
    p = np.random.default_rng(0).random((3, 50, len(task.classes)))
    np.testing.assert_array_equal(fuse(np.array([0.3, 0.0, 0.7]), p), fuse(np.array([0.3, 0.7]), p[[0, 2]]))


def random_case(name, seed, models=3, frames=30):
    task, rng = TASKS[name], np.random.default_rng(seed)
    shape = (frames,) if task.kind == "one" else (frames, 12)
    labels = rng.integers(-1, len(task.classes) if task.kind == "one" else 2, shape)
    labels[0] = 0
    p = rng.random((models, frames, len(task.classes)))
    return task, p / p.sum(axis=2, keepdims=True) if task.kind == "one" else p, labels


@pytest.mark.parametrize("name", ["expr", "expr8", "au"])
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), models=st.integers(2, 4))
def test_every_point_has_the_official_score_and_refining_never_loses(name, seed, models):
    task, p, labels = random_case(name, seed, models)
    expected = [score(task, decide(task, fuse(w, p)), labels).score for w in simplex(models, 4)]
    best = found(task, p, labels, 4)
    grid = objective(task, p, labels, thresholds=False).grid(4)
    np.testing.assert_allclose(grid, expected, atol=1e-12)
    assert best.score >= max(expected) - 1e-12
    assert best.score == pytest.approx(score(task, decide(task, fuse(best.weights, p)), labels).score)
    assert best.weights.sum() == pytest.approx(1) and (best.weights >= 0).all()


@pytest.mark.parametrize("name", ["expr", "au"])
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_line_has_the_score_of_every_stretch(name, seed):
    task, p, labels = random_case(name, seed, frames=12)
    of = objective(task, p, labels, thresholds=False)
    start, end = np.array([0.25, 0.75, 0.0]), np.array([0.25, 0.0, 0.75])
    places, scores = of.along(start, end, start)
    edges = np.concatenate([[0], places, [1]])
    assert (np.diff(edges) >= 0).all() and len(scores) == len(places) + 1
    for low, high, expected in zip(edges, edges[1:], scores, strict=False):
        if high - low > 1e-9:
            weights = start + (low + high) / 2 * (end - start)
            assert of.score(weights) == pytest.approx(expected)


def test_refining_finds_what_lies_between_the_points_of_the_grid():
    # Right on the first frame where .2 w > .204 (1 - w), on the second one where .26 w < .27 (1 - w).
    p, labels = np.stack([rows((0.6, 0.4), (0.26, 0.0)), rows((0.4, 0.604), (0.0, 0.27))]), np.array([0, 1])
    of = objective(EXPR, p, labels, thresholds=False)
    best = search(of, 10)
    assert best.score == pytest.approx(0.67 * 2 / 7 + 0.33) and 204 / 404 < best.weights[0] < 27 / 53
    assert of.grid(10).max() < best.score
    assert refine(of, np.array([1.0, 0.0]))[1] == best.score


def test_among_equals_a_model_that_is_not_needed_gets_no_weight():
    # The second model alone is right in both frames; any weights near it are, too.
    p = np.stack([rows((0.6, 0.4), (0.4, 0.6)), rows((0.1, 0.9), (0.9, 0.1)), rows((0.45, 0.55), (0.45, 0.55))])
    best = search(objective(EXPR, p, np.array([1, 0]), thresholds=False), 3)
    np.testing.assert_array_equal(best.weights, [0, 1, 0])


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_no_model_could_be_left_out_for_nothing(seed):
    """Of what an exchange between two models reaches."""
    task, p, labels = random_case("expr", seed, 3, frames=12)
    of = objective(task, p, labels, thresholds=False)
    best = search(of, 3)
    for one, other in itertools.permutations(np.flatnonzero(best.weights), 2):
        without = best.weights.copy()
        without[one] += without[other]
        without[other] = 0
        assert of.score(without) < best.score - 1e-13


def test_a_model_that_never_decides_does_not_fill_the_memory(monkeypatch):
    """Its classes tie along every line, so that each point is looked at by itself, in parts."""
    monkeypatch.setattr(grid_module, "MOST_AT_ONCE", 7)
    rng = np.random.default_rng(0)
    p = rng.random((3, 40, 7))
    p[2] = 1 / 7
    labels = rng.integers(0, 7, 40)
    np.testing.assert_array_equal(grid_confusions(p, labels, 10), brute_force(p, labels, 10))


def best_by_trying(task, probability, labels):
    """The best score over all sets of thresholds, unit by unit."""
    units, total = Units(task, labels), 0.0
    for unit in range(probability.shape[1]):
        edges = np.concatenate([[-0.1], np.unique(probability[:, unit])])
        tried = []
        for edge in edges:
            decided = (probability[:, unit] > edge) & units.counted[:, unit]
            right = (decided & units.present[:, unit]).sum()
            tried.append(units.worth(right, decided.sum() - right, unit))
        total += max(tried) if units.counted[:, unit].any() else 0
    return total


@pytest.mark.parametrize("digits", [1, 17])
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), frames=st.integers(1, 30))
def test_thresholds_are_the_best_there_are(digits, seed, frames):
    task, p, labels = random_case("au", seed, 2, frames)
    probability, units = np.round(p[0], digits).clip(1e-3, 1), Units(task, labels)
    thresholds, best = best_thresholds(units, probability)
    assert ((thresholds >= 0) & (thresholds <= 1)).all()
    assert best == pytest.approx(best_by_trying(task, probability, labels))
    assert best == pytest.approx(score(task, decide(task, probability, thresholds), labels).score)


@pytest.mark.parametrize("digits", [1, 3, 17])
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), frames=st.integers(1, 30), models=st.integers(2, 4))
def test_bounds_hold_at_every_point(digits, seed, frames, models):
    task, p, labels = random_case("au", seed, models, frames)
    p = np.round(p, digits).clip(0, 1)
    low, high = grid_bounds(Units(task, labels), p, 5)
    best = [best_thresholds(Units(task, labels), fuse(weights, p))[1] for weights in simplex(models, 5)]
    assert (low - 1e-12 <= best).all() and (best <= high + 1e-12).all()
    assert low.max() > 0 and (high - low).max() < 1


def test_thresholds_by_hand():
    labels = np.full((4, 12), -1)
    labels[:, 0] = [1, 1, 0, 0]
    probability = np.full((4, 12), 0.3)
    probability[:, 0] = [0.4, 0.2, 0.1, 0.0]
    thresholds, best = best_thresholds(Units(AU, labels), probability)
    assert thresholds == pytest.approx([0.15, *[0.5] * 11])
    assert best == pytest.approx(0.5 / 12 + 0.5)
    # A unit that is always there, with a probability of 0 in one frame: no threshold is below 0.
    labels[:, 0] = 1
    thresholds, best = best_thresholds(Units(AU, labels), probability)
    assert thresholds[0] == pytest.approx(0.05) and best == pytest.approx(0.5 / 12 * 6 / 7 + 0.5 * 0.75)


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_grid_finds_the_best_weights_for_the_best_thresholds(seed):
    task, p, labels = random_case("au", seed)
    of = objective(task, p, labels, thresholds=True)
    exact = np.array([of.score(w) for w in simplex(3, 6)])
    grid = of.grid(6)
    assert grid.max() == pytest.approx(exact.max()) and (grid <= exact + 1e-12).all()
    assert grid.argmax() in np.flatnonzero(exact >= exact.max() - 1e-12)
    best = search(of, 6)
    thresholds, _ = best_thresholds(Units(task, labels), fuse(best.weights, p))
    assert best.score == pytest.approx(score(task, decide(task, fuse(best.weights, p), thresholds), labels).score)
