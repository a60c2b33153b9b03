"""What the temporal heads add to the frame network on drawn faces, with intervals.

For each setting and seed a data set is drawn and the whole way is gone: frame network, cache, heads. The table has the
task's score on all validation frames, its mean over the seeds, and the difference to the mean of the frame network's
logits over 9 frames. Intervals are those of 95 % of bootstrap draws of recordings, in each seed by itself; differences
are paired, on the same draws. The epoch that is kept is the last one, so nothing was chosen on these frames.

steady: a face tells its label in every frame. transitions: only the order of frames tells it.

--realfaces DIR goes the way once more on a small set of real faces in the Aff-Wild2 layout, and on from its GRU end to
end for an epoch; beside the table stands the loss on the training frames (middle outputs) before and after it.

python benchmarks/temporal_gain.py [--seeds 3] [--settings steady transitions] [--realfaces DIR] [--folder DIR] [--json]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

METHODS = {
    "cnn": "frame network",
    "mean": "mean of 9 frames",
    "linear": "linear",
    "gru": "GRU",
    "transformer": "Transformer",
    "end_to_end": "GRU, end to end",
}
AGAINST = "mean"
RECORDINGS, SECONDS, FPS, SIZE = (42, 24), 6, 15, 64
"""Of training and validation; drawn with so many pixels, which is also what the network sees."""
RECIPE = {"epochs": 5, "batch_size": 32, "milestones": (4,), "select": "last"}
DRAWN = {"image_size": SIZE, "zero_init_residual": True, "crop_scale": (0.9, 1.0), "lr": 5e-3}
REAL = {"image_size": 112, "crop_scale": (1.0, 1.0), "lr": 0.01}
"""Of the frame network, from random numbers; the small set's are those of the README, as its heads' are."""
DRAWN_HEADS = {"epochs": 20, "batch_size": 32, "milestones": (16,), "select": "last", "lr": 0.05, "standardise": True}
"""Some thousand windows an epoch are few steps: after five epochs at .01, on embeddings as they are, the GRU of
"transitions" scored what the mean did."""
REAL_HEADS = {"batch_size": 32, "select": "last", "lr": 0.01}


def draw(folder: Path, setting: str, seed: int) -> Path:
    """A set of drawn faces in the Aff-Wild2 layout."""
    from fercache.synth import SynthSettings, synthesise

    train, validation = RECORDINGS
    sizes = {"train": train, "validation": validation, "test": 0, "seconds": SECONDS, "fps": FPS, "image_size": SIZE}
    return synthesise(folder / "faces", SynthSettings(setting, **sizes, seed=seed))


def go_the_way(
    folder: Path, root: Path, frames: dict[str, Any], heads: dict[str, Any], seed: int
) -> tuple[Path, dict[str, Path]]:
    """The manifest and the runs of every method; `frames` are the frame network's own settings, `heads` the heads'."""
    from fercache.config import ExtractConfig, FinetuneConfig, TrainTemporalConfig
    from fercache.data.affwild2 import build_manifest
    from fercache.data.manifest import write_manifest
    from fercache.stages.extract import extract
    from fercache.stages.finetune import finetune
    from fercache.stages.train_temporal import train_temporal
    from fercache.tasks import TASKS

    built, _ = build_manifest(root, TASKS["expr"])
    manifest = folder / "faces.csv"
    write_manifest(manifest, built)
    cnn = finetune(manifest, folder / "cnn", FinetuneConfig(**RECIPE, **frames), seed=seed)
    cache = extract(manifest, str(cnn), folder / "cache", ExtractConfig())
    runs = {"cnn": cnn}
    for head in METHODS:
        if head not in ("cnn", "end_to_end"):
            options = {**heads, "standardise": False} if head == "mean" else heads
            settings = TrainTemporalConfig(head=head, **options)
            runs[head] = train_temporal(manifest, cache, folder / head, settings, seed=seed)
    return manifest, runs


def go_end_to_end(folder: Path, manifest: Path, runs: dict[str, Path], crop_scale: tuple[float, float]) -> None:
    """On from the GRU for an epoch, and a cache of what comes out."""
    from fercache.config import ExtractConfig, TrainTemporalConfig
    from fercache.stages.extract import extract
    from fercache.stages.train_temporal import train_temporal

    begun = {"weights": str(runs["cnn"]), "init": str(runs["gru"]), "crop_scale": crop_scale, "flip": False}
    settings = TrainTemporalConfig(head="gru", end_to_end=True, epochs=1, batch_size=16, select="last", **begun)
    runs["end_to_end"] = train_temporal(manifest, None, folder / "end_to_end", settings)
    extract(manifest, str(runs["end_to_end"]), folder / "cache_end_to_end", ExtractConfig())


def predicted(folder: Path, manifest: Path, runs: dict[str, Path], split: str) -> dict[str, Path]:
    """The predictions of every run."""
    from fercache.config import PredictConfig
    from fercache.stages.predict import predict

    def one(name: str) -> Path:
        cache = folder / ("cache_end_to_end" if name == "end_to_end" else "cache")
        return predict(manifest, runs[name], cache, folder / f"{name}-{split}.h5", PredictConfig(split=split))

    return {name: one(name) for name in runs}


def training_losses(folder: Path, manifest: Path, runs: dict[str, Path]) -> dict[str, float]:
    """Method -> mean cross entropy of the labelled training frames."""
    from fercache.data.manifest import read_manifest
    from fercache.results.aligned import read_all, with_labels

    paths = predicted(folder, manifest, runs, "train")
    outputs = with_labels(read_all(list(paths.values())), read_manifest(manifest)).outputs
    counted = np.flatnonzero(outputs.labels != outputs.task.invalid)
    of_label = outputs.probability()[:, counted, outputs.labels[counted]]
    return dict(zip(paths, (-np.log(of_label).mean(axis=1)).tolist(), strict=True))


def drawn_scores(manifest: Path, paths: dict[str, Path], seed: int) -> dict[str, tuple[float, np.ndarray]]:
    """Method -> its score, and what it is in each draw of recordings, (R,): the same draws for all methods."""
    from fercache.data.manifest import read_manifest
    from fercache.results.aligned import read_all, with_labels
    from fercache.scoring.cross_validation import score_decisions

    outputs = with_labels(read_all(list(paths.values())), read_manifest(manifest)).outputs
    decisions = [outputs.task.decide(one) for one in outputs.probability()]
    scores = score_decisions(outputs, dict(zip(paths, decisions, strict=True)), seed)
    return {name: (result.score.value, result.samples) for name, result in scores.items()}


def summary(found: list[dict[str, tuple[float, np.ndarray]]]) -> dict[str, dict[str, float]]:
    """Mean over the seeds with intervals, and the differences."""
    from fercache.scoring.intervals import interval

    rows = {}
    for name in found[0]:
        value, drawn = (np.mean([one[name][part] for one in found], axis=0) for part in (0, 1))
        other, other_drawn = (np.mean([one[AGAINST][part] for one in found], axis=0) for part in (0, 1))
        numbers = (value, *interval(drawn), value - other, *interval(drawn - other_drawn))
        keys = ("score", "low", "high", "difference", "difference_low", "difference_high")
        rows[name] = {key: round(float(number), 4) for key, number in zip(keys, numbers, strict=True)}
    return rows


def table(title: str, rows: dict[str, dict[str, float]]) -> str:
    """A setting's rows as text."""
    lines = [f"\n{title}", f"{'method':<18} score   95 %              to {METHODS[AGAINST]}   95 %"]
    for name, row in rows.items():
        score = "{score:.4f}  {low:.4f} to {high:.4f}".format(**row)
        difference = "{difference:+.4f}            {difference_low:+.4f} to {difference_high:+.4f}".format(**row)
        lines.append(f"{METHODS[name]:<18} {score}  " + ("" if name == AGAINST else difference))
    return "\n".join(lines)


