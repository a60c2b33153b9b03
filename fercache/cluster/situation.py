"""How the jobs of a project stand: from their outputs, from what was submitted, and from SLURM's queue."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from fercache.cluster.jobs import Job
from fercache.cluster.record import Record, Submitted
from fercache.cluster.slurm import NEVER, QueuedJob


class Situation:
    """What is left of each job, and which of its tasks are in the queue. A single job is one task, number 0."""

    def __init__(self, jobs: Sequence[Job], folder: Path, record: Record, queue: Iterable[QueuedJob]) -> None:
        self.jobs = {job.name: job for job in jobs}
        self.record = record
        self.unfinished = {job.name: job.unfinished(folder) for job in jobs}
        """Tasks whose output is not there, by job."""
        self.left: dict[str, tuple[int, ...]] = {}
        """Tasks that are to be done, by job: all where a job before it is to be done, since then it is to be again."""
        self.live: dict[str, dict[int, tuple[Submitted, QueuedJob]]] = {job.name: {} for job in jobs}
        """Tasks that wait or run, by job."""
        self.dead: dict[str, set[int]] = {job.name: set() for job in jobs}
        """Numbers of jobs that wait for what has failed, or not for all that they need now."""
        self._by_number = {job.number: job for job in record.jobs}
        known = {(job.number, job.name) for job in record.jobs}
        # By name, too: numbers are given anew where a cluster is set up again.
        self._queue = {(job.number, job.task or 0): job for job in queue if (job.number, job.name) in known}
        self.strays = sorted({(job.number, job.name) for job in queue} - known)
        """Jobs of the project that are in the queue and not in the record."""
        for job in jobs:
            before = any(self.left[name] for name in job.after)
            self.left[job.name] = job.tasks if before else self.unfinished[job.name]
            for submitted in record.of(job.name):
                self._place(job, submitted)

    def to_submit(self, name: str) -> tuple[int, ...]:
        """Tasks of a job that are to be done, and are not in the queue."""
        return tuple(task for task in self.left[name] if task not in self.live[name])

    def _place(self, job: Job, submitted: Submitted) -> None:
        waited_for = {self._by_number[_number(one)].name for one in submitted.after if _number(one) in self._by_number}
        broken = any(map(self._is_broken, submitted.after))
        short = any(self.left[name] and name not in waited_for for name in job.after)
        for task in submitted.tasks:
            queued = self._queue.get((submitted.number, task))
            if queued is None:
                continue
            if queued.waits and (broken or short or queued.reason == NEVER):
                self.dead[job.name].add(submitted.number)
            else:
                self.live[job.name][task] = submitted, queued

    def _is_broken(self, waited_for: str) -> bool:
        """Whether something that a job waits for has ended without being done, or will never begin."""
        needed = self._by_number.get(_number(waited_for))
        if needed is None or needed.name not in self.jobs:
            return False
        if needed.number in self.dead[needed.name]:
            return True
        task = waited_for.partition("_")[2]
        tasks, left = (int(task),) if task else needed.tasks, self.left[needed.name]
        return any(task in left and (needed.number, task) not in self._queue for task in tasks)


def _number(waited_for: str) -> int:
    return int(waited_for.partition("_")[0])
