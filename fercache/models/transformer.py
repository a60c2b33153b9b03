"""The Transformer head, with the sizes of the paper's code and its encoding along time.

Legend: B windows, L positions, F rows (one a present frame), D embedding, H hidden, C classes, A attention heads.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

from fercache.models.head import Head


class TransformerHead(Head):
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
        return self.classifier(self.encoder(self._with_time(self.projection(windows))))

    def middle(self, rows: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """As in every head, on embeddings (F, D).

        The projection is computed once per row; what follows depends on the position. In the last layer only the middle
        position is a query.
        """
        hidden = self._with_time(self.projection(rows)[index])  # (B, L, H)
        for layer in self.encoder.layers[:-1]:
            hidden = layer(hidden)
        assert self.encoder.norm is not None
        return self.classifier(self.encoder.norm(_middle_of_layer(self.encoder.layers[-1], hidden)))

    def _with_time(self, hidden: torch.Tensor) -> torch.Tensor:
        """The encoding of each position, the same for every window, added to (B, L, H)."""
        return hidden + sinusoidal_encoding(hidden.shape[1], hidden.shape[2], hidden.device).to(hidden.dtype)


def _middle_of_layer(layer: nn.TransformerEncoderLayer, hidden: torch.Tensor) -> torch.Tensor:
    """The output (B, H) of a pre-norm layer without dropout, on (B, L, H), at the middle position."""
    attention, half = layer.self_attn, hidden.shape[1] // 2
    normed = layer.norm1(hidden)
    query, key_value = attention.in_proj_weight.split([hidden.shape[2], 2 * hidden.shape[2]])
    query_bias, key_value_bias = attention.in_proj_bias.split([hidden.shape[2], 2 * hidden.shape[2]])
    queries = functional.linear(normed[:, half], query, query_bias)[:, None]  # (B, 1, H)
    keys, values = functional.linear(normed, key_value, key_value_bias).chunk(2, dim=2)  # (B, L, H) each
    parts = [part.unflatten(2, (attention.num_heads, -1)).transpose(1, 2) for part in (queries, keys, values)]
    attended = functional.scaled_dot_product_attention(*parts)  # (B, A, 1, H / A)
    middle = hidden[:, half] + attention.out_proj(attended.transpose(1, 2).flatten(1))
    return middle + layer.linear2(layer.activation(layer.linear1(layer.norm2(middle))))


def sinusoidal_encoding(length: int, dim: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """Positions 0..length-1 as float32 (length, dim): sin and cos in turn, as in Vaswani et al. 2017, 3.5.

    Computed on `device`: a copy to a GPU would wait for everything queued there.
    """
    position = torch.arange(length, dtype=torch.float32, device=device)[:, None]
    rate = torch.exp(torch.arange(0, dim, 2, dtype=torch.float32, device=device) * (-math.log(10_000.0) / dim))
    return torch.stack([torch.sin(position * rate), torch.cos(position * rate)], dim=2).flatten(1)[:, :dim]
