"""The ensemble: weights of several models' probabilities, searched on one split and applied to any.

Legend: M models, F frames, C classes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fercache import runtime
from fercache.cache.predictions import Predictions, VideoPredictions, check_replaceable, write_predictions
from fercache.config import EnsembleConfig, as_plain
from fercache.data.manifest import read_manifest
from fercache.errors import ConfigError, DataError, RunError
from fercache.files import refuse_other_contents
from fercache.results.aligned import common_frames, read_all, with_labels
from fercache.results.ensemble_file import (
    FILE_NAME,
    EnsembleFile,
    EnsembleModel,
    gains_of,
    read_ensemble,
    score_rows,
    write_ensemble,
)
from fercache.results.ensemble_words import fewer_folds, notes
from fercache.scoring.cross_validation import cross_validate
from fercache.scoring.folds import absent, folds
from fercache.scoring.outputs import LabelledOutputs
from fercache.scoring.search import SearchSpace, Weighting, point_count

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
    """Choose the ensemble with the best task score, and estimate that score; returns `out`/ensemble.json.

    What is chosen on all frames looks better on them than it is elsewhere; so the same is chosen on each part of the
    recordings but one, and scored on that one. Beside it stand the best single model and equal weights, with
    intervals over recordings. ConfigError, DataError and RunError where an input or `out` does not fit.
    """
    settings = settings or EnsembleConfig()
    data = read_manifest(manifest, task)
    models = read_all(predictions)
    _check_models(predictions, models)
    _check_points(len(models), settings.step)
    outputs = with_labels(models, data).outputs
    labels = hashlib.sha256(outputs.labels.tobytes()).hexdigest()
    plain = {key: value for key, value in as_plain(settings).items() if key != "predictions"} | {"seed": seed}
    split, names = models[0].split, [p.model for p in models]
    _check_folder(out, {"split": split, "labels": labels, "settings": plain}, names)
    fold = _folds(outputs, settings, seed)
    space = SearchSpace(round(1 / settings.step), settings.smoothing, settings.temperatures, settings.thresholds)
    report = cross_validate(outputs, space, fold, seed, partial(runtime.progress, what="weights"))
    ensemble = EnsembleFile(
        task=data.task,
        split=split,
        labels=labels,
        frames=int(outputs.counted.sum()),
        recordings=len(np.unique(outputs.recording[outputs.counted])),
        settings=plain,
        select=_select(models),
        models=_scored_alone(predictions, names, outputs),
        fusion=report.fusions[Weighting.SEARCHED],
        in_sample=score_rows(report.in_sample),
        across_folds=score_rows(report.across_folds),
        gains=gains_of(report),
        folds=report.fold_fusions,
        absent=absent(data.task, outputs.labels, fold) if fold is not None else {},
    )
    write_ensemble(out / FILE_NAME, dataclasses.replace(ensemble, notes=notes(ensemble)))
    return out / FILE_NAME


def apply_ensemble(file: Path, predictions: Sequence[Path], out: Path) -> Path:
    """Fuse predictions of the models that `file` names, of any split, into an ordinary predictions file `out`.

    DataError where the predictions are not those of its models, CacheError where `out` holds something else.
    """
    ensemble = read_ensemble(file)
    models = read_all(predictions)
    _check_models(predictions, models)
    models = _in_order(file, ensemble, predictions, models)
    task, prior = ensemble.task, models[0].train_prior
    if models[0].task != task:
        raise DataError(f"{file}: is of task {task.name}, the predictions of task {models[0].task.name}")
    if any(not np.allclose(p.train_prior, prior, atol=1e-6) for p in models):
        raise DataError(
            "the models were trained on labels of different shares (train_prior): are they of one data set?"
        )
    check_replaceable(out, ensemble.fingerprint, models[0].split)
    video_ids, outputs = common_frames(models)
    logits = task.logits(ensemble.fusion.probability(outputs))
    parts = (np.split(values, outputs.first[1:-1]) for values in (outputs.frame, logits))
    fused = Predictions(
        task=task,
        split=models[0].split,
        model=ensemble.fingerprint,
        cache="+".join(sorted({p.cache for p in models})),
        select=_select(models),
        train_prior=prior,
        videos={video_id: VideoPredictions(*part) for video_id, *part in zip(video_ids, *parts, strict=True)},
        chosen_on=ensemble.split,
        thresholds=ensemble.fusion.thresholds,
    )
    write_predictions(out, fused)
    log.info("%s: %d models fused, split %s", out, len(models), fused.split)
    return out


def _folds(outputs: LabelledOutputs, settings: EnsembleConfig, seed: int) -> np.ndarray | None:
    """The fold of each frame; None where none are asked for, or recordings are too few for two."""
    if not settings.folds:
        return None
    fold = folds(outputs.task, outputs.labels, outputs.recording, settings.folds, seed)
    count = 0 if fold is None else int(fold.max()) + 1
    if count < settings.folds:
        log.warning("%s", fewer_folds(settings.folds, count))
    return fold


def _scored_alone(paths: Sequence[Path], models: Sequence[str], outputs: LabelledOutputs) -> tuple[EnsembleModel, ...]:
    """Each model with its score by itself, at the task's default thresholds."""
    task, counted = outputs.task, outputs.counted
    return tuple(
        EnsembleModel(str(path), model, task.score(task.decide(of_model[counted]), outputs.labels[counted]).score)
        for path, model, of_model in zip(paths, models, outputs.probability(), strict=True)
    )


def _select(models: Sequence[Predictions]) -> str:
    """How the epochs were chosen: by their last one only where all were."""
    return "last" if all(p.select == "last" for p in models) else "best"


def _in_order(
    file: Path, ensemble: EnsembleFile, paths: Sequence[Path], models: Sequence[Predictions]
) -> list[Predictions]:
    """The models in the order of the ensemble's weights; DataError where they are not its models."""
    by_fingerprint = {p.model: p for p in models}
    if set(by_fingerprint) != set(ensemble.fingerprints):
        lacking = [m.predictions for m in ensemble.models if m.fingerprint not in by_fingerprint]
        unknown = [str(path) for path, p in zip(paths, models, strict=True) if p.model not in ensemble.fingerprints]
        raise DataError(
            f"{file}: was searched over other models: no predictions given for {lacking}, unknown to it: {unknown}"
        )
    return [by_fingerprint[fingerprint] for fingerprint in ensemble.fingerprints]


def _check_models(paths: Sequence[Path], models: Sequence[Predictions]) -> None:
    if len(models) < 2:
        raise DataError(f"an ensemble needs two or more predictions files, found {len(models)}")
    names = [p.model for p in models]
    twice = [str(path) for path, name in zip(paths, names, strict=True) if names.count(name) > 1]
    if twice:
        raise DataError(f"the same model is given more than once: {', '.join(twice)}")


def _check_folder(out: Path, expected: Mapping[str, Any], models: Sequence[str]) -> None:
    """Raise RunError where `out` holds another ensemble, with what differs, or something else."""
    file = out / FILE_NAME
    if not file.exists():
        refuse_other_contents(out, f"an ensemble ({FILE_NAME})", RunError)
        return
    before = read_ensemble(file)
    other = [key for key, value in expected.items() if getattr(before, key) != value]
    other += ["models"] if before.fingerprints != models else []
    if other:
        raise RunError(f"{out}: holds an ensemble of other {', '.join(other)}; choose another folder, or remove it")


def _check_points(models: int, step: float) -> None:
    points = point_count(models, round(1 / step))
    if points > MOST_POINTS:
        raise ConfigError(f"step: {step:g} with {models} models makes {points} points, expected at most {MOST_POINTS}")
