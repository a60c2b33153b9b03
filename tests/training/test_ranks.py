"""Several processes that train one network, by torchrun and gloo on the processor."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from support.ranks_script import VALIDATED
from support.runs import metrics, torchrun

from fercache.errors import ConfigError
from fercache.models.checkpoint import load_checkpoint
from fercache.runtime import Ranks, ranks
from fercache.runtime.machine import thread_count

SCRIPT = Path(__file__).parents[1] / "support" / "ranks_script.py"


def run_script(count, part, out, *, status=0) -> str:
    """Run a part of the script on so many ranks; what they printed."""
    answer = torchrun(count, SCRIPT, part, out, timeout=120)
    assert (answer.returncode != 0) == (status != 0), answer.stderr
    return answer.stderr


def model(out):
    return load_checkpoint(out / "last.pt")["model"]


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    out = tmp_path_factory.mktemp("two")
    run_script(2, "train", out)
    return out


def test_every_frame_is_scored_once_whatever_the_number_of_ranks(tmp_path):
    run_script(1, "score", tmp_path)
    alone = json.loads((tmp_path / "rank0.json").read_text())
    run_script(2, "score", tmp_path)
    by_rank = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    assert alone["scores"] == by_rank[0]["scores"] == by_rank[1]["scores"]
    assert alone["seen"] == list(range(VALIDATED))
    assert sorted(by_rank[0]["seen"] + by_rank[1]["seen"]) == sorted([*range(VALIDATED), 0])  # one filled up


def test_ranks_average_to_the_gradient_of_the_whole_batch(tmp_path):
    """41 samples in 6 steps over 2 ranks, unevenly, with class weights and clipping: as in one process."""
    for count in (1, 2):
        run_script(count, "train_without_norm", tmp_path / str(count))
    for name, tensor in model(tmp_path / "1").items():
        torch.testing.assert_close(model(tmp_path / "2")[name], tensor, rtol=1e-5, atol=1e-6)
    for one, other in zip(metrics(tmp_path / "1"), metrics(tmp_path / "2"), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-6) and one["score"] == other["score"]


def test_a_signal_to_one_rank_stops_all_and_the_run_goes_on(tmp_path, two):
    errors = run_script(2, "stop_one", tmp_path, status=75)
    assert errors.count("stopped by SIGUSR1") == 2
    # The last rank's signal comes while its batch of step 2 is prepared.
    assert load_checkpoint(tmp_path / "last.pt")["place"]["step"] == 2
    run_script(2, "train", tmp_path)
    for name, tensor in model(two).items():
        assert torch.equal(model(tmp_path)[name], tensor), name
    assert metrics(tmp_path) == metrics(two)


def test_the_failure_of_one_rank_ends_all_with_its_message(tmp_path):
    errors = run_script(2, "fail_one", tmp_path, status=1)
    assert "Error: the second rank's disk is full" in errors
    assert "DistBackendError" not in errors and "gloo" not in errors.replace("--backend", "")
    assert not (tmp_path / "best.pt").exists()


def test_only_the_first_rank_writes(two):
    assert sorted(path.name for path in two.iterdir()) == ["best.pt", "last.pt", "metrics.jsonl"]


def test_the_place_comes_from_the_environment(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert ranks() == Ranks(0, 1, 0, 1) and ranks().sums([1.5, True]) == [1.5, True] and ranks().same("x") == "x"
    for name, value in (("RANK", "5"), ("WORLD_SIZE", "8"), ("LOCAL_RANK", "1"), ("LOCAL_WORLD_SIZE", "4")):
        monkeypatch.setenv(name, value)
    assert ranks() == Ranks(5, 8, 1, 4) and not ranks().first
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "32")
    assert (thread_count(None), thread_count(3)) == (8, 3)
    monkeypatch.setenv("LOCAL_RANK", "one")
    with pytest.raises(ConfigError, match="LOCAL_RANK: found 'one', expected the numbers that torchrun sets"):
        ranks()
