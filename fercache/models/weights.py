"""Where a frame network's tensors come from: the released VGGFace2 files, our own runs, or random numbers.

Every file is read strictly: all keys, all shapes, nothing left over. (Cutting prefixes off and
loading with `strict=False` loads nothing and says nothing.)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from fercache.errors import WeightsError, raise_problems
from fercache.models.checkpoint import FORMAT, FRAME, digest, load_checkpoint, load_run, load_tensors
from fercache.models.preprocessing import VGGFACE2, Preprocessing
from fercache.models.resnet import EMBEDDING_DIM, FrameNetwork, vggface2_resnet50
from fercache.tasks import TASKS

ARCHITECTURE = "resnet50-vggface2"
NONE = "none"

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class FrameWeights:
    """The tensors of a frame network with what belongs to them."""

    backbone: Tensors
    preprocessing: Preprocessing
    classifier: Tensors | None
    """`weight` (C, 2048) and `bias` (C,) of a fine-tuned network; None for an identity classifier or random numbers."""
    task: str | None
    """What the classifier tells apart."""
    select: str | None
    """How a fine-tuned network was chosen among its epochs: best or last."""
    train_prior: list[float] | None
    """Share of each class in its training labels."""

    @property
    def backbone_digest(self) -> str:
        """The weights digest: equal backbones have equal ones, whatever file they came from."""
        return digest(self.backbone)

    @property
    def classifier_digest(self) -> str | None:
        """Digest of the classifier, where there is one."""
        return None if self.classifier is None else digest(self.classifier)

    def with_image_size(self, size: int | None) -> FrameWeights:
        """The same, preprocessing to another input size; None keeps it."""
        return self if size is None else replace(self, preprocessing=replace(self.preprocessing, image_size=size))

    def network(self, classes: int) -> FrameNetwork:
        """The network; its classifier is the stored one where that fits `classes`, else random."""
        network = FrameNetwork(classes)
        network.backbone.load_state_dict(self.backbone)
        if self.classifier is not None and len(self.classifier["bias"]) == classes:
            network.classifier.load_state_dict(self.classifier)
        return network


def load_weights(source: str, zero_init_residual: bool = False) -> FrameWeights:
    """The weights in a run folder, a checkpoint or a VGGFace2 `.pth` file, or random ones for "none".

    `zero_init_residual` says how the random ones begin (see `vggface2_resnet50`).
    Raises WeightsError naming the file and every key that is missing, left over or of another shape.
    """
    path = Path(source)
    if source == NONE:
        return FrameWeights(dict(vggface2_resnet50(zero_init_residual).state_dict()), VGGFACE2, None, None, None, None)
    if path.is_dir():
        return from_checkpoint(path, load_run(path, FRAME))
    content = load_tensors(path)
    if content.get("format") == FORMAT:
        return from_checkpoint(path, load_checkpoint(path, FRAME))
    return FrameWeights(_from_dag(path, content), VGGFACE2, None, None, None, None)


def from_checkpoint(path: Path, content: Mapping) -> FrameWeights:
    """The weights in a frame network's checkpoint, `content`, read from `path`; as strict as `load_weights`."""
    if content["architecture"] != ARCHITECTURE or content["task"] not in TASKS:
        raise WeightsError(f"{path}: holds {content['architecture']!r} of task {content['task']!r}, unknown here")
    model = content["model"]
    expected = FrameNetwork(len(TASKS[content["task"]].classes)).state_dict()
    _check_tensors(path, _shapes(model), _shapes(expected))
    _check_finite(path, model)
    parts: dict[str, Tensors] = {"backbone": {}, "classifier": {}}
    for name, tensor in model.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = tensor
    return FrameWeights(
        parts["backbone"],
        Preprocessing.from_plain(content["preprocessing"]),
        parts["classifier"],
        content["task"],
        content["select"],
        content["train_prior"],
    )


def _shapes(tensors: Mapping) -> dict[str, tuple]:
    """Name -> shape; () for what is no tensor."""
    return {name: tuple(value.shape) if isinstance(value, torch.Tensor) else () for name, value in tensors.items()}


def _check_finite(path: Path, tensors: Mapping) -> None:
    broken = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    raise_problems([f"{path}: {name}: holds numbers that are not finite" for name in broken], WeightsError)


def _from_dag(path: Path, content: Mapping) -> Tensors:
    """A "dag" file of VGGFace2 (resnet50_ft_dag.pth, resnet50_scratch_dag.pth): its names become torchvision's."""
    shapes = _shapes(vggface2_resnet50().state_dict())
    expected = {dag_name(name): shape for name, shape in shapes.items() if not name.endswith("num_batches_tracked")}
    found = _shapes(content)
    # The identity classifier is dropped, but it must be there, with any number of people.
    people = (found.get("classifier.bias") or (0,))[0]
    expected |= {"classifier.weight": (people, EMBEDDING_DIM, 1, 1), "classifier.bias": (people,)}
    _check_tensors(path, found, expected)
    _check_finite(path, content)
    return {
        name: torch.tensor(0) if name.endswith("num_batches_tracked") else content[dag_name(name)].float()
        for name in shapes
    }


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


def _check_tensors(path: Path, found: Mapping[str, tuple], expected: Mapping[str, tuple]) -> None:
    """Raise WeightsError unless names and shapes are the expected ones."""
    missing = [name for name in expected if name not in found]
    unexpected = [name for name in found if name not in expected]
    problems = [
        f"{path}: {len(names)} tensors are {what} for the VGGFace2 ResNet50: {', '.join(names[:5])}"
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
