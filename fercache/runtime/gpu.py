"""What computing on a GPU takes beside the network: copies, memory that runs out, the choice of kernels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fercache.errors import RunError

if TYPE_CHECKING:
    import torch

MEMORY_WORDS = ("out of memory", "can't allocate memory", "not enough memory", "ALLOC_FAILED")
"""In the messages of torch, cuDNN and cuBLAS where memory ran out; the second and third are of a processor's."""
NO_ENGINE = "unable to find an engine"
"""In torch's message where each of cuDNN's kernels failed, as for want of memory."""


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor of the processor on `device`, without waiting for what a GPU is still computing.

    A copy from ordinary memory waits for all work that was handed to the GPU before it; one from page-locked memory
    takes its place behind that work.
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


@contextmanager
def memory_errors(remedy: str) -> Iterator[None]:
    """Raise RunError with `remedy`, what to change, where the block runs out of the device's memory."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        # The GPU's own class is a RuntimeError; a processor's and cuDNN's failures have none.
        probably = "probably " if NO_ENGINE in str(error) else ""
        if not (probably or isinstance(error, MemoryError) or any(words in str(error) for words in MEMORY_WORDS)):
            raise
        raise RunError(f"{_device_words()} {probably}ran out of memory: {remedy}") from error


def _device_words() -> str:
    from fercache.runtime.machine import device

    if device().type == "cpu":
        return "this machine"
    import torch

    record = torch.cuda.get_device_properties(device())
    return f"GPU {device().index} ({record.name}, {record.total_memory / 2**30:.0f} GiB)"


@contextmanager
def tuned_convolutions() -> Iterator[None]:
    """Let cuDNN time its kernels and take the fastest, which pays where the inputs' shapes are always the same."""
    import torch

    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def gpu_count() -> int:
    """How many GPUs this process sees."""
    import torch

    return torch.cuda.device_count()
