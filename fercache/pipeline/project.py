"""A project folder: its `fercache.yaml`, and the commands that run in it as they stand, from training to ensembles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from fercache.config import Config, as_plain
from fercache.config.load import DEFAULT_FILE, load_config
from fercache.data.manifest import Video, read_manifest
from fercache.data.shards import deal
from fercache.errors import RunError
from fercache.files import refuse_other_contents, write_text
from fercache.models.heads import head_entry
from fercache.pipeline import fits
from fercache.pipeline.graph import WHOLE, Progress, Step
from fercache.rundir import RunDir

CNN = "cnn"
"""The frame network's run, on which all others stand."""
REPORT = "report.html"
"""The page, in the project's folder."""
GENERATED = ("none", "imagenet")
"""What is no file, but may stand for the weights that fine-tuning starts from."""


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
    place, own = _Places(config), tuple(options)
    heads = list(dict.fromkeys(head for system in systems for head in system))
    chain = [_finetune(config, place, own), _extract(config, place, own)]
    chain += [_train_head(head, config, place, own) for head in heads]
    chain += [_predict(run, place, own) for run in (CNN, *(head.run for head in heads))]
    chain += [step for system in systems if system for step in _fuse(system, config, place, own)]
    shown, page = tuple(place.predictions(system) for system in systems), place.of(REPORT)
    report = Step(("report", *own, place.of()), (place.manifest, *shown), page, partial(_page, page, shown))
    return [*chain, report]


class _Places:
    """Where a config has its files, as its commands name them."""

    def __init__(self, config: Config) -> None:
        self.out, self.manifest, self.cache = (str(getattr(config, key)) for key in ("out", "manifest", "cache"))

    def of(self, *parts: str) -> str:
        """A file in the project's folder, or that folder."""
        return str(Path(self.out, *parts))

    def best(self, run: str) -> str:
        """The checkpoint of a run."""
        return self.of(run, "best.pt")

    def predictions(self, system: System) -> str:
        """The predictions of a system."""
        return self.of(predictions(system))


def _finetune(config: Config, place: _Places, own: tuple[str, ...]) -> Step:
    run, settings = place.of(CNN), {**as_plain(config.finetune), "seed": config.seed}
    weights = () if config.finetune.weights in GENERATED else (config.finetune.weights,)
    return Step(
        ("finetune", *own),
        (place.manifest, *weights),
        place.best(CNN),
        _epochs(run, config.finetune.epochs),
        unfit=lambda folder: fits.run_unfit(folder / run, folder / place.manifest, settings),
    )


def _extract(config: Config, place: _Places, own: tuple[str, ...]) -> Step:
    network = place.best(CNN)

    def parts(folder: Path, shards: int) -> list[Progress]:
        left = videos_left(folder / place.manifest, folder / place.cache, shards)
        return [Progress(len(dealt) - len(rest), len(dealt), "videos") for dealt, rest in left]

    return Step(
        ("extract", *own),
        (place.manifest, network),
        place.cache,
        progress=lambda folder: parts(folder, 1)[0],
        parts=parts,
        unfit=lambda folder: fits.cache_unfit(folder / place.cache, folder / network, config.extract),
    )


def _train_head(head: Head, config: Config, place: _Places, own: tuple[str, ...]) -> Step:
    # A network in which nothing is to be trained is scored once.
    once = {} if head_entry(head.name).learns else {"epochs": 1, "warmup": 0.0}
    seed = config.seed if head.seed is None else head.seed
    settings = {**as_plain(config.train_temporal), **once, "head": head.name, "seed": seed}
    run, named = place.of(head.run), () if head.seed is None else ("--set", f"seed={seed}", "-o", place.of(head.run))
    return Step(
        ("train-temporal", *own, "--head", head.name, *named),
        (place.manifest, place.cache),
        place.best(head.run),
        _epochs(run, settings["epochs"]),
        unfit=lambda folder: fits.run_unfit(
            folder / run, folder / place.manifest, settings, cache=folder / place.cache
        ),
    )


def _predict(run: str, place: _Places, own: tuple[str, ...]) -> Step:
    file = place.of(file_of((run,)))
    return Step(
        ("predict", *own, "--model", place.of(run), "--split", "validation"),
        (place.manifest, place.cache, place.best(run)),
        file,
        unfit=lambda folder: fits.predictions_unfit(folder / file, folder / place.cache),
    )


def _fuse(system: System, config: Config, place: _Places, own: tuple[str, ...]) -> list[Step]:
    """Search the weights of an ensemble, and apply them."""
    files = tuple(place.of(file_of((run,))) for run in runs(system))
    chosen, fused = place.of(ensemble(system)), place.predictions(system)
    settings = {key: value for key, value in as_plain(config.ensemble).items() if key != "predictions"}
    return [
        Step(
            ("ensemble", *own, "--search", *files, "-o", str(Path(chosen).parent)),
            (place.manifest, *files),
            chosen,
            unfit=lambda folder: fits.ensemble_unfit(folder / chosen, {**settings, "seed": config.seed}),
        ),
        Step(
            ("ensemble", *own, "--apply", chosen, *files, "-o", fused),
            (chosen, *files),
            fused,
            unfit=lambda folder: fits.predictions_unfit(folder / fused, folder / place.cache),
        ),
    ]


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


def videos_left(manifest: Path, cache: Path, shards: int) -> list[tuple[list[Video], list[Video]]]:
    """The videos of each shard of a manifest, and those that have no file in the cache; a packed one has all."""
    there = None if cache.is_file() else {path.stem for path in cache.glob("*.h5")}
    dealt = deal(read_manifest(manifest, files=False).videos, shards)
    return [(part, [video for video in part if there is not None and video.video_id not in there]) for part in dealt]


def _epochs(run: str, total: int) -> Callable[[Path], Progress]:
    return lambda folder: Progress(RunDir(folder / run).epochs_done(), total, "epochs")


def _page(page: str, shown: Sequence[str], folder: Path) -> Progress:
    """Done where the page is there, and younger than all that it shows."""
    times = [(folder / name).stat().st_mtime_ns if (folder / name).exists() else None for name in (page, *shown)]
    return Progress(int(None not in times and times[0] == max(times)), 1, WHOLE)


def check_project(folder: Path, config: Config) -> None:
    """Raise RunError where the folder holds something else than a project of this config, with the keys that differ."""
    file = folder / DEFAULT_FILE
    if not file.exists():
        refuse_other_contents(folder, f"a project ({DEFAULT_FILE})", RunError)
        return
    before, now = as_plain(load_config(str(file))), as_plain(config)
    if other := fits.in_words(fits.differences(before, now)):
        raise RunError(
            f"{folder}: was begun with different settings: {other}; choose another folder, or remove this one"
        )


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
