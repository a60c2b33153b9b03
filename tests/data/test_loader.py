"""Frames from worker processes: in order, and with an answer when a worker cannot go on."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from support.system import fill_shared_memory, needs_mount
from torch.utils.data import get_worker_info

from fercache.data import loader
from fercache.data.datasets import in_order
from fercache.data.images import read_image
from fercache.data.loader import FrameLoader
from fercache.errors import RunError

IN_SMALL_SHARED_MEMORY = """
import logging, sys
from fercache.data.loader import FrameLoader
logging.basicConfig(level=logging.WARNING)
paths = sys.argv[1:]
for _ in range(2):
    for batch in FrameLoader(paths, [list(range(0, 8)), list(range(8, 16))], 2):
        print(batch.index.tolist(), tuple(batch.frames.shape), int(batch.frames[:, 0, 0, 0].sum()))
"""


def images(folder: Path, count: int, size=(48, 48)) -> list[str]:
    """PNG files of one grey each: the n-th is of n."""
    paths = [str(folder / f"{number:05}.png") for number in range(count)]
    for number, path in enumerate(paths):
        Image.new("RGB", size, (number, number, number)).save(path)
    return paths


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_each_epoch_has_the_frames_of_its_batches(tmp_path, workers):
    paths = images(tmp_path, 10)
    frames = FrameLoader(paths, [[3, 1, 3], [9, 0, 2], [4]], workers)
    assert len(frames) == 3
    for _ in range(2):
        batches = list(frames)
        assert [batch.index.tolist() for batch in batches] == [[3, 1, 3], [9, 0, 2], [4]]
        assert [batch.frames[:, 0, 0, 0].tolist() for batch in batches] == [[3, 1, 3], [9, 0, 2], [4]]
        assert batches[1].frames.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("workers", [0, 1])
def test_frames_of_different_sizes_keep_their_own(tmp_path, workers):
    paths = [*images(tmp_path, 1), str(tmp_path / "2.png")]
    Image.new("RGB", (20, 30), (7, 8, 9)).save(paths[1])
    (batch,) = FrameLoader(paths, [[0, 1]], workers)
    assert [tuple(frame.shape) for frame in batch.frames] == [(3, 48, 48), (3, 30, 20)]
    assert batch.frames[1][:, 29, 19].tolist() == [7, 8, 9]


def dying(path):
    """As `read_image`, in a process that is killed when it comes to the frame 5."""
    if path.endswith("00005.png") and get_worker_info() is not None:
        os.kill(os.getpid(), signal.SIGKILL)
    return read_image(path)


@pytest.mark.parametrize("workers", [1, 3])
def test_a_worker_that_is_killed_ends_the_loading_with_the_reason(tmp_path, monkeypatch, workers):
    monkeypatch.setattr(loader, "read_image", dying)
    before = signal.getsignal(signal.SIGCHLD)
    sentence = (
        r"killed by SIGKILL \(as the system does where memory is short\), at or after .*0000[0-5].png; `workers: 0`"
    )
    with pytest.raises(RunError, match=sentence):
        list(FrameLoader(images(tmp_path, 12), in_order(range(12), 2), workers))
    assert signal.getsignal(signal.SIGCHLD) is before


@pytest.fixture(params=["fork", "forkserver"])
def method(request, monkeypatch) -> str:
    """How decoding processes begin; by a server where this process has a GPU in use."""
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: request.param == "forkserver")
    return request.param


def test_processes_are_no_copies_of_one_that_uses_a_gpu(tmp_path, method):
    paths, batches = images(tmp_path, 12), in_order(range(12), 3)
    frames = iter(loaded := FrameLoader(paths, batches, 2))
    first = next(frames)
    parents = {
        int(Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[1])
        for process in multiprocessing.active_children()
    }
    assert len(parents) == 1 and (parents == {os.getpid()}) == (method == "fork")
    pictures = [first, *frames]
    for batch, expected in zip(pictures, FrameLoader(paths, batches, 0), strict=True):
        assert torch.equal(batch.frames, expected.frames) and torch.equal(batch.index, expected.index)
    assert [batch.index.tolist() for batch in loaded] == batches  # as for a second epoch


def test_a_signal_to_the_whole_group_ends_no_process_that_decodes(tmp_path, method):
    """As a terminal and SLURM send it; only the main process decides to stop."""
    code = f"""
