"""The commands and examples of the README and of `docs/`: all are parsed or run, some of them on real faces."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner

from fercache.cache.provenance import Provenance
from fercache.cache.rows import Part, Shape
from fercache.cache.writer import write_video
from fercache.cli import main, parallel
from fercache.cli.commands import ALL
from fercache.config import load_config
from fercache.data.annotations import read_annotation
from fercache.models.backbones import BACKBONES, get_backbone
from fercache.models.heads import get_head
from fercache.tasks import TASKS

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
FILES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in FILES}
GENERATED = {DOCS / "reference" / "settings.md"}
"""Pages that are made when the site is built."""


def blocks(language: str, before: str = "") -> list[str]:
    """The blocks of code in all pages, or those behind a comment that begins with certain words."""
    comment = rf"<!-- {before}[^>]*-->\n" if before else ""
    pattern = rf"^{comment}```{language}\n(.*?)```"
    return [block for text in PAGES.values() for block in re.findall(pattern, text, flags=re.DOTALL | re.MULTILINE)]


LINES = [line for block in blocks("console") for line in block.splitlines()]
TYPED = [re.sub(r"^(torchrun|srun) .* -m fercache ", "fercache ", line) for line in LINES]
COMMANDS = [line for line in TYPED if line.startswith("fercache ")]
OTHERS = [line for line in TYPED if not line.startswith("fercache ")]
TRAINED = "in the folder of the small set"
"""Comment above a Python example that needs trained networks."""
TO_CHECK = "<!-- CHECK"
"""Comment in a line that names a file which is not written yet."""


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


@pytest.mark.parametrize("line", sorted(set(OTHERS)))
def test_every_other_command_is_of_this_project(line):
    words = shlex.split(line)
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    elif words[0] == ".venv/bin/python":
        assert (ROOT / words[1]).exists()
    else:
        known = ("python3 -m venv .venv", ". .venv/bin/activate", 'pip install -e ".[openvino]"')
        assert line in known


def test_ci_runs_the_test_command_of_the_readme():
    assert "make test" in OTHERS and "\nmake test\n" in (ROOT / ".ci" / "run").read_text()


def test_the_readme_is_short():
    assert len(PAGES["README.md"].split()) <= 1500


def test_the_settings_that_are_shown_are_settings(tmp_path):
    examples = blocks("yaml")
    assert len(examples) == 4
    for block in examples:
        (tmp_path / "x.yaml").write_text(block)
        assert load_config(str(tmp_path / "x.yaml")) != load_config(None)


def test_each_page_of_the_site_is_in_its_navigation():
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    (nav,) = re.findall(r"^nav:\n.*", text, flags=re.DOTALL | re.MULTILINE)
    named = set(re.findall(r": ([\w/-]+\.md)$", nav, flags=re.MULTILINE))
    pages = {path.relative_to(DOCS).as_posix() for path in (*DOCS.rglob("*.md"), *GENERATED)}
    results = {f"measured/{path.name}" for path in (ROOT / "benchmarks" / "results").glob("*.md")}
    assert named == pages | results


@pytest.mark.parametrize("page", PAGES)
def test_files_that_are_named_exist(page):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", PAGES[page]):
        path = (ROOT / page).parent / target
        assert target.startswith("https://") or path.exists() or path.resolve() in GENERATED, target


@pytest.mark.parametrize("page", PAGES)
def test_headings_that_are_linked_exist(page):
    for target, anchor in re.findall(r"\]\(([^)#]*)#([^)]+)\)", PAGES[page]):
        path = ((ROOT / page).parent / target).resolve() if target else ROOT / page
        headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        slugs = {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}
        assert anchor in slugs, f"{target}#{anchor}"


@pytest.mark.parametrize("page", PAGES)
def test_source_files_that_are_named_exist(page):
    for line in PAGES[page].splitlines():
        for name in re.findall(r"`((?:fercache|benchmarks|tests|docs)/[\w/.-]*)`", line):
            assert TO_CHECK in line or (ROOT / name).exists(), name


def test_the_environment_variable_of_slurm_is_the_one_that_is_read():
    read = (ROOT / "fercache" / "runtime" / "machine.py").read_text()
    assert "SLURM_CPUS_PER_TASK" in PAGES["docs/interruptions.md"] and "SLURM_CPUS_PER_TASK" in read


def parameters(module):
    return f"{sum(parameter.numel() for parameter in module.parameters()):,}"


def test_the_page_on_heads_counts_their_parameters():
    page = PAGES["docs/reference/heads.md"]
    with torch.device("meta"):
        heads = [parameters(get_head(name)(7)) for name in ("gru", "transformer", "linear")]
        backbones = [parameters(get_backbone(name).build()) for name in BACKBONES]
    assert [number for number in [*heads, *backbones] if number not in page] == []


def run_python(code, folder):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def test_the_cache_opens_with_h5py_alone(tmp_path):
    (lines,) = [block for block in blocks("python") if block.startswith("import h5py\n")]
    assert len([line for line in lines.splitlines() if line]) == 3
    made_by = Provenance("w", None, None, "resnet50-vggface2", {}, "fp32", "float16")
    path, number = tmp_path / "cache" / "video1.h5", np.array([2, 3])
    part = Part(np.arange(2), np.ones((2, 2048), np.float16), None)
    write_video(path, made_by, Shape(2048, "float16", None), number, np.ones(2, bool), [part])
    printed = run_python(lines + "\nprint(frame.tolist(), embedding.shape, embedding.dtype)", tmp_path)
    assert printed == "[2, 3] (2, 2048) float16\n"


ALONE = [
    block
    for block in blocks("python")
    if block not in blocks("python", TRAINED) and not block.startswith("import h5py\n")
]


@pytest.mark.parametrize("code", ALONE, ids=lambda code: code.split("\n", 1)[0])
def test_python_examples_run(code, tmp_path):
    run_python(code, tmp_path)


@pytest.mark.slow
def test_the_small_set_on_real_faces(realfaces, tmp_path):
    (block,) = blocks("console", "small set")
    answer = run_bash(block, realfaces, tmp_path)
    print(answer)
    lengths = {path.stem: len(read_annotation(path, TASKS["expr"])) for path in (tmp_path / "submission").glob("*.txt")}
    labels = (realfaces / "annotations" / "EXPR_Set" / "Validation_Set").glob("*.txt")
    assert lengths == {path.stem: len(read_annotation(path, TASKS["expr"])) for path in labels}
    assert lengths["face_noface"] == 169
    # Always saying the commoner class gives .52; a network that learned nothing would not be told from it.
    accuracy = re.search(r"^cnn +\S+ +(\S+)", answer, flags=re.MULTILINE)[1]
    assert float(accuracy) > 0.55
    for code in blocks("python", TRAINED):
        print(run_python(code, tmp_path))


@pytest.mark.slow
def test_the_six_commands_of_the_readme_on_real_faces(realfaces, tmp_path):
    (settings,) = re.findall(r"```yaml\n(.*?)```", PAGES["README.md"], flags=re.DOTALL)
    (block,) = blocks("console", "six commands")
    assert len(block.splitlines()) == 6
    values = yaml.safe_load(settings)
    values["finetune"]["epochs"] = values["train_temporal"]["epochs"] = 1
    values["finetune"]["milestones"] = []
    (tmp_path / "fercache.yaml").write_text(yaml.safe_dump(values))
    assert "gru-validation" in run_bash(block, realfaces, tmp_path)


def run_bash(commands, root, folder):
    """Run commands as they would be typed, with the data set in `root`; returns what they print."""
    environment = {**os.environ, "ROOT": str(root), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    return subprocess.run(
        ["bash", "-euxc", commands], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True
    ).stdout
