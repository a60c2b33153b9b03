from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest
from click.testing import CliRunner

from fercache.cli import main
from fercache.config import Config, load_config
from fercache.errors import FercacheError, RunError
from fercache.pipeline.demo import DEMO_SYSTEMS, demo, demo_steps, what_to_look_at
from fercache.pipeline.graph import Step, run_steps
from fercache.pipeline.project import write_project
from fercache.pipeline.steps import REPORT


def test_steps_run_in_order_and_are_not_repeated(tmp_path, caplog):
    (tmp_path / "there").touch()
    run_steps([Step(("--version",)), Step(("smile",), output="there")], tmp_path)
    with pytest.raises(FercacheError, match="fercache smile: ended with exit status 2"):
        run_steps([Step(("--version",)), Step(("smile",), output="absent")], tmp_path)


def test_a_signal_stops_it_although_the_command_cannot(tmp_path):
    """A command that ends at the signal itself is followed by no other."""
    script = """
import os, signal, subprocess, sys, threading
from pathlib import Path
from fercache.pipeline import graph
from fercache.errors import Stopped
real = subprocess.Popen
def begin(command, cwd):
    print("begun", flush=True)
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
    return real([sys.executable, "-c", "import time; time.sleep(60)"], cwd=cwd)
graph.subprocess.Popen = begin
try:
    graph.run_steps([graph.Step(("report", "."))] * 2, Path("."))
except Stopped as stop:
    print("stopped by", stop)
"""
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert answer.stdout == "begun\nstopped by SIGTERM\n", answer.stderr


def test_settings_that_are_empty_are_kept_where_the_default_is_not(tmp_path):
    made = load_config(sets=["finetune.milestones=[]", "finetune.weights=w.pth", "task=expr"])
    write_project(tmp_path / "p", made)
    assert load_config(str(tmp_path / "p" / "fercache.yaml")) == made
    write_project(tmp_path / "p", made)
    with pytest.raises(RunError, match=r"finetune\.milestones: found \[\], expected \[2\]"):
        write_project(tmp_path / "p", load_config(sets=["finetune.milestones=[2]", "finetune.weights=w.pth"]))


def test_a_step_without_its_input_says_what_is_missing(tmp_path):
    with pytest.raises(FercacheError, match=r"fercache predict: cnn/best\.pt is missing"):
        run_steps([Step(("predict",), ("cnn/best.pt",))], tmp_path)


DEMO = Config(manifest="manifest.csv", cache="cache", out=".")


def test_every_input_of_the_demo_is_made_before():
    made = {"data"}  # beside data/synth.json, which says that it is whole
    for step in demo_steps(DEMO):
        assert set(step.inputs) <= made, step.command_line()
        made |= {step.output} - {None}
    assert {system.predictions for system in DEMO_SYSTEMS.values()} <= made
    assert {shlex.split(step.command_line())[1] for step in demo_steps(DEMO)} == set(main.commands) - {
        "demo",
        "doctor",
        "reproduce",
        "evaluate",
        "weights",
        "cache",
        "config",
        "slurm",
    }


def test_the_demos_commands_are_the_contracts():
    lines = [step.command_line() for step in demo_steps(DEMO)]
    for line in ("fercache finetune", "fercache extract", "fercache train-temporal --head gru"):
        assert line in lines


def test_a_folder_with_something_else_is_refused(tmp_path):
    (tmp_path / "letter.txt").touch()
    with pytest.raises(
        RunError,
        match=r"contains letter\.txt, expected a project \(fercache\.yaml\) or an empty folder; choose another",
    ):
        demo(tmp_path, load_config("demo_small"))
    (tmp_path / "fercache.yaml").write_text("task: au\n")
    result = CliRunner().invoke(main, ["demo", "-o", str(tmp_path)])
    assert result.exit_code == 1 and "was begun with different settings" in result.output


def test_the_demo_ends_with_a_command_that_opens_its_report(tmp_path):
    folder = tmp_path / "a folder's name"
    *_, command = what_to_look_at(folder).splitlines()
    *words, url = shlex.split(command)
    assert words == ["python3", "-m", "webbrowser", "-t"]
    assert Path(unquote(urlparse(url).path)) == folder.resolve() / REPORT
    assert REPORT in {step.output for step in demo_steps(DEMO)}
