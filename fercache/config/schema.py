"""Every default of fercache, once, in frozen dataclasses.

The sections are of one command each; what all commands share stands in `Config`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from fercache.errors import ConfigError, raise_problems
from fercache.tasks import get_task

Precision = Literal["auto", "fp32", "bf16", "fp16"]


def _check(config: object, **conditions: bool) -> None:
    """Raise ConfigError naming each key whose condition (given as key=condition) does not hold."""
    rules = {f.name: f.metadata.get("rule", "") for f in dataclasses.fields(config)}  # type: ignore[arg-type]
    bad = [key for key, holds in conditions.items() if not holds]
    raise_problems([f"{key}: found {getattr(config, key)!r}, expected {rules[key]}" for key in bad], ConfigError)


def _value(default: Any, rule: str) -> Any:  # noqa: ANN401 - a dataclass field is of any type
    """A field with its default and the words that say which values it takes."""
    return field(default=default, metadata={"rule": rule})


@dataclass(frozen=True)
class TrainingConfig:
    """What both training stages set; the defaults are those of the paper and its code (SGD)."""

    epochs: int = _value(10, "at least 1")
    """Passes over the training split."""
    batch_size: int = _value(96, "at least 1")
    """Frames (finetune) or windows (train_temporal) a step, over all ranks together; an epoch's are dealt evenly."""
    lr: float = _value(5e-4, "above 0")
    """Learning rate of the first epoch, after the warm-up."""
    momentum: float = _value(0.9, "from 0 to below 1")
    """Momentum of SGD."""
    weight_decay: float = _value(5e-4, "at least 0")
    """L2 penalty on all parameters."""
    milestones: tuple[int, ...] = _value((2, 4, 8), "ascending epochs, as in [2, 4, 8]")
    """Epochs after which the learning rate is multiplied by `gamma`."""
    gamma: float = _value(0.1, "above 0")
    """Factor of the learning rate at each milestone."""
    schedule: Literal["step", "cosine"] = "step"
    """step: by milestones and gamma; cosine: half a cosine down to 0 (Loshchilov and Hutter 2017, arXiv:1608.03983)."""
    warmup: float = _value(0.0, "at least 0 and below epochs")
    """Epochs, or parts of one, in which the rate rises in a straight line (Goyal et al. 2017, arXiv:1706.02677)."""
    clip_norm: float | None = _value(None, "above 0, or nothing")
    """Longest gradient over all parameters (Pascanu et al. 2013, arXiv:1211.5063)."""
    label_smoothing: float = _value(0.0, "from 0 to below 1")
    """Share of a label that is spread over all classes (Szegedy et al. 2016, arXiv:1512.00567)."""
    class_balance: float = _value(0.0, "from 0 to 1")
    """Beta of class-balanced weights for one class a frame (Cui et al. 2019, arXiv:1901.05555); 1: one over count."""
    positive_weights: bool = False
    """For many classes a frame: present ones weigh as much as absent ones (pos_weight of torch's BCEWithLogitsLoss)."""
    precision: Precision = "auto"
    """Numbers the network computes in; auto takes bf16 where the device has it, fp16 on older GPUs, else fp32."""
    compile: bool = False
    """torch.compile: takes time at the start and a C++ compiler; no gain was measured on a CPU."""
    save_minutes: float = _value(10.0, "at least 0")
    """Minutes between saves within an epoch: what a kill costs at most. A signal to stop saves at once."""
    select: Literal["best", "last"] = "best"
    """Which epoch's network `best.pt` keeps: the best by the task's score on validation, or the last."""

    def __post_init__(self) -> None:
        _check(self, **self._conditions())

    def _conditions(self) -> dict[str, bool]:
        """Key -> whether it holds; a section adds its own, so that all problems are told at once."""
        return {
            "epochs": self.epochs >= 1,
            "batch_size": self.batch_size >= 1,
            "lr": self.lr > 0,
            "momentum": 0 <= self.momentum < 1,
            "weight_decay": self.weight_decay >= 0,
            "milestones": all(a < b for a, b in zip((0, *self.milestones), self.milestones, strict=False)),
            "gamma": self.gamma > 0,
            "warmup": 0 <= self.warmup < max(1, self.epochs),
            "clip_norm": self.clip_norm is None or self.clip_norm > 0,
            "label_smoothing": 0 <= self.label_smoothing < 1,
            "class_balance": 0 <= self.class_balance <= 1,
            "save_minutes": self.save_minutes >= 0,
        }


