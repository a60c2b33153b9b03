"""How the jobs of a project stand: from their outputs, from what was submitted, and from SLURM's queue."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from fercache.cluster.jobs import Job
from fercache.cluster.record import Record, Submitted
from fercache.cluster.slurm import NEVER, QueuedJob


class Situation:
    """What is left of each job, and which of its tasks are in the queue."""

    def __init__(self, jobs: Sequence[Job], folder: Path, record: Record, queue: Iterable[QueuedJob]) -> None:
        self.jobs = {job.name: job for job in jobs}
        self.record = record
        self.left = {job.name: job.left(folder) for job in jobs}
        """Tasks that are not done, by job."""
        self.live: dict[str, dict[int, tuple[Submitted, QueuedJob]]] = {job.name: {} for job in jobs}
        """Tasks that wait or run, by job."""
        self.dead: set[int] = set()
        """Numbers of jobs that wait for what has failed."""
        self._by_number = {job.number: job for job in record.jobs}
        self._queue = {(job.number, job.task or 0): job for job in queue}
        for name in self.jobs:
            for submitted in record.of(name):
                self._place(submitted)

    def lost(self, name: str) -> tuple[int, ...]:
        """Tasks of a job that are neither done nor in the queue."""
        return tuple(task for task in self.left[name] if task not in self.live[name])

    def _place(self, submitted: Submitted) -> None:
        broken = any(self._is_broken(number) for number in submitted.after)
        for task in submitted.tasks:
            queued = self._queue.get((submitted.number, task))
            if queued is None:
                continue
            if queued.waits and (broken or queued.reason == NEVER):
                self.dead.add(submitted.number)
            else:
                self.live[submitted.name][task] = submitted, queued

    def _is_broken(self, number: int) -> bool:
        """Whether a job that others wait for has a task that has ended without being done."""
        needed = self._by_number.get(number)
        if needed is None or needed.name not in self.left:
            return False
        left = self.left[needed.name]
        return number in self.dead or any(t in left and (number, t) not in self._queue for t in needed.tasks)
