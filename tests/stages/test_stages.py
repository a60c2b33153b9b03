"""The stages over a small data set: what passes between them, and the properties that must hold."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.frames import write_video

from fercache.cache.predictions import VideoPredictions, read_predictions, write_predictions
from fercache.cache.reader import Cache
from fercache.cache.rows import content_checksum
from fercache.config import EnsembleConfig, ExtractConfig, FinetuneConfig, PredictConfig, TrainTemporalConfig
from fercache.data.affwild2 import build_manifest
from fercache.data.annotations import read_annotation
from fercache.data.datasets import in_order
from fercache.data.loader import FrameLoader
from fercache.data.manifest import read_manifest, write_manifest
from fercache.errors import CacheError, ConfigError, DataError, RunError, WeightsError
from fercache.models.checkpoint import load_run
from fercache.models.preprocessing import prepare
from fercache.models.weights import load_weights
from fercache.results.ensemble_file import read_ensemble
from fercache.results.ensemble_words import describe_search
from fercache.results.export_formats import EXPORT_FORMATS, ExportFormat
from fercache.rundir import RunDir
from fercache.stages.ensemble import apply_ensemble, search_ensemble
from fercache.stages.evaluate import describe_evaluations, evaluate, evaluation_as_plain
from fercache.stages.export import export, fill
from fercache.stages.extract import extract
from fercache.stages.finetune import finetune
from fercache.stages.predict import predict
from fercache.stages.train_temporal import train_temporal
from fercache.tasks import TASKS

SMALL = FinetuneConfig(image_size=48, epochs=2, batch_size=8, lr=0.01, workers=0, precision="fp32")
HEADS = {
    name: TrainTemporalConfig(head=name, epochs=1, batch_size=4, precision="fp32") for name in ("gru", "transformer")
}
EXACT = ExtractConfig(backend="eager", precision="fp32", dtype="float32", batch_size=5, workers=0)
NO_FOLDS = EnsembleConfig(folds=0)


def make_manifest(folder: Path, task="expr") -> Path:
    manifest, _ = build_manifest(folder / "set", TASKS[task], allow_unlabelled=True)
    path = folder / f"{task}.csv"
    write_manifest(path, manifest)
    return path


class TrainedProject:
    """Two finished frame runs, a cache, two heads and the predictions of all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        root = folder / "set"
        write_video(root, "a", range(1, 13), [0] * 6 + [4] * 6)
        write_video(root, "b_left", range(1, 9), [1, 2, 3, 4, 5, 6, 0, -1])
        write_video(root, "v", [2, 3, 4, 9, 10], [0, 0, 4, 4, -1, 0, 0, 0, 4, 0, 4], "Validation_Set")
        write_video(root, "w", range(1, 7), [0, 1, 4, 0, 0, 4], "Validation_Set")
        write_video(root, "n", [], [0, 0, 0], "Validation_Set")
        (root / "cropped_aligned" / "n").rmdir()
        write_video(root, "t", range(1, 5))
        self.manifest = make_manifest(folder)
        self.cnn = finetune(self.manifest, folder / "cnn", SMALL)
        self.cache = extract(self.manifest, str(self.cnn), folder / "cache", EXACT)
        self.runs = {"cnn": self.cnn}
        for name, settings in HEADS.items():
            self.runs[name] = train_temporal(self.manifest, self.cache, folder / name, settings)
        self.predictions = {
            name: predict(self.manifest, run, self.cache, folder / f"{name}-validation.h5")
            for name, run in self.runs.items()
        }


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> TrainedProject:
    return TrainedProject(tmp_path_factory.mktemp("project"))


def network_logits(project, video_id):
    """The logits of the frame network on a video, computed here frame by frame."""
    weights = load_weights(str(project.cnn))
    network = weights.network(7).eval()
    (video,) = [v for v in read_manifest(project.manifest).videos if v.video_id == video_id]
    with torch.inference_mode():
        parts = [
            network(prepare(batch.frames, weights.preprocessing))
            for batch in FrameLoader(video.frames().paths, in_order(range(len(video.frames().paths)), 1), 0)
        ]
    return torch.cat(parts).numpy()


