"""The formats that a backbone's weights come in: how a file names its tensors, and how it is recognised.

A file is read strictly: all keys, all shapes, nothing left over. (Cutting prefixes off and loading with `strict=False`
can load nothing, without a word.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from fercache.errors import WeightsError, raise_problems
from fercache.files import open_regular
from fercache.models.backbones import BACKBONES
from fercache.models.checkpoint import load_tensors
from fercache.models.numpy_pickle import TORCH_MAGIC, read_numpy_pickle

if TYPE_CHECKING:
    from fercache.models.backbone import Backbone

Tensors = dict[str, torch.Tensor]
Shapes = dict[str, tuple[int, ...]]

COUNTER = "num_batches_tracked"
"""Counts steps of training and changes nothing that a network computes; older files lack it."""
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""What weights are stored in."""


class AmbiguousFormat(WeightsError):
    """The contents fit several formats; `formats` are their names."""

    def __init__(self, message: str, formats: tuple[str, ...]) -> None:
        super().__init__(message)
        self.formats = formats


@dataclass(frozen=True)
class WeightFormat:
    """One way to write a backbone's tensors to a file, with a classifier behind them that is dropped."""

    name: str
    """What `--format` calls it."""
    marker: str
    """A key that every such file has."""
    classifier: str
    """Key of the identity or ImageNet classifier, without `.weight`."""
    file_key: Callable[[str], str] = str
    """A tensor's name in our network -> its key in the file."""
    classifier_is_convolution: bool = False
    """Whether that classifier is written as a 1x1 convolution."""
    bgr: bool = False
    """Whether the first convolution expects BGR; its weights are reordered to RGB."""
    pickled: bool | None = None
    """Whether the file is a pickle of numpy arrays (True) or saved by torch (False); None: either."""

    @property
    def classifier_keys(self) -> tuple[str, str]:
        """The file's keys of that classifier."""
        return f"{self.classifier}.weight", f"{self.classifier}.bias"

    def tensors(self, path: Path, content: Mapping[str, torch.Tensor], backbone: Backbone) -> LoadedTensors:
        """The backbone's tensors from the `content` of `path`.

        Raises WeightsError naming every key that is missing, left over, of another shape or not finite.
        """
        keys = {name: self.file_key(name) for name in backbone.shapes}
        loaded_keys = {name: key for name, key in keys.items() if not name.endswith(COUNTER)}
        counters = keys.keys() - loaded_keys.keys()
        counter_keys = {keys[name] for name in counters}
        shapes = {key: shape for key, shape in shapes_of(content).items() if key not in counter_keys}
        weight, bias = self.classifier_keys
        classes = (shapes.get(bias) or (0,))[0]
        expected = {key: backbone.shapes[name] for name, key in loaded_keys.items()}
        # The classifier is dropped, but it must be there, with any number of classes.
        sides = (1, 1) if self.classifier_is_convolution else ()
        expected |= {weight: (classes, backbone.embedding_dim, *sides), bias: (classes,)}
        check_shapes(path, backbone.name, shapes, expected)
        check_numbers(path, {key: content[key] for key in expected})
        # In the network's own order; counters start at 0.
        tensors = {n: torch.tensor(0) if n in counters else content[key].float() for n, key in keys.items()}
        if self.bgr:
            first = f"{backbone.first_conv}.weight"
            tensors[first] = tensors[first][:, [2, 1, 0]].contiguous()
        return LoadedTensors(tensors, loaded_keys, classes)


@dataclass(frozen=True)
class LoadedTensors:
    """What a format made of a file."""

    tensors: Tensors
    keys: dict[str, str]
    """Name of each tensor in our network -> its key in the file."""
    dropped_classes: int
    """How many classes the dropped classifier has."""


def weight_formats() -> dict[str, tuple[Backbone, WeightFormat]]:
    """Every format by its name, with the backbone whose weights it holds."""
    backbones = [entry.load() for entry in BACKBONES.values()]
    return {form.name: (backbone, form) for backbone in backbones for form in backbone.formats}


def check_format(name: str) -> None:
    """Raise WeightsError with the known formats unless `name` is one."""
    if name not in weight_formats():
        raise WeightsError(f"--format: found {name!r}, expected one of {', '.join(weight_formats())}")


def possible_formats(
    path: Path, content: Mapping[str, torch.Tensor], pickled: bool
) -> dict[str, tuple[Backbone, WeightFormat]]:
    """The formats that the contents of `path` can be in, `pickled` as numpy arrays or saved by torch.

    Raises WeightsError where the keys are those of no known network.
    """
    formats = weight_formats()
    possible = {
        name: (backbone, form)
        for name, (backbone, form) in formats.items()
        if form.marker in content and form.pickled in (None, pickled)
    }
    if not possible:
        shown = ", ".join(list(map(str, content))[:5]) + (", ..." if len(content) > 5 else "")
        raise WeightsError(
            f"{path}: its {len(content)} keys ({shown}) are those of no known format ({', '.join(formats)})"
        )
    return possible


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
            f"{path}: is an HDF5 file, as keras-vggface's weights are; that network pads and normalises in another way,"
            " so it computes something else: take the .pth or .pkl files"
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


def shapes_of(tensors: Mapping) -> dict[str, tuple]:
    """Name -> shape; for what is no tensor its type, which is no shape."""
    return {
        name: tuple(value.shape) if isinstance(value, torch.Tensor) else (type(value).__name__,)
        for name, value in tensors.items()
    }


def check_numbers(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Raise WeightsError naming every tensor that holds anything but finite numbers in float32's range."""
    problems = []
    for name, tensor in tensors.items():
        counter = name.endswith(COUNTER)
        plain = tensor.layout is torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized
        if not plain or not (counter or tensor.dtype in FLOATS):
            kind = f"{tensor.dtype} ({tensor.layout}, {tensor.device.type})"
            problems.append(f"{path}: {name}: holds {kind}, expected floating-point numbers")
        elif not counter and not torch.isfinite(tensor.float()).all():
            problems.append(f"{path}: {name}: holds numbers that are not finite")
        elif name.endswith("running_var") and (tensor < 0).any():
            problems.append(f"{path}: {name}: holds negative variances")
    raise_problems(problems, WeightsError)


def check_shapes(path: Path, network: str, shapes: Mapping[str, tuple], expected: Mapping[str, tuple]) -> None:
    """Raise WeightsError unless names and shapes are those expected for the `network`."""
    missing = [name for name in expected if name not in shapes]
    unexpected = [name for name in shapes if name not in expected]
    problems = [
        f"{path}: {len(names)} tensors are {what} for {network}: {', '.join(map(str, names[:5]))}"
        + (", ..." if len(names) > 5 else "")
        for what, names in (("missing", missing), ("too many", unexpected))
        if names
    ]
    problems += [
        f"{path}: {name}: found shape {shapes[name]}, expected {shape}"
        for name, shape in expected.items()
        if name in shapes and shapes[name] != shape
    ]
    raise_problems(problems, WeightsError)
