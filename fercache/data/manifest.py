"""The manifest: which videos there are, in which split, with which frames and labels.

A CSV file with three header lines (`# fercache-manifest 1`, `# task: expr`, `# root: PATH`), then
the columns below. `fercache manifest` writes it, and it may be edited by hand: a fourth header line,
`# sha256: ...`, covers the rows and the label files as they were written; a change gives a warning.
"""

from __future__ import annotations

import csv
import hashlib
import io
import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fercache.data.annotations import read_annotation
from fercache.data.frames import FrameList, list_frames
from fercache.errors import ConfigError, DataError, raise_problems
from fercache.files import check_target, read_bytes, read_text, sha256_of, write_text
from fercache.limits import MOST_FRAME
from fercache.tasks import Task, get_task

log = logging.getLogger(__name__)

FORMAT = "# fercache-manifest 1"
COLUMNS = ("video_id", "split", "frames_dir", "labels_path", "num_frames", "group")
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Video:
    """One row."""

    video_id: str
    split: str
    frames_dir: Path | None
    """None: no face was found in the whole video."""
    labels_path: Path | None
    """None: not labelled."""
    num_frames: int
    """Length of the video, frames without a face included."""
    group: str
    """The recording: X, X_left and X_right are one."""

    def frames(self) -> FrameList:
        """The frames with a face; DataError where a folder is named that holds none."""
        if self.frames_dir is None:
            return FrameList(np.empty(0, dtype=np.int32), [])
        frames = list_frames(self.frames_dir, self.num_frames)
        if not frames.paths:
            raise DataError(
                f"{self.frames_dir}: video {self.video_id}: found no frame from 1 to {self.num_frames}, expected files"
                " named 00001.jpg on; where no face was found at all, leave frames_dir empty"
            )
        return frames

    def labels(self, task: Task) -> np.ndarray:
        """The labels of all frames, (T,) or (T, C) with T = num_frames; all -1 where there is no file.

        Lines beyond the length are ignored and missing ones are -1, with a warning.
        """
        labels = task.unlabelled(self.num_frames)
        if self.labels_path is not None:
            lines = read_annotation(self.labels_path, task)
            if len(lines) != self.num_frames:
                log.warning("%s: has %d lines, the manifest says %d", self.labels_path, len(lines), self.num_frames)
            labels[: len(lines)] = lines[: self.num_frames]
        return labels


@dataclass(frozen=True)
class Manifest:
    """A data set."""

    task: Task
    root: Path
    videos: tuple[Video, ...]

    def split(self, name: str) -> tuple[Video, ...]:
        """The videos of one split, in the manifest's order."""
        return tuple(video for video in self.videos if video.split == name)


def check_video_id(video_id: str) -> None:
    """Raise DataError for an id that is not a plain file name: it becomes one in caches and exports."""
    bad = ("/", "\\", "..", "\0", "\n", "\r")
    if not video_id or any(mark in video_id for mark in bad) or video_id[0] in ".#" or not _is_text(video_id):
        raise DataError(
            f"video_id {video_id!r}: expected a plain name, without '/', '\\' or '..', not starting with '.' or '#'"
        )


def _is_text(name: str) -> bool:
    """Whether a name from the disk is valid text; Python marks bytes that are not by surrogates."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def read_manifest(path: Path, task: str | None = None, *, frames: bool = False, files: bool = True) -> Manifest:
    """The manifest in `path`, checked as a whole: every bad row, missing folder and label file is reported.

    `task` must be the manifest's where it is given. `frames`: the frames' folders must exist, too. Without `files` not
    even the label files are looked for.
    """
    lines = _read_lines(path)
    header, root = _read_header(path, lines)
    if task is not None and task != header.name:
        raise ConfigError(f"{path}: is a manifest of task {header.name}, but the task asked for is {task}")
    problems: list[str] = []
    videos = []
    for number, fields in _rows(path, lines):
        try:
            video = _parse_row(fields, root)
            if files:
                _check_files(video, frames)
            videos.append(video)
        except DataError as error:
            problems += [f"{path}: line {number}: {problem}" for problem in error.problems]
    ids = [video.video_id for video in videos]
    problems += [f"{path}: duplicate video_id {twice}" for twice in sorted({i for i in ids if ids.count(i) > 1})]
    raise_problems(problems, DataError)
    if not videos:
        raise DataError(f"{path}: contains no video")
    if files:
        _warn_of_changes(path, lines, videos)
    return Manifest(header, root, tuple(videos))


def _warn_of_changes(path: Path, lines: Sequence[str], videos: Sequence[Video]) -> None:
    """Warn where rows or label files are not those that `fercache manifest` saw; by hand both may be changed."""
    recorded = next((line.partition(":")[2].strip() for line in lines if line.startswith("# sha256:")), None)
    if recorded is None:
        return
    rows = [line for line in lines if line.strip() and not line.startswith("#")]
    try:
        actual = _content_digest(rows, videos)
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read: {error.strerror}") from error
    if actual != recorded:
        log.warning(
            "%s: its rows or its label files were changed since `fercache manifest` wrote it; if that was intended,"
            " remove the line '# sha256: ...'",
            path,
        )


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write a manifest whose root is relative to the manifest where it lies beside or below it, else absolute.

    DataError where `path` is a different manifest.
    """
    folder, root = path.resolve().parent, manifest.root.resolve()
    shown = os.path.relpath(root, folder) if root.is_relative_to(folder) else str(root)
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(COLUMNS)
    for video in manifest.videos:
        paths = [_relative(path, manifest.root) for path in (video.frames_dir, video.labels_path)]
        rows.writerow([video.video_id, video.split, *paths, video.num_frames, video.group])
    digest = _content_digest(table.getvalue().splitlines(), manifest.videos)
    header = f"{FORMAT}\n# task: {manifest.task.name}\n# root: {shown}\n# sha256: {digest}\n"
    check_target(path)
    # A manifest may have been edited by hand.
    if path.exists() and read_bytes(path) != (header + table.getvalue()).encode():
        raise DataError(f"{path}: contains a different manifest; remove it, or choose another name")
    write_text(path, header + table.getvalue())


