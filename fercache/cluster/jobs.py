"""The graph of jobs: the pipeline's steps, what each asks for, and the scripts that run them."""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fercache.config import Config, JobConfig
from fercache.errors import ConfigError, FercacheError, raise_problems
from fercache.models.backbones import archs
from fercache.models.heads import HEADS
from fercache.pipeline import project
from fercache.pipeline.graph import WHOLE, Progress, Step

LEAD_S = 120
"""How long before its time is up a job is told to save."""
LOGS = "logs"
RESERVED = (
    *("--dependency", "--array", "--nodes", "--ntasks", "--ntasks-per-node", "--chdir", "--clusters", "--job-name"),
    *("--kill-on-invalid-dep", "--no-requeue", "--parsable", "--test-only", "--wait", "--wrap"),
)
"""Flags of sbatch, which takes their beginnings for them, too, that would make another graph of it."""
RESERVED_LETTERS = ("-d", "-a", "-D", "-M", "-J", "-N", "-n", "-W")
FIXED = ("--open-mode=append", "--requeue", f"--signal=B:USR1@{LEAD_S}", "--kill-on-invalid-dep=yes")
"""Flags of every job. USR1 reaches the script alone, which by then is fercache itself, or srun, which passes it on."""


@dataclass(frozen=True)
class Job:
    """A step as a job of SLURM: a single one, or an array with a task for each shard."""

    name: str
    step: Step
    asks: JobConfig
    after: tuple[str, ...]
    """Names of the jobs whose outputs it needs."""
    shards: int | None = None
    """Tasks of the array, numbered from 1."""

    def slurms_name(self, mark: str) -> str:
        """The name that SLURM knows it by: `mark` says of which project it is."""
        return f"{self.name}.{mark}"

    @property
    def tasks(self) -> tuple[int, ...]:
        """All of them; a single job is one task, number 0."""
        return (0,) if self.shards is None else tuple(range(1, self.shards + 1))

    @property
    def section(self) -> str:
        """The stage, as the config calls it."""
        return self.step.stage.replace("-", "_")

    def state(self, folder: Path) -> Progress:
        """How far it is."""
        return self.step.state(folder)

    def unfinished(self, folder: Path) -> tuple[int, ...]:
        """Its tasks that are not done; a single job is one task, number 0."""
        if self.shards is None or self.step.parts is None:
            return () if self.state(folder).finished else (0,)
        parts = self.step.parts(folder, self.shards)
        return tuple(task for task, part in enumerate(parts, start=1) if not part.finished)

    def unfit(self, folder: Path) -> str | None:
        """Why what is there of its output cannot be taken for its work."""
        try:
            return self.step.unfit(folder)
        except FercacheError as error:
            return str(error)

    def outdated(self, folder: Path) -> bool:
        """Whether its output, which appears whole, is there and is not taken for done."""
        progress = self.state(folder)
        whole = progress.unit == WHOLE and (folder / str(self.step.output)).exists()
        return whole and not progress.finished


def checked(config: Config) -> Config:
    """The config as jobs take it; ConfigError for all that is missing or cannot be run in a graph."""
    missing = [key for key in ("manifest", "cache", "out") if getattr(config, key) is None]
    problems = [f"{key}: is not set in the config; the jobs read it there" for key in missing]
    if config.extract.weights is not None:
        problems.append("extract.weights: the graph extracts from the network that it has fine-tuned, OUT/cnn")
    if config.finetune.arch not in (None, *archs()):
        problems.append(f"finetune.arch: found {config.finetune.arch!r}, expected one of {', '.join(archs())}")
    for head in config.slurm.heads:
        if head not in HEADS:
            problems.append(f"slurm.heads: found {head!r}, expected some of {', '.join(HEADS)}")
    if config.train_temporal.end_to_end:
        problems.append("train_temporal.end_to_end: the graph trains heads on the cache of the frame network alone")
    if config.out is not None and "\\" in str(Path(config.out).absolute()):
        problems.append(
            f"out: {Path(config.out).absolute()}: has a \\, after which SLURM writes no log where it should"
        )
    for stage in ("extract", "predict", "ensemble", "report"):
        if getattr(config.slurm, stage).processes > 1:
            problems.append(f"slurm.{stage}: only finetune and train_temporal can use several nodes or ranks")
    raise_problems(problems, ConfigError)
    if config.extract.bad_frames is None:
        return dataclasses.replace(config, extract=dataclasses.replace(config.extract, bad_frames="skip"))
    return config


def systems(config: Config) -> list[project.System]:
    """The frame network alone, and its ensemble with all heads, once for each seed."""
    slurm = config.slurm
    seeds: Sequence[int | None] = slurm.seeds or (None,)
    return [(), *(tuple(project.Head(head, seed) for head in slurm.heads) for seed in seeds if slurm.heads)]


