"""The frame networks: a backbone that gives the embedding, and a linear classifier.

Legend: B frames, S side of the input, D embedding, C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from fercache.errors import WeightsError
from fercache.models.preprocessing import IMAGENET, VGGFACE, VGGFACE2, Preprocessing
from fercache.models.resnet import imagenet_resnet50, vggface2_resnet50
from fercache.models.vggface import vggface


@dataclass(frozen=True)
class Architecture:
    """A backbone, and what its weights were trained with."""

    name: str
    """As checkpoints and caches record it."""
    family: str
    """What `--arch` calls it."""
    build: Callable[..., nn.Module]
    """The backbone with random weights: (B, 3, S, S) -> (B, `embedding_dim`)."""
    embedding_dim: int
    preprocessing: Preprocessing
    first_conv: str
    """The layer that sees the pixels."""
    first_norm: str | None
    """The batch norm behind it, whose statistics tell what the pixels were like; None: there is none."""
    any_size: bool = True
    """Whether it works on inputs of another size than its preprocessing's."""


ARCHITECTURES = {
    a.name: a
    for a in (
        Architecture("resnet50-vggface2", "resnet50", vggface2_resnet50, 2048, VGGFACE2, "conv1", "bn1"),
        Architecture("resnet50-imagenet", "resnet50", imagenet_resnet50, 2048, IMAGENET, "conv1", "bn1"),
        Architecture("vggface", "vggface", vggface, 4096, VGGFACE, "features.0", None, any_size=False),
    )
}
"""The backbones; the first of a family is the one that `--weights none` means."""


def get_architecture(name: object) -> Architecture:
    """The architecture of that name; WeightsError with the known ones otherwise."""
    if name not in ARCHITECTURES:
        raise WeightsError(f"architecture: found {name!r}, expected one of {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[str(name)]


class FrameNetwork(nn.Module):
    """Backbone and classifier; the backbone's output is the embedding that is cached."""

    def __init__(self, architecture: Architecture, classes: int) -> None:
        super().__init__()
        self.backbone = architecture.build()
        self.classifier = nn.Linear(architecture.embedding_dim, classes)

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
