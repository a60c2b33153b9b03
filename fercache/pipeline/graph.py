"""A chain of fercache commands in one folder; finished ones are skipped, so an interrupted chain resumes."""

from __future__ import annotations

import logging
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from fercache import runtime
from fercache.errors import FercacheError, Stopped

log = logging.getLogger(__name__)

FILES = "files"
"""Unit of progress of an output that appears whole."""


class StepProgress(NamedTuple):
    """How much of a step is done."""

    done: int
    total: int
    unit: str
    """What is counted, as in epochs."""

    @property
    def finished(self) -> bool:
        """Whether all of it is done."""
        return self.done >= self.total

    def __str__(self) -> str:
        return f"{self.done} of {self.total} {self.unit}"


@dataclass(frozen=True)
class Step:
    """One command. It runs in the pipeline's folder, and its paths are relative to it."""

    command: tuple[str, ...]
    """Arguments of `fercache`."""
    inputs: tuple[str, ...] = ()
    """Files and folders that it needs."""
    output: str | None = None
    """The file or folder that it makes, as other steps name it among their inputs."""
    variant: str | None = None
    """Its name among the steps of the same command, as in ensemble-cnn+gru; None: it is the only one."""
    measure: Callable[[Path], StepProgress] | None = None
    """Progress in the pipeline's folder, where the output exists before it is complete; None: it appears whole."""
    measure_shards: Callable[[Path, int], list[StepProgress]] | None = None
    """Progress of each of so many shards, where the command takes `--shard`."""
    stale: Callable[[Path], str | None] = lambda _folder: None
    """Why the output in the folder is not what the command would make now (other settings or inputs), if so."""

    @property
    def name(self) -> str:
        """What tells it from all other steps of the pipeline."""
        return self.variant or self.stage

    @property
    def stage(self) -> str:
        """The command's name."""
        return self.command[0]

    def command_line(self) -> str:
        """The command as it would be typed."""
        return shlex.join(("fercache", *self.command))

    def progress(self, folder: Path) -> StepProgress:
        """How much of it is done in the pipeline's folder."""
        if self.measure is not None:
            return self.measure(folder)
        return StepProgress(int(self.output is not None and (folder / self.output).exists()), 1, FILES)

    def can_skip(self, folder: Path) -> bool:
        """Whether it need not run. A command that measures its progress runs: it checks more than can be seen here."""
        return self.measure is None and self.progress(folder).finished


def run_steps(steps: Sequence[Step], folder: Path) -> None:
    """Run the steps that are not done, in order. FercacheError at the first that fails; Stopped at a signal."""
    with runtime.stop_signals() as stop:
        for step in steps:
            stop.check()
            if step.can_skip(folder):
                log.info("already done: %s", step.command_line())
                continue
            missing = [name for name in step.inputs if not (folder / name).exists()]
            if missing:
                raise FercacheError(f"{step.command_line()}: {', '.join(missing)} is missing in {folder}")
            log.info("$ %s", step.command_line())
            status = _run(step.command, folder, stop)
            stop.check()  # names the signal, if this process got it
            if status == Stopped.EXIT_STATUS:
                raise Stopped("a signal")
            if status:
                raise FercacheError(f"{step.command_line()}: ended with exit status {status} (in {folder})")


def _run(command: tuple[str, ...], folder: Path, stop: runtime.StopFlag) -> int:
    """Run one command as a process of its own and pass a stop signal on to it, once."""
    process = subprocess.Popen([sys.executable, "-m", "fercache", *command], cwd=folder)
    terminated = False
    while True:
        try:
            return process.wait(timeout=0.5)
        except subprocess.TimeoutExpired:
            if stop.signal is not None and not terminated:
                process.terminate()
                terminated = True
