"""Small data sets in the Aff-Wild2 layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from fercache.data.annotations import write_annotation
from fercache.tasks import TASKS


def write_video(root: Path, video_id: str, numbers, labels=None, split="Train_Set", task="expr", size=48) -> None:
    """One video in the Aff-Wild2 layout: coloured noise as frames `numbers`, and labels for all frames."""
    folder = root / "cropped_aligned" / video_id
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([len(video_id), *map(ord, video_id)])
    for number in numbers:
        pixels = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:05d}.jpg", quality=90)
    if labels is not None:
        record = TASKS[task]
        target = root / "annotations" / f"{record.track}_Set" / split / f"{video_id}.txt"
        target.parent.mkdir(parents=True, exist_ok=True)
        write_annotation(target, record, np.asarray(labels))


def write_pixels(root: Path, video_id: str, number: int, pixels: np.ndarray) -> None:
    """A frame, uint8 (H, W, 3), over one of `write_video`."""
    Image.fromarray(pixels).save(root / "cropped_aligned" / video_id / f"{number:05d}.jpg", quality=95)
