"""Folds of whole recordings, to choose on some and score on the others.

Legend: F frames, C classes, K folds, G recordings.
"""

from __future__ import annotations

import warnings

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from fercache.tasks.base import Task


def folds(task: Task, labels: np.ndarray, recording: np.ndarray, count: int, seed: int) -> np.ndarray | None:
    """The fold of each frame, int64 (F,): recordings are whole in one, classes as evenly shared out as that allows.

    recording: int (F,). Frames without a label are in the fold of their recording, -1 where that has none at all. Where
    recordings, or the frames of every class, are too few for `count` folds there are fewer; None if not even two.
    """
    strata = task.strata(labels)
    counted = strata >= 0
    count = min(count, len(np.unique(recording[counted])), int(np.bincount(strata[counted], minlength=1).max()))
    if count < 2:
        return None
    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    of_recording = np.full(int(recording.max()) + 1, -1)
    with warnings.catch_warnings():
        # `absent` names the classes with fewer frames than folds.
        warnings.simplefilter("ignore", UserWarning)
        parts = splitter.split(np.zeros(counted.sum()), strata[counted], recording[counted])
        for fold, (_, held) in enumerate(parts):
            of_recording[recording[counted][held]] = fold
    # The splitter may leave a fold empty; the others are renumbered.
    numbers = np.unique(of_recording[of_recording >= 0])
    return np.where(of_recording >= 0, np.searchsorted(numbers, of_recording), -1)[recording]


def absent(task: Task, labels: np.ndarray, fold: np.ndarray) -> dict[str, list[int]]:
    """Class that occurs -> the folds outside of which it does not, so that nothing was chosen for it there."""
    is_class, _ = task.by_class(labels)
    counts = np.stack([is_class[fold == number].sum(axis=0) for number in range(fold.max() + 1)])  # (K, C)
    elsewhere = counts.sum(axis=0) - counts
    return {
        name: np.flatnonzero(elsewhere[:, index] == 0).tolist()
        for index, name in enumerate(task.classes)
        if counts[:, index].any() and not elsewhere[:, index].all()
    }
