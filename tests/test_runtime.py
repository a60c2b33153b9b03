from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from support.frames import write_video

from fercache import runtime
from fercache.data.affwild2 import build_manifest
from fercache.data.manifest import write_manifest
from fercache.errors import ConfigError, RunError, Stopped
from fercache.runtime import machine, stop_signals, stops_at_once
from fercache.tasks import TASKS


@pytest.mark.parametrize("order", [("SIGUSR1", "SIGTERM"), ("SIGTERM", "SIGUSR1")])
def test_to_end_for_good_outweighs_to_end_for_a_while(order):
    with stop_signals() as stop:
        for name in order:
            os.kill(os.getpid(), getattr(signal, name))
    with pytest.raises(Stopped, match="SIGTERM") as caught:
        stop.check()
    assert caught.value.signal == "SIGTERM"


def test_short_work_stops_at_once_and_long_work_takes_over():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped, match="SIGUSR1"), stops_at_once():
        with stop_signals() as stop:
            os.kill(os.getpid(), signal.SIGTERM)
        assert stop.signal == "SIGTERM"
        os.kill(os.getpid(), signal.SIGUSR1)
    assert signal.getsignal(signal.SIGTERM) is before


def test_every_command_ends_with_its_own_status_at_a_signal(tmp_path):
    """Also one that has nothing to go on with; what it has finished is whole."""
    sets = ["--set", "train=60", "--set", "seconds=20"]
    command = [sys.executable, "-m", "fercache", "synth", "faces", *sets]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "faces").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == Stopped.EXIT_STATUS, errors
    assert "Stopped by SIGTERM: finished work is saved" in errors and "Traceback" not in errors


@pytest.mark.parametrize("ask", [lambda: torch.empty(1 << 60), lambda: np.empty(1 << 60, np.uint8)])
def test_memory_that_runs_out_is_one_sentence(ask):
    with pytest.raises(RunError, match="this machine ran out of memory: lower it"), runtime.memory_errors("lower it"):
        ask()


def test_kernels_that_all_fail_are_probably_a_lack_of_memory():
    sentence = "this machine probably ran out of memory: lower it"
    with pytest.raises(RunError, match=sentence), runtime.memory_errors("lower it"):
        raise RuntimeError("FIND was unable to find an engine to execute this computation")


def test_the_precision_is_that_of_the_device_that_computes(monkeypatch):
    """As where OpenVINO computes on the processor of a machine with an old GPU."""
    monkeypatch.setattr(machine, "device", lambda: torch.device("cuda:0"))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    assert runtime.resolve_precision("auto") == "fp16"
    processor = torch.device("cpu")
    assert runtime.resolve_precision("auto", None, processor) == ("bf16" if runtime.bf16_flags() else "fp32")
    with pytest.raises(ConfigError, match="fp16, which needs a GPU"):
        runtime.resolve_precision("fp16", None, processor)


def test_other_errors_are_not_taken_for_memory_that_runs_out():
    with pytest.raises(RuntimeError, match="size of tensor"), runtime.memory_errors("lower batch_size"):
        torch.ones(2) + torch.ones(3)


def test_convolutions_are_tuned_for_a_while():
    before = torch.backends.cudnn.benchmark
    with runtime.tuned_convolutions():
        assert torch.backends.cudnn.benchmark
    assert torch.backends.cudnn.benchmark is before


def test_float32_keeps_its_bits():
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    assert runtime.configure_torch(1) == 1
    assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32


@pytest.mark.parametrize(
    ("device", "installed", "said"),
    [
        ("cpu", {"g++"}, None),
        ("cpu", {"gcc"}, "C\\+\\+ compiler"),
        ("cuda:0", {"gcc"}, None),
        ("cuda:0", {"g++"}, "a C compiler"),
    ],
)
def test_compiling_needs_the_compiler_of_its_device(monkeypatch, device, installed, said):
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(machine, "device", lambda: torch.device(device))
    monkeypatch.setattr(shutil, "which", lambda name: name if name in installed else None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    if said is None:
        runtime.require_compiler()
    else:
        with pytest.raises(ConfigError, match=said):
            runtime.require_compiler()


OUT_OF_MEMORY = """
import resource, sys
from pathlib import Path
import torch
from fercache.config import FinetuneConfig
from fercache.stages.finetune import finetune
torch.ones(2, 2) @ torch.ones(2, 2)
size = int(next(line for line in open("/proc/self/status") if line.startswith("VmSize")).split()[1]) * 1024
resource.setrlimit(resource.RLIMIT_AS, (size + 1_500_000_000,) * 2)
settings = FinetuneConfig(image_size=640, epochs=1, batch_size=12, workers=0, precision="fp32")
finetune(Path(sys.argv[1]), Path(sys.argv[2]), settings, threads=1)
"""


def test_training_that_lacks_memory_says_what_to_lower(tmp_path):
    write_video(tmp_path / "set", "a", range(1, 13), [0, 1, 2] * 4)
    write_video(tmp_path / "set", "v", range(1, 4), [0, 1, 2], "Validation_Set")
    write_manifest(tmp_path / "m.csv", build_manifest(tmp_path / "set", TASKS["expr"])[0])
    words = [sys.executable, "-c", OUT_OF_MEMORY, tmp_path / "m.csv", tmp_path / "run"]
    answer = subprocess.run(words, capture_output=True, text=True)
    assert "RunError: this machine ran out of memory: lower batch_size (found 12) or image_size" in answer.stderr
    assert not (tmp_path / "run" / "last.pt").exists()
