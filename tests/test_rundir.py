from __future__ import annotations

import pytest

from fercache.errors import FercacheError, RunError
from fercache.rundir import RunDir

VALUES = {"stage": "finetune", "lr": 0.1, "threads": 2, "ranks": 1}


def test_a_run_begins_once_and_goes_on_with_the_same_values(tmp_path, caplog):
    run = RunDir(tmp_path / "run")
    assert run.recorded() == {}
    run.begin({**VALUES, "lr": 9}, {"host": "x"})  # no epoch finished: nothing to lose
    run.begin(VALUES, {"host": "z"})
    run.last.touch()
    run.begin(VALUES, {"host": "y"})
    assert run.recorded() == VALUES and '"x"' in run.environment.read_text()
    run.begin({**VALUES, "threads": 4, "ranks": 8}, {})
    assert "begun with threads 2, resuming with 4: the last bits differ" in caplog.text
    assert "begun with ranks 1, resuming with 8: batch norm sees other parts of a step" in caplog.text


def test_another_run_is_refused_with_what_differs(tmp_path):
    run = RunDir(tmp_path)
    run.begin(VALUES, {})
    run.last.touch()
    run.begin({**VALUES, "workers": 3, "manifest": "/elsewhere.csv"}, {})  # changes no result
    with pytest.raises(
        RunError, match=r"contains a different run \(lr: found 0.1, expected 0.2; seed: found None, expected 1\)"
    ):
        run.begin({**VALUES, "lr": 0.2, "seed": 1}, {})


def test_folders_that_are_no_runs(tmp_path):
    (tmp_path / "letters.txt").touch()
    with pytest.raises(
        RunError, match=r"contains letters\.txt, expected a run \(config\.yaml\) or an empty folder; choose another"
    ):
        RunDir(tmp_path).recorded()
    with pytest.raises(FercacheError, match="is a file, expected a folder"):
        RunDir(tmp_path / "letters.txt").recorded()
    (tmp_path / "config.yaml").write_text("a: [")
    with pytest.raises(RunError, match="cannot be read"):
        RunDir(tmp_path).recorded()
