"""One command as several processes of this machine: a rank each."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress

from fercache.errors import ConfigError, RunError, Stopped
from fercache.runtime.group import ranks
from fercache.runtime.signals import StopFlag, stop_signals

LOOK_S = 0.1
"""Between looks at the processes."""
OF_TERMINALS = (signal.SIGHUP, signal.SIGQUIT)
"""What a terminal sends when it is closed, or by Ctrl-\\."""
GRACE_S = 30
"""From TERM to KILL, for ranks that may wait for one that is gone."""


def launch(words: Sequence[str], count: int, *, one_job: bool) -> None:
    """Run `python -m fercache WORDS` as `count` ranks, and wait for all of them.

    With `one_job` they train one network together, and where one fails the others are ended; else each works to its own
    end. TERM, INT and USR1 stop all of them as they stop a process alone, and so does a terminal that closes: Stopped
    is raised when every rank has saved. RunError naming the ranks that failed, which have logged the reason.
    """
    if ranks().count > 1:
        raise ConfigError("--gpus: starts the processes itself; leave it out under torchrun and srun")
    port = _free_port()
    processes: dict[int, subprocess.Popen[bytes]] = {}
    # A terminal that closes would end this process alone; under nohup it is to go on.
    of_terminals = [number for number in OF_TERMINALS if signal.getsignal(number) is not signal.SIG_IGN]
    with stop_signals(*of_terminals) as stop:
        try:
            for rank in range(count):
                # In a session of its own: a terminal's signal reaches this process alone, which passes it on once.
                processes[rank] = subprocess.Popen(
                    [sys.executable, "-m", "fercache", *words],
                    env={**os.environ, **_environment(rank, count, port)},
                    start_new_session=True,
                )
            statuses = _wait(processes, stop, one_job=one_job)
        finally:
            _end(processes.values())
    # A rank that is told to stop before it listens is ended by the signal, and had nothing to save.
    stopped = {Stopped.EXIT_STATUS, *([-signal.SIGTERM] if stop.signal else [])}
    failed = [f"rank {rank} ({_in_words(status)})" for rank, status in statuses.items() if status not in {0, *stopped}]
    if failed:
        raise RunError(f"{len(failed)} of {count} processes failed, with their reasons above: {', '.join(failed)}")
    if any(status in stopped for status in statuses.values()):
        raise Stopped(stop.signal or signal.SIGTERM.name)


def _environment(rank: int, count: int, port: int) -> dict[str, str]:
    """What torchrun tells its processes."""
    return {
        **{name: str(rank) for name in ("RANK", "LOCAL_RANK")},
        **{name: str(count) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE")},
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def _wait(processes: Mapping[int, subprocess.Popen[bytes]], stop: StopFlag, *, one_job: bool) -> dict[int, int]:
    """Wait for all ranks, and pass a signal on; each rank's exit status.

    With `one_job` only until one fails: the statuses are then those of the ranks that had ended.
    """
    forwarded = None
    while True:
        statuses = {rank: process.poll() for rank, process in processes.items()}
        ended = {rank: status for rank, status in statuses.items() if status is not None}
        if len(ended) == len(processes) or (one_job and any(ended.values())):
            return ended
        if stop.signal != forwarded:
            forwarded = stop.signal
            # TERM whatever the signal was: only this process has its job queued again.
            for process in processes.values():
                process.terminate()
        time.sleep(LOOK_S)


def _end(processes: Collection[subprocess.Popen[bytes]]) -> None:
    """End what still runs: by TERM, and by KILL what does not heed it."""
    deadline = time.monotonic() + GRACE_S
    for process in processes:
        process.terminate()
    try:
        for process in processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
    finally:  # also where the user will not wait
        for process in processes:
            process.kill()
            process.wait()


def _in_words(status: int) -> str:
    return f"killed by {signal.Signals(-status).name}" if status < 0 else f"status {status}"


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
