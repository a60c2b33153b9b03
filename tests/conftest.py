"""Data that many tests need."""

from __future__ import annotations

import logging
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image

from fercache.data.annotations import write_annotation
from fercache.tasks import TASKS


def keep_to_own_cores() -> None:
    """Of several test processes at a time, each keeps to cores of its own, with all that it starts.

    Processes that each have a thread for every core slow one another down tenfold.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker is not None:
        cores, count = sorted(os.sched_getaffinity(0)), int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
        os.sched_setaffinity(0, cores[int(worker.removeprefix("gw")) :: count] or cores)


keep_to_own_cores()

# How long an example takes says more of what else the machine does than of the code.
settings.register_profile("fercache", deadline=None)
settings.load_profile("fercache")


@pytest.fixture(autouse=True)
def messages_reach_caplog(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that ran in this process keeps its messages from pytest, in later tests too."""
    monkeypatch.setattr(logging.getLogger("fercache"), "propagate", True)


REALFACES = Path(__file__).resolve().parents[2] / "shared" / "data" / "realfaces"


@pytest.fixture(scope="session")
def realfaces() -> Path:
    if not REALFACES.is_dir():
        pytest.skip(f"the real faces are not at {REALFACES}")
    return REALFACES


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


@pytest.fixture
def small_root(tmp_path: Path) -> Path:
    """Four videos: two for training, one with gaps and -1 for validation, one unlabelled."""
    root = tmp_path / "set"
    write_video(root, "a", range(1, 13), [0] * 6 + [4] * 6)
    write_video(root, "b_left", range(1, 9), [1, 2, 3, 4, 5, 6, 0, -1])
    write_video(root, "v", [2, 3, 4, 9, 10], [0, 0, 4, 4, -1, 0, 0, 0, 4, 0, 4], "Validation_Set")
    write_video(root, "t", range(1, 5))
    return root


def _can_mount() -> bool:
    return subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode == 0


needs_mount = pytest.mark.skipif(not _can_mount(), reason="a file system of its own needs the right to mount")


def fill_shared_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have torch answer as where shared memory has no room, in processes that are forked from now on, too."""

    def full(*_: object) -> None:
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")

    monkeypatch.setattr(torch.Tensor, "share_memory_", full)