@pytest.mark.parametrize("video", ["v", "t"])
def test_cached_logits_are_the_networks(project, video):
    cached = Cache(project.cache).read(video)
    expected = network_logits(project, video)
    assert np.abs(cached.logits - expected).max() <= 1e-4 * np.abs(expected).max()
    assert cached.embedding.shape == (len(expected), 2048) and cached.embedding.min() >= 0


def test_the_cache_holds_every_video_and_its_gaps(project):
    cache = Cache(project.cache)
    frames = {v: cache.frame(v).tolist() for v in ("a", "v", "n", "t")}
    assert frames == {"a": list(range(1, 13)), "v": [2, 3, 4, 9, 10], "n": [], "t": [1, 2, 3, 4]}
    weights = load_weights(str(project.cnn))
    assert cache.provenance.weights == weights.backbone_digest and cache.provenance.dtype == "float32"


def test_a_frame_does_not_depend_on_its_neighbours_in_the_batch(project, tmp_path):
    """The same batch size, other videos around: the same bits."""
    text = project.manifest.read_text().splitlines(keepends=True)
    only = tmp_path / "only.csv"
    root = f"# root: {project.folder / 'set'}\n"
    only.write_text("".join([*text[:2], root, *text[3:5], *(line for line in text[5:] if line.startswith("v,"))]))
    extract(only, str(project.cnn), tmp_path / "cache", EXACT)
    alone, together = Cache(tmp_path / "cache").read("v"), Cache(project.cache).read("v")
    np.testing.assert_array_equal(alone.embedding, together.embedding)
    np.testing.assert_array_equal(alone.logits, together.logits)


def test_extract_makes_only_what_is_missing(project, tmp_path, caplog):
    cache = Cache(extract(project.manifest, str(project.cnn), tmp_path / "cache", EXACT))
    before = cache.file("a").stat().st_mtime_ns
    expected = cache.read("v")
    cache.file("v").unlink()
    extract(project.manifest, str(project.cnn), tmp_path / "cache", ExtractConfig(dtype="float32"))
    assert "batch_size" not in caplog.text
    assert cache.file("a").stat().st_mtime_ns == before
    np.testing.assert_array_equal(cache.read("v").embedding, expected.embedding)
    extract(project.manifest, str(project.cnn), tmp_path / "cache", ExtractConfig(dtype="float32", batch_size=9))
    assert "begun with batch_size 5, resuming with 9" in caplog.text


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (ExtractConfig(precision="bf16", dtype="float32"), "precision: found 'fp32', expected 'bf16'"),
        (ExtractConfig(precision="fp32", dtype="float16"), "dtype: found 'float32', expected 'float16'"),
    ],
)
def test_another_cache_is_refused_with_what_differs(project, settings, words):
    with pytest.raises(CacheError, match=words):
        extract(project.manifest, str(project.cnn), project.cache, settings)
    with pytest.raises(CacheError, match="weights: found"):
        extract(project.manifest, "none", project.cache, EXACT)


def test_a_cache_of_other_frames_under_the_same_id_is_refused(project, tmp_path):
    for video, count in (("a", 12), ("v", 7), ("w", 2)):
        write_video(tmp_path / "set", video, range(1, count + 1))
    with pytest.raises(CacheError) as caught:
        extract(make_manifest(tmp_path), str(project.cnn), project.cache, EXACT)
    lines = str(caught.value).splitlines()
    assert len(lines) == 2
    assert "v.h5: its 5 frames are not the 7" in lines[0] and "w.h5: its 6 frames are not the 2" in lines[1]


def test_a_folder_that_is_no_cache_is_refused(project, tmp_path):
    (tmp_path / "letter.txt").touch()
    with pytest.raises(
        CacheError,
        match=r"contains letter\.txt, expected a cache \(provenance\.json\) or an empty folder; choose another",
    ):
        extract(project.manifest, str(project.cnn), tmp_path, EXACT)


def test_a_fine_tuned_network_keeps_its_image_size(project, tmp_path):
    with pytest.raises(ConfigError, match="fine-tuned at 48"):
        extract(project.manifest, str(project.cnn), tmp_path / "c", ExtractConfig(image_size=64))


