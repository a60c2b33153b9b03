from __future__ import annotations

import shlex

import pytest
from click.testing import CliRunner

from fercache.cli import main
from fercache.config import load_config
from fercache.errors import FercacheError, RunError
from fercache.pipeline import project
from fercache.pipeline.demo import SYSTEMS, demo, steps
from fercache.pipeline.graph import Step, run_steps


def test_steps_run_in_order_and_are_not_repeated(tmp_path, caplog):
    (tmp_path / "there").touch()
    run_steps([Step(("--version",)), Step(("smile",), output="there")], tmp_path)
    with pytest.raises(FercacheError, match="fercache smile: ended with exit status 2"):
        run_steps([Step(("--version",)), Step(("smile",), output="absent")], tmp_path)


def test_a_step_without_its_input_says_what_is_missing(tmp_path):
    with pytest.raises(FercacheError, match=r"fercache predict: cnn/best\.pt is missing"):
        run_steps([Step(("predict",), ("cnn/best.pt",))], tmp_path)


def test_every_input_of_the_demo_is_made_before():
    made = {"data", "cache", "cnn/best.pt", "gru/best.pt", "transformer/best.pt"}  # by commands that say no output
    for step in steps():
        assert set(step.inputs) <= made, step.words()
        made |= {step.output} - {None}
    assert set(map(project.predictions, SYSTEMS.values())) <= made
    assert {shlex.split(step.words())[1] for step in steps()} == set(main.commands) - {
        "demo",
        "reproduce",
        "evaluate",
        "weights",
        "cache",
    }


def test_the_demos_commands_are_the_contracts():
    lines = [step.words() for step in steps()]
    for line in ("fercache finetune", "fercache extract", "fercache train-temporal --head gru"):
        assert line in lines


def test_a_folder_with_something_else_is_refused(tmp_path):
    (tmp_path / "letter.txt").touch()
    with pytest.raises(RunError, match=r"not empty and holds no fercache\.yaml"):
        demo(tmp_path, load_config("demo_small"))
    (tmp_path / "fercache.yaml").write_text("task: au\n")
    result = CliRunner().invoke(main, ["demo", "-o", str(tmp_path)])
    assert result.exit_code == 1 and "was begun with other settings" in result.output
