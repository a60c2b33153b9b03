"""How large networks are, counted on the meta device: no memory is taken and no number computed."""

from __future__ import annotations

import torch
from torch import nn

from fercache.models.frame_network import ARCHITECTURES
from fercache.models.heads import get_head


def backbone_size(family: str) -> tuple[int, int]:
    """The embedding's length, and the numbers in a checkpoint of the backbone, of a CNN as `--arch` calls it."""
    architecture = next(one for one in ARCHITECTURES.values() if one.family == family)
    with torch.device("meta"):
        return architecture.embedding_dim, _count(architecture.build())


def head_size(name: str, classes: int, embedding_dim: int) -> int:
    """The numbers in a checkpoint of a head."""
    with torch.device("meta"):
        return _count(get_head(name)(classes, embedding_dim))


def _count(network: nn.Module) -> int:
    return sum(tensor.numel() for tensor in network.state_dict().values())
