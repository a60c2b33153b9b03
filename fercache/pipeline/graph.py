"""A chain of fercache commands in one folder, which goes on where it stopped."""

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


WHOLE = "files"
"""Unit of what appears whole."""


class Progress(NamedTuple):
    """How much of a step is done."""

    done: int
    total: int
    unit: str
    """What is counted, as in epochs."""

    @property
    def finished(self) -> bool:
        """Whether all of it is."""
        return self.done >= self.total

    def __str__(self) -> str:
        return f"{self.done} of {self.total} {self.unit}"


@dataclass(frozen=True)
class Step:
    """One command. It runs in the pipeline's folder, and its paths are relative to it."""

    command: tuple[str, ...]
    """Arguments of `fercache`."""
    inputs: tuple[str, ...] = ()
    """Files and folders that must be there before."""
    output: str | None = None
    """The file or folder that it makes, as other steps name it among their inputs."""
    progress: Callable[[Path], Progress] | None = None
    """How far it is in the pipeline's folder, where its output is there before it is done; None: it appears whole."""
    parts: Callable[[Path, int], list[Progress]] | None = None
    """How far each of so many parts is, where `--shard` runs it in parts."""
    unfit: Callable[[Path], str | None] = lambda _folder: None
    """Why what is there of its output is not what the command would make: by other settings, or from something else."""

    @property
    def stage(self) -> str:
        """The command's name."""
        return self.command[0]

    def words(self) -> str:
        """The command as it would be typed."""
        return shlex.join(("fercache", *self.command))

    def state(self, folder: Path) -> Progress:
        """How far it is."""
        if self.progress is not None:
            return self.progress(folder)
        return Progress(int(self.output is not None and (folder / self.output).exists()), 1, WHOLE)

    def needless(self, folder: Path) -> bool:
        """Whether it need not be run; a command that goes on with what is left is, since it looks at more than here."""
        return self.progress is None and self.state(folder).finished


def run_steps(steps: Sequence[Step], folder: Path) -> None:
    """Run the steps that are not done, in order. FercacheError at the first that fails; Stopped at a signal."""
    with runtime.stop_signals() as stop:
        for step in steps:
            stop.check()
            if step.needless(folder):
                log.info("done already: %s", step.words())
                continue
            missing = [name for name in step.inputs if not (folder / name).exists()]
            if missing:
                raise FercacheError(f"{step.words()}: {', '.join(missing)} is missing in {folder}")
            log.info("$ %s", step.words())
            status = _run(step.command, folder, stop)
            stop.check()  # names the signal, where it came here
            if status == Stopped.EXIT_STATUS:
                raise Stopped("a signal")
            if status:
                raise FercacheError(f"{step.words()}: ended with exit status {status} (in {folder})")


def _run(command: tuple[str, ...], folder: Path, stop: runtime.StopFlag) -> int:
    """Run one command as a process of its own; a signal to stop is passed on to it."""
    process = subprocess.Popen([sys.executable, "-m", "fercache", *command], cwd=folder)
    told = False
    while True:
        try:
            return process.wait(timeout=0.5)
        except subprocess.TimeoutExpired:
            if stop.signal is not None and not told:
                process.terminate()
                told = True
