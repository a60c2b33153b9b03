"""The interface of launchers: all that the package asks of a scheduler. A new one is registered in `launchers`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import ClassVar

from fercache.config import JobConfig


@dataclass(frozen=True)
class JobRequest:
    """A job to submit: a single one, or an array with a task for each shard of its work."""

    name: str
    """In the queue."""
    command: tuple[str, ...]
    """The program to run in the current folder; the task of a shard adds `--shard TASK/SHARDS`."""
    resources: JobConfig
    """World size, processors, memory and time of a task."""
    script: Path
    """The file for `Launcher.script`."""
    logs: Path
    """Folder of its logs, which are named NUMBER.*.log, or NUMBER_TASK.*.log."""
    after: tuple[str, ...] = ()
    """Jobs, or tasks as NUMBER_TASK, that must succeed before."""
    tasks: tuple[int, ...] = (0,)
    """Tasks to run; a single job is task 0."""
    shards: int | None = None
    """Into how many shards the work is dealt; None: a single job."""
    at_once: int | None = None
    """Tasks that may run at a time; None: as many as there is room for."""
    header: str = ""
    """The user's lines for the beginning of the script."""
    flags: tuple[str, ...] = ()
    """The user's flags for the scheduler; the last of several wins."""


class JobState(Enum):
    """The state of a job in the queue."""

    WAITING = "waiting"
    NEVER = "waiting for a job that failed, so that it never begins"
    RUNNING = "running"
    ENDING = "ending"


@dataclass(frozen=True)
class QueuedJob:
    """A job in the queue, or a task of an array."""

    number: int
    """The job's; all tasks of an array share it."""
    name: str
    task: int
    """A single job is task 0."""
    state: JobState
    reason: str
    """Why it waits, in the scheduler's word, or the machines that it runs on."""

    @property
    def waits(self) -> bool:
        """Whether it has not begun."""
        return self.state in (JobState.WAITING, JobState.NEVER)


class Launcher(ABC):
    """Submits jobs to a scheduler. Every method raises FercacheError where the scheduler fails."""

    log_prefixes: ClassVar[tuple[str, ...]] = ()
    """How lines begin that the scheduler itself writes to a job's logs."""

    @abstractmethod
    def submit(self, job: JobRequest) -> int:
        """Submit a job, whose script is written; its number."""

    @abstractmethod
    def states(self) -> list[QueuedJob]:
        """The user's jobs in the queue, each task of an array by itself."""

    @abstractmethod
    def cancel(self, numbers: Iterable[int]) -> None:
        """Take jobs out of the queue, and stop those that run."""

    def script(self, job: JobRequest) -> str:
        """The text of a job's script; "" where it needs none."""
        return ""

    def command(self, job: JobRequest) -> list[str]:
        """The call that submits a job, for the user to read."""
        return list(job.command)

    def problems(self, out: Path, flags: Mapping[str, Sequence[str]]) -> list[str]:
        """What the scheduler cannot take: the project's folder `out`, or the user's flags, by where they are set."""
        return []

    def check_array(self, tasks: int, patience_s: float | None = None) -> None:
        """Raise ConfigError where an array with tasks up to this number is too large for the cluster.

        `patience_s`: how long it may take to find out.
        """
        return
