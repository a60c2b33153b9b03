"""The steps of a project: the commands from training to ensembles, what each reads and makes, and when it is done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fercache.config import Config, as_plain
from fercache.data.manifest import Video, read_manifest
from fercache.data.shards import deal
from fercache.models.heads import head_entry
from fercache.pipeline.graph import FILES, Step, StepProgress
from fercache.pipeline.staleness import stale_cache, stale_ensemble, stale_predictions, stale_run
from fercache.rundir import RunDir

CNN = "cnn"
"""The CNN's run."""
REPORT = "report.html"
"""The page, in the project's folder."""
NO_FILE = ("none", "imagenet")
"""Weights to start fine-tuning from that are not files."""


@dataclass(frozen=True)
class HeadRun:
    """A run of a head."""

    head: str
    seed: int | None = None
    """None: the config's."""

    @property
    def folder(self) -> str:
        """Its run folder."""
        return self.head if self.seed is None else f"{self.head}-seed{self.seed}"


@dataclass(frozen=True)
class System:
    """What gives one set of predictions: the CNN alone, or its ensemble with heads."""

    heads: tuple[HeadRun, ...] = ()

    @property
    def runs(self) -> tuple[str, ...]:
        """The runs that are fused."""
        return (CNN, *(head.folder for head in self.heads))

    @property
    def name(self) -> str:
        """As cnn+gru."""
        return "+".join(self.runs)

    @property
    def predictions(self) -> str:
        """The file of its validation predictions."""
        return predictions_file(self.name)

    @property
    def ensemble(self) -> str:
        """The file of its ensemble's weights."""
        return f"ensemble-{self.name}/ensemble.json"


def predictions_file(name: str) -> str:
    """The file of the validation predictions of a run or a system."""
    return f"{name}-validation.h5"


def pipeline_steps(config: Config, systems: Sequence[System], options: Sequence[str] = ()) -> list[Step]:
    """The commands that make the validation predictions of `systems`, and the report on them.

    `options` go to each command, as -c with a file; without them the commands run in a folder whose config this is.
    """
    make = _StepMaker(config, options)
    heads = list(dict.fromkeys(head for system in systems for head in system.heads))
    return [
        make.finetune(),
        make.extract(),
        *(make.train_head(head) for head in heads),
        *(make.predict(run) for run in (CNN, *(head.folder for head in heads))),
        *(step for system in systems if system.heads for step in (make.search(system), make.fuse(system))),
        make.report(systems),
    ]