def graph(config: Config, options: Sequence[str]) -> list[Job]:
    """All jobs, each behind those that it needs."""
    jobs: list[Job] = []
    maker: dict[str, str] = {}
    for step in project.steps(config, systems(config), options):
        after = tuple(dict.fromkeys(maker[name] for name in step.inputs if name in maker))
        shards = None if step.parts is None else config.slurm.shards
        job = Job(_name(step), step, getattr(config.slurm, step.stage.replace("-", "_")), after, shards)
        jobs.append(job)
        if step.output is not None:
            maker[step.output] = job.name
    return jobs


def _name(step: Step) -> str:
    """finetune, extract, train-temporal-gru, predict-cnn, ensemble-cnn+gru, apply-cnn+gru, report."""
    if step.stage in ("finetune", "extract", "report") or step.output is None:
        return step.stage
    output = Path(step.output)
    if step.stage == "train-temporal":
        return f"{step.stage}-{output.parent.name}"
    if output.name == "ensemble.json":
        return output.parent.name
    what = "apply" if step.stage == "ensemble" else step.stage
    return f"{what}-{output.name.removesuffix('-validation.h5')}"


def script(job: Job, config: Config, template: str, logs: Path) -> str:
    """The text of a job's script: the user's lines, a log of its own for each start, and the command.

    The command takes the shell's place, so that it is the one that SLURM's signals reach.
    """
    command = [*config.slurm.python, "-m", "fercache", *job.step.command]
    line = shlex.join(command)
    number = '"$SLURM_JOB_ID"'
    if job.shards is not None:
        line += f' --shard "$SLURM_ARRAY_TASK_ID/{job.shards}"'
        number = '"$SLURM_ARRAY_JOB_ID"_"$SLURM_ARRAY_TASK_ID"'
    if job.asks.processes > 1:
        # srun passes signals on to all ranks, and ends them all where one fails; of the job's processors it takes one a
        # rank where it is not told.
        cpus = '${SLURM_CPUS_PER_TASK:+--cpus-per-task="$SLURM_CPUS_PER_TASK"}'
        line = f"srun --kill-on-bad-exit=1 {cpus} {line}"
    log = f'{shlex.quote(str(logs / job.name))}/{number}.start"${{SLURM_RESTART_COUNT:-0}}".log'
    shebang, lines = "#!/bin/bash", template
    if template.startswith("#!"):
        shebang, _, lines = template.partition("\n")
    parts = [shebang, *([lines.rstrip("\n")] if lines.strip() else []), f"exec >> {log} 2>&1", f"exec {line}"]
    return "\n".join(parts) + "\n"


def flags(job: Job, config: Config, logs: Path, mark: str, more: Sequence[str]) -> list[str]:
    """The flags of sbatch for a job, those of the user last, which win; without dependencies and tasks."""
    asks = job.asks
    # Absolute, since SLURM would replace a % in the current folder's name, too.
    place = str((logs / job.name).absolute()).replace("%", "%%")
    found = [
        f"--job-name={job.slurms_name(mark)}",
        f"--output={place}/{'%A_%a' if job.shards else '%j'}.slurm.log",
        *FIXED,
        f"--nodes={asks.nodes}",
        f"--ntasks-per-node={asks.ranks}",
    ]
    optional = {"cpus-per-task": asks.cpus, "gpus-per-node": asks.gpus or None, "mem": asks.memory, "time": asks.time}
    found += [f"--{name}={value}" for name, value in optional.items() if value is not None]
    return [*found, *config.slurm.flags, *asks.flags, *more]


def check_flags(where: str, words: Sequence[str]) -> None:
    """Raise ConfigError for words that are no flags of sbatch, or flags that are the graph's own."""
    problems = []
    for word in words:
        name = word.partition("=")[0]
        if not re.match("-.", word):
            problems.append(f"{where}: found {word!r}, expected a flag of sbatch, with its value as in --partition=gpu")
        elif name.startswith(RESERVED_LETTERS) or (len(name) > 3 and any(flag.startswith(name) for flag in RESERVED)):
            problems.append(f"{where}: found {word!r}, which the graph sets itself, from slurm.STAGE and slurm.shards")
    raise_problems(problems, ConfigError)


def array(tasks: Sequence[int], at_once: int | None) -> str:
    """The flag of an array of these tasks, with neighbours as ranges: SLURM bounds the length of the text."""
    ranges: list[list[int]] = []
    for task in tasks:
        if ranges and task == ranges[-1][1] + 1:
            ranges[-1][1] = task
        else:
            ranges.append([task, task])
    text = ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)
    return f"--array={text}" + (f"%{at_once}" if at_once else "")
