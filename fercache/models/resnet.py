"""The frame network: VGGFace2's ResNet50 and a linear classifier.

Legend: B frames, S side of the input, D = 2048 embedding, C classes.
"""

from __future__ import annotations

import torch
import torchvision
from torch import nn

EMBEDDING_DIM = 2048


def vggface2_resnet50(zero_init_residual: bool = False) -> nn.Module:
    """ResNet50 in the Caffe form of the VGGFace2 weights, (B, 3, S, S) -> (B, 2048), with random weights.

    It differs from torchvision's in two places that no key or shape betrays: the pooling after the
    stem has no padding and rounds up, and the stride of layers 2 to 4 is on the first 1x1
    convolution of their first block (He et al. 2016; torchvision has it on the 3x3). With
    `zero_init_residual` each block of the random weights begins as the identity (Goyal et al. 2017, 5.1).
    """
    network = torchvision.models.resnet50(weights=None, zero_init_residual=zero_init_residual)
    network.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=0, ceil_mode=True)
    for layer in (network.layer2, network.layer3, network.layer4):
        layer[0].conv1.stride, layer[0].conv2.stride = (2, 2), (1, 1)
    network.fc = nn.Identity()
    return network


class FrameNetwork(nn.Module):
    """Backbone and classifier; the backbone's output is the embedding that is cached.

    The embedding is the average over pool5 after a ReLU: never negative.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.backbone = vggface2_resnet50()
        self.classifier = nn.Linear(EMBEDDING_DIM, classes)

    def embed(self, frames: torch.Tensor) -> torch.Tensor:
        """Prepared frames, float32 (B, 3, S, S), to embeddings (B, 2048)."""
        return self.backbone(frames)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """Prepared frames, float32 (B, 3, S, S), to logits (B, C)."""
        return self.classifier(self.embed(frames))