class _StepMaker:
    """Makes the steps of one config."""

    def __init__(self, config: Config, options: Sequence[str]) -> None:
        self.config, self.options = config, tuple(options)
        self.manifest, self.cache = str(config.manifest), str(config.cache)

    def finetune(self) -> Step:
        run, settings = self._path(CNN), {**as_plain(self.config.finetune), "seed": self.config.seed}
        weights = self.config.finetune.weights
        return Step(
            ("finetune", *self.options),
            (self.manifest, *(() if weights in NO_FILE else (weights,))),
            self._best(CNN),
            measure=_epochs(run, self.config.finetune.epochs),
            stale=lambda folder: stale_run(folder / run, folder / self.manifest, settings),
        )

    def extract(self) -> Step:
        network = self._best(CNN)

        def shards(folder: Path, count: int) -> list[StepProgress]:
            return [
                StepProgress(len(videos) - len(missing), len(videos), "videos")
                for videos, missing in extraction_shards(folder / self.manifest, folder / self.cache, count)
            ]

        return Step(
            ("extract", *self.options),
            (self.manifest, network),
            self.cache,
            measure=lambda folder: shards(folder, 1)[0],
            measure_shards=shards,
            stale=lambda folder: stale_cache(folder / self.cache, folder / network, self.config.extract),
        )

    def train_head(self, head: HeadRun) -> Step:
        run = self._path(head.folder)
        seed = self.config.seed if head.seed is None else head.seed
        settings = {**as_plain(self.config.train_temporal), "head": head.head, "seed": seed}
        if not head_entry(head.head).learns:
            settings |= {"epochs": 1, "warmup": 0.0}
        seeded = () if head.seed is None else ("--set", f"seed={seed}", "-o", run)
        return Step(
            ("train-temporal", *self.options, "--head", head.head, *seeded),
            (self.manifest, self.cache),
            self._best(head.folder),
            variant=f"train-temporal-{head.folder}",
            measure=_epochs(run, settings["epochs"]),
            stale=lambda folder: stale_run(folder / run, folder / self.manifest, settings, cache=folder / self.cache),
        )

    def predict(self, run: str) -> Step:
        return self._predictions(
            run,
            f"predict-{run}",
            ("predict", *self.options, "--model", self._path(run), "--split", "validation"),
            (self.manifest, self.cache, self._best(run)),
        )

    def search(self, system: System) -> Step:
        """Search an ensemble's weights."""
        files, ensemble = self._files(system), self._path(system.ensemble)
        settings = {**as_plain(self.config.ensemble), "seed": self.config.seed}
        del settings["predictions"]
        return Step(
            ("ensemble", *self.options, "--search", *files, "-o", str(Path(ensemble).parent)),
            (self.manifest, *files),
            ensemble,
            variant=f"ensemble-{system.name}",
            stale=lambda folder: stale_ensemble(folder / ensemble, settings),
        )

    def fuse(self, system: System) -> Step:
        """Apply an ensemble's weights."""
        files, ensemble = self._files(system), self._path(system.ensemble)
        output = ("-o", self._path(system.predictions))
        command = ("ensemble", *self.options, "--apply", ensemble, *files, *output)
        return self._predictions(system.name, f"apply-{system.name}", command, (ensemble, *files))

    def report(self, systems: Sequence[System]) -> Step:
        shown, page = [self._path(system.predictions) for system in systems], self._path(REPORT)
        return Step(
            ("report", *self.options, self._path()),
            (self.manifest, *shown),
            page,
            measure=lambda folder: _page(folder / page, [folder / file for file in shown]),
        )

    def _predictions(self, name: str, variant: str, command: tuple[str, ...], inputs: tuple[str, ...]) -> Step:
        file = self._path(predictions_file(name))
        return Step(
            command,
            inputs,
            file,
            variant,
            stale=lambda folder: stale_predictions(folder / file, folder / self.cache),
        )

    def _path(self, *parts: str) -> str:
        """A file in the project's folder, or that folder."""
        return str(Path(str(self.config.out), *parts))

    def _best(self, run: str) -> str:
        return self._path(run, "best.pt")

    def _files(self, system: System) -> tuple[str, ...]:
        """The predictions that an ensemble fuses."""
        return tuple(self._path(predictions_file(run)) for run in system.runs)


def extraction_shards(manifest: Path, cache: Path, count: int) -> list[tuple[list[Video], list[Video]]]:
    """The videos of each of `count` shards of a manifest, and those that the cache lacks; a packed cache has all."""
    cached = None if cache.is_file() else {path.stem for path in cache.glob("*.h5")}
    return [
        (videos, [video for video in videos if cached is not None and video.video_id not in cached])
        for videos in deal(read_manifest(manifest, files=False).videos, count)
    ]


def _epochs(run: str, total: int) -> Callable[[Path], StepProgress]:
    return lambda folder: StepProgress(RunDir(folder / run).epochs_done(), total, "epochs")


def _page(page: Path, shown: Sequence[Path]) -> StepProgress:
    """Done where the page is not older than anything that it shows."""
    files = [page, *shown]
    current = all(file.exists() for file in files) and page.stat().st_mtime_ns == max(
        file.stat().st_mtime_ns for file in files
    )
    return StepProgress(int(current), 1, FILES)
