"""Fine-tuning: every kind of weights, stopping and going on, several ranks, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from support.frames import write_video
from support.runs import metrics, torchrun
from support.weight_files import bgr, dag_tensors, python2_pickle, torchvision_names, vggface_tensors

import fercache
from fercache.cli import main
from fercache.config import ExtractConfig, FinetuneConfig, load_config
from fercache.data.affwild2 import build_manifest
from fercache.data.labelled import labelled_frames
from fercache.data.manifest import read_manifest, write_manifest
from fercache.errors import ConfigError, DataError, RunError
from fercache.models.checkpoint import load_checkpoint
from fercache.models.weights import load_weights
from fercache.results.aligned import read_all, with_labels
from fercache.rundir import RunDir
from fercache.stages.extract import extract
from fercache.stages.finetune import finetune
from fercache.stages.predict import predict
from fercache.tasks import TASKS
from fercache.tools.weights import convert_weights

SMALL = FinetuneConfig(image_size=48, epochs=2, batch_size=5, lr=0.01, workers=0, precision="fp32")


def make_set(folder: Path, task="expr") -> Path:
    """21 training frames and 11 validation frames in two videos each: neither divides by two."""
    rng = np.random.default_rng(0)
    shape = {"expr": (), "au": (12,)}[task]
    classes = {"expr": 7, "au": 2}[task]
    for name, count, split in (("a", 12, "Train"), ("b", 9, "Train"), ("v", 6, "Validation"), ("w", 5, "Validation")):
        labels = rng.integers(0, classes, (count, *shape))
        if task == "au":
            labels[::3, ::2] = -1
        write_video(folder / "set", name, range(1, count + 1), labels, f"{split}_Set", task)
    manifest, _ = build_manifest(folder / "set", TASKS[task])
    write_manifest(folder / f"{task}.csv", manifest)
    return folder / f"{task}.csv"


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return make_set(tmp_path_factory.mktemp("expr"))


@pytest.fixture(scope="module")
def run(manifest, tmp_path_factory):
    return finetune(manifest, tmp_path_factory.mktemp("run") / "cnn", SMALL)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    plain = torchvision_names(dag_tensors(people=5))
    torch.save(dag_tensors(people=5), folder / "resnet50_ft_dag.pth")
    (folder / "resnet50_ft_weight.pkl").write_bytes(python2_pickle(bgr(plain)))
    torch.save(plain, folder / "resnet50-0676ba61.pth")
    torch.save(vggface_tensors(people=5), folder / "vgg_face_dag.pth")
    return folder


def model(folder):
    return load_checkpoint(folder / "last.pt")["model"]


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("name", "options", "architecture", "size"),
    [
        ("resnet50_ft_dag.pth", [], "resnet50-vggface2", 48),
        ("imagenet", [], "resnet50-imagenet", 48),
        slow("resnet50_ft_weight.pkl", ["--arch", "resnet50"], "resnet50-vggface2", 48),
        slow("resnet50-0676ba61.pth", ["--format", "torchvision-imagenet"], "resnet50-imagenet", 48),
        slow("none", ["--arch", "resnet50"], "resnet50-vggface2", 48),
        slow("vgg_face_dag.pth", ["--arch", "vggface"], "vggface", 224),
    ],
)
def test_every_row_of_the_paper_is_one_command(files, tmp_path, monkeypatch, name, options, architecture, size):
    """The shipped recipe with files in the real formats, for a step, then on to embeddings and predictions."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    (tmp_path / "torch" / "hub" / "checkpoints").mkdir(parents=True)
    shutil.copy(files / "resnet50-0676ba61.pth", tmp_path / "torch" / "hub" / "checkpoints")
    write_video(tmp_path / "set", "a", range(1, 5), [0, 1, 2, 3])
    write_video(tmp_path / "set", "v", range(1, 3), [0, 1], "Validation_Set")
    source = name if name in ("imagenet", "none") else str(files / name)
    common = ["-c", "abaw2021_expr", "--manifest", str(tmp_path / "m.csv")]
    few = ("epochs=1", "batch_size=4", f"image_size={size}", "workers=0")
    cnn, cache = str(tmp_path / "cnn"), str(tmp_path / "cache")
    for words in (
        ["manifest", "affwild2", str(tmp_path / "set"), "--task", "expr", "-o", str(tmp_path / "m.csv")],
        ["finetune", *common, "--weights", source, *options, "--out", cnn, *(w for s in few for w in ("--set", s))],
        ["extract", *common, "--weights", cnn, "--cache", cache, "--batch-size", "2", "--set", "workers=0"],
        ["predict", *common, "--model", cnn, "--cache", cache, "-o", str(tmp_path / "p.h5")],
    ):
        result = CliRunner().invoke(main, words)
        assert result.exit_code == 0, (words, result.output)
    tuned = load_weights(str(tmp_path / "cnn"))
    assert (tuned.backbone.name, tuned.task) == (architecture, "expr")
    assert tuned.preprocessing.image_size == size
    dim = json.loads((tmp_path / "cache" / "provenance.json").read_text())["fields"]
    assert dim["architecture"] == architecture and len(metrics(tmp_path / "cnn")) == 1


