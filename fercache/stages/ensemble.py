"""The ensemble: weights of several models' probabilities, searched on one split and applied to any.

Legend: M models, F frames, C classes.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fercache import runtime
from fercache.cache.predictions import Predictions, VideoPredictions, check_replaceable, write_predictions
from fercache.config import EnsembleConfig, as_plain
from fercache.data.manifest import read_manifest
from fercache.errors import ConfigError, DataError, RunError
from fercache.files import refuse_other_contents, write_text
from fercache.results.aligned import Aligned, common_frames, read_all, to_logits, with_labels
from fercache.results.ensemble_file import (
    FILE_NAME,
    FORMAT,
    choice_as_plain,
    ensemble_text,
    fewer_folds,
    notes,
    read_ensemble,
    worth_as_plain,
)
from fercache.scoring.choice import SEARCHED, Recipe
from fercache.scoring.folds import absent, folds
from fercache.scoring.grid import point_count
from fercache.scoring.honest import results, worth
from fercache.scoring.metrics import decide

log = logging.getLogger(__name__)

MOST_POINTS = 1_000_000
"""Of the grid; four models at a step of .01 have 176,851."""


def search_ensemble(
    manifest: Path,
    predictions: Sequence[Path],
    out: Path,
    settings: EnsembleConfig | None = None,
    *,
    task: str | None = None,
    seed: int = 0,
) -> Path:
    """Choose the ensemble with the best task score, and say what it is worth; returns `out`/ensemble.json.

    What is chosen on all frames looks better on them than it is elsewhere; so the same is chosen on each part of the
    recordings but one, and scored on that one. Beside it stand the best single model and equal weights, with
    intervals over recordings.
    """
    settings = settings or EnsembleConfig()
    data = read_manifest(manifest, task)
    found = read_all(predictions)
    models = [p.model for p in found]
    plain = {key: value for key, value in as_plain(settings).items() if key != "predictions"} | {"seed": seed}
    _check_models(predictions, models)
    _check_points(len(found), settings.step)
    frames = with_labels(found, data)
    labels = hashlib.sha256(frames.outputs.labels.tobytes()).hexdigest()
    _check_folder(out, {"split": found[0].split, "labels": labels, "settings": plain}, models)
    outputs, fold = frames.outputs, _folds(frames, settings, seed)
    recipe = Recipe(round(1 / settings.step), settings.smoothing, settings.temperatures, settings.thresholds)
    ensemble = worth(outputs, recipe, fold, seed, partial(runtime.progress, what="folds"))
    single = results(
        outputs, {m: decide(data.task, p) for m, p in zip(models, outputs.probability(), strict=True)}, seed
    )
    names = zip(predictions, models, strict=True)
    content = {
        "format": FORMAT,
        "task": data.task.name,
        "split": found[0].split,
        "labels": labels,
        "frames": int(outputs.counted.sum()),
        "recordings": len(np.unique(outputs.recording[outputs.counted])),
        "settings": plain,
        "select": "last" if all(p.select == "last" for p in found) else "best",
        "models": [{"predictions": str(p), "model": m, "score": single[m].score.value} for p, m in names],
        **choice_as_plain(ensemble.choices[SEARCHED]),
        **worth_as_plain(ensemble),
        "absent": absent(data.task, outputs.labels, fold) if fold is not None else {},
    }
    content["notes"] = notes(content)
    write_text(out / FILE_NAME, ensemble_text(content))
    return out / FILE_NAME


def _folds(frames: Aligned, settings: EnsembleConfig, seed: int) -> np.ndarray | None:
    """The fold of each frame; None where none are asked for, or recordings are too few for two."""
    if not settings.folds:
        return None
    outputs = frames.outputs
    fold = folds(outputs.task, outputs.labels, outputs.recording, settings.folds, seed)
    count = 0 if fold is None else int(fold.max()) + 1
    if count < settings.folds:
        log.warning("%s", fewer_folds(settings.folds, count))
    return fold


def apply_ensemble(file: Path, predictions: Sequence[Path], out: Path) -> Path:
    """Fuse predictions of the models that `file` names, of any split, into an ordinary predictions file `out`."""
    ensemble = read_ensemble(file)
    found, models = read_all(predictions), ensemble.models
    _check_models(predictions, [p.model for p in found])
    if {p.model for p in found} != set(models):
        lacking = [m["predictions"] for m in ensemble.content["models"] if m["model"] not in {p.model for p in found}]
        strange = [str(path) for path, p in zip(predictions, found, strict=True) if p.model not in models]
        raise DataError(
            f"{file}: was searched over other models: no predictions given for {lacking}, unknown to it: {strange}"
        )
    found.sort(key=lambda p: models.index(p.model))
    task, chosen = found[0].task, ensemble.chosen
    if task.name != ensemble.content["task"]:
        raise DataError(f"{file}: is of task {ensemble.content['task']}, the predictions of task {task.name}")
    prior = found[0].train_prior
    if any(not np.allclose(p.train_prior, prior, atol=1e-6) for p in found):
        raise DataError(
            "the models were trained on labels of different shares (train_prior): are they of one data set?"
        )
    fingerprint = hashlib.sha256(ensemble.fingerprint_source.encode()).hexdigest()
    check_replaceable(out, fingerprint, found[0].split)
    video_ids, outputs = common_frames(found)
    logits = to_logits(task, chosen.probability(outputs))
    parts = (np.split(values, outputs.first[1:-1]) for values in (outputs.frame, logits))
    videos = {video_id: VideoPredictions(*part) for video_id, *part in zip(video_ids, *parts, strict=True)}
    fused_predictions = Predictions(
        task=task,
        split=found[0].split,
        model=fingerprint,
        cache="+".join(sorted({p.cache for p in found})),
        select="last" if all(p.select == "last" for p in found) else "best",
        train_prior=prior,
        videos=videos,
        chosen_on=ensemble.content["split"],
        thresholds=chosen.thresholds,
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


def _check_folder(out: Path, wanted: dict[str, Any], models: list[str]) -> None:
    """Raise RunError where `out` holds another ensemble, with what differs, or something else."""
    file = out / FILE_NAME
    if file.exists():
        before = read_ensemble(file)
        other = [key for key, value in wanted.items() if before.content[key] != value]
        other += ["models"] if before.models != models else []
        if other:
            raise RunError(f"{out}: holds an ensemble of other {', '.join(other)}; choose another folder, or remove it")
        return
    refuse_other_contents(out, f"an ensemble ({FILE_NAME})", RunError)


def _check_points(models: int, step: float) -> None:
    points = point_count(models, round(1 / step))
    if points > MOST_POINTS:
        raise ConfigError(f"step: {step:g} with {models} models makes {points} points, expected at most {MOST_POINTS}")
