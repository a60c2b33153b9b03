"""The search: every point of the grid against scikit-learn, ties, thresholds, folds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score

from fercache.scoring.folds import folds
from fercache.scoring.outputs import LabelledOutputs
from fercache.scoring.search import SearchSpace, Weighting, fit_fusions, point_count, score_surface, simplex
from fercache.tasks import TASKS, multiclass
from fercache.tasks.base import Task
from fercache.tasks.fusion import fuse

EXPR, AU = TASKS["expr"], TASKS["au"]
SEEDS = st.integers(0, 2**32 - 1)


def rows(*pairs):
    """Probabilities over seven classes with the given ones on Neutral and Anger."""
    return np.array([[a, b, 0, 0, 0, 0, 0] for a, b in pairs], dtype=float)


def random_labels(task, rng, frames):
    """Labels with some missing, of which at least one counts."""
    is_table = len(task.label_shape(1)) == 2
    labels = rng.integers(-1, 2 if is_table else len(task.classes), task.label_shape(frames))
    labels[0] = 0
    return labels


def random_case(task, seed, models=3, frames=30):
    """Probabilities (M, N, C) and labels."""
    rng = np.random.default_rng(seed)
    return task.probabilities(rng.normal(size=(models, frames, len(task.classes)))), random_labels(task, rng, frames)


def grid(task, probability, labels, points, group=None, weight=None, *, thresholds=False):
    """The scores of a task's grid, by default on all frames: (R, P)."""
    group = np.zeros(len(labels), np.int64) if group is None else group
    weight = np.ones((1, 1)) if weight is None else weight
    return task.grid_scores(probability, labels, group, weight, points, thresholds=thresholds)


def searched(task, probability, labels, steps, *, thresholds=False):
    """What a search over probabilities chooses: logits are their logarithms, or log odds."""
    count = len(labels)
    with np.errstate(divide="ignore"):
        logits = np.log(probability) if task is EXPR else np.log(probability) - np.log1p(-probability)
    outputs = LabelledOutputs(task, logits, np.array([0, count]), np.arange(count), labels, np.zeros(count, int))
    (fusions,) = fit_fusions(outputs, SearchSpace(steps, thresholds=thresholds))
    return fusions[Weighting.SEARCHED]


def sklearn_score(task, decisions, labels):
    """E of the task by scikit-learn, from what is annotated."""
    if task is AU:
        counted = [labels[:, unit] >= 0 for unit in range(12)]
        f1 = [f1_score(labels[m, u], decisions[m, u], zero_division=0) if m.any() else 0 for u, m in enumerate(counted)]
        return 0.5 * np.mean(f1) + 0.5 * (decisions == labels)[labels >= 0].mean()
    y, d = labels[labels >= 0], decisions[labels >= 0]
    f1 = f1_score(y, d, labels=range(len(task.classes)), average="macro", zero_division=0)
    return task.measure.f1 * f1 + task.measure.accuracy * accuracy_score(y, d)


def test_the_simplex():
    assert simplex(1, 3).tolist() == [[1]]
    assert simplex(2, 2).tolist() == [[0, 1], [0.5, 0.5], [1, 0]]
    assert len(simplex(3, 100)) == point_count(3, 100) == 5151
    assert np.allclose(simplex(4, 5).sum(axis=1), 1)


@pytest.mark.parametrize("task", [EXPR, TASKS["expr8"], AU], ids=["expr", "expr8", "au"])
@settings(max_examples=8, deadline=None)
@given(seed=SEEDS, models=st.integers(1, 4))
def test_every_point_has_scikit_learns_score(task, seed, models):
    p, labels = random_case(task, seed, models)
    points = simplex(models, 4)
    expected = [sklearn_score(task, task.decide(fuse(point, p)), labels) for point in points]
    np.testing.assert_allclose(grid(task, p, labels, points)[0], expected, atol=1e-12)


DISTORTIONS = {
    "smooth": lambda p: p,
    "tenths": lambda p: np.round(p, 1),
    "votes": lambda p: np.eye(p.shape[2])[p.argmax(axis=2)],
    "half floats, two classes alike": lambda p: np.concatenate([p[..., :1], p[..., :-1]], 2).astype("f2").astype(float),
    "two classes a bit apart": lambda p: np.concatenate([p[..., :1], np.nextafter(p[..., :1], 1), p[..., 2:]], 2),
    "models alike": lambda p: np.concatenate([p[:1], p[:1] * (1 + 1e-16), p[2:]])[: len(p)],
    "a model that never decides": lambda p: np.concatenate([p[:-1], np.full_like(p[-1:], 1 / p.shape[2])]),
}


