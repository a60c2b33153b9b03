"""The machine that a run is on: device, threads, precision, seeds, stop signals.

The only reader of the environment. torch is imported where it is needed, so that the command line
answers `--help` without it.
"""

from __future__ import annotations

import logging
import os
import platform
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fercache import __version__
from fercache.errors import ConfigError, Stopped

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)
Item = TypeVar("Item")

BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
"""Processor features (x86, Arm) with which bf16 products are faster than float32's."""


def thread_count(wanted: int | None) -> int:
    """`wanted`, or SLURM_CPUS_PER_TASK, or the cores this process may use."""
    return wanted or _slurm_threads() or len(os.sched_getaffinity(0))


def use_threads(wanted: int | None) -> int:
    """Let torch use `thread_count(wanted)` threads."""
    import torch

    threads = thread_count(wanted)
    torch.set_num_threads(threads)
    return threads


def _slurm_threads() -> int | None:
    text = os.environ.get("SLURM_CPUS_PER_TASK")
    if text is None:
        return None
    if not text.isdigit() or int(text) < 1:
        raise ConfigError(f"SLURM_CPUS_PER_TASK: found {text!r}, expected a number of processors")
    return int(text)


def device() -> torch.device:
    """The GPU where there is one, else the processor."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def decoding_workers(wanted: int | None) -> int:
    """Processes that decode frames: `wanted`, else one on a CPU (the network needs the cores), up to 8 with a GPU."""
    if wanted is not None:
        return wanted
    return 1 if device().type == "cpu" else min(8, len(os.sched_getaffinity(0)))


def resolve_precision(wanted: str, recorded: str | None = None) -> str:
    """fp32 or bf16; auto takes what was `recorded` when the work began, else bf16 where the device has units for it."""
    import torch

    if wanted != "auto":
        return wanted
    if recorded is not None:
        return recorded
    if device().type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if _processor_flags() & BF16_FLAGS else "fp32"


def _processor_flags() -> set[str]:
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return set()
    lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    return {flag for line in lines if line.startswith(("flags", "Features")) for flag in line.split()}


def autocast(precision: str) -> torch.autocast:
    """The context in which a network computes in `precision` (fp32 or bf16) on `device()`."""
    import torch

    return torch.autocast(device().type, dtype=torch.bfloat16, enabled=precision == "bf16")


def seed_everything(*seeds: int) -> None:
    """Seed torch on all devices from a tuple of numbers, as (seed, epoch)."""
    import numpy as np
    import torch

    torch.manual_seed(int(np.random.SeedSequence(seeds).generate_state(1, np.uint64)[0]))


def environment(seed: int, threads: int) -> dict[str, Any]:
    """What a result may depend on beside its settings: versions, commit, device, host."""
    import torch

    versions = {name: metadata.version(name) for name in ("torch", "torchvision", "h5py", "numpy", "scikit-learn")}
    gpu = torch.cuda.get_device_name() if device().type == "cuda" else None
    return {
        "fercache": __version__,
        "commit": _commit(),
        "python": platform.python_version(),
        **versions,
        "platform": platform.platform(),
        "host": socket.gethostname(),
        "gpu": gpu,
        "seed": seed,
        "threads": threads,
        "command": sys.argv,
    }


def _commit() -> str | None:
    """The commit of the checkout that fercache runs from; None for an installed copy."""
    folder = Path(__file__).resolve().parent.parent
    if not (folder / ".git").exists():
        return None
    answer = subprocess.run(
        ["git", "-C", str(folder), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    return answer.stdout.strip() or None


def progress(items: Iterable[Item], what: str, total: int | None = None) -> Iterator[Item]:
    """`items`, with a progress bar on standard error where that is a terminal."""
    from tqdm import tqdm

    return iter(tqdm(items, desc=what, total=total, disable=None, leave=False, dynamic_ncols=True))


class StopFlag:
    """Says whether a signal asked to stop."""

    def __init__(self) -> None:
        self.signal: str | None = None

    def check(self) -> None:
        """Raise Stopped if a signal came."""
        if self.signal is not None:
            raise Stopped(self.signal)


@contextmanager
def stop_signals() -> Iterator[StopFlag]:
    """Turn TERM, INT and USR1 into a flag that long work looks at between its steps.

    A second INT ends at once. Outside the main thread, where Python delivers no signals, the flag
    is never set.
    """
    flag = StopFlag()

    def note(number: int, _frame: object) -> None:
        if flag.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        flag.signal = signal.Signals(number).name
        log.warning("%s: stopping after this step", flag.signal)

    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    try:
        before = {number: signal.signal(number, note) for number in numbers}
    except ValueError:  # not the main thread
        yield flag
        return
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ignore_interrupts(_worker: int) -> None:
    """For loader processes: INT and USR1 reach the whole group, but only the main process decides to stop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
