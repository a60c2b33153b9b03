"""The temporal heads: windows of cached rows to logits at every position, or in the middle alone.

Legend: B windows, L positions, F rows (one a present frame), D embedding, H hidden, C classes.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn

from fercache.errors import ConfigError
from fercache.models.gru import GRUHead
from fercache.models.transformer import TransformerHead


class LinearHead(nn.Module):
    """A classifier on the embedding of each frame alone: what the embeddings say without time."""

    def __init__(self, classes: int, embedding_dim: int = 2048) -> None:
        super().__init__()
        self.classifier = nn.Linear(embedding_dim, classes)

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Embeddings, float (B, L, D), to logits (B, L, C)."""
        return self.classifier(windows)

    def middle(self, rows: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """Embeddings, float (F, D), and the rows of each window, int64 (B, L), to logits in the middle (B, C)."""
        return self.classifier(rows[index[:, index.shape[1] // 2]])


class MeanHead(nn.Module):
    """The mean of the frame network's logits over the window: smoothing, with nothing to train."""

    sees: ClassVar[str] = "logits"

    def __init__(self, classes: int, embedding_dim: int = 2048) -> None:
        super().__init__()

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Logits, float (B, L, C), to their mean at every position (B, L, C)."""
        return windows.mean(dim=1, keepdim=True).expand_as(windows)

    def middle(self, rows: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """Logits, float (F, C), and the rows of each window, int64 (B, L), to their mean (B, C)."""
        return rows[index].mean(dim=1)


HEADS: dict[str, type[nn.Module]] = {
    "gru": GRUHead,
    "transformer": TransformerHead,
    "linear": LinearHead,
    "mean": MeanHead,
}
"""Each is built from the number of classes and the embedding's length, and has a `forward` over whole windows and a
`middle` that gives `forward`'s output in the middle of each window without computing the rest."""


def get_head(name: object) -> type[nn.Module]:
    """The class of the head of that name; ConfigError with the valid names otherwise."""
    if name not in HEADS:
        raise ConfigError(f"head: found {name!r}, expected one of {', '.join(HEADS)}")
    return HEADS[str(name)]


def seen_by(head: type[nn.Module] | nn.Module) -> str:
    """The cache's dataset that a head looks at: embedding or logits."""
    return getattr(head, "sees", "embedding")
