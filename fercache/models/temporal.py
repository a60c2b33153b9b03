"""A head with what surrounds it: standardised embeddings, the middle output, and the backbone in front.

Legend: B windows, L positions, F rows (one a present frame), S side of the network's input, D embedding, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from fercache.errors import WeightsError
from fercache.models.formats import check_numbers
from fercache.models.heads import get_head

if TYPE_CHECKING:
    from fercache.models.head import Head

CHUNK = 64
"""Frames a pass of the backbone, where its activations are not all kept."""


class IndexedWindows(NamedTuple):
    """Windows that share rows."""

    rows: torch.Tensor
    """What a window is made of: embeddings (F, D), logits (F, C) or prepared frames (F, 3, S, S); float32."""
    index: torch.Tensor  # type: ignore[assignment]  # hides tuple.index
    """int64 (B, L), into `rows`."""


class Standardise(nn.Module):
    """Embeddings minus the training split's mean, over its standard deviation."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, embedding_dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(embedding_dim))
        self.register_buffer("std", torch.ones(embedding_dim))

    def set(self, mean: torch.Tensor, std: torch.Tensor) -> None:
        """Set mean and standard deviation (D,); a dimension that never changes is only centred."""
        self.mean.copy_(mean)
        self.std.copy_(torch.where(std > 0, std, 1.0))

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Float (..., D) to (..., D)."""
        return (embeddings - self.mean) / self.std


class TemporalNetwork(nn.Module):
    """A head over cached rows."""

    def __init__(self, head: Head, standardise: nn.Module | None = None) -> None:
        super().__init__()
        self.head: Head = head
        self.standardise = standardise or nn.Identity()

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Rows, float (B, L, D or C), to logits (B, L, C)."""
        return self.head(self.standardise(windows))

    def middle(self, windows: IndexedWindows) -> torch.Tensor:
        """Windows over rows to the logits in their middle, (B, C)."""
        return self.head.middle(self.standardise(windows.rows), windows.index)


class EndToEnd(TemporalNetwork):
    """A backbone and a head over its embeddings, trained together.

    The backbone's batch norms keep their statistics in training: the frames of a window are too similar to estimate
    any. With `frozen` the backbone does not learn. With `checkpointing` it keeps no activations and recomputes them for
    the gradient, a chunk of frames at a time.
    """

    def __init__(
        self,
        backbone: nn.Module,
        head: Head,
        standardise: nn.Module | None = None,
        *,
        frozen: bool = False,
        checkpointing: bool = False,
    ) -> None:
        super().__init__(head, standardise)
        self.backbone, self.frozen, self.checkpointing = backbone, frozen, checkpointing
        backbone.requires_grad_(not frozen)

    def train(self, mode: bool = True) -> EndToEnd:
        """As in every module, but a frozen backbone and its batch norms stay in evaluation."""
        super().train(mode)
        self.backbone.train(mode and not self.frozen)
        for module in self.backbone.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def embed(self, frames: torch.Tensor) -> torch.Tensor:
        """Prepared frames (F, 3, S, S) to embeddings, float32 (F, D)."""
        learns = torch.is_grad_enabled() and not self.frozen
        if learns and not self.checkpointing:
            return self.backbone(frames).float()
        chunks = frames.split(CHUNK)
        if learns:
            embeddings = [checkpoint(self.backbone, chunk, use_reentrant=False) for chunk in chunks]
        else:
            embeddings = [self.backbone(chunk) for chunk in chunks]
        return torch.cat(embeddings).float()

    def forward(self, windows: IndexedWindows) -> torch.Tensor:  # type: ignore[override]
        """Windows over prepared frames to logits (B, L, C)."""
        return super().forward(self.embed(windows.rows)[windows.index])

    def middle(self, windows: IndexedWindows) -> torch.Tensor:
        """Windows over prepared frames to the logits in their middle, (B, C)."""
        return super().middle(IndexedWindows(self.embed(windows.rows), windows.index))


class MiddleOutput(nn.Module):
    """A network over windows at inference: the logits of each window's middle frame."""

    def __init__(self, network: TemporalNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, windows: IndexedWindows) -> torch.Tensor:
        """Windows to logits (B, C)."""
        return self.network.middle(windows)


def network_of(path: Path, checkpoint: Mapping[str, Any]) -> TemporalNetwork:
    """The head in a checkpoint, read from `path`, over cached rows; a backbone in front of it is dropped."""
    tensors = {name: tensor for name, tensor in checkpoint["model"].items() if not name.startswith("backbone.")}
    head = get_head(checkpoint["head"])(len(checkpoint["train_prior"]), checkpoint["embedding_dim"])
    standardise = Standardise(checkpoint["embedding_dim"]) if "standardise.mean" in tensors else None
    network = TemporalNetwork(head, standardise)
    check_numbers(path, tensors)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise WeightsError(f"{path}: does not hold its head: {' '.join(str(error).split())[:300]}") from error
    return network
