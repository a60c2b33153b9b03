"""The record of submitted jobs: their numbers, in a file of the project's folder."""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fercache.documents import read_json
from fercache.errors import RunError
from fercache.files import write_text

log = logging.getLogger(__name__)

FOLDER = "slurm"
"""In the project's folder: the record, and for each submission its config and scripts."""


@dataclass(frozen=True)
class JobRecord:
    """A job that was submitted."""

    name: str
    number: int
    """The scheduler's."""
    tasks: tuple[int, ...]
    """Of an array; a single job is task 0."""
    shards: int | None
    """Into how many shards its work was dealt."""
    after: tuple[str, ...]
    """What it waits for: a job's number, or a task as 17_3."""
    submission: int
    """The call of `submit` that it belongs to, from 1; the folder of that name has its config and scripts."""


@dataclass(frozen=True)
class SubmissionRecord:
    """All jobs that were submitted for a project, the last ones last."""

    path: Path
    jobs: tuple[JobRecord, ...] = ()
    command: str | None = None
    """By which the last ones were submitted."""

    @classmethod
    def read(cls, out: Path) -> SubmissionRecord:
        """The record of the project in `out`; RunError where its file cannot be read."""
        path = out / FOLDER / "jobs.json"
        if not path.exists():
            return cls(path)
        try:
            content = read_json(path)
            jobs = [
                JobRecord(**{**job, "tasks": tuple(job["tasks"]), "after": tuple(job["after"])})
                for job in content["jobs"]
            ]
            return cls(path, tuple(jobs), content["command"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(f"{path}: is no record of submitted jobs: {error!r}") from error

    @property
    def mark(self) -> str:
        """What the names of this project's jobs end with in the queue."""
        return ".fercache-" + hashlib.sha256(os.fsencode(self.path.resolve())).hexdigest()[:8]

    def folder(self, submission: int) -> Path:
        """Where the config and the scripts of a submission are."""
        return self.path.parent / str(submission)

    def next_folder(self) -> Path:
        """The folder of the next submission."""
        return self.folder(max((job.submission for job in self.jobs), default=0) + 1)

    def write(self, jobs: Sequence[JobRecord], command: str | None) -> None:
        """Replace the file's jobs and command."""
        text = json.dumps({"command": command, "jobs": [dataclasses.asdict(job) for job in jobs]}, indent=2)
        write_text(self.path, text + "\n")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other submissions of the project out during the block; RunError where one is under way.

        On file systems without locks nothing is kept out.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with (self.path.parent / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise RunError(f"{self.path.parent}: another submission is under way") from error
            except OSError:
                log.debug("%s: the file system has no locks", self.path)
            yield
