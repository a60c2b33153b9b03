"""`ensemble.json`: what an ensemble chose, and what that is worth; written by the search, read where it is applied."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fercache.documents import DocumentError, read_json
from fercache.errors import DataError
from fercache.limits import MOST_HALF_WIDTH
from fercache.results.wording import about_intervals, or_none, span
from fercache.scoring.choice import EQUAL_WEIGHTS, SEARCHED, SINGLE, Choice
from fercache.scoring.honest import Result, Value, Worth
from fercache.tasks import TASKS

FORMAT = "fercache-ensemble 4"
FILE_NAME = "ensemble.json"
KEYS: dict[str, type] = {
    **dict.fromkeys(("task", "split", "labels", "select", "sha256"), str),
    **dict.fromkeys(("frames", "recordings", "half_width"), int),
    **dict.fromkeys(("settings", "in_sample", "across_folds", "gains", "absent"), dict),
    **dict.fromkeys(("models", "weights", "temperatures", "folds", "notes"), list),
}
"""What stands in the file, beside thresholds, and as what."""


@dataclass(frozen=True)
class EnsembleFile:
    """What is in the file, with the parts that are applied checked."""

    path: Path
    content: dict[str, Any]

    @property
    def models(self) -> list[str]:
        """Fingerprints of the models, in the order of the weights."""
        return [model["model"] for model in self.content["models"]]

    @property
    def chosen(self) -> Choice:
        """What is applied."""
        return _choice(self.content)

    @property
    def fingerprint_source(self) -> str:
        """What an applied ensemble is made of, as text."""
        return json.dumps([self.models, *(self.content[key] for key in CHOSEN)])


CHOSEN = ("weights", "temperatures", "half_width", "thresholds")


def choice_as_plain(choice: Choice) -> dict[str, Any]:
    """A choice as JSON holds it."""
    thresholds = None if choice.thresholds is None else choice.thresholds.tolist()
    return dict(
        zip(CHOSEN, (choice.weights.tolist(), list(choice.temperatures), choice.half_width, thresholds), strict=True)
    )


def _choice(content: Mapping[str, Any]) -> Choice:
    weights, temperatures, half_width, thresholds = (content[key] for key in CHOSEN)
    swept = None if thresholds is None else np.asarray(thresholds)
    return Choice(np.asarray(weights), tuple(temperatures), half_width, swept, math.nan)


def worth_as_plain(worth: Worth) -> dict[str, Any]:
    """What an ensemble is worth as JSON holds it."""
    gains = {}
    for kind, found in (("in_sample", worth.in_sample), ("across_folds", worth.across)):
        if found:
            gains[kind] = {name: _value(found[SEARCHED].less(found[name])) for name in (SINGLE, EQUAL_WEIGHTS)}
    folds = worth.folds.choices if worth.folds else ()
    return {
        "in_sample": {name: _result(result) for name, result in worth.in_sample.items()},
        "across_folds": {name: _result(result) for name, result in worth.across.items()},
        "gains": gains,
        "folds": [{name: choice_as_plain(choice) for name, choice in fold.items()} for fold in folds],
    }


def _value(value: Value) -> dict[str, float | None]:
    return {"value": value.value, "low": or_none(value.low), "high": or_none(value.high)}


def _result(result: Result) -> dict[str, float | None]:
    score = result.score
    bounds = {"low": or_none(score.low), "high": or_none(score.high)}
    return {"score": score.value, **bounds, "f1": result.f1, "accuracy": result.accuracy}


def read_ensemble(path: Path) -> EnsembleFile:
    """The file; DataError where it is none, or is damaged."""
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
    if content["sha256"] != content_digest(content):
        raise DataError(f"{path}: was changed or damaged since the search wrote it; remove it and search again")
    return EnsembleFile(path, content)


def ensemble_text(content: Mapping[str, Any]) -> str:
    """The text of the file, with the digest of what it says."""
    return json.dumps({**content, "sha256": content_digest(content)}, indent=2) + "\n"


def content_digest(content: Mapping[str, Any]) -> str:
    """SHA-256 over everything in the file but the digest itself."""
    rest = {key: value for key, value in content.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _problem(content: Mapping[str, Any]) -> str | None:
    """What is wrong with the parts that others rely on."""
    damaged = [key for key, kind in KEYS.items() if not isinstance(content.get(key), kind)]
    if "thresholds" not in content:
        damaged.append("thresholds")
    if damaged or content["task"] not in TASKS:
        return f"is damaged: it lacks, or has something else as, {', '.join(damaged) or 'a known task'}"
    models, tables = content["models"], (content["in_sample"], content["across_folds"])
    named = all(
        isinstance(m, dict) and all(isinstance(m.get(k), str) for k in ("model", "predictions")) for m in models
    )
    results = [result for table in tables for result in table.values()]
    if not named or not all(map(_is_result, results)) or SEARCHED not in content["in_sample"]:
        return "is damaged: it does not name its models, or lacks their scores"
    if not all(isinstance(note, str) for note in content["notes"]) or "thresholds" not in content["settings"]:
        return "is damaged: its notes or settings are not what a search writes"
    weights, temperatures, half_width, thresholds = (content[key] for key in CHOSEN)
    if not _numbers(weights, len(models), 0, 1) or abs(sum(weights) - 1) > 1e-3:
        return f"weights: found {weights}, expected one for each model, at least 0, that sum to 1"
    if not _numbers(temperatures, len(models), 1e-6, 1e6):
        return f"temperatures: found {temperatures}, expected a positive number for each model"
    if not 0 <= half_width <= MOST_HALF_WIDTH:
        return f"half_width: found {half_width!r:.40}, expected a whole number from 0 to {MOST_HALF_WIDTH}"
    classes = len(TASKS[content["task"]].classes)
    if thresholds is not None and not _numbers(thresholds, classes, 0, 1):
        return f"thresholds: found {thresholds}, expected {classes} numbers from 0 to 1"
    return None


def _is_result(found: object) -> bool:
    """Whether it has a score with an interval, which may be null."""
    if not isinstance(found, dict):
        return False
    bounds = [found.get(key, "") for key in ("low", "high")]
    rest = [found.get(key, "") for key in ("score", "f1", "accuracy")]
    return all(isinstance(value, (int, float)) for value in (*rest, *(bound for bound in bounds if bound is not None)))


def _numbers(values: object, count: int, low: float, high: float) -> bool:
    return (
        isinstance(values, list)
        and len(values) == count
        and all(isinstance(value, (int, float)) and low <= value <= high for value in values)
    )


def describe_search(path: Path) -> str:
    """What a search found and what it is worth, as text."""
    content = read_ensemble(path).content
    names = [model["predictions"] for model in content["models"]]
    width = max(map(len, [*names, *content["in_sample"]]))
    lines = [f"{'':<{width}}  weight  temperature  its own score"]
    for name, weight, scale, model in zip(
        names, content["weights"], content["temperatures"], content["models"], strict=True
    ):
        lines.append(f"{name:<{width}}  {weight:.4f}       {scale:.4f}         {model['score']:.4f}")
    if content["half_width"]:
        lines.append(f"smoothed over {content['half_width']} frames to either side")
    if content["thresholds"]:
        units = zip(TASKS[content["task"]].classes, content["thresholds"], strict=True)
        lines.append("thresholds: " + ", ".join(f"{name} {value:.3f}" for name, value in units))
    for kind, title in (("in_sample", "chosen and scored on the same frames"), ("across_folds", "across folds")):
        if content[kind]:
            lines += ["", f"{title:<{max(width, len(title))}}      F1  accuracy       E  E, 95 % over recordings"]
            lines += [
                f"{name:<{max(width, len(title))}}  {s['f1']:.4f}    {s['accuracy']:.4f}  {s['score']:.4f}"
                f"  {span(s['low'], s['high'])}"
                for name, s in content[kind].items()
            ]
    return "\n".join([*lines, "", *content["notes"]])


def notes(content: Mapping[str, Any]) -> list[str]:
    """What a reader must know of the numbers."""
    searched = content["in_sample"][SEARCHED]["score"]
    if not content["across_folds"]:
        told = [
            f"No folds: {searched:.4f} is of the frames that the weights were chosen on, an upper bound, no estimate."
        ]
    else:
        across = content["across_folds"][SEARCHED]["score"]
        looks = f"looks {searched - across:.4f} better than" if searched > across else "looks no better than"
        told = [
            f"Scored on the frames that it was chosen on, the searched ensemble {looks} across folds ({searched:.4f},"
            f" {across:.4f}): report the latter."
        ]
        told += [_gain(name, gain) for name, gain in content["gains"]["across_folds"].items()]
    if len(content["folds"]) < content["settings"]["folds"]:
        told.append(fewer_folds(content["settings"]["folds"], len(content["folds"])) + ".")
    if content["absent"]:
        told.append("Nothing could be chosen for a class that is in one fold alone: " + ", ".join(content["absent"]))
    told.append(about_intervals(content["recordings"]))
    if content["select"] != "last" and content["split"] == "validation":
        told.append(
            "The models' epochs were chosen on these videos too (select: best), so that all these numbers are too high."
        )
    return told


def fewer_folds(wanted: int, made: int) -> str:
    """A sentence on folds that there were too few recordings for."""
    return f"The recordings suffice for {made or 'no'} folds, not for {wanted}"


def _gain(name: str, gain: Mapping[str, float]) -> str:
    if gain["low"] > 0:
        verdict = "a gain"
    elif gain["high"] < 0:
        verdict = "a loss"
    else:
        verdict = "which cannot be told from zero"
    low, high = gain["low"], gain["high"]
    return f"Against {name}: {gain['value']:+.4f} (95 % from {low:+.4f} to {high:+.4f}), {verdict}."
