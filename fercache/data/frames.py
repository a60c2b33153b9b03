"""Frames on disk: numbered face crops in one folder a video, `00001.jpg` = frame 1.

A number that is missing is a frame in which no face was found.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fercache.data.images import read_image
from fercache.errors import DataError
from fercache.files import sha256_of

FRAME_NAME = re.compile(r"([0-9]{1,8})\.(?:jpe?g|png|bmp|webp)", re.IGNORECASE)


@dataclass(frozen=True)
class FrameList:
    """The frames of one video that have an image, in ascending order."""

    frame: np.ndarray
    """int32 (F,), from 1, strictly ascending."""
    paths: Sequence[str]

    def digest(self, row: int) -> str:
        """SHA-256 of the bytes of a row's file; "" where it cannot be read."""
        try:
            return sha256_of(self.paths[row])
        except OSError:
            return ""


class FramePaths(Sequence[str]):
    """Paths in one folder, built on access: millions of them as text would fill the memory."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self.folder, self.names = str(folder), np.array(names, dtype=np.bytes_)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> str:  # type: ignore[override]  # no slices
        return os.path.join(self.folder, self.names[index].decode())


class JoinedPaths(Sequence[str]):
    """Several sequences of paths as one."""

    def __init__(self, parts: Sequence[Sequence[str]]) -> None:
        self.parts = parts
        self.start = np.cumsum([0, *map(len, parts)])
        """int64: the first index of each part, and the end."""

    def __len__(self) -> int:
        return int(self.start[-1])

    def __getitem__(self, index: int) -> str:  # type: ignore[override]  # no slices
        part = self.part(index)
        return self.parts[part][index - int(self.start[part])]

    def part(self, index: int) -> int:
        """The part that a path is in."""
        return int(np.searchsorted(self.start, index, side="right")) - 1


def list_frames(folder: Path, num_frames: int | None = None) -> FrameList:
    """The frames in `folder` that are numbered from 1 to `num_frames` (to the end where None).

    Files whose name is not a number with an image suffix are ignored (`.DS_Store`, notes).
    Raises DataError where the folder is missing or two files have the same number (`1.jpg`, `00001.jpg`).
    """
    try:
        names = os.listdir(folder)
    except OSError as error:
        raise DataError(f"{folder}: the frames folder cannot be read: {error.strerror}") from error
    numbered: dict[int, str] = {}
    for name in names:
        match = FRAME_NAME.fullmatch(name)
        if not match:
            continue
        number = int(match[1])
        if number in numbered:
            raise DataError(f"{folder}: duplicate frame {number}: {numbered[number]} and {name}")
        numbered[number] = name
    if 0 in numbered:
        raise DataError(f"{folder}: frames are numbered from 1, found {numbered[0]}")
    kept = sorted(number for number in numbered if num_frames is None or number <= num_frames)
    return FrameList(np.asarray(kept, dtype=np.int32), FramePaths(folder, [numbered[number] for number in kept]))


def decode(path: str) -> np.ndarray:
    """One frame as uint8 (H, W, 3), RGB, 0-255; DataError as `read_image`."""
    return read_image(path).pixels
