"""Extraction by the real command: killed at random moments, two at once, all jobs of an array at once."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.extraction import assert_same, make_set

from fercache.cache.journal import journals
from fercache.tools.caches import verify_cache

pytestmark = pytest.mark.slow


def command(manifest: Path, cache: Path, *words: str) -> list[str]:
    inputs = ["--manifest", manifest, "--weights", "none", "--cache", cache]
    fixed = ["--backend", "eager", "--batch-size", "16", "--set", "image_size=48"]
    return [sys.executable, "-m", "fercache", "extract", *map(str, inputs), *fixed, *words]


def begin(*given: object) -> subprocess.Popen:
    return subprocess.Popen(command(*given), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Path:
    return make_set(tmp_path_factory.mktemp("data"), {"long": 900, "a": 50, "b": 3, "c": 120, "d": 33})


@pytest.fixture(scope="module")
def undisturbed(manifest, tmp_path_factory) -> Path:
    cache = tmp_path_factory.mktemp("undisturbed") / "cache"
    subprocess.run(command(manifest, cache), check=True, capture_output=True)
    return cache


@pytest.mark.parametrize("number", range(10))
def test_a_kill_at_any_moment_changes_nothing(manifest, undisturbed, tmp_path, number):
    """One in each tenth of the time from the first row to the last video."""
    cache, share = tmp_path / "cache", (number + random.Random(number).random()) / 10
    running = begin(manifest, cache)
    while rows_saved(cache) < share * 1106 and running.poll() is None:
        time.sleep(0.005)
    running.kill()
    output = running.communicate()[0]
    assert running.returncode == -signal.SIGKILL or "videos written" in output, output
    assert not verify_cache(cache).findings
    subprocess.run(command(manifest, cache), check=True, capture_output=True)
    assert verify_cache(cache, manifest).clean
    assert_same(cache, undisturbed)


def rows_saved(cache: Path) -> int:
    """Rows in finished videos and in journals, by the sizes of the files."""
    size = 0
    for path in [*cache.glob("*.h5"), *journals(cache)]:
        with contextlib.suppress(FileNotFoundError):  # a journal whose video was just finished
            size += path.stat().st_size
    return size // (2048 * 2)


@pytest.mark.parametrize("words", [[(), ()], [("--shard", f"{number}/3") for number in (1, 2, 3)]])
def test_several_processes_on_one_cache(manifest, undisturbed, tmp_path, words):
    running = [begin(manifest, tmp_path / "cache", *own) for own in words]
    printed = [process.communicate()[0] for process in running]
    assert [process.returncode for process in running] == [0] * len(words), printed
    assert verify_cache(tmp_path / "cache", manifest).clean
    assert_same(tmp_path / "cache", undisturbed)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_within_a_video_ends_with_75_and_loses_nothing(manifest, undisturbed, tmp_path, number):
    running = begin(manifest, tmp_path / "cache")
    # The journal of the long video, with a few dozen rows in it.
    while not any(".long." in path.name and path.stat().st_size > 64 * 4096 for path in journals(tmp_path / "cache")):
        assert running.poll() is None
        time.sleep(0.01)
    os.kill(running.pid, number)
    printed = running.communicate()[0]
    assert running.returncode == 75, printed
    assert "Stopped by" in printed and not (tmp_path / "cache" / "long.h5").exists()
    again = subprocess.run(command(manifest, tmp_path / "cache"), capture_output=True, text=True, check=True)
    kept = int(re.search(r"long.*: (\d+) frames recovered", again.stderr)[1])
    assert 64 <= kept < 900
    assert_same(tmp_path / "cache", undisturbed)


def test_the_whole_group_may_be_sent_the_signal(manifest, undisturbed, tmp_path):
    """As a terminal does: the loader's workers leave it to the main process."""
    running = subprocess.Popen(
        command(manifest, tmp_path / "cache"), start_new_session=True, stderr=subprocess.PIPE, text=True
    )
    while not journals(tmp_path / "cache"):
        time.sleep(0.01)
    os.killpg(running.pid, signal.SIGINT)
    errors = running.communicate()[1]
    assert running.returncode == 75 and "Traceback" not in errors, errors
    subprocess.run(command(manifest, tmp_path / "cache"), check=True, capture_output=True)
    assert_same(tmp_path / "cache", undisturbed)
