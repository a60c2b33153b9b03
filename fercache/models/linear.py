"""The linear head: what the embeddings say without time.

Legend: B windows, L positions, F rows (one a present frame), D embedding, C classes.
"""

from __future__ import annotations

import torch
from torch import nn

from fercache.models.head import Head


class LinearHead(Head):
    """A classifier on the embedding of each frame alone."""

    def __init__(self, classes: int, embedding_dim: int = 2048) -> None:
        super().__init__()
        self.classifier = nn.Linear(embedding_dim, classes)

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Embeddings, float (B, L, D), to logits (B, L, C)."""
        return self.classifier(windows)

    def middle(self, rows: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """As in every head; the frames beside the middle are not looked at."""
        return self.classifier(rows[index[:, index.shape[1] // 2]])
