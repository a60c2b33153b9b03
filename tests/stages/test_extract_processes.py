"""Extraction by the real command: killed at random moments, two at once, all jobs of an array at once."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_extract import assert_same, make_set

from fercache.cache.journal import journals
from fercache.tools.caches import verify_cache

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow


def command(manifest: Path, cache: Path, *words: str) -> list[str]:
    given = ["--manifest", manifest, "--weights", "none", "--cache", cache, "--backend", "eager", "--batch-size", "16"]
    return [sys.executable, "-m", "fercache", "extract", *map(str, given), "--set", "image_size=48", *words]


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


def test_ten_kills_change_nothing():
    words = [sys.executable, "benchmarks/extract.py", "--parts", "kills", "--kills", "10", "--json"]
    answer = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert json.loads(answer.stdout.splitlines()[-1]) == {"kills": 10, "kills_equal": 10}, answer.stdout


@pytest.mark.parametrize("words", [[(), ()], [("--shard", f"{number}/3") for number in (1, 2, 3)]])
def test_several_processes_on_one_cache(manifest, undisturbed, tmp_path, words):
    running = [begin(manifest, tmp_path / "cache", *own) for own in words]
    said = [process.communicate()[0] for process in running]
    assert [process.returncode for process in running] == [0] * len(words), said
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
    said = running.communicate()[0]
    assert running.returncode == 75, said
    assert "Stopped by" in said and not (tmp_path / "cache" / "long.h5").exists()
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
    said = running.communicate()[1]
    assert running.returncode == 75 and "Traceback" not in said, said
    subprocess.run(command(manifest, tmp_path / "cache"), check=True, capture_output=True)
    assert_same(tmp_path / "cache", undisturbed)
