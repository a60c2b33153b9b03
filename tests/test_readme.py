"""The commands of the README and of `docs/`: all are parsed, and those for a small set are run on real faces."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from fercache.cache.provenance import Provenance
from fercache.cache.rows import Part, Shape
from fercache.cache.writer import write_video
from fercache.cli import main, parallel
from fercache.cli.commands import ALL
from fercache.config import load_config
from fercache.data.annotations import read_annotation
from fercache.tasks import TASKS

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {path: path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
BLOCKS = [block for text in PAGES.values() for block in re.findall(r"```console\n(.*?)```", text, flags=re.DOTALL)]
LINES = [line for block in BLOCKS for line in block.splitlines()]
TYPED = [re.sub(r"^(torchrun|srun) .* -m fercache ", "fercache ", line) for line in LINES]
COMMANDS = [line for line in TYPED if line.startswith("fercache ")]


def leaves():
    for command in ALL:
        yield from getattr(command, "commands", {command.name: command}).values()


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_parses_and_its_settings_are_known(line, monkeypatch):
    called = {}

    def record(name):
        def callback(**parameters):
            called[name] = parameters

        return callback

    for command in leaves():
        monkeypatch.setattr(command, "callback", record(command.name))
    # With --gpus the command is started several times without it: here once.
    monkeypatch.setattr(parallel, "gpu_count", lambda: 8)
    monkeypatch.setattr(parallel, "launch", lambda words, count, one_job: main(words, standalone_mode=False))
    words = shlex.split(line)[1:]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0 and not isinstance(result.exception, Exception), result.output
    assert words == ["--help"] or len(called) == 1


def test_there_is_a_command_of_each_kind():
    named = {shlex.split(line)[1] for line in COMMANDS}
    assert named >= {command.name for command in ALL} - {"demo"}


def test_the_settings_that_are_shown_are_settings(tmp_path):
    blocks = re.findall(r"```yaml\n(.*?)```", TEXT, flags=re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        (tmp_path / "x.yaml").write_text(block)
        assert load_config(str(tmp_path / "x.yaml")) != load_config(None)


def test_python_examples_name_what_exists():
    for module, name in re.findall(r"^from (fercache[\w.]*) import (\w+)", TEXT, flags=re.MULTILINE):
        assert hasattr(__import__(module, fromlist=[name]), name)


def test_the_cache_opens_with_h5py_alone(tmp_path):
    (lines,) = re.findall(r"```python\n(import h5py\n.*?)```", TEXT, flags=re.DOTALL)
    assert len([line for line in lines.splitlines() if line]) == 3
    made_by = Provenance("w", None, None, "resnet50-vggface2", {}, "fp32", "float16")
    path, number = tmp_path / "cache" / "video1.h5", np.array([2, 3])
    part = Part(np.arange(2), np.ones((2, 2048), np.float16), None)
    write_video(path, made_by, Shape(2048, "float16", None), number, np.ones(2, bool), [part])
    lines += "\nprint(frame.tolist(), embedding.shape, embedding.dtype)"
    answer = subprocess.run([sys.executable, "-c", lines], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert answer.stdout == "[2, 3] (2, 2048) float16\n"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_files_that_are_named_exist(page):
    for target in re.findall(r"\]\(([^)#]+)\)", PAGES[page]):
        assert (page.parent / target).exists(), target


def test_the_environment_variable_of_slurm_is_the_one_that_is_read():
    assert (
        "SLURM_CPUS_PER_TASK" in TEXT
        and "SLURM_CPUS_PER_TASK" in (ROOT / "fercache" / "runtime" / "machine.py").read_text()
    )


@pytest.mark.slow
def test_the_small_set_on_real_faces(realfaces, tmp_path):
    block = re.search(r"<!-- small set.*?-->\n```console\n(.*?)```", TEXT, flags=re.DOTALL)[1]
    environment = {**os.environ, "ROOT": str(realfaces), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    answer = subprocess.run(
        ["bash", "-euxc", block], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    print(answer.stdout)
    lengths = {path.stem: len(read_annotation(path, TASKS["expr"])) for path in (tmp_path / "submission").glob("*.txt")}
    labels = (realfaces / "annotations" / "EXPR_Set" / "Validation_Set").glob("*.txt")
    assert lengths == {path.stem: len(read_annotation(path, TASKS["expr"])) for path in labels}
    assert lengths["face_noface"] == 169
    # Always saying the commoner class gives .52; a network that learned nothing would not be told from it.
    accuracy = re.search(r"^cnn +\S+ +(\S+)", answer.stdout, flags=re.MULTILINE)[1]
    assert float(accuracy) > 0.55
