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
class MachineCheck:
    """The result of one check."""

    name: str
    value: str
    problem: str | None = None
    """What will be slow or fail, if anything."""


def check_machine(folder: Path, shared_memory: Path = Path(runtime.SHARED_MEMORY)) -> list[MachineCheck]:
    """Check the machine, and `folder` for data and results; a test file is written there and removed."""
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


def describe_machine(checks: Sequence[MachineCheck]) -> str:
    """A line for each check, with what will be slow or fail behind an arrow."""
    width = max(len(check.name) for check in checks)
    return "\n".join(
        f"{check.name:<{width}}  {check.value}{f' -> {check.problem}' if check.problem else ''}" for check in checks
    )


def _cores() -> MachineCheck:
    usable, threads = len(os.sched_getaffinity(0)), runtime.thread_count(None)
    value = f"{usable} of {os.cpu_count()} usable, {threads} threads"
    return MachineCheck("cores", value, "one core has to decode and compute in turn" if usable == 1 else None)


def _bf16() -> MachineCheck:
    flags = runtime.bf16_flags()
    if not flags:
        return MachineCheck("bf16", "no units in the processor", "networks compute in float32, which is slower")
    return MachineCheck("bf16", ", ".join(sorted(flags)) + ("" if "amx_bf16" in flags else "; no AMX"))


def _gpu() -> MachineCheck:
    if not torch.cuda.is_available():
        return MachineCheck("GPU", "none", "fine-tuning at 224 px and end-to-end training are slow on a processor")
    count, record = torch.cuda.device_count(), torch.cuda.get_device_properties(0)
    return MachineCheck("GPU", f"{count} x {record.name}, {record.total_memory / 1e9:.0f} GB")


def _shared_memory(path: Path) -> MachineCheck:
    device = runtime.device()
    workers = runtime.decoding_workers(None, device)
    # Each worker prepares two batches ahead, and one is in use.
    needed = (2 * workers + 1) * standard_batch_size(device, 224) * FRAME_BYTES
    if not path.is_dir():
        return MachineCheck(
            "shared memory", f"no {path}", "frames are decoded in the process itself, which takes longer"
        )
    total, _, free = shutil.disk_usage(path)
    value = f"{path}: {free / 1e6:.0f} of {total / 1e6:.0f} MB free"
    short = f"decoding frames of 224 px ahead takes {needed / 1e6:.0f} MB: threads do it instead of processes"
    return MachineCheck("shared memory", value, short if free < needed else None)


def _disk(folder: Path) -> MachineCheck:
    free = shutil.disk_usage(nearest(folder)).free
    small = "the cache of all of Aff-Wild2 takes about 12 GB in float16" if free < LEAST_DISK_BYTES else None
    return MachineCheck("disk", f"{nearest(folder)}: {free / 1e9:.0f} GB free", small)


def _locking(folder: Path) -> MachineCheck:
    problem = locking_problem(nearest(folder))
    if problem is None:
        return MachineCheck("HDF5 locking", "works")
    return MachineCheck("HDF5 locking", problem, "set HDF5_USE_FILE_LOCKING=FALSE where files cannot be opened")


def _versions() -> MachineCheck:
    versions = [f"{name} {metadata.version(name)}" for name in PACKAGES]
    return MachineCheck(
        "versions", ", ".join([f"fercache {__version__}", f"Python {platform.python_version()}", *versions])
    )


def _extra(name: str, without: str) -> MachineCheck:
    if importlib.util.find_spec(name) is None:
        return MachineCheck(name, "not installed", f"{without}; pip install 'fercache[{name}]'")
    return MachineCheck(name, metadata.version(name))


def _compiler() -> MachineCheck:
    if runtime.has_compiler():
        return MachineCheck("compiler", "present: torch.compile can be used")
    return MachineCheck("compiler", "none", "backend compile and the setting compile fail; nothing else needs one")


def _slurm() -> MachineCheck:
    if shutil.which("sbatch"):
        return MachineCheck("SLURM", "sbatch is on the PATH")
    return MachineCheck("SLURM", "none", "fercache slurm submit fails; slurm plan and all else work")
