"""What tests ask of the operating system."""

from __future__ import annotations

import subprocess

import pytest
import torch


def _can_mount() -> bool:
    return subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode == 0


needs_mount = pytest.mark.skipif(not _can_mount(), reason="a file system of its own needs the right to mount")


def fill_shared_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have torch answer as where shared memory has no room, in processes that are forked from now on, too."""

    def full(*_: object) -> None:
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")

    monkeypatch.setattr(torch.Tensor, "share_memory_", full)
