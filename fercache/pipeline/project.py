"""A project folder: its `fercache.yaml`, and the commands that run in it as they stand, from training to ensembles."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from fercache.config import Config, as_plain
from fercache.config.load import DEFAULT_FILE, load_config
from fercache.data.manifest import read_manifest
from fercache.data.shards import deal
from fercache.errors import RunError
from fercache.files import contents, write_text
from fercache.pipeline.graph import Progress, Step
from fercache.rundir import RunDir

MOST_SHOWN = 4
"""Settings that are told where they differ."""
CNN = "cnn"
"""The frame network's run, on which all others stand."""
BEST = "best.pt"
GENERATED = ("none", "imagenet")
"""What is no file, but may stand for the weights that fine-tuning starts from."""
UNTRAINED = ("mean",)
"""Heads in which nothing is to be trained: they are scored once."""


@dataclass(frozen=True)
class Head:
    """A run of a head."""

    name: str
    """Which head."""
    seed: int | None = None
    """Its own, where it is not the config's."""

    @property
    def run(self) -> str:
        """Its folder."""
        return self.name if self.seed is None else f"{self.name}-seed{self.seed}"


System = tuple[Head, ...]
"""The heads whose probabilities are fused with the frame network's; none: the frame network alone."""


def steps(config: Config, systems: Sequence[System], options: Sequence[str] = ()) -> list[Step]:
    """The commands that make the validation predictions of `systems`, and a page.

    `options` go to each, as -c with a file; without them the commands are to run in a folder whose config this is.
    """
    out, manifest, cache = (str(getattr(config, key)) for key in ("out", "manifest", "cache"))
    own, heads = tuple(options), list(dict.fromkeys(head for system in systems for head in system))
    trained = partial(_in, out)
    chain = [
        Step(
            ("finetune", *own),
            (manifest, *_weights(config)),
            trained(CNN, BEST),
            _epochs(trained(CNN), config.finetune.epochs),
            settings={**as_plain(config.finetune), "seed": config.seed},
        ),
        Step(
            ("extract", *own),
            (manifest, trained(CNN, BEST)),
            cache,
            progress=lambda folder: _extracted(manifest, cache, folder, 1)[0],
            parts=partial(_extracted, manifest, cache),
        ),
    ]
    for head in heads:
        seed = () if head.seed is None else ("--set", f"seed={head.seed}", "-o", trained(head.run))
        settings = _head_settings(head, config)
        chain.append(
            Step(
                ("train-temporal", *own, "--head", head.name, *seed),
                (manifest, cache),
                trained(head.run, BEST),
                _epochs(trained(head.run), settings["epochs"]),
                settings=settings,
            )
        )
    for run in (CNN, *(head.run for head in heads)):
        command, needed = ("predict", *own, "--model", trained(run)), (manifest, cache, trained(run, BEST))
        chain.append(Step(command, needed, trained(file_of((run,)))))
    for system in systems:
        if system:
            names = runs(system)
            files, fused = tuple(trained(file_of((run,))) for run in names), trained(ensemble(system))
            searched = ("ensemble", *own, "--search", *files, "-o", str(Path(fused).parent))
            applied = ("ensemble", *own, "--apply", fused, *files, "-o", trained(predictions(system)))
            chain.append(Step(searched, (manifest, *files), fused))
            chain.append(Step(applied, (fused, *files), trained(predictions(system))))
    shown, page = tuple(trained(predictions(system)) for system in systems), trained("report.html")
    return [*chain, Step(("report", *own, out), (manifest, *shown), page, partial(_page, page, shown))]


def runs(system: System) -> tuple[str, ...]:
    """The runs that a system is fused from."""
    return (CNN, *(head.run for head in system))


def predictions(system: System) -> str:
    """The file of a system's validation predictions."""
    return file_of(runs(system))


def file_of(names: Sequence[str]) -> str:
    """The file of the validation predictions of one run, or of several that are fused."""
    return f"{'+'.join(names)}-validation.h5"


