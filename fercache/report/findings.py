"""What a project folder holds that a report tells of."""

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
from fercache.report.time_lines import THUMBNAILS, Story
from fercache.results.aligned import Aligned, read_all, with_labels
from fercache.results.ensemble_file import FILE_NAME, EnsembleFile, read_ensemble
from fercache.results.evaluation import Evaluation, evaluate_one
from fercache.results.wording import names
from fercache.rundir import RunDir
from fercache.scoring.search import score_surface
from fercache.tasks import Task

log = logging.getLogger(__name__)

MEASURED = ("loss", "score")
"""What is drawn over the epochs."""
SURFACE_STEPS = 25
"""One over the distance of the weights that the picture of the simplex has."""


@dataclass(frozen=True)
class Ensemble:
    """An ensemble, and the names of its models."""

    models: tuple[str, ...]
    file: EnsembleFile

    @property
    def name(self) -> str:
        """In words."""
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
    """Everything."""

    folder: Path
    task: Task
    split: str
    evaluations: Sequence[Evaluation]
    ensembles: Sequence[Ensemble]
    runs: dict[str, list[dict[str, Any]]]
    """Run -> what it measured after each epoch."""
    surface: Surface | None
    stories: Sequence[Story]


def find(folder: Path, data: Manifest, split: str, videos: Sequence[str]) -> Findings:
    """Look through `folder`; DataError where it holds no predictions of the split, or a video is not among them."""
    paths = list_predictions(folder, split)
    if not paths:
        raise DataError(f"{folder}: found no predictions of split {split}, expected files that `fercache predict` made")
    called = names([path.stem.removesuffix(f"-{split}") for path in paths], [path.stem for path in paths])
    named = zip(called, read_all(paths), strict=True)
    found = dict(sorted(named, key=lambda one: one[1].chosen_on is not None))  # models, then what was fused of them
    ensembles = _ensembles(folder, found, split)
    main = ensembles[0] if ensembles else None
    shown = main.models if main else tuple(found)
    frames = with_labels([found[name] for name in shown], data)
    of_three = next((one for one in ensembles if len(one.models) == 3), None)
    return Findings(
        folder=folder,
        task=data.task,
        split=split,
        evaluations=[evaluate_one(name, one, data) for name, one in found.items()],
        ensembles=ensembles,
        runs=_runs(folder),
        surface=_surface(of_three, found, data) if of_three else None,
        stories=_stories(data, frames, shown, [found[name] for name in shown], main, videos),
    )


def _ensembles(folder: Path, found: dict[str, Predictions], split: str) -> list[Ensemble]:
    """Those on this split, the largest first; one whose models' predictions are not here is passed over, and told."""
    named = {one.model: name for name, one in found.items()}
    ensembles = []
    for path in sorted([*folder.glob(FILE_NAME), *folder.glob(f"*/{FILE_NAME}")]):
        file = read_ensemble(path)
        if file.split != split:
            continue
        if set(file.fingerprints) <= set(named):
            ensembles.append(Ensemble(tuple(named[model] for model in file.fingerprints), file))
        else:
            log.warning("%s: not all of its models' predictions are in %s; left out", path, folder)
    return sorted(ensembles, key=lambda one: -len(one.models))


def _runs(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The measurements of every run in the folder, or one below; DataError where a line is none."""
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


def _surface(ensemble: Ensemble, found: dict[str, Predictions], data: Manifest) -> Surface:
    frames = with_labels([found[name] for name in ensemble.models], data)
    thresholds = ensemble.file.settings["thresholds"]
    points, scores = score_surface(frames.outputs, ensemble.file.fusion, SURFACE_STEPS, thresholds=thresholds)
    return Surface(ensemble, points, scores)


def _stories(
    data: Manifest,
    frames: Aligned,
    shown: Sequence[str],
    models: Sequence[Predictions],
    main: Ensemble | None,
    videos: Sequence[str],
) -> list[Story]:
    """The time lines of some videos: those asked for, else the best, the middle and the worst one."""
    outputs, task = frames.outputs, data.task
    probability = dict(zip(shown, outputs.probability(), strict=True))
    decisions = {name: task.decide(probability[name], one.thresholds) for name, one in zip(shown, models, strict=True)}
    if main is not None:
        chosen = main.file.fusion
        probability["ensemble"], decisions["ensemble"] = chosen.probability(outputs), chosen.decide(outputs)
    last = decisions[list(decisions)[-1]]
    places = _asked(frames, videos) if videos else _telling(frames, last, list(decisions)[-1])
    known = {video.video_id: video for video in data.videos}
    stories = []
    for place, why in places.items():
        part = slice(outputs.first[place], outputs.first[place + 1])
        video = known[frames.video_ids[place]]
        stories.append(
            Story(
                video_id=video.video_id,
                why=why,
                labels=video.labels(task),
                frame=outputs.frame[part],
                probability={name: values[part] for name, values in probability.items()},
                decisions={name: values[part] for name, values in decisions.items()},
                thumbnails=_thumbnails(video),
            )
        )
    return stories


def _asked(frames: Aligned, videos: Sequence[str]) -> dict[int, str]:
    strange = [video for video in videos if video not in frames.video_ids]
    if strange:
        known = ", ".join(frames.video_ids[:20])
        raise DataError(f"--video: {', '.join(strange)}: not among those with predictions ({known} ...)")
    return {frames.video_ids.index(video): "asked for" for video in videos}


def _telling(frames: Aligned, decisions: np.ndarray, name: str) -> dict[int, str]:
    """The videos with the best, the middle and the worst accuracy of what decided last."""
    outputs = frames.outputs
    labels = outputs.labels.reshape(len(outputs.labels), -1)
    counted = labels != outputs.task.invalid
    right = (decisions.reshape(labels.shape) == labels) & counted
    begin = outputs.first[:-1]
    sums, counts = (np.array([part.sum() for part in np.split(values, begin[1:])]) for values in (right, counted))
    some = np.flatnonzero(counts)
    order = some[np.argsort(-sums[some] / counts[some], kind="stable")]
    ranks = {"middle": (len(order) - 1) // 2, "worst": len(order) - 1, "best": 0}
    words = {rank: word for word, rank in ranks.items()}  # of few videos one may be two of these: best counts first
    return {
        int(v): f"{words[rank]} of {len(order)} videos by the accuracy of {name}, {sums[v] / counts[v]:.4f}"
        for rank in sorted(words)
        for v in [order[rank]]
    }


def _thumbnails(video: Video) -> list[tuple[int, np.ndarray] | None]:
    """The frame with a face nearest to the middle of each part of a video; [] where the frames are not at hand."""
    try:
        frames = video.frames()
        edges = np.linspace(1, video.num_frames + 1, min(THUMBNAILS, video.num_frames) + 1)
        shown: list[tuple[int, np.ndarray] | None] = []
        for low, high in itertools.pairwise(edges):
            rows = np.flatnonzero((frames.number >= low) & (frames.number < high))
            if not len(rows):
                shown.append(None)
                continue
            row = rows[np.abs(frames.number[rows] - (low + high) / 2).argmin()]
            shown.append((int(frames.number[row]), decode(frames.path[row])))
    except DataError as error:
        log.warning("no thumbnails of %s: %s", video.video_id, error)
        return []
    return shown
