"""The tasks: what is recognised, in the challenge's own order, and how it is scored.

A task is a frozen record. Nothing in fercache tests a task's name; it asks the record.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fercache.errors import ConfigError

EXPRESSIONS = ("Neutral", "Anger", "Disgust", "Fear", "Happiness", "Sadness", "Surprise")
ACTION_UNITS = ("AU1", "AU2", "AU4", "AU6", "AU7", "AU10", "AU12", "AU15", "AU23", "AU24", "AU25", "AU26")


@dataclass(frozen=True)
class Score:
    """The challenge's measure E = `f1` x macro F1 + `accuracy` x accuracy."""

    f1: float
    accuracy: float


@dataclass(frozen=True)
class Task:
    """One recognition task.

    A frame's label is one integer where `kind` is "one" (one of many classes), and a row of
    len(classes) zeros and ones where it is "many" (many of many).
    """

    name: str
    classes: tuple[str, ...]
    """Class names in the order of the challenge's annotation header."""
    kind: Literal["one", "many"]
    loss: Literal["cross_entropy", "binary_cross_entropy"]
    score: Score
    track: str
    """The challenge's name for its annotation folders: EXPR_Set, EXPR_Classification_Challenge, AU_Set, ..."""
    invalid: int = -1
    """The label of a frame, or of one element of it, that was not annotated."""

    @property
    def header(self) -> str:
        """First line of an annotation file."""
        return ",".join(self.classes)


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        # Aff-Wild2 as in ABAW 2021 (arXiv:2106.15318): E = 0.67 F1 + 0.33 accuracy, AU half and half.
        Task("expr", EXPRESSIONS, "one", "cross_entropy", Score(0.67, 0.33), "EXPR"),
        Task("au", ACTION_UNITS, "many", "binary_cross_entropy", Score(0.5, 0.5), "AU"),
        # From ABAW3 (arXiv:2202.10659) on: macro F1 alone, and an eighth expression.
        Task("expr8", (*EXPRESSIONS, "Other"), "one", "cross_entropy", Score(1.0, 0.0), "EXPR"),
        Task("au_f1", ACTION_UNITS, "many", "binary_cross_entropy", Score(1.0, 0.0), "AU"),
    )
}


def get_task(name: str) -> Task:
    """The task of that name; ConfigError with the valid names otherwise."""
    if name not in TASKS:
        raise ConfigError(f"task: {name!r} is not a task; the tasks are {', '.join(TASKS)}")
    return TASKS[name]
