"""The formats that predictions are exported in: a function and an entry of `EXPORT_FORMATS` each."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fercache.errors import ConfigError

if TYPE_CHECKING:  # the command line lists the formats, and stays fast without NumPy
    import numpy as np

    from fercache.tasks import Task


@dataclass(frozen=True)
class FilledVideo:
    """A video in which every frame has a decision, with or without a face. T frames, C classes."""

    task: Task
    probability: np.ndarray
    """float64 (T, C)."""
    decisions: np.ndarray
    """In the shape of the task's labels."""
    present: np.ndarray
    """bool (T,): True = predicted from a face, False = filled."""
    ranges: list[tuple[int, int, str]]
    """First and last frame of each filled range, and how: interpolated, held or prior."""


@dataclass(frozen=True)
class ExportFormat:
    """How a video is written."""

    suffix: str
    """Of the file's name, behind the video's id."""
    text: Callable[[FilledVideo], str]
    """The content of the file."""


def abaw2021_text(video: FilledVideo) -> str:
    """The challenge's annotation format: its header, and one line per frame."""
    rows = video.task.as_columns(video.decisions).tolist()
    return "\n".join([video.task.header, *(",".join(map(str, row)) for row in rows)]) + "\n"


def csv_text(video: FilledVideo) -> str:
    """frame, face (1 = predicted from one), the decision, and a probability for each class."""
    task, text = video.task, io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["frame", "face", *task.label_columns, *(f"p_{name}" for name in task.classes)])
    decisions = task.as_columns(video.decisions)
    for frame, (face, row, probability) in enumerate(zip(video.present, decisions, video.probability, strict=True), 1):
        rows.writerow([frame, int(face), *row.tolist(), *(f"{p:.6f}" for p in probability)])
    return text.getvalue()


EXPORT_FORMATS = {"abaw2021": ExportFormat(".txt", abaw2021_text), "csv": ExportFormat(".csv", csv_text)}
"""Name -> format; the first one is the default."""


def get_export_format(name: str) -> ExportFormat:
    """The format of that name; ConfigError with the valid names otherwise."""
    if name not in EXPORT_FORMATS:
        raise ConfigError(f"format: found {name!r}, expected one of {', '.join(EXPORT_FORMATS)}")
    return EXPORT_FORMATS[name]
