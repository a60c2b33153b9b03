"""Smoothing, temperatures, calibration, folds, and how good an ensemble is across them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fercache.scoring.calibration import calibration, coverage, temperature
from fercache.scoring.cross_validation import cross_validate, score_decisions
from fercache.scoring.folds import absent, folds
from fercache.scoring.outputs import LabelledOutputs, box_mean
from fercache.scoring.search import SearchSpace, Weighting, fit_fusions
from fercache.tasks import TASKS
from fercache.tasks.fusion import fuse

EXPR, AU = TASKS["expr"], TASKS["au"]


def outputs(task=EXPR, seed=0, recordings=8, length=30, models=3, signal=(1.0, 1.0, 1.0)):
    """Videos with gaps, each a recording of its own but the first two, and models of some signal."""
    rng = np.random.default_rng(seed)
    count = recordings * length
    labels = rng.integers(-1, 7 if task is EXPR else 2, task.label_shape(count)).astype(np.int8)
    is_class = task.by_class(labels)[0] * 1.0 if task is EXPR else 2.0 * (labels == 1) - 1
    noise = rng.normal(size=(models, count, len(task.classes)))
    logits = (is_class * np.array(signal)[:, None, None] + noise).astype(np.float32)
    frame = np.concatenate([np.sort(rng.choice(2 * length, length, replace=False)) + 1 for _ in range(recordings)])
    recording = np.repeat(np.maximum(0, np.arange(recordings) - 1), length)
    return LabelledOutputs(task, logits, np.arange(0, count + 1, length), frame, labels, recording)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), half_width=st.integers(0, 12))
def test_the_box_takes_the_present_frames_of_the_same_video_within_its_width(seed, half_width):
    made = outputs(seed=seed, recordings=3, length=7)
    values = np.random.default_rng(seed).random((len(made.frame), 2))
    video = np.repeat(np.arange(3), 7)
    near = (np.abs(made.frame[:, None] - made.frame) <= half_width) & (video[:, None] == video)
    expected = np.stack([values[row].mean(axis=0) for row in near])
    np.testing.assert_allclose(box_mean(values, made.first, made.frame, half_width), expected, atol=1e-12)


def test_a_box_of_no_width_changes_no_bit():
    made = outputs()
    np.testing.assert_array_equal(made.probability(), made.probability((1.0,) * 3, 0))
    values = made.probability()[0]
    assert box_mean(values, made.first, made.frame, 0) is values


@pytest.mark.parametrize("task", [EXPR, AU], ids=["expr", "au"])
def test_the_temperature_is_that_of_the_least_cross_entropy(task):
    made = outputs(task, seed=3, signal=(1.5, 1.0, 0.5))
    for logits in made.logits:
        best = temperature(task, logits, made.labels)

        def loss(scale, logits=logits):
            p = task.probabilities(logits / scale)
            counted = made.labels >= 0
            if task is EXPR:
                of_label = np.take_along_axis(p[counted], made.labels[counted][:, None].astype(int), 1)
            else:
                of_label = np.where(made.labels == 1, p, 1 - p)[counted]
            return -np.log(of_label).mean()

        assert loss(best) < min(loss(best * 1.01), loss(best / 1.01))


def test_temperatures_have_bounds():
    logits, labels = np.array([[5.0, 0, 0, 0, 0, 0, 0]]), np.array([0])
    assert 0.05 <= temperature(EXPR, logits, labels) < 0.5  # always right: as sharp as it takes
    assert temperature(EXPR, logits, labels + 1) == pytest.approx(20, rel=0.01)


def test_calibration_by_hand():
    p = np.array(
        [[0.9, 0.1, 0, 0, 0, 0, 0], [0.9, 0.1, 0, 0, 0, 0, 0], [0.4, 0.6, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0]]
    )
    labels = np.array([0, 1, 1, -1])
    result = calibration(EXPR, p, labels)
    assert result.count.tolist() == [0] * 9 + [1, 0, 0, 0, 2, 0]
    assert result.confidence[[9, 13]] == pytest.approx([0.6, 0.9]) and result.accuracy[[9, 13]] == pytest.approx(
        [1.0, 0.5]
    )
    assert np.isnan(result.confidence[0]) and result.ece == pytest.approx((0.4 + 2 * 0.4) / 3)
    kept = coverage(EXPR, p, labels, np.array([0, 0, 1, 1]))
    assert kept[1.0][0] == pytest.approx(2 / 3) and kept[0.7][0] == pytest.approx(1 / 2)
    assert kept[1.0][1] <= 2 / 3 <= kept[1.0][2] and np.isnan(coverage(EXPR, p, labels, np.zeros(4, int))[1.0][1])


def test_the_curve_of_coverage_has_the_intervals_of_its_recordings():
    """Four recordings of one frame each, in order of sureness right, wrong, right, right; all are kept."""
    p = np.zeros((4, 7))
    p[:, 0], p[:, 1] = [0.9, 0.8, 0.7, 0.6], [0.1, 0.2, 0.3, 0.4]
    kept = coverage(EXPR, p, np.array([0, 1, 0, 0]), np.arange(4))
    # Of a mean of 1, 0, 1, 1: .75, standard deviation .5, t of 3 degrees 3.18245; not above 1.
    assert kept[1.0] == pytest.approx((0.75, max(0, 0.75 - 3.18245 / 4), 1.0))
    assert kept[0.5][0] == pytest.approx(1 / 2)


@pytest.mark.parametrize("task", [EXPR, AU], ids=["expr", "au"])
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(2, 6))
def test_folds_keep_recordings_whole(task, seed, count):
    made = outputs(task, seed, length=5)
    fold = folds(task, made.labels, made.recording, count, seed)
    # The splitter may leave a fold empty.
    assert set(fold) == set(range(fold.max() + 1)) and 2 <= fold.max() + 1 <= count
    for number in range(7):
        assert len(set(fold[made.recording == number])) == 1
    np.testing.assert_array_equal(fold, folds(task, made.labels, made.recording, count, seed))


def test_too_few_recordings_for_the_folds():
    made = outputs(recordings=2)
    assert folds(EXPR, made.labels, made.recording, 2, 0) is None
    made = outputs(recordings=4)
    assert set(folds(EXPR, made.labels, made.recording, 5, 0)) == {0, 1, 2}


def test_recordings_that_cannot_be_dealt_into_all_folds_make_fewer():
    """Of recordings of one class each the splitter may leave a fold empty."""
    labels = np.repeat([1, 0, 1, 1, 2], [4, 6, 1, 7, 1])
    recording = np.repeat(np.arange(5), [4, 6, 1, 7, 1])
    fold = folds(EXPR, labels, recording, 5, 7)
    assert set(fold) == set(range(4)) and all(len(set(fold[recording == one])) == 1 for one in range(5))
    # A recording without any label is in no fold.
    made = folds(EXPR, np.array([0, 0, 0, -1]), np.array([0, 1, 1, 2]), 2, 0)
    assert sorted(set(made.tolist())) == [-1, 0, 1] and made[3] == -1


def test_labels_too_few_for_the_folds():
    assert folds(EXPR, np.array([0, 1, 2, -1]), np.arange(4), 3, 0) is None
    assert folds(EXPR, np.array([-1, -1]), np.arange(2), 2, 0) is None


def test_recordings_without_labels_have_no_part_in_intervals():
    made = outputs(recordings=6)
    labels = np.where(made.recording >= 3, -1, made.labels)
    decisions = {"one": made.logits[0].argmax(axis=1)}
    some = score_decisions(replace(made, labels=labels), decisions, seed=0)["one"]
    kept = made.recording < 3
    alone = LabelledOutputs(
        EXPR, made.logits[:, kept], made.first[:5], made.frame[kept], made.labels[kept], made.recording[kept]
    )
    np.testing.assert_array_equal(
        some.samples, score_decisions(alone, {"one": decisions["one"][kept]}, seed=0)["one"].samples
    )
    labels = np.where(made.recording >= 1, -1, made.labels)
    assert np.isnan(score_decisions(replace(made, labels=labels), decisions, seed=0)["one"].score.low)


def test_a_class_in_one_fold_alone_is_told():
    labels, fold = np.array([0, 0, 4, 4, 4, 6, -1]), np.array([0, 1, 0, 1, 2, 2, 2])
    assert absent(EXPR, labels, fold) == {"Surprise": [2]}


def test_scores_across_folds_are_of_what_was_chosen_on_the_other_folds():
    made = outputs(seed=2)
    fold = folds(EXPR, made.labels, made.recording, 2, 0)
    space = SearchSpace(10)
    report = cross_validate(made, space, fold, seed=0)
    decisions = np.empty(len(fold), np.int64)
    for held, fusions in enumerate(fit_fusions(made, space, fold)[1:]):
        fused = fuse(fusions[Weighting.SEARCHED].weights, made.probability())
        decisions[fold == held] = EXPR.decide(fused[fold == held])
    searched, equal = report.across_folds[Weighting.SEARCHED], report.across_folds[Weighting.EQUAL]
    assert searched.score.value == EXPR.score(decisions, made.labels).score
    gain = searched.minus(equal)
    assert gain.value == searched.score.value - equal.score.value and gain.low <= gain.value <= gain.high
    assert searched.minus(searched).high == 0
    assert cross_validate(made, space, None, seed=0).across_folds == {}
