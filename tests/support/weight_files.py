"""Weight files in the real formats with random numbers, and each format's own forward pass.

Written from the descriptions of the formats alone: nothing here uses fercache.
"""

from __future__ import annotations

import io
import pickle
import re
import struct

import numpy as np
import torch
from torch.nn import functional

BLOCKS = {2: 3, 3: 4, 4: 6, 5: 3}
WIDTH = {2: 64, 3: 128, 4: 256, 5: 512}
VGG_LAYERS = {"1_1": (3, 64), "1_2": (64, 64), "2_1": (64, 128), "2_2": (128, 128)}
VGG_LAYERS |= {"3_1": (128, 256), "3_2": (256, 256), "3_3": (256, 256)}
VGG_LAYERS |= {"4_1": (256, 512), "4_2": (512, 512), "4_3": (512, 512)}
VGG_LAYERS |= {"5_1": (512, 512), "5_2": (512, 512), "5_3": (512, 512)}


def dag_tensors(seed=0, people=8631):
    """A state dict as in resnet50_ft_dag.pth: 267 tensors under the dag names, with random values."""
    g = torch.Generator().manual_seed(seed)
    tensors = {}

    def conv_bn(name, out, inside, side):
        tensors[f"{name}.weight"] = torch.randn(out, inside, side, side, generator=g) / (inside * side**2) ** 0.5
        tensors[f"{name}_bn.weight"] = torch.rand(out, generator=g) + 0.5
        tensors[f"{name}_bn.bias"] = torch.randn(out, generator=g) * 0.1
        tensors[f"{name}_bn.running_mean"] = torch.randn(out, generator=g) * 0.1
        tensors[f"{name}_bn.running_var"] = torch.rand(out, generator=g) + 0.5

    conv_bn("conv1_7x7_s2", 64, 3, 7)
    inside = 64
    for stage, blocks in BLOCKS.items():
        for block in range(1, blocks + 1):
            conv_bn(f"conv{stage}_{block}_1x1_reduce", WIDTH[stage], inside, 1)
            conv_bn(f"conv{stage}_{block}_3x3", WIDTH[stage], WIDTH[stage], 3)
            conv_bn(f"conv{stage}_{block}_1x1_increase", 4 * WIDTH[stage], WIDTH[stage], 1)
            if block == 1:
                conv_bn(f"conv{stage}_1_1x1_proj", 4 * WIDTH[stage], inside, 1)
            inside = 4 * WIDTH[stage]
    tensors["classifier.weight"] = torch.randn(people, 2048, 1, 1, generator=g)
    tensors["classifier.bias"] = torch.randn(people, generator=g)
    return tensors