@pytest.mark.parametrize("kind", DISTORTIONS)
@pytest.mark.parametrize("task", [EXPR, AU], ids=["expr", "au"])
@settings(max_examples=6, deadline=None)
@given(seed=SEEDS, models=st.integers(2, 4), sharp=st.sampled_from([0.1, 1.0, 30.0]))
def test_the_grid_is_exactly_that_of_decisions_at_every_point(kind, task, seed, models, sharp):
    """On several samples of three groups; the ties are those of `decide`, whose counts the plain form takes."""
    rng = np.random.default_rng(seed)
    p = DISTORTIONS[kind](task.probabilities(sharp * rng.normal(size=(models, 25, len(task.classes)))))
    labels, group = random_labels(task, rng, 25), np.arange(25) % 3
    points = np.concatenate([simplex(models, 10 if models < 4 else 3), np.full((1, models), 1 / models)])
    weight = np.concatenate([np.ones((1, 3)), 1 - np.eye(3)])
    plain = Task.grid_scores(task, p, labels, group, weight, points, thresholds=False)
    np.testing.assert_allclose(grid(task, p, labels, points, group, weight), plain, rtol=1e-13)


def test_saturated_probabilities_are_counted_although_weights_sum_up_to_more_than_1():
    """.07, .27 and .66 give 1 + 2e-16: three sure models, and so the best thresholds of their units."""
    labels = np.random.default_rng(0).integers(0, 2, (40, 12))
    p = np.stack([labels.astype(float)] * 3)
    points = simplex(3, 100)
    assert (points @ np.ones(3) > 1).any() and fuse(points[(points @ np.ones(3)).argmax()], p).max() > 1
    np.testing.assert_allclose(grid(AU, p, labels, points, thresholds=True), 1, rtol=1e-12)
    assert (AU.best_thresholds(p[0] * (1 + 3e-16), labels) == 0.5).all()


