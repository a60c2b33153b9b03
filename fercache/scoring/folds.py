"""Parts of the recordings, to choose on some and score on the others.

Legend: F frames, C classes, K folds, G recordings.
"""

from __future__ import annotations

import warnings

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from fercache.tasks import Task


def folds(task: Task, labels: np.ndarray, recording: np.ndarray, count: int, seed: int) -> np.ndarray | None:
    """The fold of each frame, int64 (F,): recordings are whole in one, classes as evenly shared out as that allows.

    labels: (F,) or (F, C); recording: (F,). Frames without a label are in the fold of their recording, -1 where that
    has none at all. Where recordings cannot be dealt into so many, or no class has a frame for each, there are fewer
    folds; None where not even two can be made.
    """
    strata = _strata(task, labels)
    counted = strata >= 0
    count = min(count, len(np.unique(recording[counted])), int(np.bincount(strata[counted], minlength=1).max()))
    if count < 2:
        return None
    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    of_recording = np.full(int(recording.max()) + 1, -1)
    with warnings.catch_warnings():
        # That a class is in fewer frames than folds is told by `absent`.
        warnings.simplefilter("ignore", UserWarning)
        parts = splitter.split(np.zeros(counted.sum()), strata[counted], recording[counted])
        for fold, (_, held) in enumerate(parts):
            of_recording[recording[counted][held]] = fold
    # It may leave a fold empty; those that are left are numbered through.
    numbers = np.unique(of_recording[of_recording >= 0])
    return np.where(of_recording >= 0, np.searchsorted(numbers, of_recording), -1)[recording]


def absent(task: Task, labels: np.ndarray, fold: np.ndarray) -> dict[str, list[int]]:
    """Class that occurs -> the folds outside of which it does not, so that nothing was chosen for it there."""
    classes = np.arange(len(task.classes))
    is_class = labels[:, None] == classes if task.kind == "one" else labels == 1
    counts = np.stack([is_class[fold == number].sum(axis=0) for number in range(fold.max() + 1)])  # (K, C)
    elsewhere = counts.sum(axis=0) - counts
    return {
        name: np.flatnonzero(elsewhere[:, place] == 0).tolist()
        for place, name in enumerate(task.classes)
        if counts[:, place].any() and not elsewhere[:, place].all()
    }


def _strata(task: Task, labels: np.ndarray) -> np.ndarray:
    """What is to be shared out evenly, int64 (F,): the class, or the rarest unit that is present; -1: none."""
    if task.kind == "one":
        return labels.astype(np.int64)
    present, counted = labels == 1, (labels != task.invalid).any(axis=1)
    by_rarity = np.argsort(present.sum(axis=0), kind="stable")
    ranked = present[:, by_rarity]
    stratum = np.where(ranked.any(axis=1), 1 + ranked.argmax(axis=1), 0)
    return np.where(counted, stratum, -1)