def test_raw_weights_take_another_size_and_cache_no_logits(project, tmp_path):
    settings = ExtractConfig(image_size=64, precision="fp32", batch_size=8, workers=0)
    cache = Cache(extract(project.manifest, "none", tmp_path / "c", settings))
    assert cache.read("t").logits is None and cache.read("t").embedding.dtype == np.float16
    assert cache.provenance.preprocessing["image_size"] == 64 and cache.provenance.classifier is None
    with pytest.raises(CacheError, match=r"was not extracted from .*weights: found"):
        predict(project.manifest, project.cnn, tmp_path / "c", tmp_path / "p.h5")
    with pytest.raises(CacheError, match=r"is not the cache that .* was trained on: .*dtype: found 'float16'"):
        predict(project.manifest, project.runs["gru"], tmp_path / "c", tmp_path / "p.h5")


def test_a_broken_frame_leaves_its_video_out_and_the_others_are_finished(project, tmp_path):
    for video in ("x", "y", "z"):
        write_video(tmp_path / "set", video, range(1, 8))
    (tmp_path / "set" / "cropped_aligned" / "y" / "00003.jpg").write_bytes(b"")
    (tmp_path / "set" / "cropped_aligned" / "y" / "00006.jpg").write_bytes(b"text")
    manifest = make_manifest(tmp_path)
    with pytest.raises(DataError) as caught:
        extract(manifest, str(project.cnn), tmp_path / "cache", EXACT)
    assert [line.split(":")[0] for line in str(caught.value).splitlines()] == ["y", "y"]
    cache = Cache(tmp_path / "cache")
    assert [cache.has(v) for v in ("x", "y", "z")] == [True, False, True]
    # The rows behind the video that was left out are still those of their own frames.
    pixels = np.stack([cache.read(v).embedding[0] for v in ("x", "z")])
    assert np.abs(pixels[0] - pixels[1]).max() > 0
    write_video(tmp_path / "set", "y", range(1, 8))
    extract(manifest, str(project.cnn), tmp_path / "cache", EXACT)
    assert cache.has("y")


def test_predictions_of_another_model_are_not_replaced(project, tmp_path):
    path = predict(project.manifest, project.cnn, project.cache, tmp_path / "p.h5")
    predict(project.manifest, project.cnn, project.cache, path)
    before = path.read_bytes()
    for call in (
        lambda: predict(project.manifest, project.runs["gru"], project.cache, path),
        lambda: predict(project.manifest, project.cnn, project.cache, path, PredictConfig(split="test")),
        lambda: predict(project.manifest, project.cnn, project.cache, project.manifest),
    ):
        with pytest.raises(CacheError):
            call()
    assert path.read_bytes() == before and project.manifest.read_text().startswith("# fercache-manifest")


def test_videos_that_were_not_predicted_count_as_missing(project, tmp_path, caplog):
    late = tmp_path / "late.csv"
    labels = tmp_path / "late.txt"
    labels.write_text(TASKS["expr"].header + "\n" + "0\n" * 29)
    text = project.manifest.read_text().replace("# root: set", f"# root: {project.folder / 'set'}")
    late.write_text(f"{text}late,validation,,{labels},29,late\n")
    evaluation = evaluate(late, [project.predictions["cnn"]])[0]
    assert (evaluation.scores.frames, evaluation.missing) == (11, 8 + 29)
    assert "not all predictions have: late" in caplog.text


def test_a_manifest_may_move_and_a_finished_run_is_still_the_same(project, tmp_path):
    moved = tmp_path / "moved.csv"
    moved.write_bytes(project.manifest.read_bytes())
    (tmp_path / "set").symlink_to(project.folder / "set")
    before = RunDir(project.cnn).last.stat().st_mtime_ns
    finetune(moved, project.cnn, FinetuneConfig(**{**SMALL.__dict__, "workers": 1}))
    assert RunDir(project.cnn).last.stat().st_mtime_ns == before


def test_predictions_of_the_frame_network_are_the_cached_logits(project):
    outputs = read_predictions(project.predictions["cnn"])
    assert set(outputs.videos) == {"v", "w", "n"} and outputs.split == "validation" and outputs.select == "best"
    np.testing.assert_array_equal(outputs.videos["v"].logits, Cache(project.cache).read("v").logits)
    # Training labels: 0 seven times, 4 seven times, and 1, 2, 3, 5, 6 once.
    np.testing.assert_allclose(outputs.train_prior, np.array([7, 1, 1, 1, 7, 1, 1]) / 19)


