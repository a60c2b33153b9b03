"""`ensemble.json`: what an ensemble search chose, and how good that is. Nothing else reads or writes the file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fercache.documents import DocumentError, read_json
from fercache.errors import DataError
from fercache.files import write_text
from fercache.limits import MOST_HALF_WIDTH
from fercache.results.wording import or_nan, or_none
from fercache.scoring.cross_validation import DecisionScores, EnsembleReport, Estimate
from fercache.scoring.search import Fusion, Fusions, Weighting
from fercache.tasks import TASKS, Task

FORMAT = "fercache-ensemble 4"
FILE_NAME = "ensemble.json"
KEYS: dict[str, type] = {
    **dict.fromkeys(("task", "split", "labels", "select", "sha256"), str),
    **dict.fromkeys(("frames", "recordings", "half_width"), int),
    **dict.fromkeys(("settings", "in_sample", "across_folds", "gains", "absent"), dict),
    **dict.fromkeys(("models", "weights", "temperatures", "folds", "notes"), list),
}
"""The keys of the file, beside thresholds, and their types."""
Gains = dict[Weighting, Estimate]


@dataclass(frozen=True)
class EnsembleModel:
    """One of the models."""

    predictions: str
    """The predictions file that was searched."""
    fingerprint: str
    score: float
    """The model's score on the frames of the search."""


@dataclass(frozen=True)
class ScoreRow:
    """The scores of one weighting."""

    score: Estimate
    f1: float
    accuracy: float


@dataclass(frozen=True)
class EnsembleFile:
    """The content of the file."""

    task: Task
    split: str
    """Of the predictions that were searched."""
    labels: str
    """SHA-256 of the labels."""
    frames: int
    """Labelled frames."""
    recordings: int
    """With labels."""
    settings: Mapping[str, Any]
    """Of the search: `EnsembleConfig` without predictions, and the seed."""
    select: str
    """best or last: how the models' epochs were chosen."""
    models: tuple[EnsembleModel, ...]
    """In the order of the weights."""
    fusion: Fusion
    """What is applied: chosen on all frames by search."""
    in_sample: dict[Weighting, ScoreRow]
    """Scores on the frames that each weighting was chosen on."""
    across_folds: dict[Weighting, ScoreRow]
    """Scores on frames that it was not chosen on; {} without folds."""
    gains: dict[str, Gains]
    """in_sample or across_folds -> what the searched weights gain over the other ones."""
    folds: tuple[Fusions, ...]
    """What was chosen on all folds but each one."""
    absent: Mapping[str, list[int]]
    """Class that occurs -> the folds outside of which it does not."""
    notes: tuple[str, ...] = ()
    """What a reader must know of the numbers."""

    @property
    def fingerprints(self) -> list[str]:
        """Of the models."""
        return [model.fingerprint for model in self.models]

    @property
    def fingerprint(self) -> str:
        """Of the applied ensemble: SHA-256 of its models and how they are fused."""
        source = json.dumps([self.fingerprints, *_fusion_as_plain(self.fusion).values()])
        return hashlib.sha256(source.encode()).hexdigest()


def score_rows(scores: Mapping[Weighting, DecisionScores]) -> dict[Weighting, ScoreRow]:
    """Scores as the file has them."""
    return {weighting: ScoreRow(s.score, s.f1, s.accuracy) for weighting, s in scores.items()}


def gains_of(report: EnsembleReport) -> dict[str, Gains]:
    """What the searched weights gain over the others."""
    tables = {"in_sample": report.in_sample, "across_folds": report.across_folds}
    return {
        kind: {
            weighting: scores[Weighting.SEARCHED].minus(scores[weighting])
            for weighting in (Weighting.BEST_SINGLE, Weighting.EQUAL)
        }
        for kind, scores in tables.items()
        if scores
    }


def write_ensemble(path: Path, ensemble: EnsembleFile) -> None:
    """Write the file, with a digest of its content."""
    content = _as_plain(ensemble)
    write_text(path, json.dumps({**content, "sha256": _digest(content)}, indent=2) + "\n")


def read_ensemble(path: Path) -> EnsembleFile:
    """The content of the file; DataError where it is no ensemble file, or is damaged."""
    try:
        content = read_json(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except DocumentError as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise DataError(f"{path}: is no ensemble file (expected format {FORMAT!r}); remove it and search again")
    problem = _problem(content)
    if problem:
        raise DataError(f"{path}: {problem}")
    if content["sha256"] != _digest(content):
        raise DataError(f"{path}: was changed or damaged since the search wrote it; remove it and search again")
    try:
        return _from_plain(content)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: is damaged: its tables are not those of a search; remove it and search again") from (
            error
        )


