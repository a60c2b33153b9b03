"""Fixtures that many tests need, and what holds for all tests."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
from hypothesis import settings
from support.frames import write_video


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


@pytest.fixture
def small_root(tmp_path: Path) -> Path:
    """Four videos: two for training, one with gaps and -1 for validation, one unlabelled."""
    root = tmp_path / "set"
    write_video(root, "a", range(1, 13), [0] * 6 + [4] * 6)
    write_video(root, "b_left", range(1, 9), [1, 2, 3, 4, 5, 6, 0, -1])
    write_video(root, "v", [2, 3, 4, 9, 10], [0, 0, 4, 4, -1, 0, 0, 0, 4, 0, 4], "Validation_Set")
    write_video(root, "t", range(1, 5))
    return root
