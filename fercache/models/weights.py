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
from fercache.models.checkpoint import (
    BACKBONE,
    END_TO_END,
    FORMAT,
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
    backbone_shapes,
    check_numbers,
    check_shapes,
    get_format,
    possible_formats,
    read_file,
    shapes_of,
)
from fercache.models.frame_network import ARCHITECTURES, Architecture, FrameNetwork, get_architecture
from fercache.models.preprocessing import Preprocessing
from fercache.rundir import RunDir
from fercache.tasks import TASKS

log = logging.getLogger(__name__)

NONE, IMAGENET = "none", "imagenet"
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
    """The file's keys of an identity or ImageNet classifier, which is left out."""
    dropped_classes: int | None = None
    """How many classes that has."""
    file: Path | None = None
    """What was read; None for random numbers."""


@dataclass(frozen=True)
class FrameWeights:
    """The tensors of a frame network with what belongs to them."""

    architecture: Architecture
    backbone: Tensors
    preprocessing: Preprocessing
    origin: Origin
    classifier: Tensors | None = None
    """`weight` (C, D) and `bias` (C,) of a fine-tuned network; None for other weights."""
    task: str | None = None
    """What the classifier tells apart."""

    @property
    def tuned(self) -> bool:
        """Whether they come from a run of fercache, at whose image size they were trained."""
        return self.origin.format in (f"fercache-{FRAME}", f"fercache-{END_TO_END}")

    @property
    def backbone_digest(self) -> str:
        """The weights digest: equal backbones have equal ones, whatever file they came from."""
        return digest(self.backbone)

    @property
    def classifier_digest(self) -> str | None:
        """Digest of the classifier, where there is one."""
        return None if self.classifier is None else digest(self.classifier)

    def with_image_size(self, size: int | None) -> FrameWeights:
        """The same, preprocessing to another input size; None keeps it. ConfigError where the network has but one."""
        if size in (None, self.preprocessing.image_size):
            return self
        if not self.architecture.any_size:
            own = self.preprocessing.image_size
            raise ConfigError(f"image_size: found {size}, but {self.architecture.name} works at {own} alone")
        return replace(self, preprocessing=replace(self.preprocessing, image_size=size))

    def network(self, classes: int = 1) -> FrameNetwork:
        """The network with its own classifier; where it has none, with a random one of `classes` outputs."""
        if self.classifier is not None:
            classes = len(self.classifier["bias"])
        network = FrameNetwork(self.architecture, classes)
        network.backbone.load_state_dict(self.backbone)
        if self.classifier is not None:
            network.classifier.load_state_dict(self.classifier)
        return network


def load_weights(
    source: str, *, arch: str | None = None, form: str | None = None, zero_init_residual: bool = False
) -> FrameWeights:
    """The weights that `source` names: a file, a run folder, "imagenet", or "none" for random ones.

    `arch` is the family (resnet50, vggface) that they must be of, and chooses among random ones;
    `form` is the file's format, needed where its contents do not decide. `zero_init_residual` says how
    a random ResNet50 begins. Raises WeightsError naming the file and every key that is missing,
    left over or of another shape; ConfigError where `arch` or `form` does not fit.
    """
    if zero_init_residual and source != NONE:
        raise ConfigError(f"zero_init_residual: is of random weights alone, and {source} was asked for")
    if source == NONE:
        loaded = _random(arch, zero_init_residual)
    elif source == IMAGENET:
        loaded = _from_file(_imagenet_file(), "torchvision-imagenet")
    elif Path(source).is_dir():
        loaded = from_checkpoint(Path(source), load_run(Path(source), FRAME, END_TO_END))
    else:
        loaded = _from_file(Path(source), form)
    if form is not None and loaded.origin.format != form:
        raise ConfigError(f"--format: found {form}, but {source} is {loaded.origin.format}")
    if arch is not None and loaded.architecture.family != arch:
        raise ConfigError(f"--arch: found {arch}, but {source} holds {loaded.architecture.name}")
    return loaded