@dataclass(frozen=True)
class FinetuneConfig(TrainingConfig):
    """Stage one: the frame network."""

    weights: str = "none"
    """Where training starts: a weights file, a run folder, imagenet, or none for random numbers."""
    weights_format: str | None = None
    """The weights file's format, where its contents do not decide."""
    arch: str | None = None
    """resnet50 or vggface; nothing means the weights' own, and resnet50 for random numbers."""
    zero_init_residual: bool = False
    """Of random weights alone: each residual block begins as the identity (Goyal et al. 2017, arXiv:1706.02677)."""
    image_size: int | None = _value(None, "at least 48, or nothing for the weights' own")
    """Side of the square the network sees, in pixels."""
    crop_scale: tuple[float, float] = _value((0.2, 1.0), "two areas, 0 < least <= most <= 1")
    """Area of the random crop in training, as shares of the frame; [1, 1] turns cropping off."""
    flip: bool = True
    """Mirror half of the training frames."""
    every_nth_frame: int = _value(1, "at least 1")
    """Train on every n-th labelled frame of a video: neighbours look alike (Wang et al. 2016, arXiv:1608.00859)."""
    workers: int | None = _value(None, "at least 0")
    """Processes that decode frames; nothing means one on a CPU, up to eight with a GPU."""

    def _conditions(self) -> dict[str, bool]:
        return super()._conditions() | {
            "image_size": self.image_size is None or self.image_size >= 48,
            "every_nth_frame": self.every_nth_frame >= 1,
            "crop_scale": 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1,
            "workers": self.workers is None or self.workers >= 0,
        }


@dataclass(frozen=True)
class ExtractConfig:
    """Embeddings of every frame, into the cache."""

    weights: str | None = None
    """A run folder or a weights file; nothing means `out`/cnn."""
    weights_format: str | None = None
    """The weights file's format, where its contents do not decide."""
    image_size: int | None = _value(None, "at least 48, or nothing for the weights' own")
    """Side of the square the network sees, in pixels; only a raw weights file may be given another."""
    batch_size: int | None = _value(None, "from 1 to 512, or nothing")
    """Frames a pass of the network; nothing means what the cache was begun with, else 32 on a CPU (64 up to 128 px),
    128 on a GPU."""
    backend: Literal["auto", "eager", "compile", "openvino"] = "auto"
    """What computes: torch, torch.compile or OpenVINO; auto takes what the cache was begun with, else the fastest
    that is installed and pays for the seconds it takes to be made."""
    precision: Precision = "auto"
    """Numbers the network computes in; auto takes what the cache was begun with, else as in training."""
    dtype: Literal["float16", "float32"] = "float16"
    """Numbers the embeddings are stored in (logits are always float32)."""
    bad_frames: Literal["fail", "skip"] = "fail"
    """fail: a video with a frame that cannot be decoded is left out; skip: the frame is, and recorded."""
    workers: int | None = _value(None, "at least 0")
    """Processes that decode frames; nothing means one on a CPU, up to eight with a GPU."""

    def __post_init__(self) -> None:
        _check(
            self,
            image_size=self.image_size is None or self.image_size >= 48,
            # A kill loses the batches that are being computed and written.
            batch_size=self.batch_size is None or 1 <= self.batch_size <= 512,
            workers=self.workers is None or self.workers >= 0,
        )