@pytest.mark.parametrize("name", sorted(HEADS))
def test_head_predictions_do_not_depend_on_the_batch(project, name, tmp_path):
    one = predict(project.manifest, project.runs[name], project.cache, tmp_path / "p.h5", PredictConfig(batch_size=1))
    found, expected = read_predictions(one), read_predictions(project.predictions[name])
    for video in ("v", "w"):
        assert found.videos[video].frame.tolist() == Cache(project.cache).frame(video).tolist()
        np.testing.assert_allclose(found.videos[video].logits, expected.videos[video].logits, rtol=1e-4, atol=1e-5)


def test_rows_of_outside_a_window_change_nothing(project, tmp_path):
    """Video v has a gap of four frames: frames 9 and 10 are out of the window of frame 2."""
    import h5py

    cache = Path(shutil.copytree(project.cache, tmp_path / "cache"))
    with h5py.File(cache / "v.h5", "a") as file:
        file["embedding"][3:] = 7.0
        file.attrs["checksum"] = content_checksum(file, Cache(cache).entry("v"))
    changed = read_predictions(predict(project.manifest, project.runs["gru"], cache, tmp_path / "p.h5")).videos["v"]
    before = read_predictions(project.predictions["gru"]).videos["v"]
    np.testing.assert_array_equal(changed.logits[:1], before.logits[:1])
    assert np.abs(changed.logits[3:] - before.logits[3:]).max() > 1e-4


def test_the_same_seed_gives_the_same_run(project, tmp_path):
    again = finetune(project.manifest, tmp_path / "cnn", SMALL)
    assert load_weights(str(again)).backbone_digest == load_weights(str(project.cnn)).backbone_digest
    other = finetune(project.manifest, tmp_path / "other", SMALL, seed=1)
    assert load_weights(str(other)).backbone_digest != load_weights(str(project.cnn)).backbone_digest


def test_a_finished_run_is_left_as_it_is(project):
    before = RunDir(project.cnn).last.stat().st_mtime_ns
    finetune(project.manifest, project.cnn, SMALL)
    assert RunDir(project.cnn).last.stat().st_mtime_ns == before


def test_an_output_that_holds_another_run_is_refused(project, tmp_path):
    with pytest.raises(RunError, match=r"contains a different run \(lr: found 0\.01, expected 0\.1\)"):
        finetune(project.manifest, project.cnn, FinetuneConfig(**{**SMALL.__dict__, "lr": 0.1}))
    with pytest.raises(RunError, match=r"contains a different run .*stage: found 'finetune'"):
        train_temporal(project.manifest, project.cache, project.cnn, HEADS["gru"])


def test_missing_videos_of_a_cache_are_all_named(project, tmp_path):
    import shutil

    cache = Path(shutil.copytree(project.cache, tmp_path / "cache"))
    (cache / "a.h5").unlink()
    (cache / "v.h5").unlink()
    with pytest.raises(CacheError) as caught:
        train_temporal(project.manifest, cache, tmp_path / "gru", HEADS["gru"])
    assert "video a is missing" in str(caught.value) and "video v is missing" in str(caught.value)
    assert not (tmp_path / "gru").exists()


def test_the_ensemble_and_its_file(project, tmp_path):
    paths = list(project.predictions.values())
    file = search_ensemble(project.manifest, paths, tmp_path / "e", EnsembleConfig(step=0.1, folds=2))
    content = json.loads(file.read_text())
    assert sum(content["weights"]) == pytest.approx(1) and len(content["models"]) == 3
    scores = content["in_sample"]
    assert scores["searched"]["score"] >= max(s["score"] for s in scores.values()) - 1e-9
    assert content["across_folds"].keys() == scores.keys() and len(content["folds"]) == 2
    text = describe_search(read_ensemble(file))
    assert "across folds" in text and "select: best" in text and "Against equal weights" in text
    fused = apply_ensemble(file, paths[::-1], tmp_path / "fused.h5")
    evaluation = evaluate(project.manifest, [fused])[0]
    assert evaluation.scores.score == pytest.approx(scores["searched"]["score"])
    found, parts = read_predictions(fused), [read_predictions(path) for path in paths]
    task = TASKS["expr"]
    by_hand = sum(w * task.probabilities(p.videos["w"].logits) for w, p in zip(content["weights"], parts, strict=True))
    np.testing.assert_allclose(task.probabilities(found.videos["w"].logits), by_hand, atol=1e-6)
    assert len(found.videos["n"].frame) == 0


