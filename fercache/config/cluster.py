"""The section of the cluster: what each stage asks SLURM for."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from fercache.config.fields import check, number, value
from fercache.limits import MOST_SEED


@dataclass(frozen=True)
class JobConfig:
    """What the jobs of one stage ask for. What is not said here is the cluster's default, or a flag of sbatch."""

    nodes: int = number(1, 1, 10_000)
    """Machines of a job."""
    ranks: int = number(1, 1, 1000, "from 1 to 1000; more than one process only where a network is trained")
    """Processes on each machine that train one network, as a rule one a GPU."""
    cpus: int | None = number(None, 1, 10_000)
    """Processors of each process; fercache takes as many threads."""
    gpus: int = number(0, 0, 1000, "0, or at least one a rank")
    """GPUs of each machine."""
    memory: str | None = value(None, "as in 32G, or nothing")
    """Memory of each machine."""
    time: str | None = value(None, "as in 90 (minutes), 12:00:00 or 2-00:00:00, at least 5 minutes, or nothing")
    """Longest time of a job. Two minutes before it is over, work that can go on is saved, and the job queued again;
    predict, ensemble and report have to fit into it."""
    flags: tuple[str, ...] = ()
    """More flags of sbatch, each with its value in one word, as in [--gres=gpu:a100:1]."""
    frames_per_s: float | None = number(None, 0, 1e9, above=True)
    """For the plan: frames (train_temporal: windows) that one job gets through in a second."""

    def __post_init__(self) -> None:
        check(
            self,
            gpus=self.gpus == 0 or self.gpus >= self.ranks,
            memory=self.memory is None or re.fullmatch(r"[0-9]+[KMGT]?", self.memory) is not None,
            time=self.time is None or _minutes(self.time) >= 5,
        )

    @property
    def processes(self) -> int:
        """Ranks on all machines."""
        return self.nodes * self.ranks


@dataclass(frozen=True)
class SlurmConfig:
    """The pipeline as a graph of jobs."""

    launcher: str = "slurm"
    """What submits the jobs: slurm, or a launcher of your own."""
    shards: int = number(8, 1, 10_000)
    """Parts of the extraction: tasks of its job array."""
    at_once: int | None = number(None, 1, 10_000)
    """Most parts that run at a time; nothing means as many as there is room for."""
    heads: tuple[str, ...] = value(("gru", "transformer"), "names of heads, each once")
    """Heads to train; with the frame network they make the ensemble."""
    seeds: tuple[int, ...] = number((), 0, MOST_SEED, "numbers from 0, each once")
    """Train each head once with each of these seeds, and fuse those of one seed; nothing means the config's `seed`."""
    template: str | None = None
    """File with lines for the beginning of each script: modules, environments, variables. Taken as it is."""
    python: tuple[str, ...] = value(("python",), "the words of a command, as in [apptainer, exec, x.sif, python]")
    """What runs fercache in a job."""
    flags: tuple[str, ...] = ()
    """Flags of sbatch for every job, as in [--partition=gpu, --account=me]."""
    finetune: JobConfig = field(default_factory=JobConfig)
    extract: JobConfig = field(default_factory=JobConfig)
    train_temporal: JobConfig = field(default_factory=JobConfig)
    predict: JobConfig = field(default_factory=JobConfig)
    ensemble: JobConfig = field(default_factory=JobConfig)
    report: JobConfig = field(default_factory=JobConfig)

    def __post_init__(self) -> None:
        check(
            self,
            heads=len(set(self.heads)) == len(self.heads),
            seeds=len(set(self.seeds)) == len(self.seeds),
            python=len(self.python) > 0,
        )


def _minutes(text: str) -> float:
    """A time as SLURM writes it: minutes, M:S, H:M:S, D-H, D-H:M or D-H:M:S; 0 where it is none."""
    match = re.fullmatch(r"(?:([0-9]+)-)?([0-9]+)(?::([0-9]+))?(?::([0-9]+))?", text)
    if match is None:
        return 0
    days, *parts = (int(part) if part else 0 for part in match.groups())
    if match[1] is None and match[4] is None:
        parts = [0, parts[0], parts[1]]
    return (days * 24 + parts[0]) * 60 + parts[1] + parts[2] / 60
