"""A project folder: its `fercache.yaml`, and the commands that run in it as they stand, from training to ensembles."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from fercache.config import Config, as_plain
from fercache.config.load import DEFAULT_FILE
from fercache.errors import RunError
from fercache.files import contents, write_text
from fercache.pipeline.graph import Step

CNN = "cnn"
"""The frame network's run, on which all others stand."""


def steps(manifest: str, systems: Sequence[tuple[str, ...]]) -> list[Step]:
    """The commands that make the validation predictions of `systems`, each the runs that it is fused from, and a page.

    ("cnn",) is the frame network alone; the others are its heads.
    """
    runs = list(dict.fromkeys([CNN, *(run for system in systems for run in system)]))
    chain = [Step(("finetune",), (manifest,)), Step(("extract",), (f"{CNN}/best.pt",))]
    chain += [Step(("train-temporal", "--head", head), ("cache",)) for head in runs if head != CNN]
    chain += [Step(("predict", "--model", run), (f"{run}/best.pt",), predictions((run,))) for run in runs]
    for system in systems:
        if len(system) > 1:
            files, fused = tuple(predictions((run,)) for run in system), ensemble(system)
            chain.append(Step(("ensemble", "--search", *files, "-o", str(Path(fused).parent)), files, fused))
            applied = ("ensemble", "--apply", fused, *files, "-o", predictions(system))
            chain.append(Step(applied, (fused, *files), predictions(system)))
    return [*chain, Step(("report", "."), tuple(map(predictions, systems)))]


def predictions(system: tuple[str, ...]) -> str:
    """The file of a system's validation predictions."""
    return f"{'+'.join(system)}-validation.h5"


def ensemble(system: tuple[str, ...]) -> str:
    """The file of what a system's ensemble chose."""
    return f"ensemble-{'+'.join(system)}/ensemble.json"


def write_project(folder: Path, config: Config) -> None:
    """Make the folder with its config; RunError where it holds something else."""
    text = yaml.safe_dump(_without_nothing(as_plain(config)), sort_keys=False)
    file = folder / DEFAULT_FILE
    if file.exists() and file.read_text(encoding="utf-8") != text:
        raise RunError(f"{folder}: was begun with other settings; choose another folder, or remove this one")
    if not file.exists() and contents(folder):
        raise RunError(f"{folder}: is not empty and holds no {DEFAULT_FILE}; choose another folder")
    if not file.exists():
        write_text(file, text)


def _without_nothing(values: dict[str, Any]) -> dict[str, Any]:
    """Plain values without the keys that are not set."""
    kept = {key: _without_nothing(value) if isinstance(value, dict) else value for key, value in values.items()}
    return {key: value for key, value in kept.items() if value not in (None, {}, [])}
