"""A small project on a SLURM cluster."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

CONFIG = """
task: expr
manifest: m.csv
cache: cache
out: .
synth: {train: 3, validation: 2, test: 10, seconds: 3, fps: 10, image_size: 48}
finetune: {weights: none, image_size: 48, epochs: 2, batch_size: 16, lr: 0.01, save_minutes: 0.05}
extract: {batch_size: 4, backend: eager}
train_temporal: {epochs: 1, batch_size: 32, lr: 0.01}
ensemble: {folds: 2, step: 0.1}
slurm:
  shards: 2
  finetune: {cpus: 1}
  extract: {cpus: 1}
  train_temporal: {cpus: 1}
  predict: {cpus: 1}
  ensemble: {cpus: 1}
  report: {cpus: 1}
"""
LONGEST_S = 400
"""That anything on the cluster may take in a test."""


class SlurmProject:
    """A project folder, and what is asked of the cluster from there."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder, self.environment = folder, environment

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess:
        """A program in the folder."""
        answer = subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True)
        assert not check or answer.returncode == 0, f"{command}: {answer.stderr}{answer.stdout}"
        return answer

    def fercache(self, *command: str, check: bool = True) -> subprocess.CompletedProcess:
        """A command of fercache."""
        return self.run(sys.executable, "-m", "fercache", *command, check=check)

    def queue(self) -> dict[str, str]:
        """State of each of its jobs and tasks that waits or runs, by number."""
        lines = self.run("squeue", "--noheader", "--array", "--format=%i %T %Z").stdout.splitlines()
        rows = (line.split(maxsplit=2) for line in lines)
        return {number: state for number, state, folder in rows if folder == str(self.folder)}

    def cancel(self) -> None:
        """Take all of its jobs out of the queue."""
        numbers = self.queue()
        if numbers:
            self.run("scancel", *numbers, check=False)

    def wait(self, what, done) -> None:
        """Wait until `done` says so."""
        until = time.monotonic() + LONGEST_S
        while not done():
            assert time.monotonic() < until, f"{what}: {self.queue()}\n{self.logs()}"
            time.sleep(0.1)

    def drain(self) -> None:
        """Wait until none of its jobs is left."""
        self.wait("jobs to end", lambda: not self.queue())

    def status(self, *options: str) -> dict[str, dict]:
        """What is said of each job."""
        status = json.loads(self.fercache("slurm", "status", "--json", *options).stdout)
        return {job["name"]: job for job in status["jobs"]}

    def submit(self, *options: str) -> dict[str, int]:
        """Submit what is missing; the jobs' numbers by name."""
        printed = self.fercache("slurm", "submit", *options).stdout
        return {name: int(number) for name, number in re.findall(r"^(\S+) +job ([0-9]+)", printed, flags=re.MULTILINE)}

    def processes(self, job: int) -> list[int]:
        """The processes of fercache in a job or task that runs on this machine."""
        processes = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                words = (process / "cmdline").read_bytes().split(b"\0")
                environment = (process / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"fercache" in words and f"SLURM_JOB_ID={job}".encode() in environment:
                processes.append(int(process.name))
        return sorted(processes)

    def logs(self) -> str:
        """All that its jobs have said."""
        return "\n".join(f"{path}:\n{path.read_text()}" for path in sorted(self.folder.glob("logs/*/*.log")))