def main() -> None:
    """Go the way for every setting and seed, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--settings", nargs="*", default=["steady", "transitions"])
    parser.add_argument("--realfaces", type=Path, help="a small set of real faces in the Aff-Wild2 layout")
    parser.add_argument("--folder", type=Path, help="keeps everything, and goes on; default: a temporary one")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        for setting in arguments.settings:
            results = []
            for seed in range(arguments.seeds):
                project = folder / f"{setting}{seed}"
                manifest, runs = go_the_way(project, draw(project, setting, seed), DRAWN, DRAWN_HEADS, seed)
                results.append(drawn_scores(manifest, predicted(project, manifest, runs, "validation"), seed))
                scores = ", ".join(f"{name} {value:.4f}" for name, (value, _) in results[-1].items())
                print(f"{setting}, seed {seed}: {scores}", flush=True)
            result[setting] = summary(results)
            print(
                table(
                    f"{setting}, {arguments.seeds} seeds, {RECORDINGS[1]} validation recordings each", result[setting]
                )
            )
        if arguments.realfaces:
            project = folder / "realfaces"
            project.mkdir(parents=True, exist_ok=True)
            manifest, runs = go_the_way(project, arguments.realfaces, REAL, REAL_HEADS, seed=0)
            go_end_to_end(project, manifest, runs, REAL["crop_scale"])
            result["realfaces"] = summary([drawn_scores(manifest, predicted(project, manifest, runs, "validation"), 0)])
            losses = training_losses(project, manifest, runs)
            print(table("real faces", result["realfaces"]))
            print(f"loss of the training frames: GRU {losses['gru']:.4f}, end to end {losses['end_to_end']:.4f}")
            result["realfaces_training_loss"] = {name: round(value, 4) for name, value in losses.items()}
    if arguments.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
