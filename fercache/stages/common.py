"""What several stages do in the same way."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import nn

from fercache import runtime
from fercache.config import TrainingConfig, as_plain
from fercache.data.datasets import EpochBatches, in_order, share_of
from fercache.data.loader import FrameLoader
from fercache.data.manifest import Manifest
from fercache.errors import ConfigError, DataError, RunError, raise_problems
from fercache.files import sha256_of
from fercache.rundir import RunDir
from fercache.scoring.metrics import decide, probabilities, score
from fercache.tasks import Task
from fercache.training.engine import Batch, infer

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """A training that is to write a run folder."""

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

        Before anything is written to a run that is not finished, `check` looks at what costs time to look at, with
        what it is to call in between. RunError where the folder holds another run.
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
            log.info("%s: is finished already", self.run.path)
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


@contextmanager
def training_job(out: Path, settings: TrainingConfig, seed: int, threads: int | None, remedy: str) -> Iterator[Job]:
    """The start of every training: signals, ranks, threads, precision. Nothing is written yet.

    `remedy` is what to change where memory runs out.
    """
    runtime.keep_freed_memory(False)  # which an extraction in this process asked for
    with runtime.stop_signals() as stop, runtime.process_group() as ranks, runtime.memory_errors(remedy):
        run = RunDir(out)
        threads = runtime.configure_torch(threads)
        precision = runtime.resolve_precision(settings.precision, run.recorded().get("precision"))
        if settings.compile:
            runtime.require_compiler()
        yield Job(run, settings, seed, threads, precision, ranks, stop)


def raise_bad_frames(parts: Iterable[Sequence[str]], workers: int | None) -> NoReturn:
    """A frame among these files is broken: look at all, so that nobody mends them one run at a time; DataError."""
    log.warning("a frame cannot be decoded; looking for others")
    problems: list[str] = []
    for paths in parts:
        for batch in FrameLoader(paths, in_order(range(len(paths)), 256), runtime.decoding_workers(workers)):
            problems += batch.failures.values()
    raise_problems(problems, DataError)
    raise DataError("a frame could not be decoded, and now all can: were they changed meanwhile?")


def validation_scores(
    task: Task,
    network: nn.Module,
    batches: Iterable[Batch],
    labels: np.ndarray,
    precision: str,
    check: Callable[[], None],
    describe: Callable[[list[int]], list[str]],
) -> dict[str, float]:
    """The scores of an epoch on all validation labels (N,) or (N, C).

    `batches` are those of this rank's `share_of` the N samples, in order. The ranks' logits are put
    together by place: each sample counts once, whatever the number of ranks. Raises RunError where
    some are not finite, with the samples' names, which `describe` gives.
    """
    ranks = runtime.ranks()
    own = infer(network, batches, lambda: runtime.autocast(precision), check)  # (share, C)
    logits = np.empty((len(labels), own.shape[1]), np.float32)
    for rank, rows in enumerate(ranks.gather(torch.from_numpy(own)).numpy()):
        logits[share_of(len(labels), rank, ranks.count)] = rows
    broken = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    if len(broken):
        names = "\n".join(describe(broken[:20].tolist()))
        raise RunError(
            f"the network gives no finite numbers for {len(broken)} of {len(logits)} validation frames: lower the"
            f" learning rate, clip the gradient or compute in fp32; the first:\n{names}"
        )
    result = score(task, decide(task, probabilities(task, logits)), labels)
    return {
        "score": result.score,
        "f1": result.f1,
        "accuracy": result.accuracy,
        "f1_occurring": result.f1_occurring,
    }
