"""The scores of predictions files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fercache.data.manifest import read_manifest
from fercache.scoring.intervals import draws, interval, tally
from fercache.scoring.metrics import Scores, decide, score
from fercache.stages.aligned import read_all, with_labels
from fercache.tasks import Task


@dataclass(frozen=True)
class Evaluation:
    """The scores of one predictions file."""

    name: str
    task: Task
    split: str
    scores: Scores
    interval: tuple[float, float]
    """Of the score: 95 % of what it comes out as when the recordings are drawn again."""
    missing: int
    """Labelled frames without a prediction; they are not scored."""


def evaluate(manifest: Path, predictions: Sequence[Path], *, task: str | None = None) -> list[Evaluation]:
    """Score each predictions file on its own labelled frames."""
    data = read_manifest(manifest, task)
    evaluations = []
    for path, found in zip(predictions, read_all(predictions), strict=True):
        frames = with_labels([found], data)
        decisions = decide(data.task, frames.probability[0])
        scores = score(data.task, decisions, frames.labels)
        counts = tally(data.task, decisions, frames.labels, frames.recording)
        drawn = interval(counts.scores(data.task, draws(len(counts.counted), seed=0)))
        evaluations.append(Evaluation(path.stem, data.task, found.split, scores, drawn, frames.missing))
    return evaluations


def describe(evaluations: Sequence[Evaluation]) -> str:
    """The scores as text: a row a file, then F1 by class."""
    task = evaluations[0].task
    weights = f"{task.score.f1:g} F1 + {task.score.accuracy:g} accuracy"
    names = [evaluation.name for evaluation in evaluations]
    width = max(map(len, [*names, "predictions"]))
    lines = [f"task {task.name}, split {evaluations[0].split}; E = {weights}", ""]
    columns = ("F1", "accuracy", "E", "E, 95 % over recordings", "F1 occurring", "exact match", "frames")
    columns += ("not predicted",)
    lines.append(f"{'predictions':<{width}}  " + "  ".join(f"{name:>8}" for name in columns))
    for evaluation in evaluations:
        s = evaluation.scores
        numbers = [f"{value:.4f}" for value in (s.f1, s.accuracy, s.score)]
        numbers += ["{:.4f} to {:.4f}".format(*evaluation.interval)]
        numbers += [f"{s.f1_occurring:.4f}", f"{s.exact_match:.4f}", str(s.frames), str(evaluation.missing)]
        cells = "  ".join(f"{text:>{max(8, len(name))}}" for text, name in zip(numbers, columns, strict=True))
        lines.append(f"{evaluation.name:<{width}}  {cells}")
    lines += ["", "F1 by class (labelled frames of the class)"]
    for place, name in enumerate(task.classes):
        values = "  ".join(f"{evaluation.scores.f1_per_class[place]:.4f}" for evaluation in evaluations)
        lines.append(f"  {name:<10} {values}  ({evaluations[0].scores.count_per_class[place]})")
    absent = [
        name for name, count in zip(task.classes, evaluations[0].scores.count_per_class, strict=True) if not count
    ]
    if absent:
        lines.append(f"No label of {', '.join(absent)}: F1 counts them as 0, 'F1 occurring' leaves them out.")
    return "\n".join(lines)
