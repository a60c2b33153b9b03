"""The processes that train one network together, as torchrun starts them.

Legend: R ranks, B rows of one rank.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fercache.errors import ConfigError, RunError

if TYPE_CHECKING:
    import torch

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
"""What torchrun tells each of its processes."""


@dataclass(frozen=True)
class Ranks:
    """Which process this is. One process alone is rank 0 of 1, and all of this costs it nothing."""

    rank: int = 0
    count: int = 1
    local: int = 0
    """Number on its machine, which is the number of its GPU."""
    on_this_machine: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and talks."""
        return self.rank == 0

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
        found = [torch.empty_like(rows) for _ in range(self.count)]
        torch.distributed.all_gather(found, rows.contiguous())
        return torch.stack(found)

    def same(self, value: Any = None) -> Any:  # noqa: ANN401 - any plain value
        """The first rank's value, which the others wait for. All ranks must call it."""
        if self.count == 1:
            return value
        import torch

        box = [value]
        torch.distributed.broadcast_object_list(box, src=0)
        return box[0]


def ranks() -> Ranks:
    """The place of this process, from the environment; ConfigError where that is told in parts or in nonsense."""
    found = {name: os.environ[name] for name in VARIABLES if name in os.environ}
    if not {"RANK", "WORLD_SIZE"} <= set(found):
        return Ranks()
    wrong = [f"{name}: found {found.get(name)!r}" for name in VARIABLES if not found.get(name, "").isdigit()]
    if wrong:
        raise ConfigError(f"{'; '.join(wrong)}, expected the numbers that torchrun sets")
    return Ranks(*(int(found[name]) for name in VARIABLES))


@contextmanager
def process_group() -> Iterator[Ranks]:
    """Connect the ranks for the time of the block; a rank alone needs nothing.

    Raises RunError where another rank is gone: its own message says why.
    """
    here = ranks()
    if here.count == 1:
        yield here
        return
    import torch

    on_gpu = torch.cuda.is_available()
    if on_gpu:
        if here.local >= torch.cuda.device_count():
            raise ConfigError(f"rank {here.rank} has no GPU: there are {torch.cuda.device_count()} on this machine")
        torch.cuda.set_device(here.local)
    torch.distributed.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo")
    try:
        yield here
    except RuntimeError as error:
        if not _is_lost_rank(error):
            raise
        raise RunError(f"another rank of the {here.count} has ended; its own message says why") from error
    # After an error the process ends; to take leave of ranks that may be gone could wait for ever.
    torch.distributed.destroy_process_group()


def _is_lost_rank(error: RuntimeError) -> bool:
    """Whether the error is torch's word for a connection that the other side closed."""
    import torch

    # gloo raises plain RuntimeErrors, which name the file of its own that they come from.
    return isinstance(error, torch.distributed.DistError) or "/gloo/" in str(error) or "by peer" in str(error)