def ensemble(system: System) -> str:
    """The file of what a system's ensemble chose."""
    return f"ensemble-{'+'.join(runs(system))}/ensemble.json"


def _extracted(manifest: str, cache: str, folder: Path, shards: int) -> list[Progress]:
    """Of each shard of a manifest the videos whose file is in the cache; of a packed cache all."""
    videos, place = read_manifest(folder / manifest, files=False).videos, folder / cache
    there = {video.video_id for video in videos} if place.is_file() else {path.stem for path in place.glob("*.h5")}
    parts = deal(videos, shards)
    return [Progress(sum(video.video_id in there for video in part), len(part), "videos") for part in parts]


def _head_settings(head: Head, config: Config) -> dict[str, Any]:
    """What a head's run is recorded with."""
    once = {"epochs": 1, "warmup": 0.0} if head.name in UNTRAINED else {}
    seed = config.seed if head.seed is None else head.seed
    return {**as_plain(config.train_temporal), **once, "head": head.name, "seed": seed}


def _weights(config: Config) -> tuple[str, ...]:
    """What training starts from, where that is a file or folder."""
    return () if config.finetune.weights in GENERATED else (config.finetune.weights,)


def _epochs(run: str, total: int) -> Callable[[Path], Progress]:
    return lambda folder: Progress(RunDir(folder / run).epochs_done(), total, "epochs")


def _page(page: str, shown: Sequence[str], folder: Path) -> Progress:
    """Done where the page is there, and younger than all that it shows."""
    times = [(folder / name).stat().st_mtime_ns if (folder / name).exists() else None for name in (page, *shown)]
    return Progress(int(None not in times and times[0] == max(times)), 1, "files")


def _in(out: str, *parts: str) -> str:
    return str(Path(out, *parts))


def check_project(folder: Path, config: Config) -> None:
    """Raise RunError where the folder holds something else than a project of this config, with the keys that differ."""
    file = folder / DEFAULT_FILE
    if not file.exists():
        if contents(folder):
            raise RunError(f"{folder}: is not empty and holds no {DEFAULT_FILE}; choose another folder")
        return
    before, now = as_plain(load_config(str(file))), as_plain(config)
    if other := in_words(differences(before, now)):
        raise RunError(f"{folder}: was begun with other settings: {other}; choose another folder, or remove this one")


def write_project(folder: Path, config: Config) -> None:
    """Make the folder with its config; RunError as `check_project` says."""
    check_project(folder, config)
    if not (folder / DEFAULT_FILE).exists():
        write_text(folder / DEFAULT_FILE, as_yaml(config))


def as_yaml(config: Config) -> str:
    """A config as the text of a file, without what is not set."""
    return yaml.safe_dump(_set_values(as_plain(config), as_plain(Config())), sort_keys=False, allow_unicode=True)


def _set_values(values: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """Plain values without the keys that are not set, and by default are not."""
    kept = {k: _set_values(v, defaults[k]) if isinstance(v, dict) else v for k, v in values.items()}
    return {k: v for k, v in kept.items() if v != {} and not (v in (None, []) and v == defaults[k])}


def in_words(found: Iterable[tuple[str, Any, Any]]) -> str:
    """Differences in a sentence's part; empty where there are none."""
    other = [f"{key} is {value!r} there, {here!r} here" for key, value, here in found]
    more = [f"and {len(other) - MOST_SHOWN} more"] if len(other) > MOST_SHOWN else []
    return "; ".join(other[:MOST_SHOWN] + more)


def differences(before: dict[str, Any], now: dict[str, Any], section: str = "") -> Iterator[tuple[str, Any, Any]]:
    """The keys of plain values that are another now, with both values."""
    for key, value in before.items():
        if isinstance(value, dict):
            yield from differences(value, now[key], f"{section}{key}.")
        elif value != now[key]:
            yield section + key, value, now[key]