def from_checkpoint(path: Path, content: Mapping[str, Any]) -> FrameWeights:
    """The weights in a checkpoint of a frame network, of a backbone alone, or in front of a head.

    As strict as `load_weights`. A head is left out: it is no classifier of single frames.
    """
    architecture = get_architecture(content["architecture"])
    task = content.get("task") if content["kind"] == FRAME else None
    shapes = backbone_shapes(architecture.name)
    expected = {f"backbone.{name}": shape for name, shape in shapes.items()}
    model = content["model"]
    if content["kind"] == END_TO_END:
        model = {name: tensor for name, tensor in model.items() if name.startswith("backbone.")}
    if content["kind"] == FRAME:
        if task not in TASKS:
            raise WeightsError(f"{path}: is of task {task!r}, expected one of {', '.join(TASKS)}")
        classes = len(TASKS[task].classes)
        expected |= {"classifier.weight": (classes, architecture.embedding_dim), "classifier.bias": (classes,)}
    check_shapes(path, architecture, shapes_of(model), expected)
    check_numbers(path, model)
    parts: dict[str, Tensors] = {"backbone": {}, "classifier": {}}
    for name, tensor in model.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = tensor
    if content["kind"] == BACKBONE and content["digest"] != digest(parts["backbone"]):
        raise WeightsError(f"{path}: was changed: its digest is not that of its tensors")
    keys = {name: f"backbone.{name}" for name in shapes if not name.endswith(COUNTER)}
    return FrameWeights(
        architecture,
        parts["backbone"],
        Preprocessing.from_plain(content["preprocessing"]),
        Origin(f"fercache-{content['kind']}", keys, file=path if path.is_file() else RunDir(path).best),
        parts["classifier"] or None,
        task,
    )


def save_backbone(path: Path, weights: FrameWeights, source: str) -> None:
    """Write the backbone alone, with its record and what it was made from."""
    file = weights.origin.file
    made_from = {
        "name": source,
        "sha256": None if file is None else sha256_of(file),
        "format": weights.origin.format,
        "dropped_classes": weights.origin.dropped_classes,
    }
    content = {
        "architecture": weights.architecture.name,
        "preprocessing": weights.preprocessing.as_plain(),
        "model": {f"backbone.{name}": tensor for name, tensor in weights.backbone.items()},
        "digest": weights.backbone_digest,
        "source": made_from,
    }
    save_checkpoint(path, BACKBONE, content)


def _from_file(path: Path, form: str | None) -> FrameWeights:
    content, pickled = read_file(path)
    if content.get("format") == FORMAT:
        return from_checkpoint(path, check_content(path, content, FRAME, BACKBONE, END_TO_END))
    possible = possible_formats(path, content, pickled)
    if form is not None:
        chosen = get_format(form)
        if chosen not in possible:
            fits = " or ".join(choice.name for choice in possible)
            raise ConfigError(f"--format: found {form}, but by its contents {path} is {fits}")
        possible = (chosen,)
    if len(possible) > 1:
        classes = shapes_of(content).get("fc.bias", ("?",))[0]
        names = tuple(choice.name for choice in possible)
        raise AmbiguousFormat(
            f"{path}: has torchvision's names, under which several networks go that compute different things and that"
            f" no key tells apart (its classifier has {classes} classes: ImageNet has 1000, VGGFace2 8631); say which"
            f" by --format: {', '.join(names)}",
            names,
        )
    tensors, keys, classes = possible[0].tensors(path, content)
    chosen, architecture = possible[0], possible[0].architecture
    origin = Origin(chosen.name, keys, chosen.classifier_keys, classes, path)
    return FrameWeights(architecture, tensors, architecture.preprocessing, origin)


def _random(arch: str | None, zero_init_residual: bool) -> FrameWeights:
    families = {a.family: a for a in reversed(ARCHITECTURES.values())}
    family = arch or next(iter(ARCHITECTURES.values())).family
    if family not in families:
        raise ConfigError(f"--arch: found {family!r}, expected one of {', '.join(sorted(families))}")
    architecture = families[family]
    if zero_init_residual and architecture.first_norm is None:
        raise ConfigError(f"zero_init_residual: {architecture.name} has no residual blocks")
    network = architecture.build(zero_init_residual) if zero_init_residual else architecture.build()
    return FrameWeights(architecture, dict(network.state_dict()), architecture.preprocessing, Origin(NONE))


def _imagenet_file() -> Path:
    """torchvision's file in torch's own folder of such files; fetched where it is not there.

    WeightsError where that fails, saying where to put it: compute nodes often have no network.
    """
    url = ResNet50_Weights.IMAGENET1K_V1.url
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not path.exists():
        log.info("%s: is not there and is fetched", path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), hash_prefix=path.stem.rpartition("-")[2], progress=False)
        except (OSError, RuntimeError) as error:  # no network, or another checksum
            raise WeightsError(
                f"imagenet: {path} is not there and could not be fetched from {url} ({error});"
                " on a machine without network, put the file there"
            ) from error
    return path
