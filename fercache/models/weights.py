"""Where a frame network's tensors come from: released files, our own runs, torchvision's, or random numbers."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torchvision.models import ResNet50_Weights

from fercache.errors import ConfigError, WeightsError
from fercache.files import sha256_of
from fercache.models.backbone import Backbone
from fercache.models.backbones import BACKBONES, backbone_of_arch, get_backbone
from fercache.models.checkpoint import (
    BACKBONE,
    CHECKPOINT_FORMAT,
    END_TO_END,
    FRAME,
    check_content,
    digest,
    load_run,
    save_checkpoint,
)
from fercache.models.formats import (
    COUNTER,
    AmbiguousFormat,
    Tensors,
    check_format,
    check_numbers,
    check_shapes,
    possible_formats,
    read_file,
    shapes_of,
)
from fercache.models.frame_network import FrameNetwork
from fercache.models.preprocessing import Preprocessing
from fercache.rundir import RunDir
from fercache.tasks import TASKS

log = logging.getLogger(__name__)

NONE, TORCHVISION = "none", "imagenet"
"""Sources that are no file: random numbers, and torchvision's ImageNet ResNet50."""
CONVERTED = f"fercache-{BACKBONE}"
"""Format of what `save_backbone` writes."""


@dataclass(frozen=True)
class Origin:
    """What a network's tensors were made from."""

    format: str
    keys: dict[str, str] = field(default_factory=dict)
    """Name of each tensor in our network -> its key in the file."""
    dropped_keys: tuple[str, ...] = ()
    """The file's keys of an identity or ImageNet classifier, which is dropped."""
    dropped_classes: int | None = None
    """How many classes that has."""
    file: Path | None = None
    """What was read; None for random numbers."""


@dataclass(frozen=True)
class FrameWeights:
    """The tensors of a frame network with what belongs to them."""

    backbone: Backbone
    tensors: Tensors
    """Of the backbone."""
    preprocessing: Preprocessing
    origin: Origin
    classifier: Tensors | None = None
    """`weight` (C, D) and `bias` (C,) of a fine-tuned network; None for other weights."""
    task: str | None = None
    """What the classifier was trained for."""

    @property
    def arch(self) -> str:
        """What `--arch` calls the backbone."""
        return BACKBONES[self.backbone.name].arch

    @property
    def tuned(self) -> bool:
        """Whether they come from a run of fercache, which fixes the image size they were trained at."""
        return self.origin.format in (f"fercache-{FRAME}", f"fercache-{END_TO_END}")

    @property
    def backbone_digest(self) -> str:
        """The weights digest: equal backbones have equal ones, whatever file they came from."""
        return digest(self.tensors)

    @property
    def classifier_digest(self) -> str | None:
        """Digest of the classifier, where there is one."""
        return None if self.classifier is None else digest(self.classifier)

    def with_image_size(self, size: int | None) -> FrameWeights:
        """The same with another input size; None keeps it. ConfigError where the backbone takes only its own."""
        if size in (None, self.preprocessing.image_size):
            return self
        if not self.backbone.any_size:
            raise ConfigError(
                f"image_size: found {size}, but {self.backbone.name} works at {self.preprocessing.image_size} alone"
            )
        return replace(self, preprocessing=replace(self.preprocessing, image_size=size))

    def network(self, classes: int = 1) -> FrameNetwork:
        """The network with its own classifier; where it has none, with a random one of `classes` outputs."""
        if self.classifier is not None:
            classes = len(self.classifier["bias"])
        network = FrameNetwork(self.backbone, classes)
        network.backbone.load_state_dict(self.tensors)
        if self.classifier is not None:
            network.classifier.load_state_dict(self.classifier)
        return network


def load_weights(
    source: str, *, arch: str | None = None, form: str | None = None, zero_init_residual: bool = False
) -> FrameWeights:
    """The weights that `source` names: a file, a run folder, "imagenet", or "none" for random ones.

    `arch` is what they must be of, and chooses among random ones; `form` is the file's format, needed where its
    contents do not decide. `zero_init_residual` starts random residual blocks as the identity. Raises WeightsError
    naming the file and every key that is missing, left over or of another shape; ConfigError where `arch` or `form`
    does not fit.
    """
    if zero_init_residual and source != NONE:
        raise ConfigError(f"zero_init_residual: applies to random weights only, found weights {source}")
    if source == NONE:
        loaded = _random(arch, zero_init_residual)
    elif source == TORCHVISION:
        loaded = _from_file(_torchvision_file(), "torchvision-imagenet")
    elif Path(source).is_dir():
        loaded = from_checkpoint(Path(source), load_run(Path(source), FRAME, END_TO_END))
    else:
        loaded = _from_file(Path(source), form)
    if form is not None and loaded.origin.format != form:
        raise ConfigError(f"--format: found {form}, but {source} is {loaded.origin.format}")
    if arch is not None and loaded.arch != arch:
        raise ConfigError(f"--arch: found {arch}, but {source} holds {loaded.backbone.name}")
    return loaded