@dataclass(frozen=True)
class TrainTemporalConfig(TrainingConfig):
    """Stage two: a head over windows of cached embeddings."""

    head: str | None = None
    """Which head: gru, transformer, linear (each embedding alone) or mean (of the frame network's logits)."""
    lr: float = _value(1e-3, "above 0")
    """Learning rate of the first epoch (the paper's code says 1e-3)."""
    batch_size: int = _value(96, "at least 1")
    """Windows a step, over all ranks together."""
    window: int = _value(9, "odd, at least 1")
    """Positions of a window, in frames of the video."""
    stride: int = _value(4, "from 1 to the window's length, or labelled frames would be passed over")
    """Frames between the centres of training windows."""
    standardise: bool = False
    """Embeddings less the training split's mean, over its standard deviation."""
    shuffle_block: int | None = _value(None, "at least 1, or nothing")
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
    cnn_lr: float = _value(5e-5, "at least 0; 0 keeps the frame network as it is")
    """End to end: learning rate of the frame network, which follows the same schedule."""
    checkpointing: bool = False
    """End to end: compute activations again for the gradient instead of keeping them: slower, in less memory."""
    crop_scale: tuple[float, float] = _value((0.2, 1.0), "two areas, 0 < least <= most <= 1")
    """End to end: area of the random crop, one for all frames of a window; [1, 1] turns cropping off."""
    flip: bool = True
    """End to end: mirror half of the windows."""
    workers: int | None = _value(None, "at least 0")
    """End to end: processes that decode frames; nothing means one on a CPU, up to eight with a GPU."""

    def _conditions(self) -> dict[str, bool]:
        odd = self.window >= 1 and self.window % 2 == 1
        return super()._conditions() | {
            "window": odd,
            "stride": 1 <= self.stride <= self.window,
            "shuffle_block": self.shuffle_block is None or self.shuffle_block >= 1,
            "cnn_lr": self.cnn_lr >= 0,
            "crop_scale": 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1,
            "workers": self.workers is None or self.workers >= 0,
        }


@dataclass(frozen=True)
class PredictConfig:
    """Logits of a model for every present frame of a split."""

    model: str | None = None
    """Run folder of a CNN or a head."""
    split: Literal["train", "validation", "test"] = "validation"
    """Which videos of the manifest."""
    batch_size: int = _value(512, "at least 1")
    """Windows a pass of a head."""
    allow_missing: bool = False
    """Go on without the videos that the cache lacks."""

    def __post_init__(self) -> None:
        _check(self, batch_size=self.batch_size >= 1)


@dataclass(frozen=True)
class EnsembleConfig:
    """Weights of several models' probabilities."""

    predictions: tuple[str, ...] = ()
    """Predictions files; nothing means those of CNN, GRU and Transformer on validation in `out`."""
    step: float = _value(0.01, "one over a whole number, from 0.001 to 1")
    """Distance of neighbouring weights in the search."""

    folds: int = _value(5, "0, or at least 2")
    """Parts of the recordings: on all but one is chosen, on that one is scored, in turn; 0 leaves that out."""
    smoothing: tuple[int, ...] = _value((0,), "one or more half widths, each from 0 to 100000, as in [0, 5, 15]")
    """Half widths of the box over time, in frames, of which the best is taken; [0] does not smooth."""
    temperatures: bool = False
    """Divide each model's logits by a number of its own, so that its probabilities mean what they say."""
    thresholds: bool = True
    """Choose a threshold for each action unit; else .5."""

    def __post_init__(self) -> None:
        inverse = 1 / self.step if self.step > 0 else 0
        _check(
            self,
            step=0.999 < inverse < 1000.001 and abs(inverse - round(inverse)) < 1e-6,
            folds=self.folds == 0 or self.folds >= 2,
            smoothing=len(self.smoothing) > 0 and all(0 <= width <= 100_000 for width in self.smoothing),
        )


