"""Submitting the graph of jobs: all that remains to be done, each job behind those that it needs, or nothing."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

from fercache import runtime
from fercache.cluster.jobs import ClusterJob, checked_config
from fercache.cluster.queue import QueueState
from fercache.cluster.record import JobRecord, SubmissionRecord
from fercache.cluster.submission import Submission, SubmitOptions, prepare_submission
from fercache.config import Config
from fercache.errors import FercacheError, RunError
from fercache.files import write_text
from fercache.pipeline.project import config_as_yaml

log = logging.getLogger(__name__)


def submit(config: Config, options: SubmitOptions, command: str) -> str:
    """Submit all jobs that remain to be done, or none where one is refused; returns what was done with each.

    Jobs of earlier submissions that wait for a failed one are replaced. `command` resumes, as `status` shows later.
    Raises as `prepare_submission`; FercacheError where a job is refused, after those before it are cancelled.
    """
    config = checked_config(config)
    with SubmissionRecord.read(Path(str(config.out))).locked(), runtime.stop_signals() as stop:
        submission = prepare_submission(config, options)
        state = submission.state
        submission.check_arrays()
        submitted = _submit_jobs(submission, command, stop) if submission.jobs else []
        replaced = {number for job in submission.jobs for number in state.doomed[job.name]}
        if replaced:
            submission.launcher.cancel(sorted(replaced))
            log.info("cancelled, since they wait for what has failed or changed: %s", _list(replaced))
    return _summary(state, submitted)


def _submit_jobs(submission: Submission, command: str, stop: runtime.StopFlag) -> list[JobRecord]:
    """Submit all jobs, recording each; where one is refused, or at a signal, those before it are cancelled."""
    write_text(submission.folder / "config.yaml", config_as_yaml(submission.config))
    record = submission.state.record
    submitted: list[JobRecord] = []
    try:
        for job in submission.jobs:
            stop.check()
            submitted.append(_submit_job(job, submission, submitted))
            record.write([*record.jobs, *submitted], command)
        stop.check()
    except BaseException as error:
        if submitted:
            _take_back(submitted, submission, error)
        raise
    return submitted


def _submit_job(job: ClusterJob, submission: Submission, submitted: Sequence[JobRecord]) -> JobRecord:
    """Submit one job behind those that it needs: those of this submission, and tasks in the queue."""
    after = [str(other.number) for other in submitted if other.name in job.after]
    for name in job.after:
        for task, (other, _) in submission.state.active[name].items():
            after.append(f"{other.number}_{task}" if other.shards else str(other.number))
    request = submission.request(job, after)
    request.logs.mkdir(parents=True, exist_ok=True)
    if script := submission.launcher.script(request):
        write_text(request.script, script)
    number = submission.launcher.submit(request)
    return JobRecord(job.name, number, request.tasks, job.shards, request.after, int(submission.folder.name))


def _take_back(submitted: Sequence[JobRecord], submission: Submission, error: BaseException) -> None:
    """Cancel the jobs that were submitted before `error`, and say so."""
    numbers, record = [job.number for job in submitted], submission.state.record
    words = f"the {len(numbers)} jobs submitted before it ({_list(numbers)})"
    try:
        submission.launcher.cancel(numbers)
    except FercacheError as other:
        raise RunError(f"{error}; {words} could not be cancelled: {other}") from error
    record.write(record.jobs, record.command)
    if isinstance(error, FercacheError):
        raise RunError(f"{error}; {words} are cancelled") from error
    log.error("%s are cancelled", words)


def _summary(state: QueueState, submitted: Sequence[JobRecord]) -> str:
    """A line for each job: submitted, already in the queue, done, or not selected."""
    records = {job.name: job for job in submitted}
    lines = []
    width = max(map(len, state.jobs))
    for name, active in state.active.items():
        if job := records.get(name):
            tasks = f", {len(job.tasks)} tasks" if job.shards else ""
            words = f"job {job.number}{tasks}" + (f", after {', '.join(job.after)}" if job.after else "")
        elif active:
            words = f"already in the queue: job {_list({record.number for record, _ in active.values()})}"
        else:
            words = "not selected" if state.remaining[name] else "done"
        lines.append(f"{name:<{width}}  {words}")
    return "\n".join(lines)


def _list(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(numbers)))
