"""What an ensemble chooses, on some frames for others: smoothing, temperatures, folds, and what it is worth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fercache.scoring.calibration import calibration, coverage, temperature
from fercache.scoring.choice import EQUAL_WEIGHTS, SEARCHED, SINGLE, Recipe, across_folds, choose
from fercache.scoring.folds import absent, folds
from fercache.scoring.grid import fuse
from fercache.scoring.honest import results, worth
from fercache.scoring.metrics import decide, probabilities, score
from fercache.scoring.outputs import LabelledOutputs, box_mean
from fercache.tasks import TASKS

EXPR, AU = TASKS["expr"], TASKS["au"]


def outputs(task=EXPR, seed=0, recordings=8, length=30, models=3, signal=(1.0, 1.0, 1.0)):
    """Videos with gaps, each a recording of its own but the first two, and models of some signal."""
    rng = np.random.default_rng(seed)
    count = recordings * length
    shape = (count,) if task.kind == "one" else (count, 12)
    labels = rng.integers(-1, len(task.classes) if task.kind == "one" else 2, shape).astype(np.int8)
    is_class = np.eye(len(task.classes) + 1)[labels][:, :-1] if task.kind == "one" else 2.0 * (labels == 1) - 1
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
            p = probabilities(task, logits / scale)
            counted = made.labels >= 0
            if task.kind == "one":
                own = np.take_along_axis(p[counted], made.labels[counted][:, None].astype(int), 1)
            else:
                own = np.where(made.labels == 1, p, 1 - p)[counted]
            return -np.log(own).mean()

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
    found = calibration(EXPR, p, labels)
    assert found.count.tolist() == [0] * 9 + [1, 0, 0, 0, 2, 0]
    assert found.said[[9, 13]] == pytest.approx([0.6, 0.9]) and found.found[[9, 13]] == pytest.approx([1.0, 0.5])
    assert np.isnan(found.said[0]) and found.ece == pytest.approx((0.4 + 2 * 0.4) / 3)
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
    some = results(replace(made, labels=labels), decisions, seed=0)["one"]
    kept = made.recording < 3
    alone = LabelledOutputs(
        EXPR, made.logits[:, kept], made.first[:5], made.frame[kept], made.labels[kept], made.recording[kept]
    )
    np.testing.assert_array_equal(some.samples, results(alone, {"one": decisions["one"][kept]}, seed=0)["one"].samples)
    labels = np.where(made.recording >= 1, -1, made.labels)
    assert np.isnan(results(replace(made, labels=labels), decisions, seed=0)["one"].score.low)


def test_a_class_in_one_fold_alone_is_told():
    labels, fold = np.array([0, 0, 4, 4, 4, 6, -1]), np.array([0, 1, 0, 1, 2, 2, 2])
    assert absent(EXPR, labels, fold) == {"Surprise": [2]}


@pytest.mark.parametrize("task", [EXPR, AU], ids=["expr", "au"])
def test_labels_of_a_held_out_fold_change_no_bit_of_what_is_chosen_for_it(task):
    made = outputs(task)
    recipe = Recipe(10, (0, 2, 5), temperatures=True)
    fold = folds(task, made.labels, made.recording, 3, 0)
    before = across_folds(made, fold, recipe)
    labels = made.labels.copy()
    labels[fold == 1] = np.random.default_rng(1).integers(0, 2, labels[fold == 1].shape)
    after = across_folds(replace(made, labels=labels), fold, recipe)
    for name in (SINGLE, EQUAL_WEIGHTS, SEARCHED):
        one, other = before.choices[1][name], after.choices[1][name]
        np.testing.assert_array_equal(one.weights, other.weights)
        assert (one.half_width, one.temperatures, one.score) == (other.half_width, other.temperatures, other.score)
        if task.kind == "many":
            np.testing.assert_array_equal(one.thresholds, other.thresholds)
        np.testing.assert_array_equal(before.decisions[name][fold == 1], after.decisions[name][fold == 1])
    assert any(before.choices[0][name].score != after.choices[0][name].score for name in before.choices[0])


@pytest.mark.parametrize("task", [EXPR, AU], ids=["expr", "au"])
@pytest.mark.parametrize("thresholds", [False, True])
def test_a_choice_scores_what_it_says(task, thresholds):
    made = outputs(task, seed=5)
    found = choose(made, np.ones(len(made.frame), bool), Recipe(10, (0, 3), temperatures=True, thresholds=thresholds))
    for choice in found.values():
        assert choice.score == pytest.approx(score(task, choice.decide(made), made.labels).score)
    assert found[SEARCHED].score >= max(found[SINGLE].score, found[EQUAL_WEIGHTS].score) - 1e-12
    assert sorted(found[SINGLE].weights) == [0, 0, 1] and found[EQUAL_WEIGHTS].weights == pytest.approx([1 / 3] * 3)
    assert (found[SEARCHED].thresholds is not None) == (thresholds and task.kind == "many")


def test_the_narrowest_of_equally_good_boxes_is_taken():
    made = outputs(seed=1)
    still = replace(made, logits=np.repeat(made.logits[:, :1], len(made.frame), axis=1))
    found = choose(still, np.ones(len(made.frame), bool), Recipe(2, (7, 1, 4)))
    assert {choice.half_width for choice in found.values()} == {1}


def test_the_worth_of_an_ensemble_by_hand():
    """Decisions across folds are those of what was chosen on the others, and differences are paired."""
    made = outputs(seed=2)
    fold = folds(EXPR, made.labels, made.recording, 2, 0)
    recipe = Recipe(10)
    found = worth(made, recipe, fold, seed=0)
    decisions = np.empty(len(fold), np.int64)
    for held in range(2):
        chosen = choose(made, fold != held, recipe)[SEARCHED]
        decisions[fold == held] = decide(EXPR, fuse(chosen.weights, made.probability())[fold == held])
    assert found.across[SEARCHED].score.value == score(EXPR, decisions, made.labels).score
    gain = found.across[SEARCHED].less(found.across[EQUAL_WEIGHTS])
    assert gain.value == found.across[SEARCHED].score.value - found.across[EQUAL_WEIGHTS].score.value
    assert gain.low <= gain.value <= gain.high
    assert found.across[SEARCHED].less(found.across[SEARCHED]).high == 0
    assert worth(made, recipe, None, seed=0).across == {}