def test_the_validation_score_is_that_of_the_cached_logits(manifest, run, tmp_path):
    """Every validation frame once: the run's own score comes out again by extract, predict and evaluate."""
    cache = extract(manifest, str(run), tmp_path / "cache", ExtractConfig(precision="fp32", batch_size=64, workers=0))
    predictions = read_all([predict(manifest, run, cache, tmp_path / "p.h5")])
    data = read_manifest(manifest)
    outputs = with_labels(predictions, data).outputs
    scores = data.task.score(data.task.decide(outputs.probability()[0]), outputs.labels)
    assert scores.frames == 11
    best = max(metrics(run), key=lambda line: line["score"])
    assert (best["score"], best["f1"], best["accuracy"]) == (scores.score, scores.f1, scores.accuracy)


def command(manifest, out, *words):
    settings = {**vars(SMALL), "epochs": 2}
    pairs = [f"{key}={settings[key]}" for key in ("image_size", "epochs", "batch_size", "lr", "workers", "precision")]
    sets = [word for text in (*pairs, *words) for word in ("--set", text)]
    return ["finetune", "--manifest", str(manifest), "--out", str(out), *sets]


def test_two_ranks_train_one_network_and_score_as_one_does(manifest, tmp_path):
    answer = torchrun(2, "-m", "fercache", *command(manifest, tmp_path / "two", "threads=1"))
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.count(str(tmp_path / "two")) == 1 and answer.stderr.count("epoch 2 of 2") == 1
    assert "over 2 ranks" in answer.stderr
    # Two epochs from random numbers may leave embeddings that float16 cannot hold.
    exact = ExtractConfig(precision="fp32", dtype="float32", workers=0)
    cache = extract(manifest, str(tmp_path / "two"), tmp_path / "c", exact, threads=1)
    data = read_manifest(manifest)
    outputs = with_labels(read_all([predict(manifest, tmp_path / "two", cache, tmp_path / "p.h5")]), data).outputs
    scores = data.task.score(data.task.decide(outputs.probability()[0]), outputs.labels)
    best = max(metrics(tmp_path / "two"), key=lambda line: line["score"])
    assert (best["score"], best["f1"], best["accuracy"]) == (scores.score, scores.f1, scores.accuracy)


def test_too_few_frames_for_the_ranks_are_refused_by_all(manifest, tmp_path):
    answer = torchrun(2, "-m", "fercache", *command(manifest, tmp_path / "run", "batch_size=1"))
    assert answer.returncode != 0 and not (tmp_path / "run").exists()
    for rank in (0, 1):
        assert f"[rank {rank}] Error: batch_size: found 1: 21 samples in 21 steps are too few" in answer.stderr
    assert f"{Path(fercache.__file__).parent}/" not in answer.stderr  # no traceback of ours


@pytest.mark.parametrize("number", [signal.SIGKILL, slow(signal.SIGTERM)])
def test_a_run_that_was_stopped_within_an_epoch_ends_with_the_same_bits(manifest, tmp_path, number):
    """A real process, really stopped: `kill -9` goes on from the last save, TERM from the very step."""
    words = command(manifest, tmp_path / "stopped", "workers=1", "batch_size=3")
    process = subprocess.Popen(
        [sys.executable, "-m", "fercache", *words, "--set", "save_minutes=0.005"],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    last, saves, deadline = tmp_path / "stopped" / "last.pt", set(), time.monotonic() + 120
    while time.monotonic() < deadline and len(saves) < 2:  # not the first one, at the latest after the first step
        if last.exists():
            saves.add(last.stat().st_ino)
        time.sleep(0.01)
    os.killpg(process.pid, number)  # as schedulers do it: to the loader's processes too
    _, errors = process.communicate(timeout=60)
    assert process.returncode == (75 if number == signal.SIGTERM else -number), errors
    assert "Traceback" not in errors
    stopped = load_checkpoint(last)
    done, step = len(stopped["history"]), stopped["place"]["step"]
    assert done < 2
    again = subprocess.run([sys.executable, "-m", "fercache", *words], capture_output=True, text=True)
    assert again.returncode == 0 and f"resuming after epoch {done} of 2" in again.stderr
    assert not step or f"and step {step} of 7 of the next" in again.stderr
    whole = finetune(manifest, tmp_path / "whole", replace(SMALL, batch_size=3))
    resumed = model(tmp_path / "stopped")
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in model(whole).items())
    assert metrics(tmp_path / "stopped") == metrics(whole)


