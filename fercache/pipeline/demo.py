"""The full pipeline on synthetic faces: every stage as its own command, and the paper's table at the end."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path

from fercache.config import Config
from fercache.pipeline import project
from fercache.pipeline.graph import Step, run_steps
from fercache.stages.evaluate import evaluate

MANIFEST = "manifest.csv"
GRU, TRANSFORMER = project.Head("gru"), project.Head("transformer")
SYSTEMS: dict[str, project.System] = {
    "ResNet50": (),
    "CNN + GRU": (GRU,),
    "CNN + Transformer": (TRANSFORMER,),
    "CNN + GRU + Transformer": (GRU, TRANSFORMER),
}
"""Rows of the paper's table -> the heads that are fused with the frame network."""


def demo(out: Path, config: Config) -> str:
    """Make a synthetic data set in `out` and run the full pipeline on it; returns the table, and what to look at.

    The folder holds a `fercache.yaml`, so that every command runs in it as it stands. A demo that
    was stopped goes on; RunError where the folder holds something else.
    """
    config = dataclasses.replace(config, manifest=MANIFEST, cache="cache", out=".")
    project.write_project(out, config)
    run_steps(steps(config), out)
    return f"{table(out)}\n\n{what_to_look_at(out)}"


def steps(config: Config) -> list[Step]:
    """The commands, in order."""
    whole = project.predictions(SYSTEMS["CNN + GRU + Transformer"])
    return [
        Step(("synth", "data"), output="data/synth.json"),
        Step(("manifest", "affwild2", "data", "--lengths", "data/lengths.csv"), ("data",), MANIFEST),
        *project.steps(config, list(SYSTEMS.values())),
        Step(("export", whole, "submission"), (whole,), "submission"),
    ]


def table(folder: Path) -> str:
    """The table in the paper's form."""
    rows = evaluate(folder / MANIFEST, [folder / project.predictions(system) for system in SYSTEMS.values()])
    width = max(map(len, SYSTEMS))
    lines = [f"{'Model':<{width}}      F1  accuracy       E"]
    for name, row in zip(SYSTEMS, rows, strict=True):
        s = row.scores
        lines.append(f"{name:<{width}}  {s.f1:.4f}    {s.accuracy:.4f}  {s.score:.4f}")
    lines.append(
        f"{rows[0].scores.frames} validation frames of {len(rows[0].videos)} videos, of drawn people who are not in"
        " training. The weights of the ensembles were chosen on these frames too: what a gain is worth is in the"
        " report, across folds."
    )
    return "\n".join(lines)


def what_to_look_at(folder: Path) -> str:
    """The results in the folder, and the command that opens the page."""
    page = (folder / project.REPORT).resolve().as_uri()
    files = {
        "data/contact_sheet.png": "the people and their expressions",
        project.REPORT: "scores with intervals, confusion, and what each model said along the videos",
        "submission/": "the ensemble's label of every frame, as the challenge takes it",
        "fercache.yaml": "the recipe: every fercache command runs in this folder as it stands",
    }
    listed = [f"  {name:<22}  {words}" for name, words in files.items()]
    command = f"  python3 -m webbrowser -t {shlex.quote(page)}"
    return "\n".join([f"In {folder}:", *listed, "", "To see the report:", command])
