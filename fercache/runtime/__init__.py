"""The machine that a run is on, the ranks that share the work, and the signals that stop it.

The only reader of the environment. torch is imported where it is needed, so that the command line
answers `--help` without it.
"""

from fercache.runtime.gpu import gpu_count, memory_errors, to_device, tuned_convolutions
from fercache.runtime.group import Ranks, process_group, ranks
from fercache.runtime.job import environment_of_jobs, queue_again
from fercache.runtime.launch import launch
from fercache.runtime.machine import (
    SHARED_MEMORY,
    autocast,
    bf16_flags,
    configure_torch,
    decoding_workers,
    device,
    environment,
    has_compiler,
    keep_freed_memory,
    progress,
    require_compiler,
    resolve_precision,
    seed_everything,
    thread_count,
)
from fercache.runtime.signals import (
    StopFlag,
    begin_worker,
    end_workers_at_exit,
    ignore_interrupts,
    keep_child_signal,
    stop_signals,
    stops_at_once,
)

__all__ = [
    "SHARED_MEMORY",
    "Ranks",
    "StopFlag",
    "autocast",
    "begin_worker",
    "bf16_flags",
    "configure_torch",
    "decoding_workers",
    "device",
    "end_workers_at_exit",
    "environment",
    "environment_of_jobs",
    "gpu_count",
    "has_compiler",
    "ignore_interrupts",
    "keep_child_signal",
    "keep_freed_memory",
    "launch",
    "memory_errors",
    "process_group",
    "progress",
    "queue_again",
    "ranks",
    "require_compiler",
    "resolve_precision",
    "seed_everything",
    "stop_signals",
    "stops_at_once",
    "thread_count",
    "to_device",
    "tuned_convolutions",
]
