"""A chain of fercache commands in one folder, which goes on where it stopped."""

from __future__ import annotations

import logging
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fercache import runtime
from fercache.errors import FercacheError, Stopped

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Step:
    """One command. It runs in the pipeline's folder, and its paths are relative to it."""

    command: tuple[str, ...]
    """Arguments of `fercache`."""
    inputs: tuple[str, ...] = ()
    """Files and folders that must be there before."""
    output: str | None = None
    """A file or folder that appears whole when the step is done; None: the command knows itself what is left to do."""

    def words(self) -> str:
        """The command as it would be typed."""
        return shlex.join(("fercache", *self.command))

    def done(self, folder: Path) -> bool:
        """Whether there is nothing to do."""
        return self.output is not None and (folder / self.output).exists()


def run_steps(steps: Sequence[Step], folder: Path) -> None:
    """Run the steps that are not done, in order. FercacheError at the first that fails; Stopped at a signal."""
    with runtime.stop_signals() as stop:
        for step in steps:
            stop.check()
            if step.done(folder):
                log.info("done already: %s", step.words())
                continue
            missing = [name for name in step.inputs if not (folder / name).exists()]
            if missing:
                raise FercacheError(f"{step.words()}: {', '.join(missing)} is missing in {folder}")
            log.info("$ %s", step.words())
            status = _run(step.command, folder, stop)
            # A command that has no way to stop ends at the signal itself, with a status of its own.
            stop.check()
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
