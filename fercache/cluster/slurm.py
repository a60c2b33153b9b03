"""SLURM's launcher: everything that is known of sbatch, squeue, scancel and scontrol."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from fercache import runtime
from fercache.cluster.launcher import JobRequest, JobState, Launcher, QueuedJob
from fercache.errors import ConfigError, FercacheError

LEAD_S = 120
"""How long before its time limit a job gets the signal to save."""
FIXED_FLAGS = ("--open-mode=append", "--requeue", f"--signal=B:USR1@{LEAD_S}", "--kill-on-invalid-dep=yes")
"""Of every job. USR1 reaches the script alone, which by then is fercache itself, or srun, which passes it on."""
RESERVED_FLAGS = (
    *("--dependency", "--array", "--nodes", "--ntasks", "--ntasks-per-node", "--chdir", "--clusters", "--job-name"),
    *("--kill-on-invalid-dep", "--no-requeue", "--parsable", "--test-only", "--wait", "--wrap"),
)
"""Flags that would change the graph; sbatch takes their beginnings for them, too."""
RESERVED_LETTERS = ("-d", "-a", "-D", "-M", "-J", "-N", "-n", "-W")
WAITING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT")


class SlurmError(FercacheError):
    """A command of SLURM is missing or failed."""


class SlurmLauncher(Launcher):
    """Submits by sbatch."""

    log_prefixes = ("slurmstepd",)

    def submit(self, job: JobRequest) -> int:
        """Submit a job; its number."""
        answer = _run(*self.command(job)).strip()
        number = answer.splitlines()[-1].partition(";")[0] if answer else ""
        if not number.isdigit():
            raise SlurmError(f"sbatch: found the answer {answer!r}, expected a job's number")
        return int(number)

    def states(self) -> list[QueuedJob]:
        """The user's jobs in the queue."""
        # Asked for certain jobs, squeue fails at the first number that it has forgotten; so it is asked for all.
        answer = _run("squeue", "--noheader", "--array", "--me", "--format=%F|%K|%T|%j|%R")
        jobs = []
        for line in answer.splitlines():
            number, task, state, name, reason = line.strip().split("|", 4)
            if number.isdigit():
                task_number, reason = int(task) if task.isdigit() else 0, reason.strip("()")
                jobs.append(QueuedJob(int(number), name, task_number, _state(state, reason), reason))
        return jobs

    def cancel(self, numbers: Iterable[int]) -> None:
        """Cancel jobs."""
        _run("scancel", *map(str, numbers))

    def script(self, job: JobRequest) -> str:
        """The user's lines, a log for each start of the job, and the command.

        The command takes the shell's place, so that SLURM's signals reach it.
        """
        line, number = shlex.join(job.command), '"$SLURM_JOB_ID"'
        if job.shards is not None:
            line += f' --shard "$SLURM_ARRAY_TASK_ID/{job.shards}"'
            number = '"$SLURM_ARRAY_JOB_ID"_"$SLURM_ARRAY_TASK_ID"'
        if job.resources.processes > 1:
            # srun passes signals on to all ranks, and stops them all where one fails. By default it gives each rank one
            # of the job's processors.
            cpus = '${SLURM_CPUS_PER_TASK:+--cpus-per-task="$SLURM_CPUS_PER_TASK"}'
            line = f"srun --kill-on-bad-exit=1 {cpus} {line}"
        log = f'{shlex.quote(str(job.logs))}/{number}.start"${{SLURM_RESTART_COUNT:-0}}".log'
        shebang, header = "#!/bin/bash", job.header
        if header.startswith("#!"):
            shebang, _, header = header.partition("\n")
        header = f"{header.rstrip()}\n" if header.strip() else ""
        return f"{shebang}\n{header}exec >> {log} 2>&1\nexec {line}\n"

    def command(self, job: JobRequest) -> list[str]:
        """The call of sbatch."""
        dependency = [f"--dependency=afterok:{':'.join(job.after)}"] if job.after else []
        array = [] if job.shards is None else [array_flag(job.tasks, job.at_once)]
        return ["sbatch", "--parsable", *dependency, *array, *_flags(job), *job.flags, str(job.script)]

    def problems(self, out: Path, flags: Mapping[str, Sequence[str]]) -> list[str]:
        """Flags that are none of sbatch's, or would change the graph, and folders that SLURM writes no log into."""
        problems = []
        if "\\" in str(out.absolute()):
            problems.append(f"out: found {out.absolute()}, expected a folder without \\: SLURM cannot write logs there")
        for where, words in flags.items():
            for word in words:
                name = word.partition("=")[0]
                if not re.match("-.", word):
                    expected = "a flag of sbatch, with its value as in --partition=gpu"
                    problems.append(f"{where}: found {word!r}, expected {expected}")
                elif name.startswith(RESERVED_LETTERS) or (
                    len(name) > 3 and any(flag.startswith(name) for flag in RESERVED_FLAGS)
                ):
                    problems.append(
                        f"{where}: found {word!r}, which the graph sets itself, from slurm.STAGE and slurm.shards"
                    )
        return problems

    def check_array(self, tasks: int, patience_s: float | None = None) -> None:
        """Compare with the cluster's MaxArraySize."""
        answer = _run("scontrol", "show", "config", patience_s=patience_s)
        limit = re.search(r"^MaxArraySize\s*=\s*([0-9]+)", answer, flags=re.MULTILINE)
        if limit and tasks >= int(limit[1]):
            raise ConfigError(
                f"slurm.shards: found {tasks}, but MaxArraySize of this cluster is {limit[1]}: its tasks' numbers are"
                " below that"
            )


def _flags(job: JobRequest) -> list[str]:
    """The flags of sbatch that the graph sets."""
    asks = job.resources
    # Absolute, since SLURM would replace a % in the current folder's name, too.
    logs = str(job.logs.absolute()).replace("%", "%%")
    optional = {"cpus-per-task": asks.cpus, "gpus-per-node": asks.gpus or None, "mem": asks.memory, "time": asks.time}
    return [
        f"--job-name={job.name}",
        f"--output={logs}/{'%j' if job.shards is None else '%A_%a'}.slurm.log",
        *FIXED_FLAGS,
        f"--nodes={asks.nodes}",
        f"--ntasks-per-node={asks.ranks}",
        *(f"--{name}={value}" for name, value in optional.items() if value is not None),
    ]


def array_flag(tasks: Sequence[int], at_once: int | None) -> str:
    """The flag of an array of these tasks, with neighbours as ranges: SLURM limits the length of the text."""
    ranges: list[list[int]] = []
    for task in tasks:
        if ranges and task == ranges[-1][1] + 1:
            ranges[-1][1] = task
        else:
            ranges.append([task, task])
    text = ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)
    return f"--array={text}" + (f"%{at_once}" if at_once else "")


def _state(state: str, reason: str) -> JobState:
    if state in WAITING:
        return JobState.NEVER if reason == "DependencyNeverSatisfied" else JobState.WAITING
    return JobState.ENDING if state == "COMPLETING" else JobState.RUNNING


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
