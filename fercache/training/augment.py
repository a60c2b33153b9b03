"""Random crop and mirror, drawn once for each sample and applied on the device.

Legend: B frames, H x W stored pixels, S side of the network's input.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch.nn import functional

RATIO = (3 / 4, 4 / 3)
"""Width over height of a crop, as in torchvision's RandomResizedCrop, which the paper's code uses."""


def random_boxes(count: int, scale: tuple[float, float], flip: bool, generator: torch.Generator) -> torch.Tensor:
    """Random crops as affine maps, float32 (count, 2, 3), from the output's coordinates to the frame's, both [-1, 1].

    Area uniform in `scale` (shares of a square frame), the log of the ratio uniform; a crop that would
    stand out of the frame is cut to it. With `flip` half of them are mirrored.
    """
    draws = torch.rand(5, count, generator=generator)
    area = scale[0] + (scale[1] - scale[0]) * draws[0]
    log_ratio = math.log(RATIO[0]) + (math.log(RATIO[1]) - math.log(RATIO[0])) * draws[1]
    if scale == (1.0, 1.0):
        log_ratio = torch.zeros_like(log_ratio)  # the whole frame, not a crop of another shape
    width = (area * log_ratio.exp()).sqrt().clamp(max=1)
    height = (area / log_ratio.exp()).sqrt().clamp(max=1)
    boxes = torch.zeros(count, 2, 3)
    boxes[:, 0, 0] = torch.where(flip & (draws[4] < 0.5), -width, width)
    boxes[:, 1, 1] = height
    boxes[:, 0, 2] = (2 * draws[2] - 1) * (1 - width)
    boxes[:, 1, 2] = (2 * draws[3] - 1) * (1 - height)
    return boxes


def epoch_boxes(count: int, scale: tuple[float, float], flip: bool, seed: int, epoch: int) -> torch.Tensor:
    """The crops of an epoch's samples, (count, 2, 3), by seed, epoch and sample alone, whatever the samples' order."""
    generator = torch.Generator().manual_seed(int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0]))
    return random_boxes(count, scale, flip, generator)


def crop(frames: torch.Tensor | list[torch.Tensor], boxes: torch.Tensor, size: int) -> torch.Tensor:
    """Frames, uint8 (B, 3, H, W) or a list of (3, H, W), cropped to (B, 3, size, size) float32, bilinear, 0-255."""
    if isinstance(frames, list):
        return torch.cat([crop(frame[None], box[None], size) for frame, box in zip(frames, boxes, strict=True)])
    grid = functional.affine_grid(boxes, [len(frames), 3, size, size], align_corners=False)
    return functional.grid_sample(frames.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)
