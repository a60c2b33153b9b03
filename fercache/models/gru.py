"""The GRU head, with the sizes of the paper's code and the depth of its text.

Legend: B windows, L positions, F rows (one a present frame), D embedding, H hidden, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import nn
from torch.nn.functional import linear

from fercache.models.head import Head


class GRUHead(Head):
    """Projection, a bidirectional GRU of 2 layers, and a classifier at every position."""

    def __init__(self, classes: int, embedding_dim: int = 2048, hidden: int = 768, layers: int = 2) -> None:
        super().__init__()
        self.projection = nn.Linear(embedding_dim, hidden)
        self.gru = nn.GRU(hidden, hidden // 2, num_layers=layers, batch_first=True, bidirectional=True)
        self.classifier = nn.Linear(hidden, classes)

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Embeddings, float (B, L, D), to logits (B, L, C)."""
        hidden = torch.relu(self.projection(windows))  # (B, L, H)
        if hidden.is_cuda and hidden.dtype == torch.bfloat16:
            # Under autocast cuDNN computes a GRU in float16, where small gradients vanish without a scaler.
            with torch.autocast("cuda", enabled=False):
                states, _ = self.gru(hidden.float())
        else:
            states, _ = self.gru(hidden)  # (B, L, H): both directions, H / 2 each
        return self.classifier(torch.relu(states))

    def middle(self, rows: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """As in every head, on embeddings (F, D).

        The projection, and the first layer's product of input and weights, are computed once per row. In the last
        layer the forward direction stops at the middle, and the backward direction starts there.
        """
        hidden = torch.relu(self.projection(rows))  # (F, H)
        length = index.shape[1]
        half = length // 2 + 1
        outputs: list[torch.Tensor] = []  # of the layer below: L times (B, H)
        for layer in range(self.gru.num_layers):
            last = layer == self.gru.num_layers - 1
            directions = []
            for order, suffix in ((range(length), ""), (range(length - 1, -1, -1), "_reverse")):
                weight_ih, bias_ih, weight_hh, bias_hh = (
                    getattr(self.gru, f"{name}_l{layer}{suffix}")
                    for name in ("weight_ih", "bias_ih", "weight_hh", "bias_hh")
                )
                steps = order[:half] if last else order
                if layer:
                    products = _of_positions(outputs, steps, weight_ih, bias_ih)
                else:
                    products = _of_rows(hidden, index, weight_ih, bias_ih)
                directions.append(_states(products, steps, weight_hh, bias_hh))
            wanted = [length // 2] if last else range(length)
            outputs = [torch.cat([states[k] for states in directions], dim=1) for k in wanted]
        return self.classifier(torch.relu(outputs[0]))


Products = Callable[[int], torch.Tensor]
"""Position -> the products of a layer's input with its gates' weights, (B, 3H / 2)."""


def _of_rows(rows: torch.Tensor, index: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> Products:
    """Of rows (F, H) that windows share."""
    of_row = linear(rows, weight, bias)  # (F, 3H / 2)
    positions = index.T.contiguous()  # (L, B)
    return lambda k: of_row.index_select(0, positions[k])


def _of_positions(
    inputs: list[torch.Tensor], steps: Iterable[int], weight: torch.Tensor, bias: torch.Tensor
) -> Products:
    """Of inputs that belong to one window each, at the positions in `steps` alone."""
    of_position = {k: linear(inputs[k], weight, bias) for k in steps}
    return lambda k: of_position[k]


def _states(
    products: Products, steps: Iterable[int], weight: torch.Tensor, bias: torch.Tensor
) -> dict[int, torch.Tensor]:
    """Position -> the hidden state (B, H / 2) after it, in the order of `steps`, from zero.

    The equations are those of torch.nn.GRU: r and z are gates, n the new state before it is mixed with the old one.
    """
    states: dict[int, torch.Tensor] = {}
    state: torch.Tensor | None = None
    for k in steps:
        inputs = products(k)
        width = inputs.shape[1] // 3
        hidden = bias.to(inputs).expand_as(inputs) if state is None else linear(state, weight, bias)
        r, z = torch.sigmoid(inputs[:, : 2 * width] + hidden[:, : 2 * width]).chunk(2, dim=1)
        n = torch.tanh(torch.addcmul(inputs[:, 2 * width :], r, hidden[:, 2 * width :]))
        state = n - z * n if state is None else torch.lerp(n, state, z)
        states[k] = state
    return states
