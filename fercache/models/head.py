"""What every temporal head is: a network over windows.

Legend: B windows, L positions, F rows (one a present frame), D embedding, C classes.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn


class Head(nn.Module):
    """A network over windows, built from the number of classes and the embedding's length.

    A subclass writes `__init__(classes, embedding_dim)` and `forward`; `middle` only where it can be computed faster.
    """

    sees: ClassVar[str] = "embedding"
    """What the windows are made of: the cache's `embedding` or its `logits`."""

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Embeddings, float (B, L, D), or logits (B, L, C), to logits (B, L, C)."""
        raise NotImplementedError

    def middle(self, rows: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """Rows, float (F, D) or (F, C), and those of each window, int64 (B, L), to the logits in its middle (B, C).

        The same numbers as in the middle of `forward`, but for rounding.
        """
        return self(rows[index])[:, index.shape[1] // 2]
