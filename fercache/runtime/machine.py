"""The machine that a run is on: device, threads, precision, seeds, versions."""

from __future__ import annotations

import ctypes
import importlib.util
import logging
import os
import platform
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fercache import __version__
from fercache.errors import ConfigError
from fercache.runtime.group import ranks

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)
Item = TypeVar("Item")

SHARED_MEMORY = "/dev/shm"
"""Where processes share memory, on Linux."""
BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
"""Processor features (x86, Arm) with which bf16 products are faster than float32's."""


_kept = False
"""Whether freed memory is kept."""


def thread_count(wanted: int | None) -> int:
    """`wanted`, or this rank's share of SLURM_CPUS_PER_TASK, or of the cores this process may use."""
    return wanted or max(1, (_slurm_threads() or len(os.sched_getaffinity(0))) // ranks().on_this_machine)


def configure_torch(wanted: int | None) -> int:
    """Let torch use `thread_count(wanted)` threads, which are returned, this rank's GPU, and all bits of float32.

    By torch's defaults a GPU's convolutions and recurrent layers round what they multiply in float32 to 10 bits (TF32).
    """
    import torch

    threads = thread_count(wanted)
    torch.set_num_threads(threads)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    if torch.cuda.is_available():
        torch.cuda.set_device(device())
    return threads


def keep_freed_memory(keep: bool = True) -> None:
    """Have memory that is freed kept for the next request, and large requests served in large pages.

    A pass of a network on a processor frees and asks for gigabytes; to have each small page taken anew and zeroed
    costs a fifth of the time. The large pages, on Linux, also keep glibc's heap from growing by a batch's input at each
    pass. To be called before torch's first large request; nothing is done where the C library is not glibc. Training
    does without, since its gradients would then differ in their last bits from run to run; False undoes it, and leaves
    glibc alone where it was not asked for: any setting ends its own choice of what is large, which serves well.
    """
    global _kept
    if not keep and not _kept:
        return
    _kept = keep
    if keep:
        os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        trim_threshold, mmap_max = -1, -4  # from malloc.h, as their defaults are
        mallopt(mmap_max, 0 if keep else 65536)
        mallopt(trim_threshold, 2**31 - 1 if keep else 128 * 1024)


def _slurm_threads() -> int | None:
    text = os.environ.get("SLURM_CPUS_PER_TASK")
    if text is None:
        return None
    if not text.isdigit() or int(text) < 1:
        raise ConfigError(f"SLURM_CPUS_PER_TASK: found {text!r}, expected a number of processors")
    return int(text)


def device() -> torch.device:
    """The GPU of this rank where there is one, else the processor."""
    import torch

    return torch.device("cuda", ranks().gpu) if torch.cuda.is_available() else torch.device("cpu")


def decoding_workers(wanted: int | None, computing: torch.device | None = None) -> int:
    """Processes that decode frames: `wanted`, else one where a processor is `computing` (its cores are needed), up to
    8 with a GPU; nothing means `device()`.
    """
    if wanted is not None:
        return wanted
    return (
        1
        if (computing or device()).type == "cpu"
        else max(1, min(8, len(os.sched_getaffinity(0)) // ranks().on_this_machine))
    )


def resolve_precision(wanted: str, recorded: str | None = None, computing: torch.device | None = None) -> str:
    """fp32, bf16 or fp16; auto takes what was `recorded` when the work began, else what `computing` is fastest in.

    Nothing means `device()`. That is bf16 where the device has units for it, fp16 on GPUs before those, else fp32.
    ConfigError for fp16 on a processor, where it is emulated.
    """
    import torch

    on_gpu = (computing or device()).type == "cuda"
    if wanted == "auto" and recorded is not None:
        wanted = recorded
    if wanted == "auto":
        if on_gpu:
            return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
        return "bf16" if bf16_flags() else "fp32"
    if wanted == "bf16" and on_gpu and not torch.cuda.is_bf16_supported(including_emulation=False):
        log.warning("precision: bf16 is emulated on this GPU, which is slow or fails; fp16 and fp32 are not")
    if wanted == "fp16" and not on_gpu:
        raise ConfigError("precision: found fp16, which needs a GPU; on a processor take bf16 or fp32")
    return wanted


def bf16_flags() -> set[str]:
    """Those of `BF16_FLAGS` that the processor has."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return set()
    lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    return BF16_FLAGS & {flag for line in lines if line.startswith(("flags", "Features")) for flag in line.split()}


def autocast(precision: str) -> torch.autocast:
    """The context in which a network computes in `precision` (fp32, bf16 or fp16) on `device()`."""
    import torch

    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    return torch.autocast(device().type, dtype=dtype, enabled=precision != "fp32")


def has_compiler() -> bool:
    """Whether torch.compile would find the compiler that it needs on `device()`."""
    return any(shutil.which(name) for name in _compilers() if name)


def require_compiler() -> None:
    """Raise ConfigError where torch.compile would lack what it needs on `device()`."""
    if not has_compiler():
        words = "C compiler (gcc, clang or CC)" if device().type == "cuda" else "C++ compiler (g++, clang++ or CXX)"
        raise ConfigError(f"compile: needs a {words}, and none is installed")
    if device().type == "cuda" and importlib.util.find_spec("triton") is None:
        raise ConfigError("compile: needs the package triton on a GPU, and it is not installed")


def _compilers() -> tuple[str, ...]:
    """On a GPU Triton compiles the kernels, and needs a C compiler for what calls them."""
    if device().type == "cuda":
        return os.environ.get("CC", ""), "gcc", "clang"
    return os.environ.get("CXX", ""), "g++", "clang++"


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
        "ranks": ranks().count,
        "command": sys.argv,
    }


def _commit() -> str | None:
    """The commit of the checkout that fercache runs from; None for an installed copy."""
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():
        return None
    answer = subprocess.run(
        ["git", "-C", str(folder), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    return answer.stdout.strip() or None


def progress(items: Iterable[Item], what: str, total: int | None = None) -> Iterator[Item]:
    """`items`, with a progress bar on the first rank's standard error where that is a terminal."""
    from tqdm import tqdm

    hidden = None if ranks().first else True
    return iter(tqdm(items, desc=what, total=total, disable=hidden, leave=False, dynamic_ncols=True))
