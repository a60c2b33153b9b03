"""`--gpus`: one command as several processes of this machine. Without a GPU they compute on the processor."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from support.frames import write_video

from fercache.cli import main, parallel
from fercache.data.affwild2 import build_manifest
from fercache.data.manifest import write_manifest
from fercache.errors import ConfigError, RunError, Stopped
from fercache.models.checkpoint import load_checkpoint
from fercache.runtime import launch
from fercache.tasks import TASKS

SETS = ["threads=1", "image_size=48", "workers=0", "precision=fp32"]
TRAINING = [*SETS, "epochs=3", "batch_size=8", "lr=0.01"]
AS_WITH_GPUS = """
import sys
from fercache.cli import main, parallel
count = int(sys.argv.pop(1))
parallel.gpu_count = lambda: count
main(prog_name="fercache")
"""
"""The command line on a machine that shows as many GPUs as its first word says; its processes see none."""


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """28 training frames and 6 validation frames, of videos with 20, 8 and 6."""
    folder = tmp_path_factory.mktemp("project")
    rng = np.random.default_rng(0)
    for name, count, split in (("a", 20, "Train"), ("b", 8, "Train"), ("v", 6, "Validation")):
        write_video(folder / "set", name, range(1, count + 1), rng.integers(0, 7, count), f"{split}_Set")
    write_manifest(folder / "m.csv", build_manifest(folder / "set", TASKS["expr"])[0])
    return folder


def finetune(project: Path, out: Path) -> list[str]:
    words = ["finetune", "--manifest", project / "m.csv", "--weights", "none", "--out", out]
    return [*map(str, words), *(word for text in TRAINING for word in ("--set", text))]


def extract(manifest: Path, cache: Path) -> list[str]:
    words = ["extract", "--manifest", manifest, "--weights", "none", "--cache", cache, "--backend", "eager"]
    return [*map(str, words), *(word for text in SETS[:3] for word in ("--set", text)), "--precision", "fp32"]


def command(*words, gpus=2) -> list[str]:
    return [sys.executable, "-c", AS_WITH_GPUS, str(gpus), *map(str, words)]


def run(*words, status=0, gpus=2) -> str:
    """What the command said."""
    answer = subprocess.run(command(*words, gpus=gpus), capture_output=True, text=True, timeout=120)
    assert answer.returncode == status, answer.stderr
    assert "Traceback" not in answer.stderr
    return answer.stdout + answer.stderr


def assert_same_network(one: Path, other: Path) -> None:
    networks = [load_checkpoint(out / "last.pt")["model"] for out in (one, other)]
    assert all(torch.equal(tensor, networks[1][name]) for name, tensor in networks[0].items())


@pytest.fixture(scope="module")
def two(project, tmp_path_factory) -> Path:
    """A training on two processes, undisturbed."""
    out = tmp_path_factory.mktemp("two") / "cnn"
    assert run(*finetune(project, out), "--gpus", "all").splitlines()[0] == str(out)
    return out


@pytest.mark.parametrize(
    ("words", "number"), [(finetune, signal.SIGTERM), (finetune, signal.SIGHUP), (extract, signal.SIGTERM)]
)
def test_a_signal_while_processes_begin_is_a_stop_too(project, tmp_path, words, number):
    """Before they listen to signals, and while the second one is started; no rank outlives the command."""
    options = words(project, tmp_path / "cnn") if words is finetune else words(project / "m.csv", tmp_path / "cache")
    process = subprocess.Popen(command(*options, "--gpus", "2"), stderr=subprocess.PIPE, text=True)
    while not any(is_rank(pid) for pid in children(process.pid)):
        assert process.poll() is None, process.stderr.read()
    process.send_signal(number)
    process.wait(timeout=60)
    outliving = [path.parent.name for path in Path("/proc").glob("[0-9]*/cmdline") if names(path, tmp_path)]
    _, errors = process.communicate(timeout=60)
    assert process.returncode == Stopped.EXIT_STATUS and "Traceback" not in errors, errors
    assert f"\nStopped by {number.name}" in f"\n{errors}" and not outliving


@pytest.mark.slow
def test_two_processes_train_what_torchrun_s_train(project, two, tmp_path):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run([*torchrun, "-m", "fercache", *finetune(project, tmp_path)], capture_output=True, check=True)
    assert_same_network(two, tmp_path)
    assert json.loads((two / "environment.json").read_text())["ranks"] == 2


@pytest.mark.slow  # in every run, tests/training/test_ranks.py stops ranks by a signal to one of them
@pytest.mark.parametrize("name", ["SIGUSR1", "SIGTERM", "SIGINT"])
def test_a_signal_stops_all_with_the_state_saved(project, two, tmp_path, name):
    out = tmp_path / "cnn"
    process = subprocess.Popen(command(*finetune(project, out), "--gpus=2"), stderr=subprocess.PIPE, text=True)
    while not (out / "last.pt").exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    process.send_signal(getattr(signal, name))
    _, errors = process.communicate(timeout=60)
    assert process.returncode == Stopped.EXIT_STATUS, errors
    assert errors.count("[rank 0] Stopped by SIGTERM") == errors.count("[rank 1] Stopped by SIGTERM") == 1
    assert f"\nStopped by {name}: finished work is saved" in errors
    assert len((out / "metrics.jsonl").read_text().splitlines()) < 3
    run(*finetune(project, out), "--gpus", "2")
    assert_same_network(two, out)


def test_where_one_process_fails_all_end_and_it_is_named(project, tmp_path):
    process = subprocess.Popen(
        command(*finetune(project, tmp_path / "cnn"), "--gpus", "2"), stderr=subprocess.PIPE, text=True
    )
    while not (tmp_path / "cnn" / "last.pt").exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    ranks = children(process.pid)
    os.kill(ranks[1], signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1 and "rank 1 (killed by SIGKILL)" in errors.splitlines()[-1], errors
    assert not any(Path(f"/proc/{pid}").exists() for pid in ranks)


def is_rank(pid: int) -> bool:
    try:
        return b"-m\0fercache\0" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False  # it has ended


def names(command_line: Path, folder: Path) -> bool:
    """Whether a process was called with a path in a folder."""
    try:
        return str(folder).encode() in command_line.read_bytes()
    except OSError:
        return False  # it has ended


def children(pid: int) -> list[int]:
    """The processes that a process started, in that order."""
    caches = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended
        if int(words[1]) == pid:
            caches[int(path.parent.name)] = int(words[19])
    return sorted(caches, key=lambda child: (caches[child], child))


def datasets(cache: Path) -> dict[str, np.ndarray]:
    runs = {}
    for path in cache.glob("*.h5"):
        with h5py.File(path) as file:
            runs |= {f"{path.stem}/{name}": data[:] for name, data in file.items()}
    return runs


def test_processes_share_the_videos_of_an_extraction(project, tmp_path):
    run(*extract(project / "m.csv", tmp_path / "alone"))
    printed = run(*extract(project / "m.csv", tmp_path / "two"), "--gpus", "2")
    assert "[rank 0] shard 1/2: 1 of 3 videos, 20 frames" in printed and "[rank 1] shard 2/2: 2 of 3 videos" in printed
    found, expected = datasets(tmp_path / "two"), datasets(tmp_path / "alone")
    assert len(expected) == 9 and found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


def test_a_process_that_fails_leaves_the_others_to_finish(project, tmp_path):
    write_video(tmp_path / "set", "long", range(1, 41))
    write_video(tmp_path / "set", "short", range(1, 9))
    (tmp_path / "set/cropped_aligned/short/00001.jpg").write_bytes(b"no image")
    write_manifest(tmp_path / "m.csv", build_manifest(tmp_path / "set", TASKS["expr"], allow_unlabelled=True)[0])
    printed = run(*extract(tmp_path / "m.csv", tmp_path / "cache"), "--gpus", "2", status=1)
    assert "[rank 1] Error: short: left out: " in printed and "1 of 2 processes failed" in printed.splitlines()[-1]
    assert (tmp_path / "cache/long.h5").exists() and not (tmp_path / "cache/short.h5").exists()


def test_a_shard_of_one_s_own_is_refused_where_ranks_share(project, tmp_path):
    printed = run(*extract(project / "m.csv", tmp_path), "--gpus", "2", "--shard", "1/2", status=1)
    assert "--gpus: cannot be combined with --shard" in printed
    environment = {**os.environ, **dict.fromkeys(("RANK", "LOCAL_RANK"), "0")}
    environment |= dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), "2")
    words = [sys.executable, "-m", "fercache", *extract(project / "m.csv", tmp_path), "--shard", "1/2"]
    answer = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert answer.returncode == 1 and "2 ranks deal the videos out among themselves" in answer.stderr


@pytest.mark.parametrize(("text", "present", "count"), [("all", 4, 4), ("1", 4, 1), ("4", 4, 4), ("all", 1, 1)])
def test_how_many_gpus_are_meant(text, present, count):
    assert parallel.parse_gpus(text, present) == count


@pytest.mark.parametrize(
    ("text", "present", "said"),
    [
        ("2", 1, "found 2, but this machine has 1 GPU$"),
        ("all", 0, "found all, but this machine has no GPUs"),
        ("0", 4, "found '0', expected a number from 1, or all"),
        ("-1", 4, "expected a number from 1, or all"),
        ("two", 4, "expected a number from 1, or all"),
    ],
)
def test_other_numbers_of_gpus_are_refused(text, present, said):
    with pytest.raises(ConfigError, match=said):
        parallel.parse_gpus(text, present)


@pytest.mark.parametrize("given", [["--gpus", "2"], ["--gpus=2"]])
def test_what_is_passed_on_is_the_command_without_its_gpus(given):
    assert parallel.without_gpus(["--set", "a=1", *given, "-o", "x"]) == ["--set", "a=1", "-o", "x"]


def test_ranks_do_not_start_ranks(monkeypatch):
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "0"), ("LOCAL_WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="leave it out under torchrun and srun"):
        launch(["doctor"], 2, one_job=True)


def test_the_launcher_leaves_signals_as_they_were(tmp_path):
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)]
    with pytest.raises(
        RunError, match=r"2 of 2 processes failed, with their reasons above: rank 0 \(status 2\), rank 1 \(status 2\)"
    ):
        launch(["no-such-command"], 2, one_job=False)
    after = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)]
    assert after == before


@pytest.mark.parametrize("name", ["finetune", "extract", "train-temporal"])
def test_the_option_is_in_the_help(name):
    assert "--gpus N|all" in CliRunner().invoke(main, [name, "--help"]).output
