"""The registry of backbones. Reading it imports no torch, so that help and settings can list the names.

A new backbone is a `fercache.models.backbone.Backbone` in a file of its own, and an entry here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fercache.errors import ConfigError, WeightsError

if TYPE_CHECKING:
    from fercache.models.backbone import Backbone


@dataclass(frozen=True)
class BackboneEntry:
    """A backbone as the registry knows it."""

    arch: str
    """What `--arch` calls it; of several backbones of one arch, the first is built for random weights."""
    load: Callable[[], Backbone]
    """Imports and returns it."""


def _vggface2_resnet50() -> Backbone:
    from fercache.models.resnet import VGGFACE2_RESNET50

    return VGGFACE2_RESNET50


def _imagenet_resnet50() -> Backbone:
    from fercache.models.resnet import IMAGENET_RESNET50

    return IMAGENET_RESNET50


def _vggface() -> Backbone:
    from fercache.models.vggface import VGGFACE_VGG16

    return VGGFACE_VGG16


BACKBONES = {
    "resnet50-vggface2": BackboneEntry("resnet50", _vggface2_resnet50),
    "resnet50-imagenet": BackboneEntry("resnet50", _imagenet_resnet50),
    "vggface": BackboneEntry("vggface", _vggface),
}


def archs() -> tuple[str, ...]:
    """The names that `--arch` takes; the first is the default."""
    return tuple(dict.fromkeys(entry.arch for entry in BACKBONES.values()))


def get_backbone(name: object) -> Backbone:
    """The backbone of that name, as a checkpoint records it; WeightsError with the valid names otherwise."""
    if name not in BACKBONES:
        raise WeightsError(f"architecture: found {name!r}, expected one of {', '.join(BACKBONES)}")
    return BACKBONES[str(name)].load()


def backbone_of_arch(arch: str | None) -> Backbone:
    """The backbone that is built for random weights; ConfigError with the valid names of an arch otherwise."""
    if arch is None:
        arch = archs()[0]
    if arch not in archs():
        raise ConfigError(f"--arch: found {arch!r}, expected one of {', '.join(archs())}")
    return next(entry for entry in BACKBONES.values() if entry.arch == arch).load()
