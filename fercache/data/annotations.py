"""Aff-Wild2 annotation files: a header line, then one line per frame of the video (line k = frame k).

Legend: T frames of the video, C classes of the task.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fercache.errors import DataError, raise_problems
from fercache.files import read_text, write_text
from fercache.tasks import Task


def read_annotation(path: Path, task: Task) -> np.ndarray:
    """The labels of a video: int8 (T,) for one of many, (T, C) for many of many; -1 = not annotated.

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
            rows.append(_parse(line, task))
        except ValueError as error:
            problems.append(f"{path}: line {number}: {error}")
    raise_problems(problems, DataError)
    shape = (len(rows),) if task.kind == "one" else (len(rows), len(task.classes))
    return np.asarray(rows, dtype=np.int8).reshape(shape)


def write_annotation(path: Path, task: Task, labels: np.ndarray) -> None:
    """Write labels, (T,) or (T, C), as an annotation file; `read_annotation` gives them back."""
    rows = labels.reshape(len(labels), 1 if task.kind == "one" else len(task.classes))
    lines = [task.header, *(",".join(map(str, row)) for row in rows.tolist())]
    write_text(path, "\n".join(lines) + "\n")


def labelled(labels: np.ndarray, task: Task) -> np.ndarray:
    """bool (T,): frames with at least one annotated element."""
    valid = labels != task.invalid
    return valid if task.kind == "one" else valid.any(axis=1)


def class_shares(labels: np.ndarray, task: Task) -> np.ndarray:
    """The prior of a split, float64 (C,), from its labels (N,) or (N, C).

    One of many: the share of each class. Many of many: the share of present ones among each unit's own labels.
    """
    counted = labels != task.invalid
    if task.kind == "one":
        counts = np.bincount(labels[counted], minlength=len(task.classes))
        return counts / max(1, counts.sum())
    return ((labels == 1) & counted).sum(axis=0) / np.maximum(1, counted.sum(axis=0))


def _check_header(path: Path, lines: list[str], task: Task) -> None:
    found = lines[0].strip() if lines else ""
    if tuple(name.strip() for name in found.split(",")) != task.classes:
        raise DataError(f"{path}: line 1: the header is {found[:120]!r}; task {task.name} needs {task.header!r}")


def _parse(line: str, task: Task) -> int | list[int]:
    """One line's label; ValueError says what was found and what was expected."""
    highest = len(task.classes) - 1 if task.kind == "one" else 1
    expected = f"an integer from {task.invalid} to {highest}"
    fields = [field.strip() for field in line.split(",")]
    wanted = 1 if task.kind == "one" else len(task.classes)
    if len(fields) != wanted:
        raise ValueError(f"found {len(fields)} values, expected {wanted}")
    values = []
    for field in fields:
        # int() would also take "1_0" and digits of other scripts.
        if not (field.isascii() and field.removeprefix("-").isdigit()):
            raise ValueError(f"found {field!r}, expected {expected}")
        values.append(int(field))
        if not task.invalid <= values[-1] <= highest:
            raise ValueError(f"found {field}, expected {expected}")
    return values[0] if task.kind == "one" else values
