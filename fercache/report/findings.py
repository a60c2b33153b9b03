"""What a report covers, collected from a project folder."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fercache.cache.predictions import Predictions, list_predictions
from fercache.data.frames import decode
from fercache.data.manifest import Manifest, Video
from fercache.documents import parse_json
from fercache.errors import DataError
from fercache.files import read_text
from fercache.report.time_lines import THUMBNAILS, VideoTimeline
from fercache.results.aligned import Aligned, read_all, with_labels
from fercache.results.ensemble_file import FILE_NAME, EnsembleFile, read_ensemble
from fercache.results.evaluation import Evaluation, evaluate_one
from fercache.results.wording import names
from fercache.rundir import RunDir
from fercache.scoring.search import score_surface
from fercache.tasks import Task

log = logging.getLogger(__name__)

MEASURED = ("loss", "score")
"""Keys of a run's measurements that are drawn over its epochs."""
SURFACE_STEPS = 25
"""One over the distance between the weights at which the simplex is drawn."""


@dataclass(frozen=True)
class Ensemble:
    """An ensemble, and the names of its models."""

    models: tuple[str, ...]
    file: EnsembleFile

    @property
    def name(self) -> str:
        """The models' names."""
        return " + ".join(self.models)


@dataclass(frozen=True)
class Surface:
    """The score over the simplex of three models."""

    ensemble: Ensemble
    points: np.ndarray
    """(P, 3)."""
    scores: np.ndarray
    """(P,)."""


@dataclass(frozen=True)
class Findings:
    """Everything that the page shows."""

    folder: Path
    task: Task
    split: str
    evaluations: Sequence[Evaluation]
    ensembles: Sequence[Ensemble]
    """The largest first."""
    runs: dict[str, list[dict[str, Any]]]
    """Run -> its measurements of each epoch."""
    surface: Surface | None
    timelines: Sequence[VideoTimeline]


def collect_findings(folder: Path, data: Manifest, split: str, videos: Sequence[str]) -> Findings:
    """Look through `folder`; DataError where it has no predictions of the split, or none of one of `videos`."""
    predictions = _predictions(folder, split)
    ensembles = _ensembles(folder, predictions, split)
    main = ensembles[0] if ensembles else None
    models = {name: predictions[name] for name in (main.models if main else predictions)}
    timelines = _timelines(data, models, main, videos)
    of_three = next((ensemble for ensemble in ensembles if len(ensemble.models) == 3), None)
    return Findings(
        folder=folder,
        task=data.task,
        split=split,
        evaluations=[evaluate_one(name, of_model, data) for name, of_model in predictions.items()],
        ensembles=ensembles,
        runs=_runs(folder),
        surface=_surface(of_three, predictions, data) if of_three else None,
        timelines=timelines,
    )


def _predictions(folder: Path, split: str) -> dict[str, Predictions]:
    """The predictions of the split under short names, those of models before those of ensembles."""
    paths = list_predictions(folder, split)
    if not paths:
        raise DataError(f"{folder}: found no predictions of split {split}, expected files that `fercache predict` made")
    paths.sort(key=lambda path: path.stem.count("+"))
    short = names([path.stem.removesuffix(f"-{split}") for path in paths], [path.stem for path in paths])
    return dict(zip(short, read_all(paths), strict=True))


def _ensembles(folder: Path, predictions: dict[str, Predictions], split: str) -> list[Ensemble]:
    """The ensembles on this split, the largest first; a warning for those whose models' predictions are missing."""
    name_of = {of_model.model: name for name, of_model in predictions.items()}
    ensembles = []
    for path in sorted([*folder.glob(FILE_NAME), *folder.glob(f"*/{FILE_NAME}")]):
        file = read_ensemble(path)
        if file.split != split:
            continue
        if set(file.fingerprints) <= set(name_of):
            ensembles.append(Ensemble(tuple(name_of[model] for model in file.fingerprints), file))
        else:
            log.warning("%s: skipped: %s does not contain the predictions of all its models", path, folder)
    return sorted(ensembles, key=lambda ensemble: -len(ensemble.models))