def dag_forward(tensors, x):
    """The released definition, from the dag names: RGB, (B, 3, S, S) -> (B, 2048)."""

    def conv_bn(x, name, stride=1, padding=0):
        x = functional.conv2d(x, tensors[f"{name}.weight"], stride=stride, padding=padding)
        bn = [tensors[f"{name}_bn.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        return functional.batch_norm(x, *bn, training=False, eps=1e-5)

    x = torch.relu(conv_bn(x, "conv1_7x7_s2", stride=2, padding=3))
    x = functional.max_pool2d(x, 3, 2, padding=0, ceil_mode=True)
    for stage, blocks in BLOCKS.items():
        for block in range(1, blocks + 1):
            stride = 2 if block == 1 and stage > 2 else 1
            name = f"conv{stage}_{block}"
            y = torch.relu(conv_bn(x, f"{name}_1x1_reduce", stride=stride))
            y = torch.relu(conv_bn(y, f"{name}_3x3", padding=1))
            y = conv_bn(y, f"{name}_1x1_increase")
            shortcut = conv_bn(x, f"{name}_1x1_proj", stride=stride) if block == 1 else x
            x = torch.relu(y + shortcut)
    return x.mean(dim=(2, 3))


def torchvision_names(tensors):
    """The same tensors, RGB, under torchvision's names; the classifier becomes a matrix."""
    renamed = {}
    for key, value in tensors.items():
        name, _, part = key.rpartition(".")
        match = re.fullmatch(r"conv(\d)_(\d)_(1x1_reduce|3x3|1x1_increase|1x1_proj)(_bn)?", name)
        if name == "classifier":
            new, value = "fc", value.flatten(1) if part == "weight" else value
        elif match is None:
            new = "bn1" if name.endswith("_bn") else "conv1"
        else:
            block = f"layer{int(match[1]) - 1}.{int(match[2]) - 1}"
            if match[3] == "1x1_proj":
                new = f"{block}.downsample.{1 if match[4] else 0}"
            else:
                number = {"1x1_reduce": 1, "3x3": 2, "1x1_increase": 3}[match[3]]
                new = f"{block}.{'bn' if match[4] else 'conv'}{number}"
        renamed[f"{new}.{part}"] = value
    return renamed


def bgr(tensors, first="conv1.weight"):
    """The same network for BGR input."""
    return {**tensors, first: tensors[first][:, [2, 1, 0]]}


def torchvision_forward(tensors, x, caffe=False):
    """ResNet50 from torchvision's names, (B, 3, S, S) -> (B, 2048).

    v1.5 pools with padding and strides on the 3x3; `caffe` pools without, rounding up, and strides on the first 1x1.
    """

    def conv(x, name, stride=1, padding=0):
        return functional.conv2d(x, tensors[f"{name}.weight"], stride=stride, padding=padding)

    def norm(x, name):
        parts = [tensors[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        return functional.batch_norm(x, *parts, training=False, eps=1e-5)

    x = torch.relu(norm(conv(x, "conv1", 2, 3), "bn1"))
    x = functional.max_pool2d(x, 3, 2, padding=0 if caffe else 1, ceil_mode=caffe)
    for layer, blocks in zip((1, 2, 3, 4), BLOCKS.values(), strict=True):
        for block in range(blocks):
            stride, name = (2 if block == 0 and layer > 1 else 1), f"layer{layer}.{block}"
            first, second = (stride, 1) if caffe else (1, stride)
            y = torch.relu(norm(conv(x, f"{name}.conv1", first), f"{name}.bn1"))
            y = torch.relu(norm(conv(y, f"{name}.conv2", second, 1), f"{name}.bn2"))
            y = norm(conv(y, f"{name}.conv3"), f"{name}.bn3")
            if block == 0:
                x = norm(conv(x, f"{name}.downsample.0", stride), f"{name}.downsample.1")
            x = torch.relu(y + x)
    return x.mean(dim=(2, 3))


def vggface_tensors(seed=0, people=2622):
    """A state dict as in vgg_face_dag.pth."""
    g = torch.Generator().manual_seed(seed)
    shapes = {f"conv{name}": (out, inside, 3, 3) for name, (inside, out) in VGG_LAYERS.items()}
    shapes |= {"fc6": (4096, 25088), "fc7": (4096, 4096), "fc8": (people, 4096)}
    tensors = {}
    for name, shape in shapes.items():
        tensors[f"{name}.weight"] = torch.randn(shape, generator=g) * (2 / np.prod(shape[1:])) ** 0.5
        tensors[f"{name}.bias"] = torch.randn(shape[0], generator=g) * 0.1
    tensors["conv1_1.weight"] /= 100  # pixels are 0-255
    return tensors


def vggface_forward(tensors, x):
    """VGG-Face to fc7, (B, 3, 224, 224) -> (B, 4096)."""
    for name in VGG_LAYERS:
        x = torch.relu(functional.conv2d(x, tensors[f"conv{name}.weight"], tensors[f"conv{name}.bias"], padding=1))
        if name in ("1_2", "2_2", "3_3", "4_3", "5_3"):
            x = functional.max_pool2d(x, 2, 2)
    x = x.flatten(1)
    for name in ("fc6", "fc7"):
        x = torch.relu(functional.linear(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"]))
    return x


class _Python2Pickler(pickle._Pickler):
    """Writes as Python 2 did: text and bytes are both plain strings of bytes."""

    dispatch = dict(pickle._Pickler.dispatch)  # noqa: RUF012 - as in the class above it

    def _save_string(self, value):
        data = value if isinstance(value, bytes) else value.encode("latin1")
        self.write(pickle.BINSTRING + struct.pack("<i", len(data)) + data)
        self.memoize(value)

    dispatch[bytes] = dispatch[str] = _save_string


def python2_pickle(tensors) -> bytes:
    """Named numpy arrays as a pickle of Python 2, in which resnet50_ft_weight.pkl is written."""
    file = io.BytesIO()
    _Python2Pickler(file, protocol=2).dump({name: tensor.numpy() for name, tensor in tensors.items()})
    return file.getvalue().replace(b"cnumpy._core.", b"cnumpy.core.")
