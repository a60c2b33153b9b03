"""The processes that train one network together, as torchrun or srun starts them.

Legend: R ranks, B rows of one rank.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fercache.errors import ConfigError, RunError

if TYPE_CHECKING:
    import torch

TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
"""What torchrun tells each of its processes."""
SRUN = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_NODEID")
"""What srun tells them. The count cannot be SLURM_NTASKS: a batch script, which is alone, has it too."""
LOST_RANK = "another rank"
"""In the message of a rank that ends since another one did."""
GPU_BACKEND = "cpu:gloo,cuda:nccl"
"""What processes with GPUs exchange tensors by: those of the processor must not wait for a GPU's work."""
FIRST_PORT, PORTS = 10_000, 20_000
"""Of the ranks' meeting place, by the job's number: below those that Linux gives away to connections."""


@dataclass(frozen=True)
class Ranks:
    """Which process this is. One process alone is rank 0 of 1, and all of this costs it nothing."""

    rank: int = 0
    count: int = 1
    local: int = 0
    """Number on its machine, which is the number of its GPU."""
    on_this_machine: int = 1
    meeting: str | None = None
    """Where they find each other, as tcp://host:port; None: where torchrun says in the environment."""

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and logs."""
        return self.rank == 0

    @property
    def gpu(self) -> int:
        """The number of its GPU among those that it sees; ConfigError where it has none."""
        import torch

        seen = torch.cuda.device_count()
        # srun can show each rank its own GPU alone (--gpus-per-task), which then is number 0.
        number = 0 if seen == 1 and self.meeting is not None else self.local
        if number >= seen:
            raise ConfigError(f"rank {self.rank} has no GPU: there are {seen} on this machine")
        return number

    def sums(self, values: Sequence[float]) -> list[float]:
        """Each value summed over all ranks. All ranks must call it."""
        if self.count == 1:
            return list(values)
        import torch

        # On the processor, by gloo: it must not wait for the GPU's work.
        tensor = torch.tensor(values, dtype=torch.float64)
        torch.distributed.all_reduce(tensor)
        return tensor.tolist()

    def gather(self, rows: torch.Tensor) -> torch.Tensor:
        """The rows (B, ...) of every rank, on the processor, of equal shape: (R, B, ...). All ranks must call it."""
        import torch

        if self.count == 1:
            return rows[None]
        gathered = [torch.empty_like(rows) for _ in range(self.count)]
        torch.distributed.all_gather(gathered, rows.contiguous())
        return torch.stack(gathered)

    def each(self, value: Any) -> list[Any]:  # noqa: ANN401 - any plain values
        """Every rank's value. All ranks must call it."""
        if self.count == 1:
            return [value]
        import torch

        values = [None] * self.count
        torch.distributed.all_gather_object(values, value)
        return values

    def same(self, value: Any = None) -> Any:  # noqa: ANN401 - any plain value
        """The first rank's value, which the others wait for. All ranks must call it."""
        if self.count == 1:
            return value
        import torch

        box = [value]
        torch.distributed.broadcast_object_list(box, src=0)
        return box[0]


def ranks() -> Ranks:
    """Which process this is, from the environment; ConfigError where that names it in part, or not by numbers."""
    if {"RANK", "WORLD_SIZE"} <= os.environ.keys():
        rank, count, local, on_this_machine = _numbers(TORCHRUN, "torchrun")
        return Ranks(rank, count, local, on_this_machine)
    if os.environ.get("SLURM_STEP_NUM_TASKS", "1") == "1":
        return Ranks()
    rank, count, local, node = _numbers(SRUN, "srun")
    return Ranks(rank, count, local, _tasks_per_node()[node], _meeting())


def _numbers(names: Sequence[str], starter: str) -> list[int]:
    texts = {name: os.environ.get(name) for name in names}
    wrong = [f"{name}: found {text!r}" for name, text in texts.items() if not (text or "").isdigit()]
    if wrong:
        raise ConfigError(f"{'; '.join(wrong)}, expected the numbers that {starter} sets")
    return [int(text or "") for text in texts.values()]


def _tasks_per_node() -> list[int]:
    """The step's ranks on each of its machines, which SLURM writes as 4(x2),1."""
    text = os.environ.get("SLURM_STEP_TASKS_PER_NODE", "")
    parts = [re.fullmatch(r"([0-9]+)(?:\(x([0-9]+)\))?", part) for part in text.split(",")]
    if not all(parts):
        raise ConfigError(f"SLURM_STEP_TASKS_PER_NODE: found {text!r}, expected numbers as in 4(x2),1")
    return [int(part[1]) for part in parts if part for _ in range(int(part[2] or 1))]


def _meeting() -> str:
    """The first rank's address: MASTER_ADDR and MASTER_PORT, else the step's first machine and a port by the job."""
    host, port = os.environ.get("MASTER_ADDR"), os.environ.get("MASTER_PORT")
    if host is None:
        host = first_host(os.environ.get("SLURM_STEP_NODELIST", ""))
    if port is None:
        port = str(FIRST_PORT + int(os.environ.get("SLURM_JOB_ID", "0")) % PORTS)
    return f"tcp://{host}:{port}"


def first_host(nodes: str) -> str:
    """The first of the machines in SLURM's short form, as gpu[07-09,12],login; ConfigError where it has none."""
    first = re.match(r"(?:[^,\[\]]|\[[^\[\]]+\])+", nodes)
    if not first:
        raise ConfigError(f"SLURM_STEP_NODELIST: found {nodes!r}, expected machines; MASTER_ADDR can name the first")
    return re.sub(r"\[([^],-]+)[^]]*\]", r"\1", first[0])


@contextmanager
def process_group() -> Iterator[Ranks]:
    """Connect the ranks for the time of the block; a rank alone needs nothing.

    Raises RunError where another rank is gone: its own message says why.
    """
    group = ranks()
    if group.count == 1:
        yield group
        return
    import torch

    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(group.gpu)
    backend = GPU_BACKEND if on_gpu else "gloo"
    if group.meeting is None:
        torch.distributed.init_process_group(backend)
    else:
        torch.distributed.init_process_group(
            backend, init_method=group.meeting, rank=group.rank, world_size=group.count
        )
    try:
        yield group
    except RuntimeError as error:
        if not _is_lost_rank(error):
            raise
        raise RunError(f"{LOST_RANK} of the {group.count} has ended; its own message says why") from error
    # After an error the process ends without this, which could wait forever for ranks that no longer run.
    torch.distributed.destroy_process_group()


def _is_lost_rank(error: RuntimeError) -> bool:
    """Whether torch raised the error because the other side closed a connection."""
    import torch

    # gloo raises plain RuntimeErrors, which name the file of its own that they come from.
    return isinstance(error, torch.distributed.DistError) or "/gloo/" in str(error) or "by peer" in str(error)
