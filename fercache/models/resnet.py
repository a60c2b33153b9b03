"""ResNet50 in its two forms, which share every key and shape and are two functions.

Legend: B frames, S side of the input.
"""

from __future__ import annotations

import torchvision
from torch import nn


def imagenet_resnet50(zero_init_residual: bool = False) -> nn.Module:
    """torchvision's ResNet50 (v1.5), (B, 3, S, S) -> (B, 2048), with random weights.

    The average over the last layer after its ReLU: never negative. With `zero_init_residual` each
    block of the random weights begins as the identity (Goyal et al. 2017, 5.1).
    """
    network = torchvision.models.resnet50(weights=None, zero_init_residual=zero_init_residual)
    network.fc = nn.Identity()
    return network


def vggface2_resnet50(zero_init_residual: bool = False) -> nn.Module:
    """ResNet50 in the Caffe form of the VGGFace2 weights, (B, 3, S, S) -> (B, 2048), with random weights.

    It differs from torchvision's in two places that no key or shape betrays: the pooling after the
    stem has no padding and rounds up, and the stride of layers 2 to 4 is on the first 1x1
    convolution of their first block (He et al. 2016; torchvision has it on the 3x3).
    """
    network = imagenet_resnet50(zero_init_residual)
    network.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=0, ceil_mode=True)
    for layer in (network.layer2, network.layer3, network.layer4):
        layer[0].conv1.stride, layer[0].conv2.stride = (2, 2), (1, 1)
    return network
