"""One command as several processes of this machine, by torch's launcher: a rank each."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fercache.errors import ConfigError, RunError, Stopped
from fercache.runtime.group import ranks
from fercache.runtime.signals import StopFlag, stop_signals

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing import PContext

LOOK_S = 0.1
"""Between looks at the processes."""
SIGNALS_OF_TORCH = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
"""For which torch's launcher sets handlers of its own."""


def launch(words: Sequence[str], count: int, *, one_job: bool) -> None:
    """Run `python -m fercache WORDS` as `count` ranks, and wait for all of them.

    With `one_job` they train one network together, and where one fails the others are ended; else each works to its own
    end. TERM, INT and USR1 stop all of them as they stop a process alone: Stopped is raised when every rank has saved.
    RunError naming the ranks that failed, which have logged the reason.
    """
    if ranks().count > 1:
        raise ConfigError("--gpus: starts the processes itself; leave it out under torchrun and srun")
    every = [_environment(rank, count) for rank in range(count)]
    groups = [every] if one_job else [[environment] for environment in every]
    from torch.distributed.elastic.multiprocessing import api

    contexts: list[PContext] = []
    with tempfile.TemporaryDirectory() as folder, _handlers_kept():
        try:
            for group in groups:
                contexts.append(_start(words, group, folder))
            with stop_signals() as stop:
                statuses = _wait(contexts, stop)
        except api.SignalException as error:
            # Raised by torch's own handlers, which are in force while ranks are started.
            raise Stopped(error.sigval.name) from error
        finally:
            for context in contexts:
                context.close()
    # A rank that is told to stop before it listens is ended by the signal, and had nothing to save.
    stopped = {Stopped.EXIT_STATUS, *([-signal.SIGTERM] if stop.signal else [])}
    failed = [f"rank {rank} ({_in_words(status)})" for rank, status in statuses if status not in {0, *stopped}]
    if failed:
        raise RunError(f"{len(failed)} of {count} processes failed, with their reasons above: {', '.join(failed)}")
    if any(status in stopped for _, status in statuses):
        raise Stopped(stop.signal or signal.SIGTERM.name)


def _environment(rank: int, count: int) -> dict[str, str]:
    """What torchrun tells its processes."""
    return {
        **{name: str(rank) for name in ("RANK", "LOCAL_RANK")},
        **{name: str(count) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE")},
    }


def _start(words: Sequence[str], group: Sequence[dict[str, str]], folder: str) -> PContext:
    """The processes of one group, which can find each other."""
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, api, start_processes

    api.logger.setLevel(logging.CRITICAL)  # a rank has logged its failure better
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
    return start_processes(
        name="fercache",
        entrypoint=sys.executable,
        args=dict.fromkeys(range(len(group)), ("-m", "fercache", *words)),
        envs={number: {**environment, **meeting} for number, environment in enumerate(group)},
        logs_specs=DefaultLogsSpecs(folder),
    )


def _wait(contexts: Sequence[PContext], stop: StopFlag) -> list[tuple[int, int]]:
    """Wait for all ranks, and pass a signal on; each rank's number and exit status."""
    statuses: list[tuple[int, int]] = []
    running, forwarded = dict(enumerate(contexts)), None
    while running:
        if stop.signal != forwarded:
            forwarded = stop.signal
            for context in running.values():
                _signal(context)
        for number, context in list(running.items()):
            result = context.wait(timeout=0)
            if result is not None:
                del running[number]
                failures = {local: failure.exitcode for local, failure in result.failures.items()}
                statuses += [(number + local, failures.get(local, 0)) for local in range(context.nprocs)]
        time.sleep(LOOK_S)
    return statuses


def _signal(context: PContext) -> None:
    """TERM to all its processes, whatever the signal was: only this process has its job queued again."""
    for pid in context.pids().values():
        try:
            os.kill(pid, signal.SIGTERM)
        except ProcessLookupError:  # it has just ended
            continue


def _in_words(status: int) -> str:
    return f"killed by {signal.Signals(-status).name}" if status < 0 else f"status {status}"


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextmanager
def _handlers_kept() -> Iterator[None]:
    """Undo what torch's launcher changes about signals."""
    before = {number: signal.getsignal(number) for number in SIGNALS_OF_TORCH}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
