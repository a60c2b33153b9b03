"""Aff-Wild2 annotation files: a header line, then one line per frame of the video (line k = frame k).

Legend: T frames of the video, C classes of the task.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fercache.errors import DataError, raise_problems
from fercache.files import read_text, write_text
from fercache.tasks.base import Task


def read_annotation(path: Path, task: Task) -> np.ndarray:
    """The labels of a video: int8 in the task's `label_shape(T)`, its `invalid` where not annotated.

    Spaces around fields, CRLF line ends and empty lines at the end are accepted. Raises DataError
    naming the file, the line and what was expected, with all bad lines at once.
    """
    try:
        lines = read_text(path, "utf-8-sig").splitlines()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not a text file: {error.reason} at byte {error.start}") from error
    while lines and not lines[-1].strip():
        lines.pop()
    _check_header(path, lines, task)
    rows, problems = [], []
    for number, line in enumerate(lines[1:], start=2):
        try:
            rows.append(task.parse(line))
        except ValueError as error:
            problems.append(f"{path}: line {number}: {error}")
    raise_problems(problems, DataError)
    return np.asarray(rows, dtype=np.int8).reshape(task.label_shape(len(rows)))


def write_annotation(path: Path, task: Task, labels: np.ndarray) -> None:
    """Write labels as an annotation file; `read_annotation` gives them back."""
    lines = [task.header, *(",".join(map(str, row)) for row in task.as_columns(labels).tolist())]
    write_text(path, "\n".join(lines) + "\n")


def _check_header(path: Path, lines: list[str], task: Task) -> None:
    header = lines[0].strip() if lines else ""
    if tuple(name.strip() for name in header.split(",")) != task.classes:
        raise DataError(f"{path}: line 1: the header is {header[:120]!r}; task {task.name} needs {task.header!r}")