def from_checkpoint(path: Path, content: Mapping[str, Any]) -> FrameWeights:
    """The weights in a checkpoint of a frame network, of a backbone alone, or of a backbone and a head.

    As strict as `load_weights`. A head is dropped: it does not classify single frames.
    """
    backbone, kind = get_backbone(content["architecture"]), content["kind"]
    task = content.get("task") if kind == FRAME else None
    expected = {f"backbone.{name}": shape for name, shape in backbone.shapes.items()}
    model = content["model"]
    if kind == END_TO_END:
        model = {name: tensor for name, tensor in model.items() if name.startswith("backbone.")}
    if kind == FRAME:
        if task not in TASKS:
            raise WeightsError(f"{path}: is of task {task!r}, expected one of {', '.join(TASKS)}")
        classes = len(TASKS[task].classes)
        expected |= {"classifier.weight": (classes, backbone.embedding_dim), "classifier.bias": (classes,)}
    check_shapes(path, backbone.name, shapes_of(model), expected)
    check_numbers(path, model)
    tensors = _part(model, "backbone.")
    if kind == BACKBONE and content["digest"] != digest(tensors):
        raise WeightsError(f"{path}: was changed: its digest is not that of its tensors")
    return FrameWeights(
        backbone,
        tensors,
        Preprocessing.from_plain(content["preprocessing"]),
        Origin(
            f"fercache-{kind}",
            keys={name: f"backbone.{name}" for name in tensors if not name.endswith(COUNTER)},
            file=path if path.is_file() else RunDir(path).best,
        ),
        _part(model, "classifier.") or None,
        task,
    )


def _part(model: Tensors, prefix: str) -> Tensors:
    """The tensors whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in model.items() if name.startswith(prefix)}


def save_backbone(path: Path, weights: FrameWeights, source: str) -> None:
    """Write the backbone alone, with its preprocessing and what it was made from."""
    file = weights.origin.file
    made_from = {
        "name": source,
        "sha256": None if file is None else sha256_of(file),
        "format": weights.origin.format,
        "dropped_classes": weights.origin.dropped_classes,
    }
    content = {
        "architecture": weights.backbone.name,
        "preprocessing": weights.preprocessing.as_plain(),
        "model": {f"backbone.{name}": tensor for name, tensor in weights.tensors.items()},
        "digest": weights.backbone_digest,
        "source": made_from,
    }
    save_checkpoint(path, BACKBONE, content)


def _from_file(path: Path, form: str | None) -> FrameWeights:
    content, pickled = read_file(path)
    if content.get("format") == CHECKPOINT_FORMAT:
        return from_checkpoint(path, check_content(path, content, FRAME, BACKBONE, END_TO_END))
    possible = possible_formats(path, content, pickled)
    if form is not None:
        check_format(form)
        if form not in possible:
            raise ConfigError(f"--format: found {form}, but by its contents {path} is {' or '.join(possible)}")
        possible = {form: possible[form]}
    backbone, chosen = next(iter(possible.values()))
    if len(possible) > 1:
        classes = shapes_of(content).get(chosen.classifier_keys[1], ("?",))[0]
        raise AmbiguousFormat(
            f"{path}: its keys are those of several networks that compute different things and that no key tells apart"
            f" (its classifier has {classes} classes: ImageNet has 1000, VGGFace2 8631); choose one by --format:"
            f" {', '.join(possible)}",
            tuple(possible),
        )
    loaded = chosen.tensors(path, content, backbone)
    origin = Origin(chosen.name, loaded.keys, chosen.classifier_keys, loaded.dropped_classes, path)
    return FrameWeights(backbone, loaded.tensors, backbone.preprocessing, origin)


def _random(arch: str | None, zero_init_residual: bool) -> FrameWeights:
    backbone = backbone_of_arch(arch)
    if zero_init_residual and not backbone.zero_init_residual:
        raise ConfigError(f"zero_init_residual: {backbone.name} has no residual blocks")
    network = backbone.build(zero_init_residual=True) if zero_init_residual else backbone.build()
    return FrameWeights(backbone, dict(network.state_dict()), backbone.preprocessing, Origin(NONE))


def _torchvision_file() -> Path:
    """torchvision's file in torch's own folder of weights; downloaded where it is missing.

    WeightsError where that fails, saying where to put it: compute nodes often have no network.
    """
    url = ResNet50_Weights.IMAGENET1K_V1.url
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not path.exists():
        log.info("%s: is missing, downloading it", path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), hash_prefix=path.stem.rpartition("-")[2], progress=False)
        except (OSError, RuntimeError) as error:  # no network, or another checksum
            raise WeightsError(
                f"imagenet: {path} is missing and could not be downloaded from {url} ({error});"
                " on a machine without network, put the file there"
            ) from error
    return path