def _digest(content: Mapping[str, Any]) -> str:
    """SHA-256 over everything in the file but the digest itself."""
    rest = {key: value for key, value in content.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _as_plain(ensemble: EnsembleFile) -> dict[str, Any]:
    tables = {"in_sample": ensemble.in_sample, "across_folds": ensemble.across_folds}
    return {
        "format": FORMAT,
        "task": ensemble.task.name,
        "split": ensemble.split,
        "labels": ensemble.labels,
        "frames": ensemble.frames,
        "recordings": ensemble.recordings,
        "settings": dict(ensemble.settings),
        "select": ensemble.select,
        "models": [{"predictions": m.predictions, "model": m.fingerprint, "score": m.score} for m in ensemble.models],
        **_fusion_as_plain(ensemble.fusion),
        **{kind: {w.value: _row_as_plain(row) for w, row in table.items()} for kind, table in tables.items()},
        "gains": {
            kind: {w.value: {"value": gain.value, **_bounds(gain)} for w, gain in gains.items()}
            for kind, gains in ensemble.gains.items()
        },
        "folds": [{w.value: _fusion_as_plain(fusion) for w, fusion in fold.items()} for fold in ensemble.folds],
        "absent": dict(ensemble.absent),
        "notes": list(ensemble.notes),
    }


def _from_plain(content: Mapping[str, Any]) -> EnsembleFile:
    def rows(kind: str) -> dict[Weighting, ScoreRow]:
        return {
            Weighting(name): ScoreRow(_estimate(row["score"], row), row["f1"], row["accuracy"])
            for name, row in content[kind].items()
        }

    return EnsembleFile(
        task=TASKS[content["task"]],
        **{key: content[key] for key in ("split", "labels", "frames", "recordings", "settings", "select", "absent")},
        models=tuple(EnsembleModel(m["predictions"], m["model"], m["score"]) for m in content["models"]),
        fusion=_fusion(content),
        in_sample=rows("in_sample"),
        across_folds=rows("across_folds"),
        gains={
            kind: {Weighting(name): _estimate(gain["value"], gain) for name, gain in gains.items()}
            for kind, gains in content["gains"].items()
        },
        folds=tuple({Weighting(name): _fusion(fusion) for name, fusion in fold.items()} for fold in content["folds"]),
        notes=tuple(content["notes"]),
    )


def _fusion_as_plain(fusion: Fusion) -> dict[str, Any]:
    return {
        "weights": fusion.weights.tolist(),
        "temperatures": list(fusion.temperatures),
        "half_width": fusion.half_width,
        "thresholds": None if fusion.thresholds is None else fusion.thresholds.tolist(),
    }


def _fusion(content: Mapping[str, Any]) -> Fusion:
    thresholds = content["thresholds"]
    return Fusion(
        np.asarray(content["weights"]),
        tuple(content["temperatures"]),
        content["half_width"],
        None if thresholds is None else np.asarray(thresholds),
    )


def _row_as_plain(row: ScoreRow) -> dict[str, Any]:
    return {"score": row.score.value, **_bounds(row.score), "f1": row.f1, "accuracy": row.accuracy}


def _bounds(estimate: Estimate) -> dict[str, float | None]:
    return {"low": or_none(estimate.low), "high": or_none(estimate.high)}


def _estimate(value: float, bounds: Mapping[str, float | None]) -> Estimate:
    return Estimate(value, or_nan(bounds["low"]), or_nan(bounds["high"]))


def _problem(content: Mapping[str, Any]) -> str | None:
    """What is wrong with the parts that others rely on."""
    damaged = [key for key, kind in KEYS.items() if not isinstance(content.get(key), kind)]
    if "thresholds" not in content:
        damaged.append("thresholds")
    if damaged or content["task"] not in TASKS:
        return f"is damaged: it lacks, or has something else as, {', '.join(damaged) or 'a known task'}"
    models, tables = content["models"], (content["in_sample"], content["across_folds"])
    rows = [row for table in tables for row in table.values()]
    if not all(map(_is_model, models)) or not all(map(_is_row, rows)):
        return "is damaged: it does not name its models, or lacks their scores"
    if Weighting.SEARCHED.value not in content["in_sample"]:
        return "is damaged: it lacks the scores of the searched weights"
    if not all(isinstance(note, str) for note in content["notes"]) or "thresholds" not in content["settings"]:
        return "is damaged: its notes or settings are not what a search writes"
    return _fusion_problem(content, len(models), len(TASKS[content["task"]].classes))


def _fusion_problem(content: Mapping[str, Any], models: int, classes: int) -> str | None:
    weights, half_width, thresholds = (content[key] for key in ("weights", "half_width", "thresholds"))
    if not _numbers(weights, models, 0, 1) or abs(sum(weights) - 1) > 1e-3:
        return f"weights: found {weights}, expected one for each model, at least 0, that sum to 1"
    if not _numbers(content["temperatures"], models, 1e-6, 1e6):
        return f"temperatures: found {content['temperatures']}, expected a positive number for each model"
    if not 0 <= half_width <= MOST_HALF_WIDTH:
        return f"half_width: found {half_width!r:.40}, expected a whole number from 0 to {MOST_HALF_WIDTH}"
    if thresholds is not None and not _numbers(thresholds, classes, 0, 1):
        return f"thresholds: found {thresholds}, expected {classes} numbers from 0 to 1"
    return None


def _is_model(model: object) -> bool:
    return (
        isinstance(model, dict)
        and all(isinstance(model.get(key), str) for key in ("model", "predictions"))
        and isinstance(model.get("score"), (int, float))
    )


def _is_row(row: object) -> bool:
    """Whether it has a score with an interval, which may be null."""
    if not isinstance(row, dict):
        return False
    numbers = [row.get(key, "") for key in ("score", "f1", "accuracy")]
    numbers += [bound for key in ("low", "high") if (bound := row.get(key, "")) is not None]
    return all(isinstance(value, (int, float)) for value in numbers)


def _numbers(values: object, count: int, low: float, high: float) -> bool:
    return (
        isinstance(values, list)
        and len(values) == count
        and all(isinstance(value, (int, float)) and low <= value <= high for value in values)
    )
