"""VGG-Face: the challenge's baseline network."""

from __future__ import annotations

import torchvision
from torch import nn


def vggface() -> nn.Module:
    """VGG16 up to fc7 after its ReLU, (B, 3, 224, 224) -> (B, 4096), with random weights (Parkhi et al. 2015).

    In training dropout of one half follows fc6 and fc7. The fully connected layers fix the input at 224 px:
    torchvision would average another size to fit, which these weights never saw.
    """
    network = torchvision.models.vgg16(weights=None)
    network.classifier[6] = nn.Identity()
    return network
