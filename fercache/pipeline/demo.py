"""The full pipeline on synthetic faces: every stage as its own command, and the paper's table at the end."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path

from fercache.config import Config
from fercache.pipeline.graph import Step, run_steps
from fercache.pipeline.project import write_project
from fercache.pipeline.steps import REPORT, HeadRun, System, pipeline_steps
from fercache.results.wording import as_table, digits
from fercache.stages.evaluate import evaluate

MANIFEST = "manifest.csv"
GRU, TRANSFORMER = HeadRun("gru"), HeadRun("transformer")
ENSEMBLE = System((GRU, TRANSFORMER))
DEMO_SYSTEMS = {
    "ResNet50": System(),
    "CNN + GRU": System((GRU,)),
    "CNN + Transformer": System((TRANSFORMER,)),
    "CNN + GRU + Transformer": ENSEMBLE,
}
"""The rows of the table."""


def demo(out: Path, config: Config) -> str:
    """Make a synthetic data set in `out` and run the full pipeline on it; returns the table, and what to look at.

    The folder gets a `fercache.yaml`, so that every command runs in it without options. An interrupted demo resumes;
    RunError where the folder contains something else.
    """
    config = dataclasses.replace(config, manifest=MANIFEST, cache="cache", out=".")
    write_project(out, config)
    run_steps(demo_steps(config), out)
    return f"{demo_table(out)}\n\n{what_to_look_at(out)}"


def demo_steps(config: Config) -> list[Step]:
    """The commands, in order."""
    return [
        Step(("synth", "data"), output="data/synth.json"),
        Step(("manifest", "affwild2", "data", "--lengths", "data/lengths.csv"), ("data",), MANIFEST),
        *pipeline_steps(config, list(DEMO_SYSTEMS.values())),
        Step(("export", ENSEMBLE.predictions, "submission"), (ENSEMBLE.predictions,), "submission"),
    ]


def demo_table(folder: Path) -> str:
    """The table in the paper's form."""
    rows = evaluate(folder / MANIFEST, [folder / system.predictions for system in DEMO_SYSTEMS.values()])
    scores = [digits(row.scores.f1, row.scores.accuracy, row.scores.score) for row in rows]
    cells = [[name, *values] for name, values in zip(DEMO_SYSTEMS, scores, strict=True)]
    note = (
        f"{rows[0].scores.frames} validation frames of {len(rows[0].videos)} videos of drawn people who are not in the"
        " training split. The ensembles' weights were chosen on the same frames; the report has cross-validated gains."
    )
    return "\n".join([*as_table(("Model", "F1", "accuracy", "E"), cells), note])


def what_to_look_at(folder: Path) -> str:
    """The results in the folder, and the command that opens the report."""
    page = (folder / REPORT).resolve().as_uri()
    files = {
        "data/contact_sheet.png": "the people and their expressions",
        REPORT: "scores with intervals, confusion, and each model's predictions along the videos",
        "submission/": "the ensemble's label of every frame, in the challenge's format",
        "fercache.yaml": "the settings: every fercache command runs in this folder without options",
    }
    listed = [f"  {name:<22}  {words}" for name, words in files.items()]
    command = f"  python3 -m webbrowser -t {shlex.quote(page)}"
    return "\n".join([f"In {folder}:", *listed, "", "To see the report:", command])
