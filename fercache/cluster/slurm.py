"""SLURM's own commands, and what they answer."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fercache import runtime
from fercache.errors import ConfigError, FercacheError

NEVER = "DependencyNeverSatisfied"
"""Reason of a job whose dependency has failed."""


class SlurmError(FercacheError):
    """A command of SLURM that is not there, or that failed."""


@dataclass(frozen=True)
class QueuedJob:
    """A job, or a task of an array, that waits or runs."""

    number: int
    """The job's; of an array that of the whole."""
    task: int | None
    """Of an array."""
    state: str
    """SLURM's word, as PENDING."""
    reason: str
    """Why it waits, or the machines that it runs on."""

    @property
    def waits(self) -> bool:
        """Whether it has not begun."""
        return self.state in ("PENDING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT")


def submit(flags: Sequence[str], script: str) -> int:
    """Submit a script; the job's number."""
    answer = _run("sbatch", "--parsable", *flags, script)
    number = answer.strip().splitlines()[-1].partition(";")[0] if answer.strip() else ""
    if not number.isdigit():
        raise SlurmError(f"sbatch: found the answer {answer.strip()!r}, expected a job's number")
    return int(number)


def cancel(numbers: Iterable[int]) -> None:
    """Take jobs out of the queue."""
    _run("scancel", *map(str, numbers))


def queued(numbers: Iterable[int]) -> list[QueuedJob]:
    """Those of the jobs that wait or run, each task of an array by itself."""
    wanted = set(numbers)
    if not wanted:
        return []
    # Asked for its own jobs, squeue fails at the first number that it has forgotten; so all are asked for.
    answer = _run("squeue", "--noheader", "--array", "--me", "--format=%F|%K|%T|%R")
    found = []
    for line in answer.splitlines():
        number, task, state, reason = line.strip().split("|", 3)
        if number.isdigit() and int(number) in wanted:
            found.append(QueuedJob(int(number), int(task) if task.isdigit() else None, state, reason.strip("()")))
    return found


def check_arrays(sizes: Sequence[int]) -> None:
    """Raise ConfigError where an array of tasks from 1 to its size is larger than the cluster lets it be."""
    if not sizes:
        return
    match = re.search(r"^MaxArraySize\s*=\s*([0-9]+)", _run("scontrol", "show", "config"), flags=re.MULTILINE)
    if match and max(sizes) >= int(match[1]):
        raise ConfigError(
            f"slurm.shards: found {max(sizes)}, but MaxArraySize of this cluster is {match[1]}: its tasks' numbers are"
            " below that"
        )


def _run(*command: str) -> str:
    try:
        answer = subprocess.run(
            command, capture_output=True, text=True, check=False, env=runtime.environment_of_jobs(), errors="replace"
        )
    except OSError as error:
        raise SlurmError(f"{command[0]}: cannot be run: {error.strerror}; is this a machine of the cluster?") from error
    if answer.returncode:
        raise SlurmError(f"{command[0]}: {' '.join(answer.stderr.split()) or f'exit status {answer.returncode}'}")
    return answer.stdout