def test_smoothing_and_temperatures_are_applied_as_they_were_chosen(project, tmp_path):
    paths = list(project.predictions.values())
    settings = EnsembleConfig(step=0.5, folds=0, smoothing=(3,), temperatures=True)
    file = search_ensemble(project.manifest, paths, tmp_path / "e", settings)
    content = json.loads(file.read_text())
    assert content["half_width"] == 3 and content["temperatures"] != [1, 1, 1] and content["across_folds"] == {}
    assert "smoothed over 3 frames" in describe_search(read_ensemble(file)) and "No folds" in describe_search(
        read_ensemble(file)
    )
    evaluation = evaluate(project.manifest, [apply_ensemble(file, paths, tmp_path / "f.h5")])[0]
    assert evaluation.scores.score == pytest.approx(content["in_sample"]["searched"]["score"])


def test_an_ensemble_works_on_another_split(project, tmp_path):
    pair = [project.predictions["cnn"], project.predictions["gru"]]
    file = search_ensemble(project.manifest, pair, tmp_path / "e", NO_FOLDS)
    settings = PredictConfig(split="test")
    test = [
        predict(project.manifest, project.runs[name], project.cache, tmp_path / f"{name}.h5", settings)
        for name in ("cnn", "gru")
    ]
    assert list(read_predictions(apply_ensemble(file, test, tmp_path / "t.h5")).videos) == ["t"]
    with pytest.raises(DataError, match="different splits"):
        apply_ensemble(file, [pair[0], test[1]], tmp_path / "t.h5")


def test_what_an_ensemble_refuses(project, tmp_path):
    cnn, gru, transformer = project.predictions.values()
    file = search_ensemble(project.manifest, [cnn, gru], tmp_path / "e", NO_FOLDS)
    for call, words in (
        (lambda: search_ensemble(project.manifest, [cnn], tmp_path / "x"), "two or more"),
        (lambda: search_ensemble(project.manifest, [cnn, cnn], tmp_path / "x"), "same model is given more than once"),
        (lambda: apply_ensemble(file, [cnn, transformer], tmp_path / "x.h5"), "was searched over other models"),
        (
            lambda: search_ensemble(project.manifest, [cnn, gru], tmp_path / "e", EnsembleConfig(step=0.1)),
            "holds an ensemble of other settings;",
        ),
        (lambda: export(project.manifest, cnn, tmp_path / "x", "json"), "found 'json', expected one of abaw2021, csv"),
        (
            lambda: search_ensemble(project.manifest, [cnn, transformer], tmp_path / "e"),
            "ensemble of other settings, models;",
        ),
    ):
        with pytest.raises((ConfigError, DataError, RunError), match=words):
            call()


def test_recordings_too_few_for_the_folds_make_fewer_and_it_is_said(project, tmp_path):
    files = [project.predictions[name] for name in ("cnn", "gru")]
    content = json.loads(search_ensemble(project.manifest, files, tmp_path / "e").read_text())
    assert len(content["folds"]) == 2 and content["settings"]["folds"] == 5
    assert "The recordings suffice for 2 folds, not for 5." in content["notes"]
    assert any(note.startswith("95 %: jackknife over 2 recordings") for note in content["notes"])