def test_every_nth_frame_of_each_video_is_trained_on_and_all_are_validated(manifest):
    data = read_manifest(manifest)
    all_frames, some = labelled_frames(data, 1), labelled_frames(data, 5)
    names = [f"{Path(path).parent.name}/{int(Path(path).stem)}" for path in some["train"].paths]
    assert names == ["a/1", "a/6", "a/11", "b/1", "b/6"]
    assert some["validation"].paths == all_frames["validation"].paths
    places = [all_frames["train"].paths.index(path) for path in some["train"].paths]
    assert torch.equal(some["train"].labels, all_frames["train"].labels[places])


def test_a_loss_that_is_not_finite_names_the_frames(manifest, tmp_path):
    with pytest.raises(RunError, match="epoch 1: the loss of step") as caught:
        finetune(manifest, tmp_path / "cnn", replace(SMALL, lr=1e20))
    paths = str(caught.value).splitlines()[1:]
    assert 4 <= len(paths) <= 5 and all(Path(path).exists() for path in paths)
    assert not (tmp_path / "cnn" / "last.pt").exists()


def test_a_network_that_the_last_step_ruined_is_not_kept(manifest, tmp_path):
    """The only step's loss is finite, its update is not."""
    with pytest.raises(RunError, match="no finite numbers for 11 of 11 validation frames") as caught:
        finetune(manifest, tmp_path / "cnn", replace(SMALL, epochs=1, batch_size=21, lr=1e30))
    assert str(caught.value).count(".jpg") == 11 and not (tmp_path / "cnn" / "best.pt").exists()


@pytest.mark.parametrize(
    "settings",
    [
        {"class_balance": 0.99},
        {"label_smoothing": 0.1},
        {"clip_norm": 1.0},
        {"schedule": "cosine"},
        {"optimizer": "adamw"},
        {"warmup": 0.5},
        {"precision": "bf16"},
        {"every_nth_frame": 2},
        {"crop_scale": (1.0, 1.0)},
        {"flip": False},
        {"zero_init_residual": True},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_every_setting_is_recorded_and_changes_the_training(manifest, run, tmp_path, settings):
    out = finetune(manifest, tmp_path / "cnn", replace(SMALL, epochs=1, **settings))
    recorded = RunDir(out).recorded()
    for key, value in settings.items():
        assert recorded[key] == (list(value) if isinstance(value, tuple) else value)
    assert metrics(out)[0]["loss"] != metrics(run)[0]["loss"]


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.slow
def test_a_compiled_network_learns_the_same(manifest, tmp_path):
    # A small rate, since training lets rounding grow: the first step's logits differ by 5e-5.
    gentle = replace(SMALL, epochs=1, lr=1e-5)
    eager = finetune(manifest, tmp_path / "eager", gentle)
    compiled = finetune(manifest, tmp_path / "compiled", replace(gentle, compile=True))
    assert sorted(model(compiled)) == sorted(model(eager))
    assert metrics(compiled)[0]["loss"] == pytest.approx(metrics(eager)[0]["loss"], rel=0.02)


def test_compiling_without_a_compiler_is_refused(manifest, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(ConfigError, match=r"compile: needs a C\+\+ compiler"):
        finetune(manifest, tmp_path / "cnn", replace(SMALL, compile=True))


def test_action_units_with_their_own_config(tmp_path):
    manifest = make_set(tmp_path, "au")
    words = ["finetune", "-c", "abaw2021_au", "--manifest", str(manifest), "--weights", "none"]
    sets = ("image_size=48", "epochs=1", "batch_size=5", "positive_weights=true", "workers=0")
    words += ["--out", str(tmp_path / "cnn"), *(word for text in sets for word in ("--set", text))]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    assert load_weights(str(tmp_path / "cnn")).task == "au"
    config = load_config("abaw2021_au")
    assert (config.task, config.finetune.lr, config.finetune.batch_size) == ("au", 1e-4, 48)


def refused(words) -> str:
    result = CliRunner().invoke(main, list(map(str, words)))
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit), result.output
    return result.output


def test_a_checkpoint_of_another_task_is_refused_and_its_backbone_is_not(run, tmp_path):
    manifest = make_set(tmp_path, "au")
    words = command(manifest, tmp_path / "cnn", "epochs=1")
    output = refused([*words, "--weights", run])
    assert "is a network of task expr, and this is task au; `fercache weights convert" in output
    convert_weights(run, tmp_path / "backbone.pt")
    result = CliRunner().invoke(main, [*words, "--weights", str(tmp_path / "backbone.pt")])
    assert result.exit_code == 0, result.output


def test_a_checkpoint_of_another_number_of_classes_is_refused(manifest, run, tmp_path):
    content = torch.load(run / "best.pt")
    content["model"]["classifier.weight"] = torch.zeros(8, 2048)
    content["model"]["classifier.bias"] = torch.zeros(8)
    torch.save(content, tmp_path / "eight.pt")
    output = refused([*command(manifest, tmp_path / "cnn"), "--weights", tmp_path / "eight.pt"])
    assert "classifier.weight: found shape (8, 2048), expected (7, 2048)" in output
    assert "classifier.bias: found shape (8,), expected (7,)" in output and not (tmp_path / "cnn").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["batch_size=22"], "batch_size: found 22, but there are 21 training frames"),
        (["precision=fp16"], "precision: found fp16, which needs a GPU"),
        (["positive_weights=true"], "positive_weights: task expr has the loss"),
        (["warmup=2"], "finetune.warmup: found 2.0, expected at least 0 and below epochs"),
        (["arch=vggface"], "image_size: found 48, but vggface works at 224 alone"),
        (["label_smoothing=1", "clip_norm=0", "every_nth_frame=0"], "every_nth_frame: found 0, expected from 1 to"),
        (["label_smoothing=1", "clip_norm=0", "every_nth_frame=0"], "clip_norm: found 0.0, expected above 0"),
    ],
)
@pytest.mark.skipif(torch.cuda.is_available(), reason="fp16 is right on a GPU")
def test_settings_that_do_not_fit_are_refused(manifest, tmp_path, words, said):
    assert said in refused(command(manifest, tmp_path / "cnn", *words))
    assert not (tmp_path / "cnn").exists()


