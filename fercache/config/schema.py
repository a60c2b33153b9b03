"""Every default of fercache, once, in frozen dataclasses: those of training stand in `training`.

The sections are of one command each; what all commands share stands in `Config`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from fercache.config.cluster import SlurmConfig
from fercache.config.fields import Precision, check, number, value
from fercache.config.training import FinetuneConfig, TrainTemporalConfig
from fercache.limits import MOST_HALF_WIDTH, MOST_IMAGE_SIZE, MOST_SEED, MOST_WORKERS
from fercache.tasks import get_task


@dataclass(frozen=True)
class ExtractConfig:
    """Embeddings of every frame, into the cache."""

    weights: str | None = None
    """A run folder or a weights file; nothing means `out`/cnn."""
    weights_format: str | None = None
    """The weights file's format, where its contents do not decide."""
    image_size: int | None = number(None, 48, MOST_IMAGE_SIZE)
    """Side of the square the network sees, in pixels; nothing means the weights' own. Only a raw weights file may be
    given another."""
    # A kill loses the batches that are being computed and written.
    batch_size: int | None = number(None, 1, 512)
    """Frames a pass of the network; nothing means what the cache was begun with, else 32 on a CPU (64 up to 128 px),
    128 on a GPU."""
    backend: Literal["auto", "eager", "compile", "openvino"] = "auto"
    """What computes: torch, torch.compile or OpenVINO; auto takes what the cache was begun with, else the fastest
    that is installed and pays for the seconds it takes to be made."""
    precision: Precision = "auto"
    """Numbers the network computes in; auto takes what the cache was begun with, else as in training."""
    dtype: Literal["float16", "float32"] = "float16"
    """Numbers the embeddings are stored in (logits are always float32)."""
    bad_frames: Literal["fail", "skip"] | None = value(None, "fail, skip, or nothing")
    """fail: a video with a frame that cannot be decoded is left out; skip: the frame is, and recorded; nothing means
    fail, and skip in the jobs of `fercache slurm`, whose graph would end for one broken frame in millions."""
    workers: int | None = number(None, 0, MOST_WORKERS)
    """Processes that decode frames; nothing means one on a CPU, up to eight with a GPU."""

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class PredictConfig:
    """Logits of a model for every present frame of a split."""

    model: str | None = None
    """Run folder of a CNN or a head."""
    split: Literal["train", "validation", "test"] = "validation"
    """Which videos of the manifest."""
    batch_size: int = number(512, 1, 100_000)
    """Windows a pass of a head."""
    allow_missing: bool = False
    """Go on without the videos that the cache lacks."""

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class EnsembleConfig:
    """Weights of several models' probabilities."""

    predictions: tuple[str, ...] = ()
    """Predictions files; nothing means those of CNN, GRU and Transformer on validation in `out`."""
    step: float = number(0.01, 0.001, 1, "one over a whole number, from 0.001 to 1")
    """Distance of neighbouring weights in the search."""

    folds: int = number(5, 0, 1000, "0, or from 2 to 1000")
    """Parts of the recordings: on all but one is chosen, on that one is scored, in turn; 0 leaves that out."""
    smoothing: tuple[int, ...] = number(
        (0,), 0, MOST_HALF_WIDTH, f"one or more half widths, each from 0 to {MOST_HALF_WIDTH}, as in [0, 5, 15]"
    )
    """Half widths of the box over time, in frames, of which the best is taken; [0] does not smooth."""
    temperatures: bool = False
    """Divide each model's logits by a number of its own, so that its probabilities mean what they say."""
    thresholds: bool = True
    """Choose a threshold for each action unit; else .5."""

    def __post_init__(self) -> None:
        inverse = 1 / self.step if self.step > 0 else 0
        check(
            self,
            step=0.999 < inverse < 1000.001 and abs(inverse - round(inverse)) < 1e-6,
            folds=self.folds != 1,
            smoothing=len(self.smoothing) > 0,
        )


@dataclass(frozen=True)
class SynthConfig:
    """The synthetic data set of expressive faces."""

    setting: Literal["steady", "transitions"] = value("steady", "steady or transitions")
    """steady: a face tells its label in every frame; transitions: only the order of frames tells it."""
    train: int = number(24, 0, 100_000, "from 0 to 100000, and one split above 0")
    """Recordings in the training split; one in six gives two videos."""
    validation: int = number(10, 0, 100_000)
    """Recordings in the validation split."""
    test: int = number(4, 0, 100_000)
    """Recordings without annotations."""
    seconds: float = number(8.0, 1, 3600, "from 1 (transitions: from 3) to 3600")
    """Mean length of a recording."""
    fps: float = number(30.0, 5, 120, "from 5 (transitions: from 10) to 120")
    """Frames per second; 30 is what most of Aff-Wild2 has."""
    image_size: int = number(112, 32, 224)
    """Side of the square crops, in pixels."""

    def __post_init__(self) -> None:
        # Below that a ramp between two expressions has too few labelled frames to show its direction.
        moving = self.setting == "transitions"
        check(
            self,
            setting=self.setting in ("steady", "transitions"),
            train=self.train + self.validation + self.test > 0,
            seconds=self.seconds >= 3 or not moving,
            fps=self.fps >= 10 or not moving,
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
    seed: int = number(0, 0, MOST_SEED)
    """Of every random number."""
    threads: int | None = number(None, 1, 1024)
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
    slurm: SlurmConfig = field(default_factory=SlurmConfig)

    def __post_init__(self) -> None:
        if self.task is not None:
            get_task(self.task)
        check(self)


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
