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
    name: str
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


def queued(mark: str) -> list[QueuedJob]:
    """The user's jobs with that ending of their names that wait or run, each task of an array by itself."""
    # Asked for some jobs alone, squeue fails at the first number that it has forgotten; so all are asked for.
    answer = _run("squeue", "--noheader", "--array", "--me", "--format=%F|%K|%T|%j|%R")
    found = []
    for line in answer.splitlines():
        number, task, state, name, reason = line.strip().split("|", 4)
        if number.isdigit() and name.endswith(f".{mark}"):
            name = name.removesuffix(f".{mark}")
            found.append(QueuedJob(int(number), name, int(task) if task.isdigit() else None, state, reason.strip("()")))
    return found


def check_arrays(sizes: Sequence[int], patience_s: float | None = None) -> None:
    """Raise ConfigError where an array of tasks from 1 to its size is larger than the cluster lets it be."""
    if not sizes:
        return
    match = re.search(
        r"^MaxArraySize\s*=\s*([0-9]+)", _run("scontrol", "show", "config", patience_s=patience_s), flags=re.MULTILINE
    )
    if match and max(sizes) >= int(match[1]):
        raise ConfigError(
            f"slurm.shards: found {max(sizes)}, but MaxArraySize of this cluster is {match[1]}: its tasks' numbers are"
            " below that"
        )


def _run(*command: str, patience_s: float | None = None) -> str:
    try:
        answer = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=patience_s,
            env=runtime.environment_of_jobs(),
            start_new_session=True,  # Ctrl-C must not end sbatch between the job and its number
        )
    except subprocess.TimeoutExpired as error:
        raise SlurmError(f"{command[0]}: no answer within {patience_s:.0f} s") from error
    except OSError as error:
        raise SlurmError(f"{command[0]}: cannot be run: {error.strerror}; is this a machine of the cluster?") from error
    if answer.returncode:
        raise SlurmError(f"{command[0]}: {' '.join(answer.stderr.split()) or f'exit status {answer.returncode}'}")
    return answer.stdout
