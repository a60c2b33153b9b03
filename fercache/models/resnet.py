"""ResNet50 in its two forms: they share every key and shape, and compute different things.

Legend: B frames, S side of the input.
"""

from __future__ import annotations

import re
from typing import cast

import torchvision
from torch import nn

from fercache.models.backbone import Backbone
from fercache.models.formats import WeightFormat
from fercache.models.preprocessing import IMAGENET, VGGFACE2


def imagenet_resnet50(zero_init_residual: bool = False) -> nn.Module:
    """torchvision's ResNet50 (v1.5), (B, 3, S, S) -> (B, 2048), with random weights.

    The average over the last layer after its ReLU: never negative. With `zero_init_residual` each residual block starts
    as the identity (Goyal et al. 2017, 5.1).
    """
    network = torchvision.models.resnet50(weights=None, zero_init_residual=zero_init_residual)
    network.fc = nn.Identity()
    return network


def vggface2_resnet50(zero_init_residual: bool = False) -> nn.Module:
    """ResNet50 in the Caffe form of the VGGFace2 weights, (B, 3, S, S) -> (B, 2048), with random weights.

    It differs from torchvision's in two places that no key or shape shows: the pooling after the stem has no padding
    and rounds up, and the stride of layers 2 to 4 is on the first 1x1 convolution of their first block (He et al. 2016;
    torchvision has it on the 3x3).
    """
    network = imagenet_resnet50(zero_init_residual)
    network.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=0, ceil_mode=True)
    for layer in ("layer2", "layer3", "layer4"):
        for conv, stride in (("conv1", (2, 2)), ("conv2", (1, 1))):
            cast(nn.Conv2d, network.get_submodule(f"{layer}.0.{conv}")).stride = stride
    return network


def resnet50_dag_name(name: str) -> str:
    """The dag file's name of a torchvision ResNet50 tensor: layer1.0.conv1.weight -> conv2_1_1x1_reduce.weight."""
    stem = re.fullmatch(r"(conv1|bn1)\.(\w+)", name)
    if stem:
        return f"conv1_7x7_s2{'_bn' if stem[1] == 'bn1' else ''}.{stem[2]}"
    match = re.fullmatch(r"layer(\d)\.(\d)\.(?:(conv|bn)(\d)|downsample\.([01]))\.(\w+)", name)
    if not match:
        raise ValueError(f"{name} is no tensor of ResNet50")
    layer, block, kind, number, projection, tensor = match.groups()
    if projection is not None:
        part, norm = "1x1_proj", projection == "1"
    else:
        part, norm = {"1": "1x1_reduce", "2": "3x3", "3": "1x1_increase"}[number], kind == "bn"
    return f"conv{int(layer) + 1}_{int(block) + 1}_{part}{'_bn' if norm else ''}.{tensor}"


def _under_torchvision_names(name: str, *, bgr: bool = False, pickled: bool = False) -> WeightFormat:
    return WeightFormat(name, marker="layer1.0.conv1.weight", classifier="fc", bgr=bgr, pickled=pickled)


VGGFACE2_RESNET50 = Backbone(
    "resnet50-vggface2",
    vggface2_resnet50,
    VGGFACE2,
    formats=(
        # As converted by Albanie.
        WeightFormat(
            "dag",
            marker="conv1_7x7_s2.weight",
            classifier="classifier",
            file_key=resnet50_dag_name,
            classifier_is_convolution=True,
        ),
        _under_torchvision_names("pkl", bgr=True, pickled=True),
        _under_torchvision_names("torchvision-vggface2"),
        _under_torchvision_names("torchvision-vggface2-bgr", bgr=True),
    ),
    first_conv="conv1",
    first_norm="bn1",
    zero_init_residual=True,
)
IMAGENET_RESNET50 = Backbone(
    "resnet50-imagenet",
    imagenet_resnet50,
    IMAGENET,
    formats=(_under_torchvision_names("torchvision-imagenet"),),
    first_conv="conv1",
    first_norm="bn1",
    zero_init_residual=True,
)
