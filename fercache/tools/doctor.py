"""What this machine has, and what will be slow or fail on it."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import torch

from fercache import __version__, runtime
from fercache.cache.hdf5 import locking_problem
from fercache.files import nearest
from fercache.models.backends import standard_batch_size

FRAME_BYTES = 224 * 224 * 3
LEAST_DISK_BYTES = 20 * 10**9
"""About what the float16 embeddings of Aff-Wild2 and the runs on them take."""
PACKAGES = ("torch", "torchvision", "h5py", "numpy", "scikit-learn")


@dataclass(frozen=True)
class Examined:
    """One thing that was looked at."""

    name: str
    value: str
    problem: str | None = None
    """What will be slow or fail; None where nothing will."""


def examine(folder: Path, shared_memory: Path = Path(runtime.SHARED_MEMORY)) -> list[Examined]:
    """Look at the machine, with `folder` as where data and results would be; something is written there and removed."""
    return [
        _cores(),
        _bf16(),
        _gpu(),
        _shared_memory(shared_memory),
        _disk(folder),
        _locking(folder),
        _versions(),
        _extra("openvino", "extraction on this processor takes torch, which is slower"),
        _compiler(),
        _slurm(),
    ]


def describe(examined: Sequence[Examined]) -> str:
    """A line for each, with what will be slow or fail behind an arrow."""
    rows = [[one.name, f"{one.value}{f' -> {one.problem}' if one.problem else ''}"] for one in examined]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {words}" for name, words in rows)


def _cores() -> Examined:
    usable, threads = len(os.sched_getaffinity(0)), runtime.thread_count(None)
    value = f"{usable} of {os.cpu_count()} usable, {threads} threads"
    return Examined("cores", value, "one core decodes and computes in turn" if usable == 1 else None)


def _bf16() -> Examined:
    flags = runtime.bf16_flags()
    if not flags:
        return Examined("bf16", "no units in the processor", "networks compute in float32, which is slower")
    return Examined("bf16", ", ".join(sorted(flags)) + ("" if "amx_bf16" in flags else "; no AMX"))


def _gpu() -> Examined:
    if not torch.cuda.is_available():
        return Examined("GPU", "none", "fine-tuning at 224 px and end-to-end training are slow on a processor")
    count, record = torch.cuda.device_count(), torch.cuda.get_device_properties(0)
    return Examined("GPU", f"{count} x {record.name}, {record.total_memory / 1e9:.0f} GB")


def _shared_memory(path: Path) -> Examined:
    device = runtime.device()
    workers = runtime.decoding_workers(None, device)
    # Each worker has two batches ahead, and one is in use.
    needed = (2 * workers + 1) * standard_batch_size(device, 224) * FRAME_BYTES
    if not path.is_dir():
        return Examined("shared memory", f"no {path}", "frames are decoded in the process itself, which takes longer")
    total, _, free = shutil.disk_usage(path)
    value = f"{path}: {free / 1e6:.0f} of {total / 1e6:.0f} MB free"
    short = f"decoding frames of 224 px ahead takes {needed / 1e6:.0f} MB: threads do it instead of processes"
    return Examined("shared memory", value, short if free < needed else None)


def _disk(folder: Path) -> Examined:
    free = shutil.disk_usage(nearest(folder)).free
    few = "the cache of all of Aff-Wild2 takes about 12 GB in float16" if free < LEAST_DISK_BYTES else None
    return Examined("disk", f"{nearest(folder)}: {free / 1e9:.0f} GB free", few)


def _locking(folder: Path) -> Examined:
    problem = locking_problem(nearest(folder))
    if problem is None:
        return Examined("HDF5 locking", "works")
    return Examined("HDF5 locking", problem, "set HDF5_USE_FILE_LOCKING=FALSE where files cannot be opened")


def _versions() -> Examined:
    versions = [f"{name} {metadata.version(name)}" for name in PACKAGES]
    return Examined(
        "versions", ", ".join([f"fercache {__version__}", f"Python {platform.python_version()}", *versions])
    )


def _extra(name: str, without: str) -> Examined:
    if importlib.util.find_spec(name) is None:
        return Examined(name, "not installed", f"{without}; pip install 'fercache[{name}]'")
    return Examined(name, metadata.version(name))


def _compiler() -> Examined:
    if runtime.has_compiler():
        return Examined("compiler", "found, so that torch.compile can be used")
    return Examined("compiler", "none", "backend compile and the setting compile fail; nothing else needs one")


def _slurm() -> Examined:
    if shutil.which("sbatch"):
        return Examined("SLURM", "sbatch is on the PATH")
    return Examined("SLURM", "none", "fercache slurm submit fails; slurm plan and all else work")
