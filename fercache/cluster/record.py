"""What was submitted: the jobs' numbers, in a file of the project's folder."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fercache.errors import RunError
from fercache.files import write_text

FOLDER = "slurm"
"""In the project's folder: the record, and for each submission its config and scripts."""


@dataclass(frozen=True)
class Submitted:
    """A job that was submitted."""

    name: str
    number: int
    """SLURM's."""
    tasks: tuple[int, ...]
    """Of an array; a single job is task 0."""
    shards: int | None
    """In how many parts its work was dealt."""
    after: tuple[int, ...]
    """Numbers of the jobs that it waits for."""
    submission: int
    """The call of `submit` that it is of, from 1: its config and scripts are in the folder of that name."""


@dataclass(frozen=True)
class Record:
    """All jobs that were submitted for a project, the last ones last."""

    path: Path
    jobs: tuple[Submitted, ...] = ()

    @classmethod
    def read(cls, out: Path) -> Record:
        """The record of the project in `out`; RunError where its file cannot be read."""
        path = out / FOLDER / "jobs.json"
        if not path.exists():
            return cls(path)
        try:
            found = json.loads(path.read_text(encoding="utf-8"))["jobs"]
            jobs = [Submitted(**{**job, "tasks": tuple(job["tasks"]), "after": tuple(job["after"])}) for job in found]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(f"{path}: is no record of submitted jobs: {error!r}") from error
        return cls(path, tuple(jobs))

    def folder(self, submission: int) -> Path:
        """Where the config and the scripts of a submission are."""
        return self.path.parent / str(submission)

    def of(self, name: str) -> list[Submitted]:
        """The jobs of that name."""
        return [job for job in self.jobs if job.name == name]

    def written(self, jobs: Sequence[Submitted]) -> Record:
        """The record with these jobs, on the disk."""
        text = json.dumps({"jobs": [dataclasses.asdict(job) for job in jobs]}, indent=2)
        write_text(self.path, text + "\n")
        return dataclasses.replace(self, jobs=tuple(jobs))
