"""Runs, what they leave, and how far numbers are apart."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch


def metrics(run: Path) -> list[dict[str, Any]]:
    """The metrics of each epoch of a run folder, with its time set to 0: that is another each time."""
    return [{**json.loads(line), "seconds": 0} for line in (run / "metrics.jsonl").read_text().splitlines()]


def torchrun(count: int, *words: object, timeout: int = 240, **more: Any) -> subprocess.CompletedProcess[str]:
    """A script or `-m MODULE` with its arguments, run as so many ranks."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    command = [*launcher, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, **more)


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """The norm of the difference over the norm of the reference, of one frame's vector; the largest over frames."""
    return float(((actual.float() - expected).norm(dim=1) / expected.norm(dim=1)).max())