@dataclass(frozen=True)
class SynthConfig:
    """The synthetic data set of expressive faces."""

    setting: Literal["steady", "transitions"] = _value("steady", "steady or transitions")
    """steady: a face tells its label in every frame; transitions: only the order of frames tells it."""
    train: int = _value(24, "at least 0, and one split above 0")
    """Recordings in the training split; one in six gives two videos."""
    validation: int = _value(10, "at least 0")
    """Recordings in the validation split."""
    test: int = _value(4, "at least 0")
    """Recordings without annotations."""
    seconds: float = _value(8.0, "from 1 (transitions: from 3) to 3600")
    """Mean length of a recording."""
    fps: float = _value(30.0, "from 5 (transitions: from 10) to 120")
    """Frames per second; 30 is what most of Aff-Wild2 has."""
    image_size: int = _value(112, "from 32 to 224")
    """Side of the square crops, in pixels."""

    def __post_init__(self) -> None:
        # Below that a ramp between two expressions has too few labelled frames to show its direction.
        moving = self.setting == "transitions"
        _check(
            self,
            setting=self.setting in ("steady", "transitions"),
            train=self.train >= 0 and self.train + self.validation + self.test > 0,
            validation=self.validation >= 0,
            test=self.test >= 0,
            seconds=(3 if moving else 1) <= self.seconds <= 3600,
            fps=(10 if moving else 5) <= self.fps <= 120,
            image_size=32 <= self.image_size <= 224,
        )


@dataclass(frozen=True)
class ReproduceConfig:
    """The paper's tables: data, the weights of each frame network, and the rows."""

    data: str = "affwild2"
    """Folder with cropped_aligned/ and annotations/, or synth for drawn faces, as the section `synth` says."""
    lengths: str | None = None
    """CSV of video_id,frames: the true lengths of videos."""
    vggface2: str = "weights/resnet50_ft_dag.pth"
    """Weights file of the ResNet50 of VGGFace2."""
    vggface: str = "weights/vgg_face_dag.pth"
    """Weights file of VGG-Face, the challenge's baseline."""
    resnet50: str = "none"
    """Weights of the row ResNet50: none for random numbers, or imagenet (the paper does not say which)."""
    expr: tuple[str, ...] = ()
    """Rows with expressions, as in [vggface, vggface2+gru]; none here and in `au`: the paper's table of the task."""
    au: tuple[str, ...] = ()
    """Rows with action units."""


@dataclass(frozen=True)
class Config:
    """Everything: what all commands share, and the section of each."""

    task: str | None = None
    """expr, expr8, au or au_f1; nothing means the manifest's."""
    seed: int = _value(0, "at least 0")
    """Of every random number."""
    threads: int | None = _value(None, "at least 1")
    """Of the processor; nothing means SLURM_CPUS_PER_TASK, else the cores this process may use."""
    manifest: str | None = None
    """The manifest's file."""
    cache: str | None = None
    """The cache's folder."""
    out: str | None = None
    """The project's folder: runs, predictions and results are made in it."""
    synth: SynthConfig = field(default_factory=SynthConfig)
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    extract: ExtractConfig = field(default_factory=ExtractConfig)
    train_temporal: TrainTemporalConfig = field(default_factory=TrainTemporalConfig)
    predict: PredictConfig = field(default_factory=PredictConfig)
    ensemble: EnsembleConfig = field(default_factory=EnsembleConfig)
    reproduce: ReproduceConfig = field(default_factory=ReproduceConfig)

    def __post_init__(self) -> None:
        if self.task is not None:
            get_task(self.task)
        _check(self, seed=self.seed >= 0, threads=self.threads is None or self.threads >= 1)


SECTIONS = {
    f.name: f.default_factory for f in dataclasses.fields(Config) if dataclasses.is_dataclass(f.default_factory)
}
"""The sections: name -> dataclass."""


def as_plain(config: object) -> dict[str, Any]:
    """A config, or a section of it, as plain values that YAML and JSON can hold."""
    return {key: _plain(value) for key, value in dataclasses.asdict(config).items()}  # type: ignore[call-overload]


def _plain(value: Any) -> Any:  # noqa: ANN401 - plain values of any type
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value
