"""The temporal heads: windows of embeddings to logits at every position.

Legend: B windows, L positions, D embedding, H hidden, C classes. Sizes are those of the paper's
code where it runs; depth of the GRU and the encoding along time are those of the paper's text.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from fercache.errors import ConfigError


class GRUHead(nn.Module):
    """Projection, a bidirectional GRU of 2 layers, and a classifier at every position."""

    def __init__(self, classes: int, embedding_dim: int = 2048, hidden: int = 768, layers: int = 2) -> None:
        super().__init__()
        self.projection = nn.Linear(embedding_dim, hidden)
        self.gru = nn.GRU(hidden, hidden // 2, num_layers=layers, batch_first=True, bidirectional=True)
        self.classifier = nn.Linear(hidden, classes)

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Embeddings, float (B, L, D), to logits (B, L, C)."""
        hidden = torch.relu(self.projection(windows))  # (B, L, H)
        states, _ = self.gru(hidden)  # (B, L, H): both directions, H / 2 each
        return self.classifier(torch.relu(states))


class TransformerHead(nn.Module):
    """Projection, sinusoidal encoding along time, a pre-norm encoder of 2 layers, a classifier at every position."""

    def __init__(
        self,
        classes: int,
        embedding_dim: int = 2048,
        hidden: int = 768,
        layers: int = 2,
        attention_heads: int = 12,
        feed_forward: int = 3072,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.projection = nn.Linear(embedding_dim, hidden)
        layer = nn.TransformerEncoderLayer(
            hidden, attention_heads, feed_forward, dropout, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, layers, norm=nn.LayerNorm(hidden), enable_nested_tensor=False)
        self.classifier = nn.Linear(hidden, classes)

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Embeddings, float (B, L, D), to logits (B, L, C)."""
        hidden = self.projection(windows)  # (B, L, H)
        time = sinusoidal_encoding(hidden.shape[1], hidden.shape[2]).to(hidden)  # (L, H), the same for every window
        return self.classifier(self.encoder(hidden + time))


class MiddleOutput(nn.Module):
    """A head at inference: of each window, the logits of the frame in its middle."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Embeddings, float (B, L, D), to logits (B, C)."""
        return self.head(windows)[:, windows.shape[1] // 2]


def sinusoidal_encoding(length: int, dim: int) -> torch.Tensor:
    """Positions 0..length-1 as float32 (length, dim): sin and cos in turn, as in Vaswani et al. 2017, 3.5."""
    position = torch.arange(length, dtype=torch.float32)[:, None]
    rate = torch.exp(torch.arange(0, dim, 2, dtype=torch.float32) * (-math.log(10_000.0) / dim))
    return torch.stack([torch.sin(position * rate), torch.cos(position * rate)], dim=2).flatten(1)[:, :dim]


HEADS: dict[str, type[nn.Module]] = {"gru": GRUHead, "transformer": TransformerHead}


def get_head(name: str | None) -> type[nn.Module]:
    """The class of the head of that name; ConfigError with the valid names otherwise."""
    if name not in HEADS:
        raise ConfigError(f"head: found {name!r}, expected one of {', '.join(HEADS)}")
    return HEADS[name]
