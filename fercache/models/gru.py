"""The GRU head, with the sizes of the paper's code and the depth of its text.

Legend: B windows, L positions, F rows (one a present frame), D embedding, H hidden, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import nn
from torch.nn.functional import linear


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
        if hidden.is_cuda and hidden.dtype == torch.bfloat16:
            # Autocast gives cuDNN float16 whatever it was told, and no scaler keeps small gradients then.
            with torch.autocast("cuda", enabled=False):
                states, _ = self.gru(hidden.float())
        else:
            states, _ = self.gru(hidden)  # (B, L, H): both directions, H / 2 each
        return self.classifier(torch.relu(states))

    def middle(self, rows: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """Embeddings, float (F, D), and the rows of each window, int64 (B, L), to logits in the middle (B, C).

        The projection and the first layer's products with its input are computed once a row. Of the last layer only
        the steps before the middle count in the one direction, and those behind it in the other.
        """
        hidden = torch.relu(self.projection(rows))  # (F, H)
        length = index.shape[1]
        forward, backward = range(length), range(length - 1, -1, -1)
        half = length // 2 + 1
        outputs: list[torch.Tensor] = []  # of the layer below: L times (B, H)
        for layer in range(self.gru.num_layers):
            last = layer == self.gru.num_layers - 1
            sides = []
            for order, suffix in ((forward, ""), (backward, "_reverse")):
                weights = [getattr(self.gru, f"{name}_l{layer}{suffix}") for name in PARAMETERS]
                steps = order[:half] if last else order
                if layer:
                    products = _of_positions(outputs, steps, *weights[:2])
                else:
                    products = _of_rows(hidden, index, *weights[:2])
                sides.append(_states(products, steps, *weights[2:]))
            wanted = [length // 2] if last else forward
            outputs = [torch.cat([side[k] for side in sides], dim=1) for k in wanted]
        return self.classifier(torch.relu(outputs[0]))


PARAMETERS = ("weight_ih", "bias_ih", "weight_hh", "bias_hh")
Products = Callable[[int], torch.Tensor]
"""Position -> the products of a layer's input with its gates' weights, (B, 3H / 2)."""


def _of_rows(rows: torch.Tensor, index: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> Products:
    """Of inputs (F, H) that windows share."""
    every = linear(rows, weight, bias)  # (F, 3H / 2)
    positions = index.T.contiguous()  # (L, B)
    return lambda k: every.index_select(0, positions[k])


def _of_positions(
    inputs: list[torch.Tensor], steps: Iterable[int], weight: torch.Tensor, bias: torch.Tensor
) -> Products:
    """Of inputs that every window has its own of, at the positions in `steps` alone."""
    some = {k: linear(inputs[k], weight, bias) for k in steps}
    return lambda k: some[k]


def _states(
    products: Products, steps: Iterable[int], weight: torch.Tensor, bias: torch.Tensor
) -> dict[int, torch.Tensor]:
    """Position -> the hidden state (B, H / 2) there, going through `steps` from nothing.

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
