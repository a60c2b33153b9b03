"""The ensemble: weights of several models' probabilities, searched on one split and applied to any.

Legend: M models, N frames, C classes.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fercache import runtime
from fercache.cache.predictions import Predictions, VideoPredictions, check_replaceable, write_predictions
from fercache.config import EnsembleConfig
from fercache.data.manifest import read_manifest
from fercache.errors import ConfigError, DataError, RunError
from fercache.files import contents, write_text
from fercache.scoring.metrics import Scores, decide, probabilities, score
from fercache.scoring.search import fuse, search
from fercache.stages.aligned import common_frames, read_all, to_logits, with_labels

log = logging.getLogger(__name__)

FORMAT = "fercache-ensemble 1"
FILE_NAME = "ensemble.json"
MOST_POINTS = 1_000_000
"""Of the grid; four models at a step of .01 have 176,851."""


def search_ensemble(
    manifest: Path,
    predictions: Sequence[Path],
    out: Path,
    settings: EnsembleConfig | None = None,
    *,
    task: str | None = None,
) -> Path:
    """Search the weights with the best task score over the grid; returns `out`/ensemble.json.

    The weights are chosen on the frames that they are scored on, so the score is an upper bound of
    what they give elsewhere; the file says so beside the best single model and equal weights.
    """
    settings = settings or EnsembleConfig()
    data = read_manifest(manifest, task)
    found = read_all(predictions)
    _check_models(predictions, [p.model for p in found])
    _check_folder(out, [p.model for p in found], found[0].split, settings.step)
    _check_points(len(found), settings.step)
    frames = with_labels(found, data)
    track = partial(runtime.progress, what="search")
    weights, _ = search(data.task, frames.probability, frames.labels, round(1 / settings.step), track)

    def scored(chosen: np.ndarray) -> Scores:
        return score(data.task, decide(data.task, fuse(chosen, frames.probability)), frames.labels)

    single = [scored(row) for row in np.eye(len(found))]
    rows = {
        **{str(path): result for path, result in zip(predictions, single, strict=True)},
        "equal weights": scored(np.full(len(found), 1 / len(found))),
        "searched": scored(weights),
    }
    content = {
        "format": FORMAT,
        "task": data.task.name,
        "split": found[0].split,
        "step": settings.step,
        "frames": len(frames.labels),
        "models": [{"predictions": str(p), "model": f.model} for p, f in zip(predictions, found, strict=True)],
        "weights": weights.tolist(),
        "scores": {name: {"f1": s.f1, "accuracy": s.accuracy, "score": s.score} for name, s in rows.items()},
        "note": "the weights were chosen on these frames, so 'searched' is no estimate for other videos",
    }
    write_text(out / FILE_NAME, json.dumps(content, indent=2) + "\n")
    return out / FILE_NAME


def describe_search(file: Path) -> str:
    """What a search found, as text."""
    content = _read(file)
    names = [model["predictions"] for model in content["models"]]
    width = max(map(len, content["scores"]))
    lines = [f"{name:<{width}}  weight {w:.3f}" for name, w in zip(names, content["weights"], strict=True)]
    lines += ["", f"{'':<{width}}      F1  accuracy       E"]
    for name, s in content["scores"].items():
        lines.append(f"{name:<{width}}  {s['f1']:.4f}    {s['accuracy']:.4f}  {s['score']:.4f}")
    best = max(content["scores"][name]["score"] for name in names)
    gain = content["scores"]["searched"]["score"] - best
    lines.append(
        f"The searched weights are {gain:+.4f} against the best single model on the {content['frames']} frames"
        " that they were chosen on: an upper bound, no estimate for other videos."
    )
    return "\n".join(lines)


def apply_ensemble(file: Path, predictions: Sequence[Path], out: Path) -> Path:
    """Fuse predictions of the models that `file` names, of any split, into an ordinary predictions file `out`."""
    content = _read(file)
    found = read_all(predictions)
    models = [model["model"] for model in content["models"]]
    _check_models(predictions, [p.model for p in found])
    if {p.model for p in found} != set(models):
        lacking = [m["predictions"] for m in content["models"] if m["model"] not in {p.model for p in found}]
        strange = [str(path) for path, p in zip(predictions, found, strict=True) if p.model not in models]
        raise DataError(
            f"{file}: was searched over other models: no predictions given for {lacking}, unknown to it: {strange}"
        )
    found.sort(key=lambda p: models.index(p.model))
    task = found[0].task
    if task.name != content["task"]:
        raise DataError(f"{file}: is of task {content['task']}, the predictions of task {task.name}")
    prior = found[0].train_prior
    if any(not np.allclose(p.train_prior, prior, atol=1e-6) for p in found):
        raise DataError(
            "the models were trained on labels of different shares (train_prior): are they of one data set?"
        )
    weights = np.asarray(content["weights"])
    fingerprint = hashlib.sha256(json.dumps([models, content["weights"]]).encode()).hexdigest()
    check_replaceable(out, fingerprint, found[0].split)
    videos = {}
    for video, parts in common_frames(found).items():
        fused = fuse(weights, np.stack([probabilities(task, part.logits) for part in parts]))
        videos[video] = VideoPredictions(parts[0].frame, to_logits(task, fused))
    fused_predictions = Predictions(
        task=task,
        split=found[0].split,
        model=fingerprint,
        cache="+".join(sorted({p.cache for p in found})),
        select="last" if all(p.select == "last" for p in found) else "best",
        train_prior=prior,
        videos=videos,
    )
    write_predictions(out, fused_predictions)
    log.info("%s: %d models fused, split %s", out, len(models), found[0].split)
    return out


def _check_models(paths: Sequence[Path], models: Sequence[str]) -> None:
    if len(paths) < 2:
        raise DataError(f"an ensemble needs two or more predictions files, found {len(paths)}")
    twice = [str(path) for path, model in zip(paths, models, strict=True) if models.count(model) > 1]
    if twice:
        raise DataError(f"the same model is given more than once: {', '.join(twice)}")


def _check_folder(out: Path, models: list[str], split: str, step: float) -> None:
    file = out / FILE_NAME
    if file.exists():
        before = _read(file)
        if ([model["model"] for model in before["models"]], before["split"], before["step"]) != (models, split, step):
            raise RunError(
                f"{out}: holds another ensemble (other models, split or step); choose another folder, or remove it"
            )
    elif contents(out):
        raise RunError(f"{out}: is not empty and holds no {FILE_NAME}; choose another folder")


def _check_points(models: int, step: float) -> None:
    points = math.comb(round(1 / step) + models - 1, models - 1)
    if points > MOST_POINTS:
        raise ConfigError(f"step: {step:g} with {models} models makes {points} points, expected at most {MOST_POINTS}")


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: cannot be read: {error}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise DataError(f"{file}: is no ensemble (expected format {FORMAT!r})")
    weights, models = content.get("weights"), content.get("models")
    named = isinstance(models, list) and all(
        isinstance(m, dict) and isinstance(m.get("model"), str) and isinstance(m.get("predictions"), str)
        for m in models
    )
    if not named or not {"task", "split", "step", "scores", "frames"} <= content.keys():
        raise DataError(f"{file}: is damaged: it does not name its models, task, split, step, frames and scores")
    numbers = isinstance(weights, list) and all(isinstance(w, (int, float)) and w >= 0 for w in weights)
    if not numbers or len(models) != len(weights) or abs(sum(weights) - 1) > 1e-3:
        raise DataError(f"{file}: weights: found {weights}, expected one for each model, at least 0, that sum to 1")
    return content
