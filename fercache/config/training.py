"""The sections of the two training stages, and what they share."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal

from fercache.config.fields import Precision, check, config_field
from fercache.limits import MOST_IMAGE_SIZE, MOST_RATE, MOST_WINDOW, MOST_WORKERS

_CROP_RULE = "0 < smallest <= largest <= 1"
_WORKERS = "1 on a CPU, up to 8 with a GPU"


@dataclass(frozen=True)
class TrainingConfig:
    """What both training stages set; the defaults are those of the paper and its code."""

    epochs: int = config_field(10, "Passes over the training split.", within=(1, 100_000), heading="Training")
    batch_size: int = config_field(96, "Frames per step, over all ranks together.", within=(1, 1_000_000))
    select: Literal["best", "last"] = config_field(
        "best", "Which epoch best.pt keeps: the one with the best score on the validation split, or the last."
    )
    save_minutes: float = config_field(
        10.0,
        "Minutes between saves within an epoch: the most that a kill costs. A signal to stop saves at once.",
        within=(0, 1_000_000),
    )
    precision: Precision = config_field(
        "auto",
        "Number format of the computation; auto: bf16 where the device supports it, fp16 on older GPUs, else fp32.",
    )
    compile: bool = config_field(
        False, "Use torch.compile: it needs a compiler and time at the start; no gain was measured on a CPU."
    )
    lr: float = config_field(
        5e-4, "Initial learning rate, after the warm-up.", above=(0, MOST_RATE), heading="Optimiser and schedule"
    )
    optimizer: Literal["sgd", "adamw"] = config_field(
        "sgd",
        "sgd: SGD with momentum, as in the paper; adamw: fewer steps from random weights (Loshchilov and Hutter 2019, "
        "arXiv:1711.05101). Each needs its own learning rate.",
    )
    momentum: float = config_field(
        0.9, "Momentum of sgd; first beta of adamw.", within=(0, 1), rule="from 0 to below 1"
    )
    weight_decay: float = config_field(
        5e-4, "On all parameters: L2 penalty of sgd, decoupled weight decay of adamw.", within=(0, 1000)
    )
    clip_norm: float | None = config_field(
        None,
        "Maximum norm of the gradient over all parameters (Pascanu et al. 2013, arXiv:1211.5063).",
        above=(0, 10**9),
        unset="no clipping",
    )
    schedule: Literal["step", "cosine"] = config_field(
        "step",
        "step: multiply the rate by gamma at each milestone; cosine: half a cosine down to 0 (Loshchilov and Hutter "
        "2017, arXiv:1608.03983).",
    )
    milestones: tuple[int, ...] = config_field(
        (2, 4, 8),
        "Epochs after which schedule=step multiplies the learning rate by gamma.",
        within=(1, 100_000),
        rule="ascending epochs, as in [2, 4, 8]",
    )
    gamma: float = config_field(0.1, "Factor of the learning rate at each milestone.", above=(0, 1000))
    warmup: float = config_field(
        0.0,
        "Epochs (fractions allowed) of linear warm-up of the learning rate (Goyal et al. 2017, arXiv:1706.02677).",
        within=(0, 100_000),
        rule="at least 0 and below epochs",
    )
    label_smoothing: float = config_field(
        0.0,
        "Share of each label that is spread over all classes (Szegedy et al. 2016, arXiv:1512.00567).",
        within=(0, 1),
        rule="from 0 to below 1",
        heading="Loss",
    )
    class_balance: float = config_field(
        0.0,
        "Multiclass tasks: beta of class-balanced weights (Cui et al. 2019, arXiv:1901.05555); 0: equal weights; 1: "
        "inverse frequency.",
        within=(0, 1),
    )
    positive_weights: bool = config_field(
        False, "Multilabel tasks: present units weigh as much as absent ones (pos_weight of torch's BCEWithLogitsLoss)."
    )

    def __post_init__(self) -> None:
        check(self, **self._conditions())

    def _conditions(self) -> dict[str, bool]:
        """Key -> whether it holds; a section adds its own, so that all problems are reported at once."""
        return {
            "momentum": self.momentum < 1,
            "milestones": all(a < b for a, b in itertools.pairwise(self.milestones)),
            "warmup": self.warmup < max(1, self.epochs),
            "label_smoothing": self.label_smoothing < 1,
        }


@dataclass(frozen=True)
class FinetuneConfig(TrainingConfig):
    """Stage one: fine-tuning the CNN on single frames."""

    weights: str = config_field(
        "none",
        "Initial weights: a weights file, a run folder, imagenet, or none (random).",
        metavar="FILE|RUN|imagenet|none",
        heading="Network",
    )
    weights_format: str | None = config_field(
        None,
        "Format of the weights file, for files whose contents do not decide it; the error then lists the formats.",
        metavar="NAME",
        unset="recognised by contents",
    )
    arch: str | None = config_field(
        None,
        "Architecture of the CNN.",
        metavar="NAME",
        unset="that of the weights; resnet50 for random ones",
    )
    zero_init_residual: bool = config_field(
        False, "Random weights only: each residual block starts as the identity (Goyal et al. 2017, arXiv:1706.02677)."
    )
    image_size: int | None = config_field(
        None, "Side of the square input, in pixels.", within=(48, MOST_IMAGE_SIZE), unset="that of the weights"
    )
    crop_scale: tuple[float, float] = config_field(
        (0.2, 1.0),
        "Smallest and largest area of the random crop, as a share of the frame; [1, 1] turns cropping off.",
        within=(0, 1),
        rule=_CROP_RULE,
        heading="Training frames",
    )
    flip: bool = config_field(True, "Mirror half of the training frames.")
    every_nth_frame: int = config_field(
        1,
        "Train on every n-th labelled frame of a video; neighbouring frames look alike (Wang et al. 2016, "
        "arXiv:1608.00859).",
        within=(1, 1_000_000),
    )
    workers: int | None = config_field(None, "Processes that decode frames.", within=(0, MOST_WORKERS), unset=_WORKERS)

    def _conditions(self) -> dict[str, bool]:
        return super()._conditions() | {"crop_scale": 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1}


@dataclass(frozen=True)
class TrainTemporalConfig(TrainingConfig):
    """Stage two: a temporal head on windows of cached embeddings, or end to end on frames."""

    batch_size: int = config_field(96, "Windows per step, over all ranks together.", within=(1, 1_000_000))
    lr: float = config_field(
        1e-3,
        "Initial learning rate, after the warm-up (1e-3 in the paper's code).",
        above=(0, MOST_RATE),
        heading="Optimiser and schedule",
    )
    head: str | None = config_field(
        None,
        "The temporal head. Two are baselines: linear (each embedding by itself) and mean (of the CNN's logits).",
        metavar="NAME",
        unset="none",
        heading="Head and windows",
    )
    window: int = config_field(
        9, "Length of a window, in frames of the video.", within=(1, MOST_WINDOW), rule=f"odd, from 1 to {MOST_WINDOW}"
    )
    stride: int = config_field(
        4,
        "Frames between the centres of training windows.",
        within=(1, MOST_WINDOW),
        rule="from 1 to the window's length, or labelled frames would be skipped",
    )
    standardise: bool = config_field(
        False, "Standardise embeddings with the mean and standard deviation of the training split."
    )
    shuffle_block: int | None = config_field(
        None,
        "Shuffle windows in blocks of this many neighbours, 16 blocks mixed at a time, so that reads stay local.",
        within=(1, 10**9),
        unset="shuffle over the whole split",
    )
    allow_missing: bool = config_field(False, "Train without the videos that the cache lacks, instead of failing.")
    end_to_end: bool = config_field(False, "Train the CNN together with the head, on the frames.", heading="End to end")
    weights: str | None = config_field(
        None, "End to end: run folder of the CNN.", metavar="RUN", unset="cnn in the folder `out`"
    )
    init: str | None = config_field(
        None,
        "End to end: run folder of the initial head, trained on this CNN's cache.",
        metavar="RUN",
        unset="a random head",
    )
    cnn_lr: float = config_field(
        5e-5,
        "End to end: learning rate of the CNN, on the same schedule; 0 freezes the CNN.",
        within=(0, MOST_RATE),
        rule="at least 0; 0 freezes the CNN",
    )
    checkpointing: bool = config_field(
        False, "End to end: recompute activations in the backward pass: less memory, more time."
    )
    crop_scale: tuple[float, float] = config_field(
        (0.2, 1.0),
        "End to end: smallest and largest area of the random crop, one per window; [1, 1] turns cropping off.",
        within=(0, 1),
        rule=_CROP_RULE,
    )
    flip: bool = config_field(True, "End to end: mirror half of the windows.")
    workers: int | None = config_field(
        None, "End to end: processes that decode frames.", within=(0, MOST_WORKERS), unset=_WORKERS
    )

    def _conditions(self) -> dict[str, bool]:
        return super()._conditions() | {
            "window": self.window % 2 == 1,
            "stride": self.stride <= self.window,
            "crop_scale": 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1,
        }
