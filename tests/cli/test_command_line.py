"""What the command line promises: help without torch, clear problems, exit statuses."""

from __future__ import annotations

import os
import pickle
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from fercache.cache.predictions import Predictions, VideoPredictions, write_predictions
from fercache.cli import main
from fercache.cli.commands import ALL
from fercache.tasks import TASKS

TINY = ["--set", "image_size=48", "--set", "epochs=1", "--set", "batch_size=8", "--set", "workers=0"]


def leaves(command=main, words=()):
    """Every command without subcommands, by its words."""
    for name, inner in getattr(command, "commands", {}).items():
        yield from leaves(inner, (*words, name))
    if not hasattr(command, "commands"):
        yield words, command


def test_help_needs_no_torch():
    commands = [(), *((command.name,) for command in ALL), *(words for words, _ in leaves())]
    code = (
        "import sys; from fercache.cli import main\n"
        f"for words in {commands!r}:\n"
        "    try: main([*words, '--help'])\n"
        "    except SystemExit as stop: assert not stop.code, words\n"
        "    slow = {'torch', 'numpy', 'h5py', 'sklearn', 'PIL'} & set(sys.modules)\n"
        "    assert not slow, (words, slow)"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.count("Usage:") == answer.stdout.count("--help") == len(commands)


def test_every_command_takes_a_config_and_settings():
    assert len(ALL) >= 9
    for words, command in leaves():
        if words != ("config", "explain"):
            assert {"config", "sets"} <= {parameter.name for parameter in command.params}, words


def run(*words) -> tuple[int, str]:
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def refused(*words) -> str:
    """The message of a command that must end with exit status 1 and without a traceback."""
    status, output = run(*words)
    assert status == 1, output
    assert "Error: " in output and "Traceback" not in output
    return output


@pytest.fixture
def manifest(small_root, tmp_path) -> Path:
    path = tmp_path / "m.csv"
    assert run("manifest", "affwild2", small_root, "--task", "expr", "-o", path)[0] == 0
    return path


def finetune(manifest, *words):
    return ["finetune", "--manifest", manifest, "--out", manifest.parent / "run", *TINY, *words]


def extract(manifest, cache, *words):
    return ["extract", "--manifest", manifest, "--weights", "none", "--cache", cache, *words]


def test_missing_folders_and_label_files_are_named(manifest, small_root):
    (small_root / "annotations" / "EXPR_Set" / "Train_Set" / "a.txt").unlink()
    (small_root / "cropped_aligned" / "v").rename(small_root / "elsewhere")
    output = refused(*finetune(manifest))
    assert re.search(r"line 6: video a: the label file .*a\.txt does not exist", output)
    assert re.search(r"video v: the frames folder .*v does not exist", output)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Neutral,Happy\n0\n", "line 1: the header is 'Neutral,Happy'"),
        ("{}\n0\nx\n", "line 3: found 'x', expected an integer from -1 to 6"),
        ("{}\n8\n", "line 2: found 8, expected an integer from -1 to 6"),
    ],
)
def test_bad_label_files_are_named(manifest, small_root, tmp_path, text, words):
    path = small_root / "annotations" / "EXPR_Set" / "Train_Set" / "a.txt"
    path.write_text(text.format(TASKS["expr"].header))
    for command in (
        finetune(manifest),
        ["manifest", "affwild2", small_root, "--task", "expr", "-o", tmp_path / "new.csv"],
    ):
        output = refused(*command)
        assert words in output and str(path) in output
    assert not (tmp_path / "new.csv").exists() and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [("half", "is not a whole image"), (b"", "is empty"), (b"no image at all", "is not an image")],
)
def test_bad_images_are_named(manifest, small_root, tmp_path, content, words):
    path = small_root / "cropped_aligned" / "a" / "00003.jpg"
    path.write_bytes(path.read_bytes()[:400] if content == "half" else content)
    for command in (
        finetune(manifest),
        extract(manifest, tmp_path / "cache", "--set", "image_size=48"),
    ):
        output = refused(*command)
        assert words in output and str(path) in output
    assert sorted(p.name for p in (tmp_path / "cache").glob("*.h5")) == ["b_left.h5", "t.h5", "v.h5"]


