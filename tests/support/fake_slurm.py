"""The answers of SLURM's commands, by a list of jobs in a file: for what a real cluster cannot be brought to.

As a script it is `sbatch`, `squeue`, `scancel` or `scontrol`, by the name it is called by; FAKE_SLURM names its folder.
"""

from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path

NAMES = ("sbatch", "squeue", "scancel", "scontrol")


class FakeSlurm:
    """The jobs of a cluster on which nothing ever runs."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "queue.json"
        if not self.file.exists():
            self.write([])

    def install(self, monkeypatch) -> None:
        """Put the commands first in the PATH."""
        for name in NAMES:
            tool = self.file.parent / name
            tool.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{__file__}" {name} "$@"\n')
            tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{self.file.parent}:{os.environ['PATH']}")
        monkeypatch.setenv("FAKE_SLURM", str(self.file.parent))
        for name in [name for name in os.environ if name.startswith("SLURM_")]:
            monkeypatch.delenv(name)

    def jobs(self) -> list[dict]:
        """All tasks that were submitted: number, task, name, state (or how it ended) and what it waits for."""
        return json.loads(self.file.read_text())

    def write(self, jobs: list[dict]) -> None:
        """Make these the jobs."""
        self.file.write_text(json.dumps(jobs))

    def set(self, state: str, name: str, *tasks: int, reason: str = "None") -> None:
        """Change the state of a job's newest tasks, by the beginning of its name."""
        jobs = self.jobs()
        newest = max(job["number"] for job in jobs if job["name"].startswith(name + "."))
        for job in jobs:
            if job["number"] == newest and (not tasks or job["task"] in tasks):
                job |= {"state": state, "reason": reason}
        self.write(jobs)

    def queue(self) -> list[tuple[int, str]]:
        """Number and name of each job that waits or runs."""
        return sorted({(job["number"], job["name"].partition(".")[0]) for job in self.jobs() if job["state"] != "GONE"})


def sbatch(fake: FakeSlurm, words: list[str]) -> None:
    options = dict(word[2:].partition("=")[::2] for word in words if word.startswith("--"))
    if "bogus" in options:
        sys.exit("sbatch: unrecognized option '--bogus'")
    jobs = fake.jobs()
    number = max((job["number"] for job in jobs), default=100) + 1
    tasks: list[int | None] = [None]
    if "array" in options:
        ranges = [part.split("-") for part in options["array"].partition("%")[0].split(",")]
        tasks = [task for ends in ranges for task in range(int(ends[0]), int(ends[-1]) + 1)]
    common = {"number": number, "name": options["job-name"], "after": options.get("dependency", "")}
    fake.write([*jobs, *({**common, "task": task, "state": "PENDING", "reason": "None"} for task in tasks)])
    print(number)


def squeue(fake: FakeSlurm, _words: list[str]) -> None:
    for job in fake.jobs():
        if job["state"] != "GONE":
            task = "N/A" if job["task"] is None else job["task"]
            print(f"{job['number']}|{task}|{job['state']}|{job['name']}|({job['reason']})")


def scancel(fake: FakeSlurm, words: list[str]) -> None:
    numbers = set(map(int, words))
    fake.write([job | {"state": "GONE"} if job["number"] in numbers else job for job in fake.jobs()])


def scontrol(_fake: FakeSlurm, _words: list[str]) -> None:
    print("MaxArraySize            = 1001")


if __name__ == "__main__":
    globals()[sys.argv[1]](FakeSlurm(Path(os.environ["FAKE_SLURM"])), sys.argv[2:])
