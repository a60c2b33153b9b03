"""The batch job that a process runs in, as SLURM tells it."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from fercache.errors import Stopped
from fercache.runtime.group import ranks

log = logging.getLogger(__name__)

ENDING_S = 100
"""How long ranks wait at most for SLURM to end them."""
ATTEMPTS, PAUSE_S = 6, 10
"""At having a job queued again: a controller may be busy."""
MOST_STARTS = 100
"""Of a job: one that needs more does not get on."""
OF_A_JOB = ("SLURM_", "SQUEUE_", "SCANCEL_", "SCONTROL_")
OF_THE_CLUSTER = ("SLURM_CONF", "SLURM_CLUSTERS", "SLURM_JWT")


def queue_again(stop: Stopped) -> None:
    """Have SLURM queue this process's job again where it was stopped by USR1, which says that its time is nearly up.

    Never after TERM: where a job gives way to another one SLURM queues it again itself, and a job that its user has
    cancelled is to stay so. Outside of a job nothing happens. Of several ranks the first asks.
    """
    job = _job_number()
    if job is None or stop.signal != signal.SIGUSR1.name:
        return
    if not ranks().first:
        # srun would end the first rank when another one leaves, before it has asked; it ends them when the job does.
        time.sleep(ENDING_S)
        return
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)  # SLURM ends a job that it queues again
    if int(os.environ.get("SLURM_RESTART_COUNT", "0")) + 1 >= MOST_STARTS:
        log.error("job %s: is not queued again: it was started %d times already", job, MOST_STARTS)
        return
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(PAUSE_S)
        try:
            answer = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=False)
        except OSError as error:
            log.error("job %s: could not be queued again: scontrol: %s; submit it again", job, error.strerror)
            return
        if answer.returncode == 0:
            log.warning("job %s: is queued again", job)
            return
        log.error("job %s: could not be queued again: scontrol: %s", job, " ".join(answer.stderr.split()))


def _job_number() -> str | None:
    """The number by which SLURM knows this job, that of a task of an array with the task's."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")


def environment_of_jobs() -> dict[str, str]:
    """The environment for jobs that this process submits: `python` is its own there.

    SLURM's variables of the job that this process is in are not passed on, nor those that change its commands' output.
    """
    passed_on = {
        name: text for name, text in os.environ.items() if not name.startswith(OF_A_JOB) or name in OF_THE_CLUSTER
    }
    return passed_on | {"PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])}