@pytest.mark.parametrize("change", [("weights", [0.4, 0.6]), ("notes", []), ("half_width", 3)])
def test_an_ensemble_file_that_was_changed_is_refused(project, tmp_path, change):
    file = search_ensemble(project.manifest, [project.predictions[n] for n in ("cnn", "gru")], tmp_path / "e", NO_FOLDS)
    content = json.loads(file.read_text())
    content[change[0]] = change[1]
    file.write_text(json.dumps(content))
    with pytest.raises(DataError, match="was changed or damaged since the search wrote it; remove it and search again"):
        read_ensemble(file)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: next(iter(state["model"].values())).fill_(float("nan")), "holds numbers that are not finite"),
        (lambda state: state.update(window=10**9 + 1), "'window' is 1000000001, expected an odd number from 1 to 9999"),
        (lambda state: state.update(window=8), "'window' is 8, expected an odd number"),
        (
            lambda state: state.update(embedding_dim=10**12),
            "'embedding_dim' is 1000000000000, expected a number",
        ),
        (
            lambda state: state.update(train_prior=[float("nan")] * 7),
            "'train_prior' is list, expected a list of",
        ),
        (lambda state: state.update(provenance={"x": 1}), "is damaged: its record of the cache"),
        (lambda state: state.update(head=["gru"]), "'head' is list, expected text"),
    ],
)
def test_a_head_whose_file_claims_what_cannot_be_is_refused(project, tmp_path, change, words):
    run = Path(shutil.copytree(project.runs["gru"], tmp_path / "gru"))
    state = torch.load(run / "best.pt", weights_only=True)
    change(state)
    torch.save(state, run / "best.pt")
    with pytest.raises(WeightsError, match=words):
        predict(project.manifest, run, project.cache, tmp_path / "p.h5")


