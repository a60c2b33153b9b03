"""How frames become the numbers a network was trained on. The record belongs to the weights.

Legend: B frames, H x W stored pixels, S side of the network's input.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from fercache.errors import WeightsError
from fercache.limits import MOST_IMAGE_SIZE


@dataclass(frozen=True)
class Preprocessing:
    """Order, scale and size of the input: x = (frame * range / 255 - mean) / std, by channel."""

    channels: str
    """RGB or BGR, the order that the first convolution expects."""
    range: float
    """Value of a full channel: 255 or 1."""
    mean: tuple[float, float, float]
    """In the order of `channels` and the scale of `range`."""
    std: tuple[float, float, float]
    image_size: int
    """Side of the square input, in pixels."""
    resize: str = "bilinear"
    """Bilinear in float32, not rounded; antialiased where it shrinks."""

    def as_plain(self) -> dict[str, Any]:
        """For checkpoints and provenance."""
        plain = dataclasses.asdict(self)
        return {**plain, "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Preprocessing:
        """The record from the output of `as_plain`; WeightsError where `plain` is something else."""
        try:
            record = cls(**{**plain, "mean": tuple(plain["mean"]), "std": tuple(plain["std"])})
        except (TypeError, KeyError) as error:
            raise WeightsError(f"the preprocessing record is not one: {error}") from error
        numbers = (record.range, *record.mean, *record.std)
        valid = {
            "channels": record.channels in ("RGB", "BGR"),
            "resize": record.resize == "bilinear",
            "mean": len(record.mean) == 3,
            "std": len(record.std) == 3,
            "range, mean or std": all(type(number) in (int, float) and math.isfinite(number) for number in numbers),
            "image_size": type(record.image_size) is int and 0 < record.image_size <= MOST_IMAGE_SIZE,
        }
        wrong = [name for name, holds in valid.items() if not holds]
        if wrong or not (record.range > 0 and all(value > 0 for value in record.std)):
            raise WeightsError(f"the preprocessing record is not one: {', '.join(wrong) or 'range or std'}: {plain}")
        return record


VGGFACE2 = Preprocessing("RGB", 255.0, (131.0912, 103.8827, 91.4953), (1.0, 1.0, 1.0), 224)
"""Of the VGGFace2 ResNet50: mean of its training faces in RGB, no division (Cao et al. 2018, released models)."""
VGGFACE = Preprocessing("RGB", 255.0, (129.1863, 104.7624, 93.5940), (1.0, 1.0, 1.0), 224)
"""Of VGG-Face (Parkhi et al. 2015, released model)."""
IMAGENET = Preprocessing("RGB", 1.0, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 224)
"""Of torchvision's ImageNet networks."""


def prepare(frames: torch.Tensor | list[torch.Tensor], record: Preprocessing) -> torch.Tensor:
    """Frames, uint8 RGB (B, 3, H, W) or a list of (3, H, W), as the network's input, float32 (B, 3, S, S).

    The one function that validation, extraction and everything after them share.
    """
    if isinstance(frames, list):
        return torch.cat([prepare(frame[None], record) for frame in frames])
    pixels, size = frames.float(), record.image_size
    if max(pixels.shape[-2:]) < size:
        # Both are linear, and the weights of the resize sum to one: normalising the smaller picture is cheaper.
        return _resize(normalise(pixels, record), size)
    return normalise(_resize(pixels, size), record)


def filled(inputs: torch.Tensor, count: int) -> torch.Tensor:
    """`inputs` (B, ...) filled up to (count, ...) by repeating the last one.

    With batches of one size, a frame's output has the same bits whatever its neighbours are.
    """
    missing = count - len(inputs)
    return torch.cat([inputs, inputs[-1:].expand(missing, *inputs.shape[1:])]) if missing > 0 else inputs


def normalise(pixels: torch.Tensor, record: Preprocessing) -> torch.Tensor:
    """RGB pixels 0-255, float32 (B, 3, S, S), in the order and scale of the record."""
    if record.channels == "BGR":
        pixels = pixels.flip(1)
    mean, std = _statistics(record, pixels.device)
    # A step that changes no number is left out: the time goes into memory traffic.
    if record.range != 255:
        pixels = pixels * (record.range / 255)
    centred = pixels - mean
    return centred if set(record.std) == {1.0} else centred.div_(std)


@functools.lru_cache(maxsize=16)
def _statistics(record: Preprocessing, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and std as (3, 1, 1); cached, since a copy to a GPU waits for it."""
    with torch.inference_mode(False):  # they outlive a call in that mode
        mean, std = (torch.tensor(values, device=device)[:, None, None] for values in (record.mean, record.std))
    return mean, std


def _resize(pixels: torch.Tensor, size: int) -> torch.Tensor:
    if pixels.shape[-2:] == (size, size):
        return pixels
    shrinks = max(pixels.shape[-2:]) > size
    return functional.interpolate(pixels, (size, size), mode="bilinear", align_corners=False, antialias=shrinks)