def _runs(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The measurements of every run in the folder or one below it; DataError for a line that is no measurement."""
    runs, file = {}, RunDir(Path()).metrics.name
    for path in sorted([*folder.glob(f"*/{file}"), *folder.glob(f"*/*/{file}")]):
        try:
            lines = [parse_json(line) for line in read_text(path).splitlines()]
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: cannot be read: {error}") from error
        for number, line in enumerate(lines, 1):
            if not isinstance(line, dict) or not all(isinstance(line.get(key, 0), (int, float)) for key in MEASURED):
                raise DataError(f"{path}: line {number}: expected an object with numbers as {', '.join(MEASURED)}")
        runs[str(path.parent.relative_to(folder))] = lines
    return {name: lines for name, lines in runs.items() if lines}


def _surface(ensemble: Ensemble, predictions: dict[str, Predictions], data: Manifest) -> Surface:
    aligned = with_labels([predictions[name] for name in ensemble.models], data)
    thresholds = ensemble.file.settings["thresholds"]
    points, scores = score_surface(aligned.outputs, ensemble.file.fusion, SURFACE_STEPS, thresholds=thresholds)
    return Surface(ensemble, points, scores)


def _timelines(
    data: Manifest, models: dict[str, Predictions], ensemble: Ensemble | None, videos: Sequence[str]
) -> list[VideoTimeline]:
    """Time lines of the videos that were asked for, else of those with the best, the middle and the worst accuracy."""
    aligned = with_labels(list(models.values()), data)
    outputs = aligned.outputs
    probability = dict(zip(models, outputs.probability(), strict=True))
    decisions = {name: data.task.decide(probability[name], models[name].thresholds) for name in models}
    if ensemble is not None:
        chosen = ensemble.file.fusion
        probability["ensemble"], decisions["ensemble"] = chosen.probability(outputs), chosen.decide(outputs)
    last = list(decisions)[-1]
    reasons = _asked_for(aligned, videos) if videos else _best_middle_worst(aligned, decisions[last], last)
    video_of = {video.video_id: video for video in data.videos}
    timelines = []
    for index, why in reasons.items():
        rows = slice(outputs.first[index], outputs.first[index + 1])
        video = video_of[aligned.video_ids[index]]
        timelines.append(
            VideoTimeline(
                video_id=video.video_id,
                why=why,
                labels=video.labels(data.task),
                frame=outputs.frame[rows],
                probability={name: values[rows] for name, values in probability.items()},
                decisions={name: values[rows] for name, values in decisions.items()},
                thumbnails=_thumbnails(video),
            )
        )
    return timelines


def _asked_for(aligned: Aligned, videos: Sequence[str]) -> dict[int, str]:
    """Index of each of `videos` -> why it is shown."""
    unknown = [video for video in videos if video not in aligned.video_ids]
    if unknown:
        known = ", ".join(aligned.video_ids[:20])
        raise DataError(f"--video: {', '.join(unknown)}: not among those with predictions ({known} ...)")
    return {aligned.video_ids.index(video): "asked for" for video in videos}


def _best_middle_worst(aligned: Aligned, decisions: np.ndarray, name: str) -> dict[int, str]:
    """Index of the video with the best, the middle and the worst accuracy of the decisions -> why it is shown."""
    outputs = aligned.outputs
    labels = outputs.labels.reshape(len(outputs.labels), -1)
    counted = labels != outputs.task.invalid
    right = (decisions.reshape(labels.shape) == labels) & counted
    sums, counts = (
        np.array([part.sum() for part in np.split(values, outputs.first[1:-1])]) for values in (right, counted)
    )
    labelled = np.flatnonzero(counts)
    order = labelled[np.argsort(-sums[labelled] / counts[labelled], kind="stable")]
    # Of few videos one may be two of these: the best counts first, then the worst.
    ranks = {(len(order) - 1) // 2: "middle", len(order) - 1: "worst", 0: "best"}
    return {
        int(index): f"{ranks[rank]} of {len(order)} videos by the accuracy of {name}, {sums[index] / counts[index]:.4f}"
        for rank, index in enumerate(order)
        if rank in ranks
    }


def _thumbnails(video: Video) -> list[tuple[int, np.ndarray] | None]:
    """The frame with a face nearest to the middle of each part of a video; [] where the frames cannot be read."""
    try:
        frames = video.frames()
        edges = np.linspace(1, video.num_frames + 1, min(THUMBNAILS, video.num_frames) + 1)
        thumbnails: list[tuple[int, np.ndarray] | None] = []
        for low, high in itertools.pairwise(edges):
            rows = np.flatnonzero((frames.frame >= low) & (frames.frame < high))
            if not len(rows):
                thumbnails.append(None)
                continue
            row = rows[np.abs(frames.frame[rows] - (low + high) / 2).argmin()]
            thumbnails.append((int(frames.frame[row]), decode(frames.paths[row])))
    except DataError as error:
        log.warning("no thumbnails of %s: %s", video.video_id, error)
        return []
    return thumbnails
