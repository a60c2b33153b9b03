"""Signals that ask to stop."""

from __future__ import annotations

import atexit
import logging
import multiprocessing
import multiprocessing.util  # registers its own end first, so that `end_workers_at_exit` comes before it
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from fercache.errors import Stopped

log = logging.getLogger(__name__)

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
"""What schedulers and terminals send."""


class StopFlag:
    """Says whether a signal asked to stop."""

    def __init__(self) -> None:
        self.signal: str | None = None

    def check(self) -> None:
        """Raise Stopped if a signal came."""
        if self.signal is not None:
            raise Stopped(self.signal)


@contextmanager
def stop_signals(*more: signal.Signals) -> Iterator[StopFlag]:
    """Turn TERM, INT, USR1 and `more` into a flag that long work looks at between its steps.

    A second INT ends at once. Outside the main thread, where Python delivers no signals, the flag
    is never set.
    """
    flag = StopFlag()

    def note(number: int, _frame: object) -> None:
        if flag.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        # To be ended for good outweighs to be ended for a while (USR1), whichever came first.
        if flag.signal is None or number != signal.SIGUSR1:
            flag.signal = signal.Signals(number).name
        log.warning("%s: stopping after this step", flag.signal)

    try:
        before = {number: signal.signal(number, note) for number in (*STOPPING, *more)}
    except ValueError:  # not the main thread
        yield flag
        return
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def stops_at_once() -> Iterator[None]:
    """Turn TERM and USR1 into Stopped, wherever the work is: for what is short, or not begun yet.

    Long work inside takes the signals over by `stop_signals`. Nothing is done outside the main thread.
    """

    def stop(number: int, _frame: object) -> None:
        raise Stopped(signal.Signals(number).name)

    try:
        before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGUSR1)}
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def keep_child_signal() -> Iterator[None]:
    """Undo what the block changes about the signal of a child process that ends."""
    before = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        # Only the main thread may have changed it; None is a handler that Python did not set, and cannot.
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, before)


def ignore_interrupts(_worker: int = 0) -> None:
    """For processes that serve a main one: signals reach the whole group, but only that one decides to stop."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)


def begin_worker(worker: int) -> None:
    """For loader processes: only the main process decides to stop, and where it is gone they end.

    torch's loader looks for that in a process that is a copy of the main one; the parent of one that a fork server
    began is the server, which lasts as long as they do.
    """
    ignore_interrupts(worker)
    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid != os.getppid():

        def end_with_parent() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=end_with_parent, daemon=True).start()


@cache
def end_workers_at_exit() -> None:
    """Have loader processes that are left when Python ends, as after an uncaught error, end with it.

    multiprocessing asks its daemonic processes to end by TERM, which these ignore, and would wait forever.
    """

    def end() -> None:
        for child in multiprocessing.active_children():
            if child.daemon:
                child.kill()

    atexit.register(end)
