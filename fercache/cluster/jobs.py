"""The graph of jobs: the pipeline's steps, and what each asks of the cluster."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fercache.config import Config, JobConfig
from fercache.errors import ConfigError, FercacheError, raise_problems
from fercache.models.backbones import archs
from fercache.models.heads import HEADS
from fercache.pipeline.graph import FILES, Step, StepProgress
from fercache.pipeline.steps import HeadRun, System, pipeline_steps

LOGS = "logs"
"""Folder of all logs, in the project's folder."""
SINGLE_PROCESS = ("extract", "predict", "ensemble", "report")
"""Sections of stages that train nothing."""
HERE = Path()
"""Jobs run in the current folder."""


@dataclass(frozen=True)
class ClusterJob:
    """A pipeline step as a job: a single one, or an array with a task for each shard."""

    step: Step
    resources: JobConfig
    after: tuple[str, ...]
    """Names of the jobs whose outputs it needs."""
    shards: int | None = None
    """Tasks of the array, numbered from 1; None: a single job, which is task 0."""

    @property
    def name(self) -> str:
        """The step's."""
        return self.step.name

    @property
    def section(self) -> str:
        """The stage, as the config calls it."""
        return self.step.stage.replace("-", "_")

    @property
    def tasks(self) -> tuple[int, ...]:
        """All tasks."""
        return (0,) if self.shards is None else tuple(range(1, self.shards + 1))

    def progress(self) -> StepProgress:
        """How much of it is done."""
        return self.step.progress(HERE)

    def unfinished(self) -> tuple[int, ...]:
        """Tasks that are not done."""
        if self.shards is None or self.step.measure_shards is None:
            return () if self.progress().finished else (0,)
        shards = self.step.measure_shards(HERE, self.shards)
        return tuple(task for task, shard in zip(self.tasks, shards, strict=True) if not shard.finished)

    def stale(self) -> str | None:
        """Why its output cannot be used: made with other settings or from other inputs, or unreadable."""
        try:
            return self.step.stale(HERE)
        except FercacheError as error:
            return str(error)

    def outdated(self) -> bool:
        """Whether its output, which appears whole, exists and yet does not count as done: its inputs are newer."""
        progress = self.progress()
        return progress.unit == FILES and not progress.finished and (HERE / str(self.step.output)).exists()


def checked_config(config: Config) -> Config:
    """The config as jobs take it; ConfigError for all that is missing or that a graph cannot run."""
    missing = [key for key in ("manifest", "cache", "out") if getattr(config, key) is None]
    problems = [f"{key}: is not set in the config; the jobs read it there" for key in missing]
    if config.extract.weights is not None:
        problems.append("extract.weights: the graph extracts from the network that it has fine-tuned, OUT/cnn")
    if config.train_temporal.end_to_end:
        problems.append("train_temporal.end_to_end: the graph trains heads on the cache of the CNN alone")
    if config.finetune.arch not in (None, *archs()):
        problems.append(f"finetune.arch: found {config.finetune.arch!r}, expected one of {', '.join(archs())}")
    unknown_heads = [head for head in config.slurm.heads if head not in HEADS]
    problems += [f"slurm.heads: found {head!r}, expected some of {', '.join(HEADS)}" for head in unknown_heads]
    for stage in SINGLE_PROCESS:
        if getattr(config.slurm, stage).processes > 1:
            problems.append(f"slurm.{stage}: only finetune and train_temporal can use several nodes or ranks")
    raise_problems(problems, ConfigError)
    if config.extract.bad_frames is None:
        return dataclasses.replace(config, extract=dataclasses.replace(config.extract, bad_frames="skip"))
    return config


def job_graph(config: Config, options: Sequence[str]) -> list[ClusterJob]:
    """All jobs, each behind those that it needs; `options` go to every command."""
    slurm = config.slurm
    ensembles = [
        System(tuple(HeadRun(head, seed) for head in slurm.heads)) for seed in (slurm.seeds or (None,)) if slurm.heads
    ]
    jobs: list[ClusterJob] = []
    maker: dict[str | None, str] = {}
    for step in pipeline_steps(config, [System(), *ensembles], options):
        after = tuple(dict.fromkeys(maker[name] for name in step.inputs if name in maker))
        resources = getattr(slurm, step.stage.replace("-", "_"))
        jobs.append(ClusterJob(step, resources, after, slurm.shards if step.measure_shards else None))
        maker[step.output] = step.name
    return jobs