def test_a_run_of_another_config_is_refused_naming_what_differs(manifest, run):
    before = (run / "last.pt").read_bytes()
    output = refused(command(manifest, run, "lr=0.5", "label_smoothing=0.1"))
    assert "lr: found 0.01, expected 0.5" in output and "label_smoothing: found 0.0, expected 0.1" in output
    assert (run / "last.pt").read_bytes() == before


def test_an_empty_split_is_refused(tmp_path):
    write_video(tmp_path / "set", "a", range(1, 7), [0] * 6)
    write_video(tmp_path / "set", "v", range(1, 4), [-1, -1, -1], "Validation_Set")
    manifest, _ = build_manifest(tmp_path / "set", TASKS["expr"])
    write_manifest(tmp_path / "m.csv", manifest)
    with pytest.raises(DataError, match="split validation: the manifest has no labelled frame in it"):
        finetune(tmp_path / "m.csv", tmp_path / "cnn", SMALL)


def test_what_is_allowed_is_said(tmp_path, caplog):
    """Classes without a label, a video with labels alone, one with frames alone."""
    write_video(tmp_path / "set", "a", range(1, 7), [0, 4] * 3)
    write_video(tmp_path / "set", "labels", [], [0, 4])
    write_video(tmp_path / "set", "frames", range(1, 4))
    write_video(tmp_path / "set", "v", range(1, 4), [0, 4, 4], "Validation_Set")
    (tmp_path / "set" / "cropped_aligned" / "labels").rmdir()
    manifest, _ = build_manifest(tmp_path / "set", TASKS["expr"])
    write_manifest(tmp_path / "m.csv", manifest)
    text = (tmp_path / "m.csv").read_text().replace("frames,test", "frames,train")
    (tmp_path / "m.csv").write_text(text)
    finetune(tmp_path / "m.csv", tmp_path / "cnn", replace(SMALL, epochs=1))
    assert "train: 2 videos have no labelled frame that shows a face: frames, labels" in caplog.text
    assert "no training label of Anger, Disgust, Fear, Sadness, Surprise" in caplog.text


def test_weights_none_of_a_family_that_is_unknown(manifest, tmp_path):
    with pytest.raises(ConfigError, match="--arch: found 'alexnet'"):
        finetune(manifest, tmp_path / "cnn", replace(SMALL, arch="alexnet"))


def test_the_environment_of_a_run_says_its_ranks(run):
    environment = json.loads((run / "environment.json").read_text())
    assert environment["ranks"] == 1
    root = Path(__file__).parents[2]
    if (root / ".git").exists():
        commit = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True)
        assert environment["commit"] == commit.stdout.strip()
