"""The whole way on synthetic faces: every stage as its own command, and the paper's table at the end."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import yaml

from fercache.config import Config, as_plain
from fercache.config.load import DEFAULT_FILE
from fercache.errors import RunError
from fercache.files import contents, write_text
from fercache.pipeline.graph import Step, run_steps
from fercache.stages.evaluate import evaluate

log = logging.getLogger(__name__)

MANIFEST, CACHE = "manifest.csv", "cache"
HEADS = ("gru", "transformer")
ROWS = {
    "ResNet50": "cnn",
    "CNN + GRU": "cnn+gru",
    "CNN + Transformer": "cnn+transformer",
    "CNN + GRU + Transformer": "cnn+gru+transformer",
}
"""Rows of the paper's table -> the predictions that hold them."""


def demo(out: Path, config: Config) -> str:
    """Make a synthetic data set in `out` and run the whole pipeline on it; returns the table.

    The folder holds a `fercache.yaml`, so that every command runs in it as it stands. A demo that
    was stopped goes on; RunError where the folder holds something else.
    """
    _write_config(out, config)
    run_steps(steps(), out)
    return table(out)


def steps() -> list[Step]:
    """The commands, in order."""
    chain = [
        Step(("synth", "data"), output="data/synth.json"),
        Step(("manifest", "affwild2", "data", "--lengths", "data/lengths.csv"), ("data",), MANIFEST),
        Step(("finetune",), (MANIFEST,)),
        Step(("extract",), ("cnn/best.pt",)),
    ]
    chain += [Step(("train-temporal", "--head", head), (CACHE,)) for head in HEADS]
    for run in ("cnn", *HEADS):
        chain.append(Step(("predict", "--model", run), (f"{run}/best.pt",), _predictions(run)))
    for models in (("cnn", "gru"), ("cnn", "transformer"), ("cnn", *HEADS)):
        files, name = tuple(map(_predictions, models)), "+".join(models)
        folder = f"ensemble-{name}"
        chain.append(Step(("ensemble", "--search", *files, "-o", folder), files, f"{folder}/ensemble.json"))
        applied = ("ensemble", "--apply", f"{folder}/ensemble.json", *files, "-o", _predictions(name))
        chain.append(Step(applied, files, _predictions(name)))
    best = _predictions(ROWS["CNN + GRU + Transformer"])
    chain.append(Step(("export", best, "submission"), (best,), "submission"))
    return chain


def table(folder: Path) -> str:
    """The table in the paper's form."""
    paths = [folder / _predictions(name) for name in ROWS.values()]
    rows = evaluate(folder / MANIFEST, paths)
    width = max(map(len, ROWS))
    lines = [f"{'Model':<{width}}      F1  accuracy       E"]
    for name, row in zip(ROWS, rows, strict=True):
        s = row.scores
        lines.append(f"{name:<{width}}  {s.f1:.4f}    {s.accuracy:.4f}  {s.score:.4f}")
    lines.append(
        f"Synthetic faces, {rows[0].scores.frames} validation frames. The weights of the ensembles and the epochs were"
        " chosen on these frames too: the rows show that the pipeline works, not what a gain is worth."
    )
    return "\n".join(lines)


def _predictions(name: str) -> str:
    return f"{name}-validation.h5"


def _write_config(out: Path, config: Config) -> None:
    """The demo's folder with its config; RunError where it holds something else."""
    chosen = dataclasses.replace(config, manifest=MANIFEST, cache=CACHE, out=".")
    text = yaml.safe_dump(_without_nothing(as_plain(chosen)), sort_keys=False)
    file = out / DEFAULT_FILE
    if file.exists() and file.read_text(encoding="utf-8") != text:
        raise RunError(f"{out}: holds a demo with other settings; choose another folder, or remove this one")
    if not file.exists() and contents(out):
        raise RunError(f"{out}: is not empty and holds no demo; choose another folder")
    if not file.exists():
        write_text(file, text)


def _without_nothing(values: dict) -> dict:
    """Plain values without the keys that are not set."""
    kept = {key: _without_nothing(value) if isinstance(value, dict) else value for key, value in values.items()}
    return {key: value for key, value in kept.items() if value not in (None, {}, [])}