import multiprocessing, os, signal, sys, time, torch
from fercache.data.loader import FrameLoader
if __name__ == "__main__":
    torch.cuda.is_initialized = lambda: {method == "forkserver"}
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, lambda *_: None)
    frames = iter(FrameLoader(sys.argv[1:], [[number] for number in range(40)], 2))
    next(frames)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        os.killpg(0, number)
    time.sleep(0.5)
    print(len(multiprocessing.active_children()), len(list(frames)))
"""
    script = tmp_path / "script.py"
    script.write_text(code)
    answer = subprocess.run(
        [sys.executable, script, *images(tmp_path, 40)], capture_output=True, text=True, start_new_session=True
    )
    assert answer.stdout == "2 39\n", answer.stderr


def test_no_process_that_decodes_outlives_a_main_process_that_is_killed(tmp_path):
    """Also where they were begun by a server, which is their parent."""
    script = tmp_path / "script.py"
    script.write_text("""
import multiprocessing, os, signal, sys, torch
from fercache.data.loader import FrameLoader
if __name__ == "__main__":
    torch.cuda.is_initialized = lambda: True
    frames = iter(FrameLoader(sys.argv[1:], [[number] for number in range(40)], 2))
    next(frames)
    print(*(process.pid for process in multiprocessing.active_children()), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
""")
    process = subprocess.Popen([sys.executable, script, *images(tmp_path, 40)], stdout=subprocess.PIPE, text=True)
    pids = process.stdout.readline().split()
    process.wait()
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(pids) == 2 and not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_workers_that_are_killed_from_outside_while_they_wait(tmp_path, method):
    frames = iter(FrameLoader(images(tmp_path, 60), in_order(range(60), 2), 2))
    next(frames)
    for process in multiprocessing.active_children():
        process.kill()
        process.join()
    with pytest.raises(RunError, match="killed by SIGKILL"):
        list(frames)


def test_a_thread_may_load_too(tmp_path):
    """Where Python lets nobody set signals."""
    paths, batches = images(tmp_path, 4), []
    thread = threading.Thread(target=lambda: batches.extend(FrameLoader(paths, [[0, 1], [2, 3]], 1)))
    thread.start()
    thread.join()
    assert [batch.index.tolist() for batch in batches] == [[0, 1], [2, 3]]


@pytest.mark.parametrize("workers", [1, 2])
def test_what_cannot_be_handed_over_is_decoded_here(tmp_path, monkeypatch, caplog, workers):
    fill_shared_memory(monkeypatch)
    with caplog.at_level(logging.WARNING):
        batches = list(FrameLoader(images(tmp_path, 10), in_order(range(10), 3), workers))
    assert [batch.frames[:, 0, 0, 0].tolist() for batch in batches] == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]
    assert [message.split(":")[0] for message in caplog.messages] == ["/dev/shm has no room for a batch"]


def test_without_locks_everything_is_decoded_here(tmp_path, monkeypatch, caplog):
    def refuse():
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(multiprocessing, "Lock", refuse)
    with caplog.at_level(logging.WARNING):
        (batch,) = FrameLoader(images(tmp_path, 3), [[0, 1, 2]], 2)
    assert batch.index.tolist() == [0, 1, 2] and not multiprocessing.active_children()
    assert caplog.messages == [
        "/dev/shm: No space left on device: frames are decoded in this process, which takes longer"
    ]


@needs_mount
@pytest.mark.parametrize("options", ["size=256k", "size=4k", "size=4k,nr_inodes=1"])
def test_shared_memory_that_is_too_small(tmp_path, options):
    """Really: 8 frames of 112 px are 300 kB, and a lock is 4 kB."""
    paths = images(tmp_path, 16, (112, 112))
    script = f'mount -t tmpfs -o {options} tmpfs /dev/shm && exec "$@"'
    command = ["unshare", "--mount", "bash", "-c", script, "-", sys.executable, "-c", IN_SMALL_SHARED_MEMORY, *paths]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    first, second = (f"{list(range(start, start + 8))} (8, 3, 112, 112)" for start in (0, 8))
    assert done.stdout.splitlines() == [f"{first} 28", f"{second} 92"] * 2
    assert "frames are decoded in" in done.stderr and "Traceback" not in done.stderr
