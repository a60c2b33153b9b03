"""The start of every training: signals, ranks, threads, precision and the run folder."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fercache import runtime
from fercache.config import TrainingConfig, as_plain
from fercache.data.datasets import EpochBatches, in_order, share_of
from fercache.data.manifest import Manifest
from fercache.errors import ConfigError, Stopped
from fercache.files import sha256_of
from fercache.rundir import RunDir

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingJob:
    """A training that writes a run folder, in this process or in several."""

    run: RunDir
    settings: TrainingConfig
    seed: int
    threads: int
    precision: str
    """fp32, bf16 or fp16."""
    ranks: runtime.Ranks
    stop: runtime.StopFlag

    def begin(
        self,
        stage: str,
        manifest: Path,
        data: Manifest,
        values: Mapping[str, Any],
        check: Callable[[Callable[[], None]], None] = lambda stop: None,
    ) -> bool:
        """Write the run's resolved values, the settings with `values` over them; False where the run is finished.

        `check` is for checks that take time: it is called before anything is written to a run that is not finished,
        with a function to call in between. RunError where the folder contains a different run.
        """
        resolved = {
            "stage": stage,
            "task": data.task.name,
            "manifest": str(manifest.resolve()),
            "manifest_sha256": sha256_of(manifest),
            "seed": self.seed,
            "threads": self.threads,
            "ranks": self.ranks.count,
            **as_plain(self.settings),
            "precision": self.precision,
            **values,
        }
        finished = self.ranks.same(self.run.finished(resolved["epochs"]))
        if not finished:
            check(self.stop.check)
        if self.ranks.first:
            self.run.begin(resolved, runtime.environment(self.seed, self.threads))
        self.ranks.same()
        if finished:
            log.info("%s: already finished", self.run.path)
        return not finished

    def order(self, samples: int, block: int | None = None) -> EpochBatches:
        """How training samples are dealt into steps; ConfigError where they are too few for the ranks."""
        batch_size = self.settings.batch_size
        try:
            return EpochBatches(samples, batch_size, self.seed, self.ranks.rank, self.ranks.count, block)
        except ValueError as error:
            raise ConfigError(f"batch_size: found {batch_size}: {error}") from error

    def share(self, samples: int, batch_size: int) -> list[list[int]]:
        """The part of the validation that is this rank's, in batches."""
        return in_order(share_of(samples, self.ranks.rank, self.ranks.count), batch_size)

    def check_stop(self) -> None:
        """Raise Stopped on all ranks when a signal came to any. All ranks must call it."""
        if self.ranks.sums([self.stop.signal is not None])[0]:
            raise self.stopped()

    def stopped(self) -> Stopped:
        """The stop by the signal that came to any rank; TERM or INT outweighs USR1. All ranks must call it."""
        names = {name for name in self.ranks.each(self.stop.signal) if name}
        return Stopped(min(names, key=lambda name: name == "SIGUSR1"))


@contextmanager
def training_job(
    out: Path, settings: TrainingConfig, seed: int, threads: int | None, remedy: str
) -> Iterator[TrainingJob]:
    """Everything that a training needs around it, for the block. Nothing is written yet.

    `remedy` says what to change where memory runs out.
    """
    runtime.keep_freed_memory(False)  # which an extraction in this process asked for
    with runtime.stop_signals() as stop, runtime.process_group() as ranks, runtime.memory_errors(remedy):
        run = RunDir(out)
        threads = runtime.configure_torch(threads)
        precision = runtime.resolve_precision(settings.precision, run.recorded().get("precision"))
        if settings.compile:
            runtime.require_compiler()
        yield TrainingJob(run, settings, seed, threads, precision, ranks, stop)
