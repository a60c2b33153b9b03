"""Which preprocessing a network was trained with, inferred from its first batch norm.

In training, the batch norm behind the first convolution keeps the mean and variance of that convolution's output. Faces
prepared as in training give the same statistics again; in another channel order or scale they give others.

Legend: N faces, K channels of the first convolution, M candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from fercache.models.preprocessing import IMAGENET, VGGFACE2, Preprocessing, prepare

RESAMPLES = 500
SURE = 0.95
"""Share of the resamples of faces in which a value must win to be conclusive."""
CLEAR = 0.5
"""Share of the best value's misfit that its margin must exceed."""
MEANS = {"no mean": None, "minus mean": VGGFACE2, "ImageNet mean and std": IMAGENET}


@dataclass(frozen=True)
class Candidate:
    """One way to prepare faces."""

    order: str
    scale: str
    mean: str
    record: Preprocessing

    def __str__(self) -> str:
        return f"{self.order}, {self.scale}, {self.mean}"


AXES: dict[str, Callable[[Candidate], str]] = {
    "order": lambda candidate: candidate.order,
    "scale": lambda candidate: candidate.scale,
    "mean": lambda candidate: candidate.mean,
}


@dataclass(frozen=True)
class AxisResult:
    """What the statistics say about one part of the preprocessing."""

    axis: str
    best: str
    rival: str
    """The best-fitting other value."""
    margin: float
    """How much worse the rival fits, in nats a channel."""
    share: float
    """Share of the resamples of faces in which the rival fits worse."""
    misfit: float
    """How badly the best itself fits, in nats a channel: how unlike the training faces these faces are."""

    @property
    def conclusive(self) -> bool:
        """Whether the rival fits clearly worse, in almost every resample of the faces.

        A margin far below the best's own misfit may come from the choice of faces: with 256 of realfaces' 4,125 frames,
        some of which the network was trained on, BGR won against its RGB by a fifth of its misfit; with 256 of those
        that it was trained on, or from similar videos, RGB won by six times its misfit.
        """
        return self.share >= SURE and self.margin > CLEAR * self.misfit


@dataclass(frozen=True)
class SelfTest:
    """How well each candidate fits, best first."""

    candidates: tuple[Candidate, ...]
    distances: tuple[float, ...]
    """Kullback-Leibler divergence from the file's statistics, as normal distributions; nats, mean over channels."""
    axes: tuple[AxisResult, ...]
    faces: int

    @property
    def margin(self) -> float:
        """How much worse the second candidate fits than the first."""
        return self.distances[1] - self.distances[0]


def candidates(image_size: int) -> Iterator[Candidate]:
    """RGB and BGR, 0-255 and 0-1, with and without the mean; and ImageNet's standardisation."""
    for order in ("RGB", "BGR"):
        for scale, top in (("0-255", 255.0), ("0-1", 1.0)):
            for name, source in MEANS.items():
                if source is IMAGENET and top != IMAGENET.range:
                    continue
                mean, std = ((0.0,) * 3, (1.0,) * 3) if source is None else (source.mean, source.std)
                factor = top / (source or VGGFACE2).range
                scaled = (mean[0] * factor, mean[1] * factor, mean[2] * factor)
                if order == "BGR":
                    scaled, std = scaled[::-1], std[::-1]
                yield Candidate(order, scale, name, Preprocessing(order, top, scaled, std, image_size))


@torch.inference_mode()
def self_test(conv: nn.Conv2d, norm: nn.BatchNorm2d, frames: list[torch.Tensor], image_size: int) -> SelfTest:
    """Compare the running statistics in `norm` with those of `conv` on `frames` under every candidate.

    `frames`: uint8 RGB (3, H, W) each, faces cropped as they were in training; at least 2.
    """
    tested = list(candidates(image_size))
    assert norm.running_mean is not None and norm.running_var is not None
    mean, variance = norm.running_mean.double().numpy(), norm.running_var.double().numpy()  # (K,)
    moments = np.stack([_moments(conv, frames, candidate.record) for candidate in tested])  # (M, 2, N, K)
    rng = np.random.default_rng(0)
    # How often each face is drawn: all of them once, then resamples with replacement.
    counts = np.vstack([np.ones(len(frames)), rng.multinomial(len(frames), [1 / len(frames)] * len(frames), RESAMPLES)])
    drawn = np.einsum("rn,monk->rmok", counts / len(frames), moments)  # (1 + RESAMPLES, M, 2, K)
    distance = _divergence(drawn[:, :, 0], drawn[:, :, 1], mean, variance, norm.eps)  # (1 + RESAMPLES, M)
    order = np.argsort(distance[0])
    return SelfTest(
        tuple(tested[index] for index in order),
        tuple(distance[0, order].tolist()),
        tuple(_axis_result(axis, tested, distance) for axis in AXES),
        len(frames),
    )


def _moments(conv: nn.Conv2d, frames: list[torch.Tensor], record: Preprocessing) -> np.ndarray:
    """Mean and mean square of each channel over each face's pixels, float64 (2, N, K)."""
    rows = []
    for start in range(0, len(frames), 16):
        maps = conv(prepare(frames[start : start + 16], record)).double()  # (16, K, ., .)
        rows.append(torch.stack([maps.mean((2, 3)), maps.square().mean((2, 3))]))
    return torch.cat(rows, dim=1).numpy()


def _divergence(
    mean: np.ndarray, square: np.ndarray, file_mean: np.ndarray, file_variance: np.ndarray, eps: float
) -> np.ndarray:
    """KL divergence of normals from the file's, mean over the last axis K.

    `eps` is added to both variances, as the batch norm does, so that dead channels do not count.
    """
    variance = np.maximum(square - mean**2, 0) + eps
    expected = file_variance + eps
    ratio = variance / expected
    return (0.5 * (ratio + (mean - file_mean) ** 2 / expected - 1 - np.log(ratio))).mean(-1)


def _axis_result(axis: str, tested: list[Candidate], distance: np.ndarray) -> AxisResult:
    """The best value on an axis against the best other one; `distance` (1 + RESAMPLES, M)."""
    values = np.array([AXES[axis](candidate) for candidate in tested])
    best = values[distance[0].argmin()]
    misfit, others = distance[:, values == best].min(1), distance[:, values != best]
    margin = others.min(1) - misfit
    return AxisResult(
        axis=axis,
        best=str(best),
        rival=str(values[values != best][others[0].argmin()]),
        margin=float(margin[0]),
        share=float((margin[1:] > 0).mean()),
        misfit=float(misfit[0]),
    )
