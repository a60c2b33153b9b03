"""What remains to be done of a project's jobs: from their outputs, the record of submissions and the queue."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fercache.cluster.jobs import ClusterJob
from fercache.cluster.launcher import JobState, QueuedJob
from fercache.cluster.record import JobRecord, SubmissionRecord


class QueueState:
    """The tasks of each job that remain to be done, and those that are in the queue; a single job is task 0."""

    def __init__(self, jobs: Sequence[ClusterJob], record: SubmissionRecord, queue: Iterable[QueuedJob]) -> None:
        self.jobs = {job.name: job for job in jobs}
        self.record = record
        self.unfinished = {job.name: job.unfinished() for job in jobs}
        """Tasks whose output is missing, by job."""
        self.remaining: dict[str, tuple[int, ...]] = {}
        """Tasks to do, by job: the unfinished ones, or all where a job that it needs is to be done (again)."""
        self.active: dict[str, dict[int, tuple[JobRecord, QueuedJob]]] = {job.name: {} for job in jobs}
        """Tasks in the queue that can be relied on, by job."""
        self.doomed: dict[str, set[int]] = {job.name: set() for job in jobs}
        """Numbers of waiting jobs, by job, that wait for a failed one, or not for all that they need now."""
        self._records = {job.number: job for job in record.jobs}
        # Names are compared, too: a cluster that is set up anew gives the same numbers again.
        ours = [job for job in queue if job.name.endswith(record.mark)]
        recorded = {(job.number, job.name + record.mark) for job in record.jobs}
        self._queue = {(job.number, job.task): job for job in ours if (job.number, job.name) in recorded}
        self.unrecorded = sorted(
            {(job.number, job.name.removesuffix(record.mark)) for job in ours if (job.number, job.name) not in recorded}
        )
        """Number and name of jobs of the project that are in the queue but not in the record."""
        for job in jobs:
            repeated = any(self.remaining[name] for name in job.after)
            self.remaining[job.name] = job.tasks if repeated else self.unfinished[job.name]
            for submitted in record.jobs:
                if submitted.name == job.name:
                    self._sort_tasks(job, submitted)

    def to_submit(self, name: str) -> tuple[int, ...]:
        """Tasks of a job to do that are not in the queue."""
        return tuple(task for task in self.remaining[name] if task not in self.active[name])

    def _sort_tasks(self, job: ClusterJob, submitted: JobRecord) -> None:
        """Enter the queued tasks of a submitted job as active or doomed."""
        needed = {self._records[_number(one)].name for one in submitted.after if _number(one) in self._records}
        incomplete = any(self.remaining[name] and name not in needed for name in job.after)
        doomed = incomplete or any(map(self._has_failed, submitted.after))
        for task in submitted.tasks:
            queued = self._queue.get((submitted.number, task))
            if queued is None:
                continue
            if queued.waits and (doomed or queued.state == JobState.NEVER):
                self.doomed[job.name].add(submitted.number)
            else:
                self.active[job.name][task] = submitted, queued

    def _has_failed(self, dependency: str) -> bool:
        """Whether a job, or a task, ended without being done or will never begin."""
        needed = self._records.get(_number(dependency))
        if needed is None or needed.name not in self.jobs:
            return False
        if needed.number in self.doomed[needed.name]:
            return True
        task = dependency.partition("_")[2]
        tasks = (int(task),) if task else needed.tasks
        return any(task in self.remaining[needed.name] and (needed.number, task) not in self._queue for task in tasks)


def _number(dependency: str) -> int:
    return int(dependency.partition("_")[0])
