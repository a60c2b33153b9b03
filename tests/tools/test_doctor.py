"""What `fercache doctor` says is so on this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import h5py
import torch
from support.system import needs_mount

from fercache.cache import hdf5
from fercache.tools.doctor import check_machine, describe_machine


def by_name(*arguments):
    return {one.name: one for one in check_machine(*arguments)}


def test_ten_lines_with_what_this_machine_has(tmp_path):
    checks = check_machine(tmp_path)
    lines = describe_machine(checks).splitlines()
    assert len(lines) == 10 and all(line.startswith(one.name) for line, one in zip(lines, checks, strict=True))
    by_check_name = {one.name: one for one in checks}
    assert by_check_name["cores"].value.startswith(f"{len(os.sched_getaffinity(0))} of {os.cpu_count()} usable")
    assert (by_check_name["GPU"].value == "none") == (not torch.cuda.is_available())
    assert (
        f"h5py {h5py.__version__}" in by_check_name["versions"].value
        and torch.__version__.split("+")[0] in by_check_name["versions"].value
    )
    assert by_check_name["HDF5 locking"].value == "works" and not list(tmp_path.iterdir())
    free = shutil.disk_usage(tmp_path).free / 1e9
    assert abs(float(by_check_name["disk"].value.split(": ")[1].split(" GB")[0]) - free) < 2
    assert (by_check_name["SLURM"].problem is None) == bool(shutil.which("sbatch"))


def test_what_is_missing_is_said_with_what_follows(tmp_path, monkeypatch):
    checks = by_name(tmp_path / "not" / "yet", tmp_path / "shm")
    assert checks["shared memory"].problem == "frames are decoded in the process itself, which takes longer"
    assert checks["disk"].value.startswith(f"{tmp_path}: ")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    checks = by_name(tmp_path)
    assert checks["compiler"].value == checks["SLURM"].value == "none"
    monkeypatch.setattr(hdf5.h5py, "File", lambda *_, **__: (_ for _ in ()).throw(OSError("unable to lock file")))
    assert by_name(tmp_path)["HDF5 locking"].value == "unable to lock file"


@needs_mount
def test_small_shared_memory_is_seen(tmp_path):
    code = (
        "import sys; from pathlib import Path; from fercache.tools.doctor import check_machine, describe_machine;"
        " print(describe_machine(check_machine(Path(sys.argv[1]), Path(sys.argv[1]))))"
    )
    script = 'mount -t tmpfs -o size=1m tmpfs "$1" && exec "$2" -c "$3" "$1"'
    command = ["unshare", "--mount", "bash", "-c", script, "-", str(tmp_path), sys.executable, code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (
        f"{tmp_path}: 1 of 1 MB free -> decoding frames of 224 px ahead takes 14 MB" in done.stdout
        or torch.cuda.is_available()
    )
