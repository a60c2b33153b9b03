"""The sections of the two training stages, and what they share."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal

from fercache.config.fields import Precision, check, number
from fercache.limits import MOST_IMAGE_SIZE, MOST_RATE, MOST_WINDOW, MOST_WORKERS


@dataclass(frozen=True)
class TrainingConfig:
    """What both training stages set; the defaults are those of the paper and its code."""

    epochs: int = number(10, 1, 100_000)
    """Passes over the training split."""
    batch_size: int = number(96, 1, 1_000_000)
    """Frames (finetune) or windows (train_temporal) a step, over all ranks together; an epoch's are dealt evenly."""
    lr: float = number(5e-4, 0, MOST_RATE, above=True)
    """Learning rate of the first epoch, after the warm-up."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """sgd: with momentum, as the paper has it; adamw: learns from random numbers in fewer steps (Loshchilov and Hutter
    2019, arXiv:1711.05101). Each needs a learning rate of its own."""
    momentum: float = number(0.9, 0, 1, "from 0 to below 1")
    """Momentum of sgd; adamw's first beta."""
    weight_decay: float = number(5e-4, 0, 1000)
    """On all parameters: sgd's L2 penalty; adamw's share of a parameter that each step takes off, times the rate."""
    milestones: tuple[int, ...] = number((2, 4, 8), 1, 100_000, "ascending epochs, as in [2, 4, 8]")
    """Epochs after which the learning rate is multiplied by `gamma`."""
    gamma: float = number(0.1, 0, 1000, above=True)
    """Factor of the learning rate at each milestone."""
    schedule: Literal["step", "cosine"] = "step"
    """step: by milestones and gamma; cosine: half a cosine down to 0 (Loshchilov and Hutter 2017, arXiv:1608.03983)."""
    warmup: float = number(0.0, 0, 100_000, "at least 0 and below epochs")
    """Epochs, or parts of one, in which the rate rises in a straight line (Goyal et al. 2017, arXiv:1706.02677)."""
    clip_norm: float | None = number(None, 0, 1e9, above=True)
    """Longest gradient over all parameters (Pascanu et al. 2013, arXiv:1211.5063)."""
    label_smoothing: float = number(0.0, 0, 1, "from 0 to below 1")
    """Share of a label that is spread over all classes (Szegedy et al. 2016, arXiv:1512.00567)."""
    class_balance: float = number(0.0, 0, 1)
    """Beta of class-balanced weights for one class a frame (Cui et al. 2019, arXiv:1901.05555); 1: one over count."""
    positive_weights: bool = False
    """For many classes a frame: present ones weigh as much as absent ones (pos_weight of torch's BCEWithLogitsLoss)."""
    precision: Precision = "auto"
    """Numbers the network computes in; auto takes bf16 where the device has it, fp16 on older GPUs, else fp32."""
    compile: bool = False
    """torch.compile: takes time at the start, and a compiler; no gain was measured on a CPU."""
    save_minutes: float = number(10.0, 0, 1_000_000)
    """Minutes between saves within an epoch: what a kill costs at most. A signal to stop saves at once."""
    select: Literal["best", "last"] = "best"
    """Which epoch's network `best.pt` keeps: the best by the task's score on validation, or the last."""

    def __post_init__(self) -> None:
        check(self, **self._conditions())

    def _conditions(self) -> dict[str, bool]:
        """Key -> whether it holds; a section adds its own, so that all problems are told at once."""
        return {
            "momentum": self.momentum < 1,
            "milestones": all(a < b for a, b in itertools.pairwise(self.milestones)),
            "warmup": self.warmup < max(1, self.epochs),
            "label_smoothing": self.label_smoothing < 1,
        }


@dataclass(frozen=True)
class FinetuneConfig(TrainingConfig):
    """Stage one: the frame network."""

    weights: str = "none"
    """Where training starts: a weights file, a run folder, imagenet, or none for random numbers."""
    weights_format: str | None = None
    """The weights file's format, where its contents do not decide."""
    arch: str | None = None
    """The backbone, which `fercache finetune --help` lists; nothing means the weights' own."""
    zero_init_residual: bool = False
    """Of random weights alone: each residual block begins as the identity (Goyal et al. 2017, arXiv:1706.02677)."""
    image_size: int | None = number(None, 48, MOST_IMAGE_SIZE)
    """Side of the square the network sees, in pixels; nothing means the weights' own."""
    crop_scale: tuple[float, float] = number((0.2, 1.0), 0, 1, "two areas, 0 < least <= most <= 1")
    """Area of the random crop in training, as shares of the frame; [1, 1] turns cropping off."""
    flip: bool = True
    """Mirror half of the training frames."""
    every_nth_frame: int = number(1, 1, 1_000_000)
    """Train on every n-th labelled frame of a video: neighbours look alike (Wang et al. 2016, arXiv:1608.00859)."""
    workers: int | None = number(None, 0, MOST_WORKERS)
    """Processes that decode frames; nothing means one on a CPU, up to eight with a GPU."""

    def _conditions(self) -> dict[str, bool]:
        return super()._conditions() | {
            "crop_scale": 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1,
        }


@dataclass(frozen=True)
class TrainTemporalConfig(TrainingConfig):
    """Stage two: a head over windows of cached embeddings."""

    head: str | None = None
    """Which head; `fercache train-temporal --help` lists them."""
    lr: float = number(1e-3, 0, MOST_RATE, above=True)
    """Learning rate of the first epoch (the paper's code says 1e-3)."""
    batch_size: int = number(96, 1, 1_000_000)
    """Windows a step, over all ranks together."""
    window: int = number(9, 1, MOST_WINDOW, f"odd, from 1 to {MOST_WINDOW}")
    """Positions of a window, in frames of the video."""
    stride: int = number(4, 1, MOST_WINDOW, "from 1 to the window's length, or labelled frames would be passed over")
    """Frames between the centres of training windows."""
    standardise: bool = False
    """Embeddings less the training split's mean, over its standard deviation."""
    shuffle_block: int | None = number(None, 1, 10**9)
    """Windows are shuffled in blocks of so many neighbours, 16 blocks mixed at a time, so that reads stay near one
    another for a while; nothing means over the whole split."""
    allow_missing: bool = False
    """Go on without the videos that the cache lacks."""
    end_to_end: bool = False
    """Open the frames again, and train the frame network together with the head."""
    weights: str | None = None
    """End to end: the frame network's run folder; nothing means `out`/cnn."""
    init: str | None = None
    """End to end: run folder of the head to begin with, trained on that network's cache; nothing: random numbers."""
    cnn_lr: float = number(5e-5, 0, MOST_RATE, "at least 0; 0 keeps the frame network as it is")
    """End to end: learning rate of the frame network, which follows the same schedule."""
    checkpointing: bool = False
    """End to end: compute activations again for the gradient instead of keeping them: slower, in less memory."""
    crop_scale: tuple[float, float] = number((0.2, 1.0), 0, 1, "two areas, 0 < least <= most <= 1")
    """End to end: area of the random crop, one for all frames of a window; [1, 1] turns cropping off."""
    flip: bool = True
    """End to end: mirror half of the windows."""
    workers: int | None = number(None, 0, MOST_WORKERS)
    """End to end: processes that decode frames; nothing means one on a CPU, up to eight with a GPU."""

    def _conditions(self) -> dict[str, bool]:
        return super()._conditions() | {
            "window": self.window % 2 == 1,
            "stride": self.stride <= self.window,
            "crop_scale": 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1,
        }
