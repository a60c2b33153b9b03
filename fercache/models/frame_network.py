"""The frame network: a backbone that gives the embedding, and a linear classifier.

Legend: B frames, S side of the input, D embedding, C classes.
"""

from __future__ import annotations

import torch
from torch import nn

from fercache.models.backbone import Backbone


class FrameNetwork(nn.Module):
    """Backbone and classifier; the backbone's output is the embedding that is cached."""

    def __init__(self, backbone: Backbone, classes: int) -> None:
        super().__init__()
        self.backbone = backbone.build()
        self.classifier = nn.Linear(backbone.embedding_dim, classes)

    def embed(self, frames: torch.Tensor) -> torch.Tensor:
        """Prepared frames, float32 (B, 3, S, S), to embeddings (B, D), never negative."""
        return self.backbone(frames)

    def classify(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Embeddings (B, D) to logits (B, C), in float32 whatever the backbone computes in: it costs nothing."""
        with torch.autocast(embeddings.device.type, enabled=False):
            return self.classifier(embeddings.float())

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """Prepared frames, float32 (B, 3, S, S), to logits (B, C)."""
        return self.classify(self.embed(frames))
