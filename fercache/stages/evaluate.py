"""The scores of predictions files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fercache.data.manifest import read_manifest
from fercache.results.aligned import read_all
from fercache.results.evaluation import Evaluation, evaluate_one
from fercache.results.wording import about_intervals, as_table, counts, digits, or_none, span
from fercache.scoring.calibration import BINS
from fercache.tasks.base import Scores, Task

COLUMNS = (
    *("predictions", "F1", "accuracy", "E", "E, 95 % over recordings"),
    *("F1 occurring", "exact match", "frames", "not predicted"),
)


def evaluate(manifest: Path, predictions: Sequence[Path], *, task: str | None = None) -> list[Evaluation]:
    """Score each predictions file on its own labelled frames."""
    data = read_manifest(manifest, task)
    models = zip(predictions, read_all(predictions), strict=True)
    return [evaluate_one(path.stem, of_model, data) for path, of_model in models]


def describe_evaluations(evaluations: Sequence[Evaluation], *, videos: bool = False) -> str:
    """The scores as text: a row a file, F1 by class, calibration, and with `videos` a row a video."""
    task = evaluations[0].task
    lines = [f"task {task.name}, split {evaluations[0].split}; E = {task.measure_in_words}", ""]
    lines += as_table(COLUMNS, [_row(evaluation) for evaluation in evaluations])
    lines += [about_intervals(min(e.recordings for e in evaluations))]
    lines += [f"{e.name}: {e.caution}" for e in evaluations if e.caution]
    lines += ["", "F1 by class (labelled frames of the class)"]
    labelled = list(zip(*(e.scores.count_per_class for e in evaluations), strict=True))
    for index, name in enumerate(task.classes):
        values = "  ".join(digits(*(e.scores.f1_per_class[index] for e in evaluations)))
        lines.append(f"  {name:<10} {values}  ({counts(labelled[index])})")
    absent = [name for name, of_files in zip(task.classes, labelled, strict=True) if not any(of_files)]
    if absent:
        lines.append(
            f"No label of {', '.join(absent)}: F1 counts them as 0 and is lower for that, 'F1 occurring' ignores them;"
            " the intervals reach up to what F1 could be with them."
        )
    shares = list(evaluations[0].coverage)
    lines += ["", "Calibration error (ECE), and accuracy on the most certain share of what is labelled"]
    lines += as_table(
        ("predictions", "ECE", *(f"{share:.0%}" for share in shares)),
        [row for e in evaluations for row in _coverage_rows(e, shares)],
    )
    for evaluation in evaluations:
        lines += _reliability(evaluation)
        lines += _confusion(evaluation)
        if videos:
            lines += ["", f"{evaluation.name}, by video"]
            rows = [
                [video_id, f"{s.f1_occurring:.4f}", f"{s.accuracy:.4f}", str(s.frames)]
                for video_id, s in evaluation.videos.items()
            ]
            lines += as_table(("video", "F1 occurring", "accuracy", "frames"), rows)
    return "\n".join(lines)


def evaluation_as_plain(evaluation: Evaluation) -> dict[str, Any]:
    """All of it as plain values that JSON can hold; an empty bin of the reliability table has null."""
    calibration = evaluation.calibration
    bins = zip(calibration.count, calibration.confidence, calibration.accuracy, strict=True)
    reliability = [
        {
            "from": index / BINS,
            "to": (index + 1) / BINS,
            "count": int(count),
            "said": or_none(confidence),
            "found": or_none(accuracy),
        }
        for index, (count, confidence, accuracy) in enumerate(bins)
    ]
    return {
        "name": evaluation.name,
        "task": evaluation.task.name,
        "split": evaluation.split,
        "select": evaluation.select,
        **_scores_as_plain(evaluation.scores, evaluation.task),
        "interval": list(map(or_none, evaluation.interval)),
        "not_predicted": evaluation.missing,
        "ece": calibration.ece,
        "reliability": reliability,
        "recordings": evaluation.recordings,
        "coverage": {f"{share:g}": accuracy for share, (accuracy, *_) in evaluation.coverage.items()},
        "coverage_intervals": {
            f"{share:g}": list(map(or_none, bounds)) for share, (_, *bounds) in evaluation.coverage.items()
        },
        "videos": {video_id: _scores_as_plain(s, evaluation.task) for video_id, s in evaluation.videos.items()},
    }


def _scores_as_plain(scores: Scores, task: Task) -> dict[str, Any]:
    return {
        "score": scores.score,
        "f1": scores.f1,
        "accuracy": scores.accuracy,
        "f1_occurring": scores.f1_occurring,
        "exact_match": scores.exact_match,
        "f1_per_class": dict(zip(task.classes, scores.f1_per_class, strict=True)),
        "count_per_class": dict(zip(task.classes, scores.count_per_class, strict=True)),
        "frames": scores.frames,
        "confusion": None if scores.confusion is None else scores.confusion.tolist(),
    }


def _row(evaluation: Evaluation) -> list[str]:
    s = evaluation.scores
    return [
        evaluation.name,
        *digits(s.f1, s.accuracy, s.score),
        span(*evaluation.interval),
        *digits(s.f1_occurring, s.exact_match),
        str(s.frames),
        str(evaluation.missing),
    ]


def _coverage_rows(evaluation: Evaluation, shares: Sequence[float]) -> list[list[str]]:
    """Accuracy on the most certain shares, and the bounds of its interval below it."""
    numbers = [evaluation.coverage[share] for share in shares]
    rows = [[evaluation.name, f"{evaluation.calibration.ece:.4f}", *digits(*(value for value, *_ in numbers))]]
    if evaluation.recordings > 1:
        rows += [
            [f"  95 % {word}", "", *digits(*(row[bound] for row in numbers))]
            for bound, word in ((1, "from"), (2, "to"))
        ]
    return rows


def _reliability(evaluation: Evaluation) -> list[str]:
    """Accuracy beside confidence, without empty bins."""
    calibration = evaluation.calibration
    bins = zip(calibration.count, calibration.confidence, calibration.accuracy, strict=True)
    rows = [
        [f"{index / BINS:.2f} to {(index + 1) / BINS:.2f}", *digits(confidence, accuracy), str(count)]
        for index, (count, confidence, accuracy) in enumerate(bins)
        if count
    ]
    return ["", *as_table((f"{evaluation.name}: confidence", "mean", "accuracy", "frames"), rows)]


def _confusion(evaluation: Evaluation) -> list[str]:
    """Labels by row, decisions by column, where the task has one label a frame."""
    if evaluation.scores.confusion is None:
        return []
    names = evaluation.task.classes
    rows = [[name, *map(str, row)] for name, row in zip(names, evaluation.scores.confusion, strict=True)]
    return ["", *as_table((f"{evaluation.name}: is, decided as", *names), rows)]
