"""VGG-Face: the challenge's baseline network."""

from __future__ import annotations

import torchvision
from torch import nn

from fercache.models.backbone import Backbone
from fercache.models.formats import WeightFormat
from fercache.models.preprocessing import VGGFACE

CONVOLUTIONS = {
    **{0: "1_1", 2: "1_2", 5: "2_1", 7: "2_2", 10: "3_1", 12: "3_2", 14: "3_3"},
    **{17: "4_1", 19: "4_2", 21: "4_3", 24: "5_1", 26: "5_2", 28: "5_3"},
}
"""Index in torchvision's `features` -> the layer's number in the paper."""


def vggface() -> nn.Module:
    """VGG16 up to fc7 after its ReLU, (B, 3, 224, 224) -> (B, 4096), with random weights (Parkhi et al. 2015).

    In training dropout of one half follows fc6 and fc7. The fully connected layers fix the input at 224 px:
    torchvision would average another size to fit, which these weights never saw.
    """
    network = torchvision.models.vgg16(weights=None)
    network.classifier[6] = nn.Identity()
    return network


def vggface_dag_name(name: str) -> str:
    """The VGG-Face file's name of a torchvision VGG16 tensor: features.0.weight -> conv1_1.weight."""
    part, index, tensor = name.split(".")
    layer = f"conv{CONVOLUTIONS[int(index)]}" if part == "features" else {"0": "fc6", "3": "fc7"}[index]
    return f"{layer}.{tensor}"


VGGFACE_VGG16 = Backbone(
    "vggface",
    vggface,
    VGGFACE,
    # As converted by Albanie.
    formats=(WeightFormat("vggface-dag", marker="conv1_1.weight", classifier="fc8", file_key=vggface_dag_name),),
    first_conv="features.0",
    any_size=False,
)