def test_an_empty_frames_folder_is_named(manifest, small_root, tmp_path):
    for image in (small_root / "cropped_aligned" / "a").iterdir():
        image.unlink()
    assert "video a: found no frame from 1 to 12" in refused(*finetune(manifest))
    assert "is empty, expected frames" in refused("manifest", "affwild2", small_root, "--task", "expr", "-o", "x.csv")


def test_bad_settings_are_named(manifest, tmp_path):
    assert "unknown key 'epcohs'; the keys are epochs" in refused(*finetune(manifest, "--set", "epcohs=3"))
    assert "found 'three', expected a whole number" in refused(*finetune(manifest, "--set", "epochs=three"))
    config = tmp_path / "c.yaml"
    config.write_text("finetune: {lr: quick}\nextract: {workers: 1.5}\nsmile: 1\n")
    output = refused(*finetune(manifest, "-c", config))
    assert len(output.strip().splitlines()) == 3 and str(config) in output
    assert "extract.workers: found 1.5, expected a whole number" in output


def test_what_is_missing_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "--manifest is missing" in refused("finetune")
    assert "--out is missing" in refused("finetune", "--manifest", "m.csv")
    assert "--head is missing" in refused("train-temporal", "--manifest", "m.csv", "--cache", "c", "--out", "x")
    assert "--task is missing" in refused("manifest", "affwild2", ".", "-o", "m.csv")
    output = refused("ensemble", "--search", "--manifest", "m.csv", "--set", "out=.")
    assert output.count("is missing: `fercache predict --model") == 3
    assert run("ensemble", "x.h5")[0] == 2 and run("smile")[0] == 2


class Evil:
    def __reduce__(self):
        return os.system, ("touch pwned",)


def test_bad_weights_are_named(manifest, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "w.pth"
    torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3)}, path)
    output = refused(*finetune(manifest, "--weights", path))
    assert "its 1 keys (features.0.weight) are those of no known format" in output
    torch.save({"conv1_7x7_s2.weight": torch.zeros(64, 3, 7, 7), "extra": torch.zeros(1)}, path)
    output = refused(*finetune(manifest, "--weights", path))
    assert "266 tensors are missing for resnet50-vggface2" in output and "1 tensors are too many" in output
    path.write_bytes(path.read_bytes()[:300])
    assert "is damaged or cut off" in refused(*finetune(manifest, "--weights", path))
    path.write_bytes(pickle.dumps(Evil(), protocol=2))
    assert "was not opened" in refused(*finetune(manifest, "--weights", path))
    assert "no such file" in refused(*finetune(manifest, "--weights", "imagenet.pth"))
    assert not (tmp_path / "pwned").exists() and not (tmp_path / "run").exists()


def test_checkpoints_that_do_not_fit_are_named(manifest, tmp_path):
    assert run(*finetune(manifest))[0] == 0
    best = tmp_path / "run" / "best.pt"
    whole = torch.load(best, weights_only=True)
    for change, words in (
        (
            lambda c: c["model"].pop("classifier.bias"),
            "missing for resnet50-vggface2: classifier.bias",
        ),
        (lambda c: c["model"].update(extra=torch.zeros(1)), "too many for resnet50-vggface2: extra"),
        (lambda c: c["model"]["classifier.bias"].fill_(float("nan")), "classifier.bias: holds numbers that are not"),
        (lambda c: c.pop("task"), "is damaged: it has no 'task'"),
    ):
        changed = {**whole, "model": {name: tensor.clone() for name, tensor in whole["model"].items()}}
        change(changed)
        torch.save(changed, best)
        output = refused("extract", "--manifest", manifest, "--weights", tmp_path / "run", "--cache", tmp_path / "c")
        assert words in output and not (tmp_path / "c").exists()


