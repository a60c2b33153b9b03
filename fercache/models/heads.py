"""The registry of temporal heads. Reading it imports no torch, so that help and settings can list the names.

A new head is a subclass of `fercache.models.head.Head` in a file of its own, and an entry here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fercache.errors import ConfigError

if TYPE_CHECKING:
    from fercache.models.head import Head


@dataclass(frozen=True)
class HeadEntry:
    """A head as the registry knows it."""

    title: str
    """In tables and on pages."""
    load: Callable[[], type[Head]]
    """Imports and returns its class."""
    learns: bool = True
    """Whether it has parameters; a head without any is scored once."""


def _gru() -> type[Head]:
    from fercache.models.gru import GRUHead

    return GRUHead


def _transformer() -> type[Head]:
    from fercache.models.transformer import TransformerHead

    return TransformerHead


def _linear() -> type[Head]:
    from fercache.models.linear import LinearHead

    return LinearHead


def _mean() -> type[Head]:
    from fercache.models.mean import MeanHead

    return MeanHead


HEADS = {
    "gru": HeadEntry("GRU", _gru),
    "transformer": HeadEntry("Transformer", _transformer),
    "linear": HeadEntry("Linear", _linear),
    "mean": HeadEntry("Mean", _mean, learns=False),
}


def head_entry(name: str | None) -> HeadEntry:
    """The entry of that name; ConfigError with the valid names otherwise."""
    if name not in HEADS:
        raise ConfigError(f"head: found {name!r}, expected one of {', '.join(HEADS)}")
    return HEADS[name]


def get_head(name: str | None) -> type[Head]:
    """The class of the head of that name; ConfigError with the valid names otherwise."""
    return head_entry(name).load()


def head_numbers(name: str, classes: int, embedding_dim: int) -> int:
    """How many numbers the tensors of a head have together."""
    import torch

    with torch.device("meta"):  # no memory is taken
        head = get_head(name)(classes, embedding_dim)
    return sum(tensor.numel() for tensor in head.state_dict().values())
