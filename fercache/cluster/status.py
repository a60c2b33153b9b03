"""The status of the submitted jobs: from their outputs, the queue and their logs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fercache.cluster.jobs import LOGS, ClusterJob, checked_config, job_graph
from fercache.cluster.launcher import Launcher
from fercache.cluster.launchers import get_launcher
from fercache.cluster.queue import QueueState
from fercache.cluster.record import JobRecord, SubmissionRecord
from fercache.config import Config
from fercache.runtime.group import LOST_RANK

LAST_LINES = 5
"""Lines of a failed task's log that are shown."""
LAST_BYTES = 16_384
"""Of a log that are read."""
MOST_FAILURES = 5
"""Failed tasks of an array that are listed."""


@dataclass(frozen=True)
class JobFailure:
    """A job, or a task of an array, that ended without finishing its work."""

    task: int
    """A single job is task 0."""
    cause: str
    """In a line."""
    log: str | None
    lines: tuple[str, ...]
    """The log's last lines."""


@dataclass(frozen=True)
class JobStatus:
    """The status of one job."""

    name: str
    state: str
    """done, running, waiting, failed, blocked (by a failed one before it), outdated, or not submitted."""
    progress: str
    running: int
    """Tasks, as the two that follow."""
    waiting: int
    failed: int
    reason: str | None
    """Why it waits, in the scheduler's word; what blocks it; or why its output is outdated."""
    failures: tuple[JobFailure, ...]
    """The first of the failed tasks."""

    def lines(self, width: int) -> list[str]:
        """As text, with the name in a column of this width."""
        counts = {"running": self.running, "waiting": self.waiting, "failed": self.failed}
        tasks = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        parts = (self.progress, tasks if sum(counts.values()) > 1 else "", self.reason)
        lines = [f"{self.name:<{width}}  {self.state:<13}  {'; '.join(part for part in parts if part)}"]
        for failure in self.failures:
            lines.append(f"  {f'shard {failure.task}: ' if failure.task else ''}{failure.cause}")
            lines += [f"    {line}" for line in failure.lines if line != failure.cause]
            lines += [f"    ({failure.log})"] if failure.log else []
        if self.failed > len(self.failures):
            lines.append(f"  and {self.failed - len(self.failures)} more")
        return lines


@dataclass(frozen=True)
class ClusterStatus:
    """The status of all jobs."""

    jobs: tuple[JobStatus, ...]
    go_on: str | None
    """The command that resumes, where something has failed or was not submitted."""

    def as_plain(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def __str__(self) -> str:
        width = max(len(job.name) for job in self.jobs)
        lines = [line for job in self.jobs for line in job.lines(width)]
        return "\n".join([*lines, *([f"To resume: {self.go_on}"] if self.go_on else [])])


def status(config: Config, submit: str) -> ClusterStatus:
    """The status of the project's jobs. `submit`: the command that resumes, where the record has none."""
    config = checked_config(config)
    launcher, record = get_launcher(config.slurm.launcher), SubmissionRecord.read(Path(str(config.out)))
    queue = QueueState(job_graph(config, ()), record, launcher.states() if record.jobs else [])
    logs = Path(str(config.out), LOGS)
    jobs = tuple(_job_status(job, queue, logs, launcher) for job in queue.jobs.values())
    complete = all(job.state in ("done", "running", "waiting") for job in jobs)
    return ClusterStatus(jobs, None if complete else record.command or submit)


def _job_status(job: ClusterJob, queue: QueueState, logs: Path, launcher: Launcher) -> JobStatus:
    queued = [task for _, task in queue.active[job.name].values()]
    waiting = [task for task in queued if task.waits]
    records = {
        task: record
        for record in queue.record.jobs
        if record.name == job.name and record.shards == job.shards
        for task in record.tasks
    }
    lost = [task for task in queue.to_submit(job.name) if task in records]
    if queued:
        state = "failed" if lost else "waiting" if len(waiting) == len(queued) else "running"
        reason = waiting[0].reason if waiting else None
    else:
        state, reason = _state_without_queue(job, queue, bool(lost))
    failures = [_failure(job, task, records[task], logs, launcher) for task in lost] if state == "failed" else []
    return JobStatus(
        name=job.name,
        state=state,
        progress=str(job.progress()),
        running=len(queued) - len(waiting),
        waiting=len(waiting),
        failed=len(failures),
        reason=reason,
        failures=tuple(failures[:MOST_FAILURES]),
    )


def _state_without_queue(job: ClusterJob, queue: QueueState, lost: bool) -> tuple[str, str | None]:
    """State and reason of a job of which nothing is in the queue; `lost`: it was submitted and is not done."""
    remaining = queue.remaining[job.name]
    if stale := job.stale():
        return "outdated", stale
    if remaining and job.outdated():
        return "outdated", f"{job.step.output} is older than what it was made from"
    if not remaining:
        return "done", None
    blocking = [name for name in job.after if queue.to_submit(name)]
    if blocking and queue.record.jobs:
        return "blocked", f"{', '.join(blocking)} is not done"
    return ("failed" if lost else "not submitted"), None


def _failure(job: ClusterJob, task: int, record: JobRecord, logs: Path, launcher: Launcher) -> JobFailure:
    """Why a task did not finish, as far as its logs say."""
    number = str(record.number) if job.shards is None else f"{record.number}_{task}"
    # The scheduler's own lines, as on a time limit, are in a file of their own.
    paths = sorted((logs / job.name).glob(f"{number}.*.log"), key=lambda path: path.stat().st_mtime)
    logged = {path: lines for path in paths if (lines := _last_lines(path))}
    if not logged:
        return JobFailure(task, "ended without a log: was it cancelled, or did its machine fail?", None, ())
    path, lines = list(logged.items())[-1]
    cause = _cause([line for lines in logged.values() for line in lines], launcher.log_prefixes)
    return JobFailure(task, cause, str(path), lines[-LAST_LINES:])


def _cause(lines: Sequence[str], scheduler: tuple[str, ...]) -> str:
    """The last line with fercache's own error, of the rank that failed first; else Python's; else the scheduler's."""
    errors = [line for line in lines if re.match(r"(\[rank [0-9]+\] )?Error: ", line)]
    first = [line for line in errors if LOST_RANK not in line]
    exceptions = [line for line in lines if re.search(r"\b\w*Error: ", line) and line not in errors]
    return (first or exceptions or errors or [line for line in lines if line.startswith(scheduler)] or lines)[-1]


def _last_lines(path: Path) -> tuple[str, ...]:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - LAST_BYTES))
        text = file.read().decode("utf-8", errors="replace")
    # A progress bar rewrites its line.
    lines = [line.rpartition("\r")[2].strip() for line in text.splitlines()]
    return tuple(line for line in lines if line)
