"""Where frames and annotations are in a folder of Aff-Wild2, in the layouts in which it is distributed and kept.

Frames are taken from `cropped_aligned` where it exists, else from folders whose names begin so
(`cropped_aligned_images`), else from the whole tree; annotations from the one folder of the track that holds Train_Set
or Validation_Set.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from fercache.data.frames import FRAME_NAME
from fercache.errors import DataError, raise_problems
from fercache.tasks import Task

FRAMES = "cropped_aligned"
SETS = {"train": "Train_Set", "validation": "Validation_Set"}
MOST_DEPTH = 6
"""Folders below the root, as in data/Aff-Wild2/images/cropped_aligned/batch1/video."""


def find_videos(root: Path) -> dict[str, Path]:
    """The frames folder of each video, by video id: its folder's name.

    DataError naming all videos with two folders, and where there is no folder of frames at all.
    """
    videos: dict[str, Path] = {}
    problems = []
    for start in _frame_roots(root):
        for folder in _video_folders(start, start != root):
            other = videos.setdefault(folder.name, folder)
            if other != folder:
                problems.append(f"video {folder.name}: has two folders of frames, {other} and {folder}; keep one")
    raise_problems(problems, DataError)
    return videos


def find_track(root: Path, task: Task) -> Path | None:
    """The folder with the sets of the task's track; DataError where there are several, None where there is none."""
    tracks = [
        folder
        for folder in _folders(root)
        if folder.name.startswith(f"{task.track}_") and any((folder / name).is_dir() for name in SETS.values())
    ]
    if len(tracks) > 1:
        names = ", ".join(str(track) for track in tracks)
        raise DataError(f"{root}: found annotations of track {task.track} in {names}: keep only one")
    return tracks[0] if tracks else None


def _frame_roots(root: Path) -> list[Path]:
    if (root / FRAMES).is_dir():
        return [root / FRAMES]
    named = [folder for folder in _folders(root) if folder.name.startswith(FRAMES)]
    # Not the batches inside one that is taken already.
    outermost = [folder for folder in named if not set(folder.parents) & set(named)]
    if outermost:
        return [folder for folder in outermost if folder.name == FRAMES] or outermost
    return [root]


def _video_folders(start: Path, strict: bool) -> Iterator[Path]:
    """Folders with frames directly in them; where `strict`, empty ones too, which are then refused by name."""
    for folder in _folders(start):
        if has_frames(folder) or (strict and not _subfolders(folder)):
            yield folder


def _folders(root: Path, depth: int = MOST_DEPTH, above: frozenset[str] = frozenset()) -> Iterator[Path]:
    """All folders below `root`, by name, but hidden ones, those inside a folder of frames, and cycles of links."""
    above |= {os.path.realpath(root)}
    for folder in _subfolders(root):
        if os.path.realpath(folder) in above:
            continue
        yield folder
        if depth > 1 and not has_frames(folder):
            yield from _folders(folder, depth - 1, above)


def _subfolders(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return [folder / name for name in sorted(e.name for e in entries if e.name[0] != "." and e.is_dir())]
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror}") from error


def has_frames(folder: Path) -> bool:
    """Whether a numbered image lies directly in a folder."""
    with os.scandir(folder) as entries:
        return any(FRAME_NAME.fullmatch(entry.name) for entry in entries)
