"""What every backbone is: a network from frames to embeddings, and what its weights were trained with.

Legend: B frames, S side of the input, D embedding.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import nn

from fercache.models.formats import Shapes, WeightFormat, shapes_of
from fercache.models.preprocessing import Preprocessing


@dataclass(frozen=True)
class Backbone:
    """A network whose output is cached, (B, 3, S, S) -> (B, D), never negative."""

    name: str
    """As checkpoints and caches record it."""
    build: Callable[..., nn.Module]
    """Makes it with random weights."""
    preprocessing: Preprocessing
    formats: tuple[WeightFormat, ...]
    """The formats of files that its weights come in."""
    first_conv: str
    """The layer that sees the pixels."""
    first_norm: str | None = None
    """The batch norm behind that layer, whose statistics depend on the preprocessing; None: it has none."""
    any_size: bool = True
    """Whether it works on inputs of another size than its preprocessing's."""
    zero_init_residual: bool = False
    """Whether `build` takes the argument of that name."""

    @cached_property
    def embedding_dim(self) -> int:
        """Length of an embedding."""
        size = self.preprocessing.image_size
        with torch.device("meta"), torch.no_grad():
            return self.build().eval()(torch.empty(1, 3, size, size)).shape[1]

    @cached_property
    def shapes(self) -> Shapes:
        """Name -> shape of its tensors."""
        with torch.device("meta"):
            return shapes_of(self.build().state_dict())

    @property
    def numbers(self) -> int:
        """How many numbers its tensors have together."""
        return sum(math.prod(shape) for shape in self.shapes.values())
