"""A SLURM cluster of two nodes on the loopback, from nothing: no systemd, no cgroups, no accounting.

As a script: `python tests/support/lab.py FOLDER` starts one, prints how to use it, and stops it at Ctrl-C or TERM.
"""

from __future__ import annotations

import ctypes
import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd")
CLIENTS = ("sbatch", "srun", "squeue", "scancel", "scontrol", "sinfo")
NODES = ("n1", "n2")
CPUS = 4
"""That each node claims, so that small jobs run side by side."""
START_S = 60
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"

CONF = """
ClusterName=fercache-test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
AuthType=auth/munge
CredType=cred/munge
# cred_expire is also how long a job that is queued again waits before it may start: 120 s by default.
AuthInfo=socket={folder}/munge.sock,cred_expire=5
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd-%n.log
PlugStackConfig={folder}/plugstack.conf
MailProg=/bin/true
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=1
SlurmdParameters=config_overrides
ReturnToService=2
MaxArraySize=20
JobRequeue=1
KillWait=20
# Short, so that the controller forgets jobs within a test.
MinJobAge=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=debug Nodes=ALL Default=YES MaxTime=60 PriorityTier=1 GraceTime=2 State=UP
PartitionName=urgent Nodes=ALL MaxTime=60 PriorityTier=10 PreemptMode=OFF State=UP
"""
NODE = (
    "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={cpus} Boards=1 SocketsPerBoard=1"
    " CoresPerSocket={cpus} ThreadsPerCore=1 RealMemory=8000 State=UNKNOWN\n"
)


def missing() -> list[str]:
    """Programs that are needed and not there."""
    return [name for name in (*DAEMONS, *CLIENTS) if shutil.which(name, path=PATH) is None]


@contextmanager
def cluster(folder: Path) -> Iterator[Path]:
    """A cluster for the time of the block, in a new `folder` (of a short name, for sockets); gives its slurm.conf."""
    conf = _configure(folder)
    environment = {**os.environ, "PATH": PATH, "SLURM_CONF": str(conf)}
    daemons: list[subprocess.Popen] = []

    def start(*command: str) -> None:
        with (folder / "log" / f"daemon{len(daemons)}.out").open("wb") as out:
            daemons.append(
                subprocess.Popen(
                    command, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out, preexec_fn=_own_session
                )
            )

    try:
        sock = folder / "munge.sock"
        start(
            *("munged", "--foreground", f"--key-file={folder / 'munge.key'}", f"--socket={sock}"),
            *(f"--pid-file={folder / 'munged.pid'}", f"--log-file={folder / 'log' / 'munged.log'}"),
            *(f"--seed-file={folder / 'munge.seed'}", "--force"),
        )
        _wait(sock.exists, "munged")
        start("slurmctld", "-D")
        for name in NODES:
            start("slurmd", "-D", "-N", name)
        _wait(lambda: _idle(environment) == len(NODES), "the nodes")
        yield conf
    finally:
        _stop(daemons, environment)
        shutil.rmtree(folder, ignore_errors=True)


def _configure(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name in ("state", "log", *(f"spool/{node}" for node in NODES)):
        (folder / name).mkdir(parents=True)
    (folder / "plugstack.conf").touch()
    key = folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(1024))
    host, port = socket.gethostname().partition(".")[0], _free_ports(1 + len(NODES))
    text = CONF.format(host=host, port=port, folder=folder, user=getpass.getuser())
    for number, name in enumerate(NODES, start=1):
        text += NODE.format(name=name, host=host, port=port + number, cpus=CPUS)
    conf = folder / "slurm.conf"
    conf.write_text(text)
    return conf


def _free_ports(count: int) -> int:
    """The first of so many neighbouring ports on which nobody listens."""
    for first in range(21_000, 30_000, 10):
        try:
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first
    raise RuntimeError("no free ports")


def _own_session() -> None:
    """For a daemon: signals to the tests' group do not reach it, and it ends when the tests are killed."""
    os.setsid()
    set_parent_death_signal = 1
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)


def _idle(environment: dict[str, str]) -> int:
    answer = subprocess.run(
        ["sinfo", "-h", "-N", "-p", "debug", "-o", "%t"], env=environment, capture_output=True, text=True, check=False
    )
    return answer.stdout.split().count("idle")


def _wait(ready: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + START_S
    while not ready():
        if time.monotonic() > until:
            raise RuntimeError(f"{what} did not come up in {START_S} s")
        time.sleep(0.1)


def _stop(daemons: list[subprocess.Popen], environment: dict[str, str]) -> None:
    """Jobs first, since a job outlives its node's daemon; then the daemons, in the other order."""

    def ask(*command: str) -> str:
        try:
            answer = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=10, check=False)
        except subprocess.TimeoutExpired:
            return ""
        return answer.stdout

    ask("scancel", "--state=PENDING", f"--user={getpass.getuser()}")
    ask("scancel", "--signal=KILL", "--full", f"--user={getpass.getuser()}")
    ask("scancel", f"--user={getpass.getuser()}")
    until = time.monotonic() + 30
    while ask("squeue", "-h") and time.monotonic() < until:
        time.sleep(0.2)
    for daemon in reversed(daemons):
        daemon.terminate()
        try:
            daemon.wait(timeout=10)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()


if __name__ == "__main__":
    with cluster(Path(sys.argv[1])) as found:
        print(f"export SLURM_CONF={found}", flush=True)
        ends = {signal.SIGINT, signal.SIGTERM}
        signal.pthread_sigmask(signal.SIG_BLOCK, ends)
        signal.sigwait(ends)
