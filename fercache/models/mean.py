"""The mean head: smoothing over time, with nothing to train.

Legend: B windows, L positions, C classes.
"""

from __future__ import annotations

from typing import ClassVar

import torch

from fercache.models.head import Head


class MeanHead(Head):
    """The mean of the frame network's logits over the window."""

    sees: ClassVar[str] = "logits"

    def __init__(self, classes: int, embedding_dim: int = 2048) -> None:
        super().__init__()

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Logits, float (B, L, C), to their mean at every position (B, L, C)."""
        return windows.mean(dim=1, keepdim=True).expand_as(windows)