@pytest.mark.parametrize("video_id", ["../a", "x/y"])
def test_a_video_id_never_leaves_its_folder(manifest, tmp_path, video_id):
    text = manifest.read_text().replace("\na,train", f"\n{video_id},train")
    manifest.write_text(text)
    for command in (
        finetune(manifest),
        extract(manifest, tmp_path / "c"),
    ):
        assert f"line 6: video_id '{video_id}': expected a plain name" in refused(*command)


def predictions(path, task="expr", model="m", frames=(2, 3), video="v", split="validation"):
    classes = len(TASKS[task].classes)
    frame = np.array(frames)
    videos = {video: VideoPredictions(frame, np.zeros((len(frame), classes)))}
    write_predictions(path, Predictions(TASKS[task], split, model, "c", "best", np.full(classes, 0.1), videos))
    return path


def test_predictions_that_do_not_fit_are_named(manifest, tmp_path):
    a = predictions(tmp_path / "a.h5", model="a")
    au = predictions(tmp_path / "au.h5", "au", model="b")
    other = predictions(tmp_path / "other.h5", model="c", frames=(9, 10))
    unknown = predictions(tmp_path / "unknown.h5", model="d", video="x")
    search = ["ensemble", "--search", "--manifest", manifest, "--out", tmp_path / "e"]
    output = refused(*search, a, au)
    assert "of different tasks" in output and "au.h5 is of au" in output
    assert "have no frame in common" in refused(*search, a, other)
    assert "video x: is predicted, but not in the manifest" in refused("evaluate", "--manifest", manifest, unknown)
    assert "no such predictions file" in refused(*search, a, tmp_path / "none.h5")
    assert not (tmp_path / "e").exists()


def test_an_output_that_holds_another_run_is_named(manifest, tmp_path):
    assert run(*finetune(manifest))[0] == 0
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "run").iterdir()}
    output = refused(*finetune(manifest, "--set", "lr=0.5"))
    assert "contains a different run" in output and "lr: found 0.0005, expected 0.5" in output
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "run").iterdir()} == before


def test_paths_that_cannot_be_written_are_named(manifest, small_root, tmp_path):
    file = tmp_path / "file"
    file.touch()
    for words in (
        ["manifest", "affwild2", small_root, "--task", "expr", "-o", tmp_path],
        ["manifest", "affwild2", small_root, "--task", "expr", "-o", file / "m.csv"],
        ["finetune", "--manifest", manifest, "--out", file / "run", *TINY],
        extract(manifest, file),
        ["synth", file / "set", "--set", "train=1"],
        ["demo", "-o", file / "demo"],
    ):
        assert "is a file, expected a folder" in (output := refused(*words)) or "is a folder, expected" in output


def test_a_manifest_that_was_edited_is_not_overwritten(manifest, small_root):
    again = ["manifest", "affwild2", small_root, "--task", "expr", "-o", manifest]
    assert run(*again)[0] == 0
    manifest.write_text(manifest.read_text().replace("train", "validation", 1))
    assert "contains a different manifest" in refused(*again)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1"])
def test_a_signal_stops_with_status_75_and_the_same_command_goes_on(manifest, tmp_path, name):
    words = [str(word) for word in finetune(manifest, "--set", "epochs=1000", "--set", "workers=1")]
    process = subprocess.Popen(
        [sys.executable, "-m", "fercache", *words], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    metrics = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not metrics.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    # As terminals and schedulers do it: to the whole group, the loader's processes too.
    os.killpg(process.pid, getattr(signal, name))
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 75, errors
    assert f"Stopped by {name}" in errors and "Traceback" not in errors
    done = len(metrics.read_text().splitlines())
    assert done >= 1 and torch.load(tmp_path / "run" / "last.pt", weights_only=True)["history"][-1]["epoch"] == done
