"""The section `slurm`: how the pipeline is split into jobs, and what each stage's jobs request."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from fercache.config.fields import check, config_field
from fercache.limits import MOST_SEED


@dataclass(frozen=True)
class JobConfig:
    """What the jobs of one stage request. The cluster's defaults apply where nothing is set."""

    nodes: int = config_field(1, "Machines per job.", within=(1, 10_000))
    ranks: int = config_field(
        1,
        "Processes per machine that train one network together, usually one per GPU.",
        within=(1, 1000),
        rule="from 1 to 1000; more than one process only where a network is trained",
    )
    cpus: int | None = config_field(
        None, "CPU cores per process; fercache uses as many threads.", within=(1, 10_000), unset="the cluster's"
    )
    gpus: int = config_field(0, "GPUs per machine.", within=(0, 1000), rule="0, or at least one per rank")
    memory: str | None = config_field(None, "Memory per machine.", rule="as in 32G", unset="the cluster's")
    time: str | None = config_field(
        None,
        "Time limit of a job. Two minutes before it, resumable work is "
        "saved and the job is queued again; predict, ensemble and report must fit into it.",
        rule="as in 90 (minutes), 12:00:00 or 2-00:00:00, at least 5 minutes",
        unset="the cluster's",
    )
    flags: tuple[str, ...] = config_field(
        (), "Further sbatch flags, each with its value in one word: [--gres=gpu:a100:1]."
    )
    frames_per_s: float | None = config_field(
        None,
        "Frames (train_temporal: windows) per second and job, from which `slurm plan` computes hours.",
        above=(0, 10**9),
        unset="no estimate, unless measured by --probe",
    )

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
    """The pipeline as a graph of SLURM jobs."""

    launcher: str = config_field("slurm", "What submits the jobs: slurm, or a launcher of your own.")
    shards: int = config_field(8, "Shards of the extraction: tasks of its job array.", within=(1, 10_000))
    at_once: int | None = config_field(
        None, "Most shards that run at the same time.", within=(1, 10_000), unset="as many as the cluster runs"
    )
    heads: tuple[str, ...] = config_field(
        ("gru", "transformer"), "Heads to train; they form the ensemble with the CNN.", rule="each head once"
    )
    seeds: tuple[int, ...] = config_field(
        (),
        "Train each head once per seed; one ensemble per seed.",
        within=(0, MOST_SEED),
        rule="numbers from 0, each once",
        unset="the top-level `seed`",
    )
    template: str | None = config_field(
        None,
        "File with lines for the beginning of each job script: modules, environments, variables.",
        metavar="FILE",
        unset="no such lines",
    )
    python: tuple[str, ...] = config_field(
        ("python",),
        "Command that starts Python in a job, word by word: [apptainer, exec, x.sif, python].",
        rule="the words of a command",
    )
    flags: tuple[str, ...] = config_field((), "sbatch flags of every job: [--partition=gpu, --account=me].")
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
