"""A project folder: its `fercache.yaml`, and the commands that run in it as they stand, from training to ensembles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from fercache.config import Config, as_plain
from fercache.config.load import DEFAULT_FILE, load_config
from fercache.errors import RunError
from fercache.files import contents, write_text
from fercache.pipeline.graph import Step

MOST_SHOWN = 4
"""Settings that are told where they differ."""
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


def check_project(folder: Path, config: Config) -> None:
    """Raise RunError where the folder holds something else than a project of this config, with the keys that differ."""
    file = folder / DEFAULT_FILE
    if not file.exists():
        if contents(folder):
            raise RunError(f"{folder}: is not empty and holds no {DEFAULT_FILE}; choose another folder")
        return
    before, now = as_plain(load_config(str(file))), as_plain(config)
    other = [f"{key} is {value!r} there, {here!r} here" for key, value, here in _differences(before, now)]
    if other:
        more = [f"and {len(other) - MOST_SHOWN} more"] if len(other) > MOST_SHOWN else []
        shown = "; ".join(other[:MOST_SHOWN] + more)
        raise RunError(f"{folder}: was begun with other settings: {shown}; choose another folder, or remove this one")


def write_project(folder: Path, config: Config) -> None:
    """Make the folder with its config; RunError as `check_project` says."""
    check_project(folder, config)
    if not (folder / DEFAULT_FILE).exists():
        text = yaml.safe_dump(_set_values(as_plain(config), as_plain(Config())), sort_keys=False)
        write_text(folder / DEFAULT_FILE, text)


def _set_values(values: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """Plain values without the keys that are not set, and by default are not."""
    kept = {k: _set_values(v, defaults[k]) if isinstance(v, dict) else v for k, v in values.items()}
    return {k: v for k, v in kept.items() if v != {} and not (v in (None, []) and v == defaults[k])}


def _differences(before: dict[str, Any], now: dict[str, Any], section: str = "") -> Iterator[tuple[str, Any, Any]]:
    for key, value in before.items():
        if isinstance(value, dict):
            yield from _differences(value, now[key], f"{key}.")
        elif value != now[key]:
            yield section + key, value, now[key]