def test_more_open_frames_than_one_batch_are_counted(monkeypatch):
    """At a hundredth, with models that disagree on more frames than are looked at together."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 7, 1500)
    logits = rng.normal(size=(3, 1500, 7)).astype(np.float32) + 1.5 * np.eye(7, dtype=np.float32)[truth]
    p, labels = EXPR.probabilities(logits), np.where(rng.random(1500) < 0.1, -1, truth)
    assert (p.argmax(axis=2) != p[0].argmax(axis=1)).any(axis=0).sum() > 700
    points = simplex(3, 100)
    chosen = rng.choice(len(points), 40, replace=False)
    expected = [sklearn_score(EXPR, EXPR.decide(fuse(points[index], p)), labels) for index in chosen]
    (scores,) = grid(EXPR, p, labels, points)
    np.testing.assert_allclose(scores[chosen], expected, rtol=1e-12)
    monkeypatch.setattr(multiclass, "BATCH", 100)
    np.testing.assert_array_equal(grid(EXPR, p, labels, points)[0], scores)


@settings(max_examples=6, deadline=None)
@given(seed=SEEDS, digits=st.sampled_from([1, 3, 17]))
def test_thresholds_are_the_best_of_their_steps_at_every_point(seed, digits):
    p, labels = random_case(AU, seed, 2, frames=12)
    p, points = np.round(p, digits), simplex(2, 3)
    scores, steps = grid(AU, p, labels, points, thresholds=True)[0], np.arange(1025) / 1024
    for point, score in zip(points, scores, strict=True):
        fused = fuse(point, p)
        thresholds = AU.best_thresholds(fused, labels)
        assert np.isin(thresholds, steps).all()
        assert sklearn_score(AU, AU.decide(fused, thresholds), labels) == pytest.approx(score)
        for unit in range(12):  # the score is a sum over units: no other threshold of one of them does better
            tried = thresholds.copy()
            for step in steps[::101]:
                tried[unit] = step
                assert AU.score(AU.decide(fused, tried), labels).score <= score + 1e-12


def test_thresholds_by_hand():
    labels = np.full((4, 12), -1)
    labels[:, 0] = [1, 1, 0, 0]
    probability = np.full((4, 12), 0.3)
    probability[:, 0] = [0.4, 0.25, 0.125, 0.0]
    # From 1/8 up to below 1/4 all is right; of these the nearest to .5 is taken. A unit without labels keeps .5.
    assert AU.best_thresholds(probability, labels).tolist() == [255 / 1024, *[0.5] * 11]
    # A unit that is always present, with a probability of 0 in one frame: no threshold is below 0.
    labels[:, 0] = 1
    assert AU.best_thresholds(probability, labels)[0] == 127 / 1024


def test_weights_worked_out_by_hand():
    a, b = rows((0.6, 0.4), (0.8, 0.2)), rows((0.3, 0.7), (0.1, 0.9))
    best = searched(EXPR, np.stack([a, b]), np.array([0, 1]), 100)
    # Right on frame 0: w x 0.2 > (1 - w) x 0.4, w > 2/3. Right on frame 1: (1 - w) x 0.8 > w x 0.6, w < 4/7.
    assert best.score == pytest.approx(0.67 * (2 / 3) / 7 + 0.33 * 0.5)
    assert best.weights.tolist() in ([0.0, 1.0], [1.0, 0.0])


def test_among_equals_the_fewest_models_win_then_the_nearest_to_equal_weights():
    a = rows((0.9, 0.1), (0.2, 0.8))
    best = searched(EXPR, np.stack([a, a]), np.array([0, 1]), 100)
    assert np.count_nonzero(best.weights) == 1
    # Each model is right on one frame alone; both together on both.
    b, c = rows((0.9, 0.1), (0.6, 0.4)), rows((0.4, 0.6), (0.1, 0.9))
    assert searched(EXPR, np.stack([b, c]), np.array([0, 1]), 100).weights == pytest.approx([0.5, 0.5])


def test_a_model_that_is_not_needed_gets_no_weight():
    # The second model alone is right in both frames; any weights near it are, too.
    p = np.stack([rows((0.6, 0.4), (0.4, 0.6)), rows((0.1, 0.9), (0.9, 0.1)), rows((0.45, 0.55), (0.45, 0.55))])
    np.testing.assert_array_equal(searched(EXPR, p, np.array([1, 0]), 3).weights, [0, 1, 0])


def test_equal_weights_are_a_candidate_where_the_grid_lacks_them():
    # Two of three votes are right in each frame, which only thirds combine: the grid has halves alone.
    p = np.stack([rows((1, 0), (1, 0), (0, 1)), rows((1, 0), (0, 1), (1, 0)), rows((0, 1), (1, 0), (1, 0))])
    best = searched(EXPR, 0.98 * p + 0.01, np.array([0, 0, 0]), 1)
    assert best.weights == pytest.approx([1 / 3] * 3) and best.score == pytest.approx(0.67 / 7 + 0.33)


@pytest.mark.parametrize("task", [EXPR, AU], ids=["expr", "au"])
def test_one_model_alone_has_one_point(task):
    p, labels = random_case(task, 0, models=1)
    assert grid(task, p, labels, simplex(1, 10))[0] == pytest.approx(sklearn_score(task, task.decide(p[0]), labels))
    assert searched(task, p, labels, 10).weights.tolist() == [1]


@pytest.mark.parametrize("thresholds", [False, True])
def test_labels_of_one_class_alone(thresholds):
    p, _ = random_case(EXPR, 0)
    best = searched(EXPR, p, np.zeros(30, int), 10, thresholds=thresholds)
    decided = EXPR.decide(fuse(best.weights, p))
    assert best.score == pytest.approx(sklearn_score(EXPR, decided, np.zeros(30, int)))
    # Units that are never present, or never labelled: an F1 of 0 whatever is decided.
    p, labels = random_case(AU, 0)
    labels[:, :6], labels[:, 6:] = 0, -1
    best = searched(AU, p, labels, 5, thresholds=thresholds)
    assert best.score == pytest.approx(
        sklearn_score(AU, AU.decide(fuse(best.weights, p), best.thresholds), labels), abs=1e-12
    )


@pytest.mark.parametrize("name", ["expr", "au"])
def test_a_model_of_weight_0_equals_leaving_it_out(name):
    p = np.random.default_rng(0).random((3, 50, len(TASKS[name].classes)))
    np.testing.assert_array_equal(fuse(np.array([0.3, 0.0, 0.7]), p), fuse(np.array([0.3, 0.7]), p[[0, 2]]))


def outputs(task=EXPR, seed=0, recordings=8, length=30, models=3, signal=(1.0, 1.0, 1.0)):
    """Videos with gaps, each a recording of its own but the first two, and models of some signal."""
    rng = np.random.default_rng(seed)
    count = recordings * length
    labels = random_labels(task, rng, count).astype(np.int8)
    is_class = task.by_class(labels)[0] * 1.0 if task is EXPR else 2.0 * (labels == 1) - 1
    noise = rng.normal(size=(models, count, len(task.classes)))
    logits = (is_class * np.array(signal)[:, None, None] + noise).astype(np.float32)
    frame = np.concatenate([np.sort(rng.choice(2 * length, length, replace=False)) + 1 for _ in range(recordings)])
    recording = np.repeat(np.maximum(0, np.arange(recordings) - 1), length)
    return LabelledOutputs(task, logits, np.arange(0, count + 1, length), frame, labels, recording)


@pytest.mark.parametrize("temperatures", [False, True])
@pytest.mark.parametrize("task", [EXPR, AU], ids=["expr", "au"])
def test_a_fold_is_left_out_as_if_its_frames_did_not_exist(task, temperatures):
    made = outputs(task)
    space, fold = SearchSpace(10, (0,), temperatures), folds(task, made.labels, made.recording, 3, 0)
    for held, fusions in enumerate(fit_fusions(made, space, fold)[1:]):
        rest = made.labels.copy()
        rest[fold == held] = -1
        (alone,) = fit_fusions(replace(made, labels=rest), space)
        for weighting, fusion in fusions.items():
            np.testing.assert_array_equal(fusion.weights, alone[weighting].weights)
            assert fusion.temperatures == alone[weighting].temperatures
            assert fusion.score == pytest.approx(alone[weighting].score)
            if task is AU:
                np.testing.assert_array_equal(fusion.thresholds, alone[weighting].thresholds)


@pytest.mark.parametrize("task", [EXPR, AU], ids=["expr", "au"])
def test_labels_of_a_held_out_fold_change_no_bit_of_what_is_chosen_for_it(task):
    made = outputs(task)
    space, fold = SearchSpace(10, (0, 2, 5), temperatures=True), folds(task, made.labels, made.recording, 3, 0)
    before = fit_fusions(made, space, fold)
    labels = made.labels.copy()
    labels[fold == 1] = np.random.default_rng(1).integers(0, 2, labels[fold == 1].shape)
    after = fit_fusions(replace(made, labels=labels), space, fold)
    for weighting in Weighting:
        one, other = before[2][weighting], after[2][weighting]  # the first is of all frames
        np.testing.assert_array_equal(one.weights, other.weights)
        assert (one.half_width, one.temperatures, one.score) == (other.half_width, other.temperatures, other.score)
        np.testing.assert_array_equal(one.thresholds, other.thresholds)
        decided = [fusion.decide(made)[fold == 1] for fusion in (one, other)]
        np.testing.assert_array_equal(*decided)
    assert any(before[1][weighting].score != after[1][weighting].score for weighting in Weighting)


@pytest.mark.parametrize("task", [EXPR, AU], ids=["expr", "au"])
@pytest.mark.parametrize("thresholds", [False, True])
def test_a_fusion_has_the_score_that_it_claims(task, thresholds):
    made = outputs(task, seed=5)
    (fusions,) = fit_fusions(made, SearchSpace(10, (0, 3), temperatures=True, thresholds=thresholds))
    for fusion in fusions.values():
        assert fusion.score == pytest.approx(task.score(fusion.decide(made), made.labels).score)
    single, equal, best = (fusions[weighting] for weighting in Weighting)
    assert best.score >= max(single.score, equal.score) - 1e-12
    assert sorted(single.weights) == [0, 0, 1] and equal.weights == pytest.approx([1 / 3] * 3)
    assert (best.thresholds is not None) == (thresholds and task is AU)


def test_the_narrowest_of_equally_good_boxes_is_taken():
    made = outputs(seed=1)
    still = replace(made, logits=np.repeat(made.logits[:, :1], len(made.frame), axis=1))
    (fusions,) = fit_fusions(still, SearchSpace(2, (7, 1, 4)))
    assert {fusion.half_width for fusion in fusions.values()} == {1}


def test_the_surface_has_the_score_of_every_point():
    made = outputs(AU, seed=2)
    (fusions,) = fit_fusions(made, SearchSpace(4, (2,)))
    points, scores = score_surface(made, fusions[Weighting.SEARCHED], 4, thresholds=True)
    assert len(points) == point_count(3, 4) and scores.max() == pytest.approx(fusions[Weighting.SEARCHED].score)
