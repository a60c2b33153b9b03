"""The formats that a backbone's weights come in: how each names its tensors, and how it is recognised.

A file is read strictly: all keys, all shapes, nothing left over. (Cutting prefixes off and loading
with `strict=False` loads nothing and says nothing.)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch

from fercache.errors import WeightsError, raise_problems
from fercache.files import open_regular
from fercache.models.checkpoint import load_tensors
from fercache.models.frame_network import ARCHITECTURES, Architecture
from fercache.models.numpy_pickle import TORCH_MAGIC, read_numpy_pickle

Tensors = dict[str, torch.Tensor]


class AmbiguousFormat(WeightsError):
    """The contents fit several formats; `formats` are their names."""

    def __init__(self, message: str, formats: tuple[str, ...]) -> None:
        super().__init__(message)
        self.formats = formats


COUNTER = "num_batches_tracked"
"""Counts, and changes nothing that a network computes; older files lack it."""
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""What weights are stored in."""


@dataclass(frozen=True)
class Format:
    """One way to write a backbone's tensors."""

    name: str
    """What `--format` calls it."""
    words: str
    architecture: Architecture
    file_key: Callable[[str], str]
    """A tensor's name in our network -> its key in the file."""
    classifier: str
    """Key of the identity or ImageNet classifier, which is dropped, without `.weight`."""
    convolutional: bool = False
    """Whether that classifier is written as a 1x1 convolution."""
    bgr: bool = False
    """Whether the first convolution expects BGR; it is turned to RGB."""

    @property
    def classifier_keys(self) -> tuple[str, str]:
        """The file's keys of that classifier."""
        return f"{self.classifier}.weight", f"{self.classifier}.bias"

    def tensors(self, path: Path, content: Mapping[str, torch.Tensor]) -> tuple[Tensors, dict[str, str], int]:
        """The network's tensors, each of its names -> the file's key, and the classes of the dropped classifier.

        Raises WeightsError naming every key that is missing, left over, of another shape or not finite.
        """
        shapes = backbone_shapes(self.architecture.name)
        keys = {name: self.file_key(name) for name in shapes}
        kept = {name: key for name, key in keys.items() if not name.endswith(COUNTER)}
        counters = {key for name, key in keys.items() if name.endswith(COUNTER)}
        found = {key: shape for key, shape in shapes_of(content).items() if key not in counters}
        weight, bias = self.classifier_keys
        classes = (found.get(bias) or (0,))[0]
        expected = {key: shapes[name] for name, key in kept.items()}
        # The classifier is dropped, but it must be there, with any number of classes.
        tail = (1, 1) if self.convolutional else ()
        expected |= {weight: (classes, self.architecture.embedding_dim, *tail), bias: (classes,)}
        check_shapes(path, self.architecture, found, expected)
        check_numbers(path, {key: content[key] for key in expected})
        tensors = {
            name: content[keys[name]].float() if name in kept else torch.tensor(0) for name in shapes
        }  # counters begin at 0
        if self.bgr:
            first = f"{self.architecture.first_conv}.weight"
            tensors[first] = tensors[first][:, [2, 1, 0]].contiguous()
        return tensors, kept, classes


def dag_name(name: str) -> str:
    """The dag file's name of a torchvision ResNet50 tensor: layer1.0.conv1.weight -> conv2_1_1x1_reduce.weight."""
    stem = re.fullmatch(r"(conv1|bn1)\.(\w+)", name)
    if stem:
        return f"conv1_7x7_s2{'_bn' if stem[1] == 'bn1' else ''}.{stem[2]}"
    match = re.fullmatch(r"layer(\d)\.(\d)\.(?:(conv|bn)(\d)|downsample\.([01]))\.(\w+)", name)
    if not match:
        raise ValueError(f"{name} is no tensor of ResNet50")
    layer, block, kind, place, projection, tensor = match.groups()
    if projection is not None:
        part, norm = "1x1_proj", projection == "1"
    else:
        part, norm = {"1": "1x1_reduce", "2": "3x3", "3": "1x1_increase"}[place], kind == "bn"
    return f"conv{int(layer) + 1}_{int(block) + 1}_{part}{'_bn' if norm else ''}.{tensor}"


VGG16_CONVS = {
    **{0: "1_1", 2: "1_2", 5: "2_1", 7: "2_2", 10: "3_1", 12: "3_2", 14: "3_3"},
    **{17: "4_1", 19: "4_2", 21: "4_3", 24: "5_1", 26: "5_2", 28: "5_3"},
}
"""Places in torchvision's VGG16 -> the layers' numbers in the paper."""


def vggface_name(name: str) -> str:
    """The VGG-Face file's name of a torchvision VGG16 tensor: features.0.weight -> conv1_1.weight."""
    part, place, tensor = name.split(".")
    layer = f"conv{VGG16_CONVS[int(place)]}" if part == "features" else {"0": "fc6", "3": "fc7"}[place]
    return f"{layer}.{tensor}"


def same_name(name: str) -> str:
    """torchvision's own names."""
    return name


