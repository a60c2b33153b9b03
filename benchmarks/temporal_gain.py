"""What the temporal heads add to the frame network on drawn faces, with intervals.

For each setting and seed a data set is drawn and the whole way is gone: frame network, cache, heads. The table has the
task's score on all validation frames, its mean over the seeds, and the difference to the mean of the frame network's
logits over 9 frames. Intervals are those of 95 % of bootstrap draws of recordings, in each seed by itself; differences
are paired, on the same draws. The epoch that is kept is the last one, so nothing was chosen on these frames.

steady: a face tells its label in every frame. transitions: only the order of frames tells it.

python benchmarks/temporal_gain.py [--seeds 3] [--settings steady transitions] [--folder DIR] [--json]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np

METHODS = {
    "cnn": "frame network",
    "mean": "mean of 9 frames",
    "linear": "linear",
    "gru": "GRU",
    "transformer": "Transformer",
}
AGAINST = "mean"
RECORDINGS, SECONDS, FPS, SIZE = (42, 24), 6, 15, 64
"""Of training and validation; drawn with so many pixels, which is also what the network sees."""


def go_the_way(folder: Path, setting: str, seed: int) -> tuple[Path, dict[str, Path]]:
    """A drawn data set, and the validation predictions of every method."""
    from fercache.config import ExtractConfig, FinetuneConfig, TrainTemporalConfig
    from fercache.data.affwild2 import build_manifest
    from fercache.data.manifest import write_manifest
    from fercache.data.synth import SynthSettings, synthesise
    from fercache.stages.extract import extract
    from fercache.stages.finetune import finetune
    from fercache.stages.predict import predict
    from fercache.stages.train_temporal import train_temporal
    from fercache.tasks import TASKS

    train, validation = RECORDINGS
    sizes = {"train": train, "validation": validation, "test": 0, "seconds": SECONDS, "fps": FPS, "image_size": SIZE}
    root = synthesise(folder / "faces", SynthSettings(setting, **sizes, seed=seed))
    built, _ = build_manifest(root, TASKS["expr"])
    write_manifest(folder / "faces.csv", built)
    recipe = {"epochs": 5, "batch_size": 32, "milestones": (4,), "select": "last"}
    frames = {"image_size": SIZE, "zero_init_residual": True, "crop_scale": (0.9, 1.0), "lr": 5e-3}
    cnn = finetune(folder / "faces.csv", folder / "cnn", FinetuneConfig(**recipe, **frames), seed=seed)
    cache = extract(folder / "faces.csv", str(cnn), folder / "cache", ExtractConfig())
    runs = {"cnn": cnn}
    for head in METHODS:
        if head != "cnn":
            settings = TrainTemporalConfig(**recipe, head=head, lr=0.01)
            runs[head] = train_temporal(folder / "faces.csv", cache, folder / head, settings, seed=seed)
    return folder / "faces.csv", {
        name: predict(run, folder / "faces.csv", cache, folder / f"{name}.h5") for name, run in runs.items()
    }


def drawn_scores(manifest: Path, paths: dict[str, Path], seed: int) -> dict[str, tuple[float, np.ndarray]]:
    """Method -> its score, and what it is in each draw of recordings, (R,): the same draws for all methods."""
    from fercache.data.manifest import read_manifest
    from fercache.scoring.intervals import draws, tally
    from fercache.scoring.metrics import decide, score
    from fercache.stages.aligned import read_all, with_labels

    frames = with_labels(read_all(list(paths.values())), data := read_manifest(manifest))
    weight = draws(int(frames.recording.max()) + 1, seed)
    found = {}
    for name, probability in zip(paths, frames.probability, strict=True):
        decisions = decide(data.task, probability)
        counts = tally(data.task, decisions, frames.labels, frames.recording)
        found[name] = (score(data.task, decisions, frames.labels).score, counts.scores(data.task, weight))
    return found


def summary(found: list[dict[str, tuple[float, np.ndarray]]]) -> dict[str, dict[str, float]]:
    """Mean over the seeds with intervals, and the differences."""
    from fercache.scoring.intervals import interval

    rows = {}
    for name in METHODS:
        value, drawn = (np.mean([one[name][part] for one in found], axis=0) for part in (0, 1))
        other, other_drawn = (np.mean([one[AGAINST][part] for one in found], axis=0) for part in (0, 1))
        numbers = (value, *interval(drawn), value - other, *interval(drawn - other_drawn))
        keys = ("score", "low", "high", "difference", "difference_low", "difference_high")
        rows[name] = {key: round(float(number), 4) for key, number in zip(keys, numbers, strict=True)}
    return rows


def main() -> None:
    """Go the way for every setting and seed, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--settings", nargs="+", default=["steady", "transitions"])
    parser.add_argument("--folder", type=Path, help="keeps everything, and goes on; left out: a temporary one")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    result = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        for setting in arguments.settings:
            found = []
            for seed in range(arguments.seeds):
                place = folder / f"{setting}{seed}"
                found.append(drawn_scores(*go_the_way(place, setting, seed), seed))
                scores = ", ".join(f"{name} {value:.4f}" for name, (value, _) in found[-1].items())
                print(f"{setting}, seed {seed}: {scores}", flush=True)
            result[setting] = summary(found)
    for setting, rows in result.items():
        print(f"\n{setting}, {arguments.seeds} seeds, {RECORDINGS[1]} validation recordings each")
        print(f"{'method':<18} score   95 %              to {METHODS[AGAINST]}   95 %")
        for name, row in rows.items():
            own = "{score:.4f}  {low:.4f} to {high:.4f}".format(**row)
            difference = "{difference:+.4f}            {difference_low:+.4f} to {difference_high:+.4f}".format(**row)
            print(f"{METHODS[name]:<18} {own}  " + ("" if name == AGAINST else difference))
    if arguments.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
