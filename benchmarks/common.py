"""What the benchmarks share: sides that run in fresh processes, and a cache of random numbers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

DIM, CLASSES = 2048, 7


def last_line(code: str, *words: object) -> tuple[str, str]:
    """The last line that the code prints, run in a process of its own, and what it said on standard error."""
    answer = subprocess.run([sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, check=False)
    if answer.returncode:
        sys.exit(answer.stderr)
    return answer.stdout.splitlines()[-1], answer.stderr


def last_number(code: str, *words: object) -> tuple[float, str]:
    """The same where that line is a number."""
    line, log = last_line(code, *words)
    return float(line), log


def make_cache(folder: Path, videos: int, frames: int) -> tuple[Path, Path]:
    """A manifest of labelled videos without images, one of them for validation, and a cache of random numbers."""
    from fercache.cache.provenance import CacheRecord, Provenance, begin_record
    from fercache.cache.rows import Part, Shape
    from fercache.cache.writer import write_video
    from fercache.data.annotations import write_annotation
    from fercache.data.manifest import Manifest, Video, write_manifest
    from fercache.models.preprocessing import VGGFACE2
    from fercache.tasks import TASKS

    task, shape = TASKS["expr"], Shape(DIM, "float16", None)
    provenance = Provenance("0" * 64, None, None, "resnet50-vggface2", VGGFACE2.as_plain(), "fp32", "float16")
    cache, random, listed = folder / "cache", np.random.default_rng(0), []
    cache.mkdir(parents=True)
    begin_record(cache, CacheRecord(provenance, {}))
    block = random.random((frames, DIM), dtype=np.float32).astype(np.float16)
    for number in range(videos):
        video_id, split = f"v{number:04}", "validation" if number == 0 else "train"
        labels = folder / "labels" / f"{video_id}.txt"
        write_annotation(labels, task, random.integers(0, CLASSES, frames))
        listed.append(Video(video_id, split, None, labels, frames, video_id))
        there, rows = np.ones(frames, bool), np.roll(block, number, axis=0)
        parts = [Part(np.arange(frames), rows, None)]
        write_video(cache / f"{video_id}.h5", provenance, shape, np.arange(1, frames + 1), there, parts)
    write_manifest(folder / "manifest.csv", Manifest(task, folder, tuple(listed)))
    return folder / "manifest.csv", cache