_FACES, _IMAGENET, _VGGFACE = (ARCHITECTURES[name] for name in ("resnet50-vggface2", "resnet50-imagenet", "vggface"))
DAG = Format("dag", "VGGFace2 ResNet50 as converted by Albanie", _FACES, dag_name, "classifier", convolutional=True)
PICKLE = Format("pkl", "VGGFace2 ResNet50 as pickled numpy arrays, BGR", _FACES, same_name, "fc", bgr=True)
VGGFACE_DAG = Format("vggface-dag", "VGG-Face as converted by Albanie", _VGGFACE, vggface_name, "fc8")
TORCHVISION = (
    Format("torchvision-imagenet", "torchvision's ImageNet ResNet50", _IMAGENET, same_name, "fc"),
    Format("torchvision-vggface2", "VGGFace2 ResNet50 under torchvision's names, RGB", _FACES, same_name, "fc"),
    Format(
        "torchvision-vggface2-bgr",
        "VGGFace2 ResNet50 under torchvision's names, BGR",
        _FACES,
        same_name,
        "fc",
        bgr=True,
    ),
)
"""Three networks that no key or shape tells apart."""
FORMATS = {form.name: form for form in (DAG, PICKLE, VGGFACE_DAG, *TORCHVISION)}


def get_format(name: str) -> Format:
    """The format of that name; WeightsError with the known ones otherwise."""
    if name not in FORMATS:
        raise WeightsError(f"--format: found {name!r}, expected one of {', '.join(FORMATS)}")
    return FORMATS[name]


def possible_formats(path: Path, content: Mapping[str, torch.Tensor], pickled: bool) -> tuple[Format, ...]:
    """The formats that the contents of `path` can be in, `pickled` as numpy arrays or saved by torch.

    Raises WeightsError where the keys are those of no network known here.
    """
    if "conv1_7x7_s2.weight" in content:
        return (DAG,)
    if "conv1_1.weight" in content:
        return (VGGFACE_DAG,)
    if "layer1.0.conv1.weight" in content:
        return (PICKLE,) if pickled else TORCHVISION
    shown = ", ".join(list(map(str, content))[:5]) + (", ..." if len(content) > 5 else "")
    names = ", ".join(form.name for form in FORMATS.values())
    raise WeightsError(f"{path}: its {len(content)} keys ({shown}) are those of no format known here ({names})")


def read_file(path: Path) -> tuple[Mapping, bool]:
    """What `path` holds by name, and whether it is a pickle of numpy arrays; nothing in it is executed.

    Raises WeightsError naming the file where it is missing, damaged, or holds other Python objects.
    """
    try:
        with open_regular(path) as file:
            start = file.read(8)
    except FileNotFoundError as error:
        raise WeightsError(f"{path}: no such file") from error
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror}") from error
    if start == b"\x89HDF\r\n\x1a\n":
        raise WeightsError(
            f"{path}: is an HDF5 file, as keras-vggface's weights are; that network pads and normalises otherwise,"
            " so it is another function: take the .pth or .pkl files"
        )
    if start.startswith(b"PK"):
        return load_tensors(path), False
    content = read_numpy_pickle(path)
    if content == TORCH_MAGIC:
        return load_tensors(path), False
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: holds a number, expected named arrays")
    return {key: _tensor(value) for key, value in content.items()}, True


def _tensor(array: np.ndarray) -> torch.Tensor:
    # In the machine's byte order, and with memory of its own.
    return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("=")))


@cache
def backbone_shapes(architecture: str) -> dict[str, tuple[int, ...]]:
    """Name -> shape of a backbone's tensors."""
    with torch.device("meta"):
        return shapes_of(ARCHITECTURES[architecture].build().state_dict())


def shapes_of(tensors: Mapping) -> dict[str, tuple]:
    """Name -> shape; for what is no tensor its type, which is no shape."""
    return {
        name: tuple(value.shape) if isinstance(value, torch.Tensor) else (type(value).__name__,)
        for name, value in tensors.items()
    }


def check_numbers(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Raise WeightsError naming every tensor that holds other things than finite numbers in float32's range."""
    problems = []
    for name, tensor in tensors.items():
        counter = name.endswith(COUNTER)
        plain = tensor.layout is torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized
        if not plain or not (counter or tensor.dtype in FLOATS):
            found = f"{tensor.dtype} ({tensor.layout}, {tensor.device.type})"
            problems.append(f"{path}: {name}: holds {found}, expected floating-point numbers")
        elif not counter and not torch.isfinite(tensor.float()).all():
            problems.append(f"{path}: {name}: holds numbers that are not finite")
        elif name.endswith("running_var") and (tensor < 0).any():
            problems.append(f"{path}: {name}: holds negative variances")
    raise_problems(problems, WeightsError)


def check_shapes(
    path: Path, architecture: Architecture, found: Mapping[str, tuple], expected: Mapping[str, tuple]
) -> None:
    """Raise WeightsError unless names and shapes are the expected ones."""
    missing = [name for name in expected if name not in found]
    unexpected = [name for name in found if name not in expected]
    problems = [
        f"{path}: {len(names)} tensors are {what} for {architecture.name}: {', '.join(map(str, names[:5]))}"
        + (", ..." if len(names) > 5 else "")
        for what, names in (("missing", missing), ("too many", unexpected))
        if names
    ]
    problems += [
        f"{path}: {name}: found shape {found[name]}, expected {shape}"
        for name, shape in expected.items()
        if name in found and found[name] != shape
    ]
    raise_problems(problems, WeightsError)
