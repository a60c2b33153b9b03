"""How the submitted jobs go: from their outputs and SLURM's queue."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fercache.cluster import slurm
from fercache.cluster.jobs import LOGS, Job, checked, graph
from fercache.cluster.record import Record, Submitted
from fercache.cluster.situation import Situation
from fercache.config import Config
from fercache.runtime.group import LOST_RANK

LAST_LINES = 5
"""Of a log that are told."""
LAST_BYTES = 16_384
"""Of a log that are looked at."""
MOST_FAILED = 5
"""Failed tasks of an array that are told of by themselves."""


@dataclass(frozen=True)
class Failure:
    """A job, or a task of an array, that has ended and left its work undone."""

    task: int
    """Of an array; a single job is task 0."""
    cause: str
    """In a line."""
    log: str | None
    lines: tuple[str, ...]
    """The log's last ones."""


@dataclass(frozen=True)
class JobStatus:
    """How one job stands."""

    name: str
    state: str
    """done, running, waiting, failed, blocked (by one before it that failed), outdated, or not submitted."""
    progress: str
    running: int
    """Tasks, as the two that follow."""
    waiting: int
    failed: int
    reason: str | None
    """Why it waits, in SLURM's word; or what stands before it, or its output is not as it would be made now."""
    failures: tuple[Failure, ...]
    """The first of those that failed."""


@dataclass(frozen=True)
class Status:
    """How all jobs stand."""

    jobs: tuple[JobStatus, ...]
    go_on: str | None
    """The command that goes on with what is missing, where something has failed or was not submitted."""

    def as_plain(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def __str__(self) -> str:
        width = max(len(job.name) for job in self.jobs)
        lines = [line for job in self.jobs for line in _lines(job, width)]
        return "\n".join([*lines, *([f"To go on: {self.go_on}"] if self.go_on else [])])


def status(config: Config, submit: str) -> Status:
    """How the jobs of the project stand. `submit`: the command that goes on, where the record knows none."""
    config = checked(config)
    out = Path(str(config.out))
    record = Record.read(out)
    jobs = graph(config, ())
    queue = slurm.queued(record.mark) if record.jobs else []
    found = Situation(jobs, Path(), record, queue)
    told = tuple(_status(job, found, out / LOGS) for job in jobs)
    moving = all(job.state in ("done", "running", "waiting") for job in told)
    return Status(told, None if moving else record.command or submit)


def _status(job: Job, situation: Situation, logs: Path) -> JobStatus:
    live = [queued for _, queued in situation.live[job.name].values()]
    waiting = [queued for queued in live if queued.waits]
    submitted = {task: one for one in situation.record.of(job.name) if one.shards == job.shards for task in one.tasks}
    lost = [task for task in situation.to_submit(job.name) if task in submitted]
    before = [name for name in job.after if situation.to_submit(name)]
    unfit, reason, failures = job.unfit(Path()), None, []
    if live:
        state = "waiting" if len(waiting) == len(live) else "running"
        reason = waiting[0].reason if waiting else None
    elif unfit or (situation.left[job.name] and job.outdated(Path())):
        state, reason = "outdated", unfit or f"{job.step.output} is older than what it was made from"
    elif not situation.left[job.name]:
        state = "done"
    elif before and situation.record.jobs:
        state, reason = "blocked", f"{', '.join(before)} is not done"
    else:
        state = "failed" if lost else "not submitted"
    if state in ("failed", "running", "waiting"):
        failures = [_failure(job, task, submitted[task], logs) for task in lost]
    return JobStatus(
        name=job.name,
        state="failed" if failures else state,
        progress=str(job.state(Path())),
        running=len(live) - len(waiting),
        waiting=len(waiting),
        failed=len(failures),
        reason=reason,
        failures=tuple(failures[:MOST_FAILED]),
    )


def _failure(job: Job, task: int, submitted: Submitted, logs: Path) -> Failure:
    """Why a task's work is undone, as far as its log says."""
    name = str(submitted.number) if job.shards is None else f"{submitted.number}_{task}"
    # SLURM's own words, as on a limit, stand in a file of their own.
    found = sorted((logs / job.name).glob(f"{name}.*.log"), key=lambda path: path.stat().st_mtime)
    spoken = [(path, lines) for path in found if (lines := _last_lines(path))]
    if not spoken:
        return Failure(task, "ended without a word: was it cancelled, or did its machine fail?", None, ())
    path, lines = spoken[-1]
    return Failure(task, _cause([line for _, said in spoken for line in said]), str(path), lines[-LAST_LINES:])


def _cause(lines: Sequence[str]) -> str:
    """The line that says why: fercache's own sentence, of the rank that failed first; else Python's; else SLURM's."""
    own = [line for line in lines if re.match(r"(\[rank [0-9]+\] )?Error: ", line)]
    first = [line for line in own if LOST_RANK not in line]
    raised = [line for line in lines if re.search(r"\b\w*Error: ", line) and line not in own]
    slurms = [line for line in lines if line.startswith("slurmstepd")]
    return (first or raised or own or slurms or lines)[-1]


def _last_lines(path: Path) -> tuple[str, ...]:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - LAST_BYTES))
        text = file.read().decode("utf-8", errors="replace")
    # A progress bar rewrites its line.
    lines = [line.rpartition("\r")[2].strip() for line in text.splitlines()]
    return tuple(line for line in lines if line)


def _lines(job: JobStatus, width: int) -> list[str]:
    counts = {"running": job.running, "waiting": job.waiting, "failed": job.failed}
    several = sum(counts.values()) > 1
    tasks = ", ".join(f"{count} {what}" for what, count in counts.items() if count) if several else ""
    said = "; ".join(part for part in (job.progress, tasks, job.reason) if part)
    lines = [f"{job.name:<{width}}  {job.state:<13}  {said}"]
    for failure in job.failures:
        name = f"part {failure.task}: " if failure.task else ""
        lines.append(f"  {name}{failure.cause}")
        lines += [f"    {line}" for line in failure.lines if line != failure.cause]
        lines += [f"    ({failure.log})"] if failure.log else []
    if job.failed > len(job.failures):
        lines.append(f"  and {job.failed - len(job.failures)} more")
    return lines