def test_a_checkpoint_with_a_changed_byte_is_refused(project, tmp_path):
    path = tmp_path / "best.pt"
    data = bytearray((project.runs["gru"] / "best.pt").read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(WeightsError, match=r"best\.pt: is damaged: its part .* has another checksum"):
        load_run(path)


def test_logits_that_are_not_finite_name_model_video_and_frame(project, tmp_path, monkeypatch):
    """Weights may be finite and their sums not."""
    run = Path(shutil.copytree(project.runs["gru"], tmp_path / "gru"))
    state = torch.load(run / "best.pt", weights_only=True)
    state["model"]["head.projection.weight"].mul_(1e38)
    state["model"]["head.projection.bias"].fill_(3e38)
    torch.save(state, run / "best.pt")
    with pytest.raises(RunError) as caught:
        predict(project.manifest, run, project.cache, tmp_path / "p.h5")
    lines = str(caught.value).splitlines()
    assert lines[0].startswith(f"{run}: gives numbers that are not finite for ") and "video v, the first is" in lines[0]
    assert not (tmp_path / "p.h5").exists()


@pytest.mark.parametrize(("old", "new"), [("epochs: 1", "epochs: 2"), ("# A record", "# A recorc"), ("# A", "A #")])
def test_a_run_record_that_was_edited_is_refused(project, tmp_path, old, new):
    run = Path(shutil.copytree(project.runs["gru"], tmp_path / "gru"))
    path = RunDir(run).config
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(RunError, match=r"config\.yaml: cannot be read: it was changed or damaged"):
        train_temporal(project.manifest, project.cache, run, HEADS["gru"])


def test_a_damaged_ensemble_is_refused(project, tmp_path):
    pair = [project.predictions["cnn"], project.predictions["gru"]]
    file = search_ensemble(project.manifest, pair, tmp_path / "e", NO_FOLDS)
    good = json.loads(file.read_text())
    for changes, words in (
        ({"weights": [0.5, 0.6]}, "weights: found"),
        ({"weights": ["x", 1]}, "weights: found"),
        ({"temperatures": [1.0]}, "temperatures: found"),
        ({"half_width": -1}, "half_width: found -1"),
        ({"thresholds": [0.5] * 3}, "thresholds: found"),
        ({"format": "fercache-ensemble 1"}, "remove it and search again"),
        ({"models": [{}]}, "does not name its models"),
        ({"task": "smile"}, "a known task"),
    ):
        file.write_text(json.dumps({**good, **changes}))
        with pytest.raises(DataError, match=words):
            apply_ensemble(file, pair, tmp_path / "x.h5")


def test_frames_and_videos_that_only_some_models_have_are_left_out_and_said(project, tmp_path, caplog):
    whole = read_predictions(project.predictions["cnn"])
    some = {"v": VideoPredictions(whole.videos["v"].frame[1:], whole.videos["v"].logits[1:])}
    write_predictions(tmp_path / "some.h5", dataclasses.replace(whole, model="other", videos=some))
    pair = [project.predictions["gru"], tmp_path / "some.h5"]
    file = search_ensemble(project.manifest, pair, tmp_path / "e", NO_FOLDS)
    assert "videos of the split that not all predictions have: n, w" in caplog.text
    assert "frames that not all models have are left out: 7, 0" in caplog.text
    assert json.loads(file.read_text())["frames"] == 4
    write_predictions(tmp_path / "none.h5", dataclasses.replace(whole, model="none", videos={}))
    with pytest.raises(DataError, match="no frame in common"):
        search_ensemble(project.manifest, [pair[0], tmp_path / "none.h5"], tmp_path / "x", NO_FOLDS)


def test_everything_of_an_evaluation_as_plain_values(project):
    (found,) = evaluate(project.manifest, [project.predictions["cnn"]])
    content = json.loads(json.dumps(evaluation_as_plain(found)))
    assert content["score"] == found.scores.score and sum(map(sum, content["confusion"])) == 11
    assert sum(row["count"] for row in content["reliability"]) == 11 and set(content["videos"]) == {"v", "w"}
    assert content["coverage"]["1"] == pytest.approx(found.scores.accuracy)
    assert content["videos"]["w"]["frames"] == 6
    assert "cnn-validation, by video" in describe_evaluations([found], videos=True)


def test_scores_are_printed_with_what_was_left_out(project):
    text = describe_evaluations(evaluate(project.manifest, list(project.predictions.values())))
    assert "0.67 F1 + 0.33 accuracy" in text and "Happiness" in text
    # v: 10 labelled frames, 5 of them present and labelled; w: 6; n: 3 without a face.
    rows = [line.split() for line in text.splitlines() if "-validation" in line][:3]
    assert [row[-2:] for row in rows] == [["11", "8"]] * 3
    assert "No label of Disgust, Fear, Sadness, Surprise" in text


def test_export_gives_every_frame_its_line(project, tmp_path):
    out = export(project.manifest, project.predictions["gru"], tmp_path / "out")
    lengths = {p.stem: len(read_annotation(p, TASKS["expr"])) for p in out.glob("*.txt")}
    assert lengths == {"v": 11, "w": 6, "n": 3}
    assert (out / "filled.csv").read_text().splitlines() == [
        "video_id,first_frame,last_frame,how",
        "n,1,3,prior",
        "v,1,1,held",
        "v,5,8,interpolated",
        "v,11,11,held",
    ]
    with pytest.raises(RunError, match=r"contains filled\.csv, n\.txt, v\.txt and 1 more, expected a new name"):
        export(project.manifest, project.predictions["gru"], out)
    csv = export(project.manifest, project.predictions["gru"], tmp_path / "csv", "csv")
    lines = (csv / "v.csv").read_text().splitlines()
    assert lines[0].startswith("frame,face,label,p_Neutral,p_Anger") and len(lines) == 12
    assert [line.split(",")[1] for line in lines[1:]] == list("01110000110")


def test_a_format_may_be_registered_from_outside(project, tmp_path, monkeypatch):
    shout = ExportFormat(".loud", lambda video: " ".join(video.task.classes[d].upper() for d in video.decisions))
    monkeypatch.setitem(EXPORT_FORMATS, "loud", shout)
    out = export(project.manifest, project.predictions["gru"], tmp_path / "out", "loud")
    words = (out / "v.loud").read_text().split()
    assert len(words) == 11 and set(words) <= {name.upper() for name in TASKS["expr"].classes}
    with pytest.raises(ConfigError, match="found 'json', expected one of abaw2021, csv, loud"):
        export(project.manifest, project.predictions["gru"], tmp_path / "x", "json")


def test_filling_by_hand():
    logits = np.log(np.array([[0.9, 0.1, 1e-9, 1e-9, 1e-9, 1e-9, 1e-9], [0.3, 0.7] + [1e-9] * 5]))
    video = VideoPredictions(np.array([2, 5]), logits)
    filled = fill(TASKS["expr"], video, 6, np.full(7, 1 / 7))
    np.testing.assert_allclose(filled.probability[:, 0], [0.9, 0.9, 0.7, 0.5, 0.3, 0.3], atol=1e-6)
    assert filled.present.tolist() == [False, True, False, False, True, False]
    assert filled.ranges == [(1, 1, "held"), (3, 4, "interpolated"), (6, 6, "held")]


def test_a_split_without_labels_is_refused(tmp_path):
    write_video(tmp_path / "set", "a", [1, 2], [0, 1])
    with pytest.raises(DataError, match="split validation: the manifest has no labelled frame"):
        finetune(make_manifest(tmp_path), tmp_path / "cnn", SMALL)


def test_broken_frames_stop_training_and_are_all_named(tmp_path):
    write_video(tmp_path / "set", "a", [1, 2, 3], [0, 1, 0])
    write_video(tmp_path / "set", "v", [1], [0], "Validation_Set")
    for broken in ("a/00002.jpg", "a/00003.jpg", "v/00001.jpg"):
        (tmp_path / "set" / "cropped_aligned" / broken).write_bytes(b"")
    with pytest.raises(DataError) as caught:
        finetune(make_manifest(tmp_path), tmp_path / "cnn", replace(SMALL, batch_size=3))
    assert str(caught.value).count("is empty") == 3 and "v/00001.jpg" in str(caught.value)


def test_two_ranks_train_one_head(project, tmp_path):
    """The head's own validation comes out again by predict, in one process."""
    words = ["train-temporal", "--head", "gru", "--manifest", project.manifest, "--cache", project.cache]
    words += ["--out", tmp_path / "gru", "--set", "epochs=1", "--set", "batch_size=4", "--set", "precision=fp32"]
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    answer = subprocess.run([*start, "-m", "fercache", *map(str, words)], capture_output=True, text=True, timeout=120)
    assert answer.returncode == 0, answer.stderr
    predictions = predict(project.manifest, tmp_path / "gru", project.cache, tmp_path / "p.h5")
    line = json.loads((tmp_path / "gru" / "metrics.jsonl").read_text())
    assert line["score"] == evaluate(project.manifest, [predictions])[0].scores.score


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize("name", HEADS)
def test_a_compiled_head_learns_the_same(project, tmp_path, name):
    out = train_temporal(project.manifest, project.cache, tmp_path / name, replace(HEADS[name], compile=True))
    found, expected = (json.loads((run / "metrics.jsonl").read_text()) for run in (out, project.runs[name]))
    assert found["loss"] == pytest.approx(expected["loss"], rel=0.05)


def test_action_units_go_the_whole_way(tmp_path):
    rng = np.random.default_rng(0)
    for video, split in (("a", "Train_Set"), ("v", "Validation_Set")):
        labels = rng.integers(0, 2, (9, 12))
        labels[2, 3], labels[4] = -1, -1
        write_video(tmp_path / "set", video, range(1, 9), labels, split, task="au")
    manifest = make_manifest(tmp_path, "au")
    cnn = finetune(manifest, tmp_path / "cnn", replace(SMALL, batch_size=3))
    cache = extract(manifest, str(cnn), tmp_path / "cache", EXACT)
    gru = train_temporal(manifest, cache, tmp_path / "gru", HEADS["gru"])
    paths = [predict(manifest, run, cache, tmp_path / f"{run.name}.h5") for run in (cnn, gru)]
    file = search_ensemble(manifest, paths, tmp_path / "e", EnsembleConfig(step=0.1, folds=0))
    fused = apply_ensemble(file, paths, tmp_path / "f.h5")
    content = json.loads(file.read_text())
    searched = content["in_sample"]["searched"]["score"]
    assert read_predictions(fused).thresholds.tolist() == content["thresholds"]
    evaluation = evaluate(manifest, [fused])[0]
    assert evaluation.scores.score == pytest.approx(searched)
    assert (evaluation.scores.frames, evaluation.missing) == (7, 1)
    out = export(manifest, fused, tmp_path / "out")
    assert read_annotation(out / "v.txt", TASKS["au"]).shape == (9, 12)
    with pytest.raises(ConfigError, match="of task au"):
        predict(manifest, cnn, cache, tmp_path / "x.h5", task="expr")