def _content_digest(rows: Sequence[str], videos: Sequence[Video]) -> str:
    """SHA-256 over the rows, the columns' names included, and the label files in the order of the rows."""
    digest = hashlib.sha256("\n".join(rows).encode())
    for video in videos:
        if video.labels_path is not None:
            digest.update(sha256_of(video.labels_path).encode())
    return digest.hexdigest()


def _relative(path: Path | None, root: Path) -> str:
    if path is None:
        return ""
    return str(path.relative_to(root) if path.is_relative_to(root) else path.resolve())


def _read_lines(path: Path) -> list[str]:
    try:
        return read_text(path, "utf-8-sig").splitlines()
    except OSError as error:
        raise DataError(f"{path}: the manifest cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not a text file: {error.reason} at byte {error.start}") from error


def _read_header(path: Path, lines: list[str]) -> tuple[Task, Path]:
    if not lines or lines[0].strip() != FORMAT:
        first_line = lines[0][:80] if lines else ""
        raise DataError(f"{path}: line 1: found {first_line!r}, expected {FORMAT!r}: is this a manifest?")
    pairs = [line[1:].partition(":") for line in lines if line.startswith("#")]
    values = {key.strip(): value.strip() for key, _, value in pairs}
    missing = [key for key in ("task", "root") if not values.get(key)]
    raise_problems([f"{path}: the header line '# {key}: ...' is missing" for key in missing], DataError)
    try:
        task = get_task(values["task"])
    except ConfigError as error:
        raise DataError(f"{path}: {error}") from error
    return task, path.parent / values["root"]


def _rows(path: Path, lines: list[str]) -> list[tuple[int, dict[str, str]]]:
    """Line number and fields of each row."""
    body = [(number, line) for number, line in enumerate(lines, start=1) if line.strip() and not line.startswith("#")]
    try:
        parsed = [(number, next(csv.reader([line]))) for number, line in body]
    except csv.Error as error:
        raise DataError(f"{path}: is not a CSV: {error}") from error
    if not parsed or tuple(field.strip() for field in parsed[0][1]) != COLUMNS:
        columns = ",".join(parsed[0][1]) if parsed else ""
        raise DataError(f"{path}: the columns are {columns!r}, expected {','.join(COLUMNS)!r}")
    bad = [(number, len(fields)) for number, fields in parsed if len(fields) != len(COLUMNS)]
    raise_problems(
        [f"{path}: line {number}: found {count} fields, expected {len(COLUMNS)}" for number, count in bad], DataError
    )
    return [(number, dict(zip(COLUMNS, map(str.strip, fields), strict=True))) for number, fields in parsed[1:]]


def _parse_row(fields: dict[str, str], root: Path) -> Video:
    check_video_id(fields["video_id"])
    if fields["split"] not in SPLITS:
        raise DataError(f"split: found {fields['split']!r}, expected one of {', '.join(SPLITS)}")
    length = fields["num_frames"]
    if not re.fullmatch(r"[0-9]{1,8}", length) or int(length) < 1:
        raise DataError(f"num_frames: found {length[:40]!r}, expected a whole number from 1 to {MOST_FRAME}")
    frames, labels = (root / fields[key] if fields[key] else None for key in ("frames_dir", "labels_path"))
    group = fields["group"] or fields["video_id"]
    return Video(fields["video_id"], fields["split"], frames, labels, int(length), group)


def _check_files(video: Video, frames: bool) -> None:
    problems = []
    if frames and video.frames_dir is not None and not video.frames_dir.is_dir():
        problems.append(f"video {video.video_id}: the frames folder {video.frames_dir} does not exist")
    if video.labels_path is not None and not video.labels_path.is_file():
        problems.append(f"video {video.video_id}: the label file {video.labels_path} does not exist")
    raise_problems(problems, DataError)
