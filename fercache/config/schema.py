"""Every default of fercache, once, in frozen dataclasses (training in `training`, SLURM in `cluster`).

The fields of `Config` are shared by all commands; each section belongs to one.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from fercache.config.cluster import SlurmConfig
from fercache.config.fields import Precision, check, config_field
from fercache.config.training import FinetuneConfig, TrainTemporalConfig
from fercache.limits import MOST_HALF_WIDTH, MOST_IMAGE_SIZE, MOST_SEED, MOST_WORKERS
from fercache.tasks import get_task


@dataclass(frozen=True)
class ExtractConfig:
    """The embedding of every frame, written to the cache."""

    weights: str | None = config_field(
        None,
        "Weights of the CNN: a run folder, a weights file, imagenet, or none (random).",
        metavar="RUN|FILE|imagenet|none",
        unset="the run cnn in the folder `out`",
    )
    weights_format: str | None = config_field(
        None,
        "Format of the weights file, for files whose contents do not decide it; the error then lists the formats.",
        metavar="NAME",
        unset="recognised by contents",
    )
    image_size: int | None = config_field(
        None,
        "Side of the square input, in pixels; another than the weights' own only for a raw weights file.",
        within=(48, MOST_IMAGE_SIZE),
        unset="that of the weights",
    )
    # A kill loses the batches that are being computed and written.
    batch_size: int | None = config_field(
        None,
        "Frames per pass of the CNN.",
        within=(1, 512),
        unset="as the cache was begun, else 32 on a CPU (64 up to 128 px), 128 on a GPU",
    )
    backend: Literal["auto", "eager", "compile", "openvino"] = config_field(
        "auto",
        "What runs the CNN: PyTorch (eager), torch.compile or OpenVINO; auto: as the cache was begun, else the fastest "
        "that is installed and repays its start-up time.",
    )
    precision: Precision = config_field(
        "auto",
        "Number format of the computation; auto: as the cache was begun, else bf16 where the device supports it, fp16 "
        "on older GPUs, else fp32.",
    )
    dtype: Literal["float16", "float32"] = config_field(
        "float16", "Number format of the stored embeddings (logits are always float32)."
    )
    bad_frames: Literal["fail", "skip"] | None = config_field(
        None,
        "Frames that cannot be decoded. fail: leave out their video; skip: leave out the frame, and record it.",
        unset="fail; skip in the jobs of `fercache slurm`, where one bad frame must not stop the pipeline",
    )
    workers: int | None = config_field(
        None, "Processes that decode frames.", within=(0, MOST_WORKERS), unset="1 on a CPU, up to 8 with a GPU"
    )

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class PredictConfig:
    """The logits of a model for every frame of a split."""

    model: str | None = config_field(
        None,
        "The model: run folder of a CNN, of a head, or of both trained end to end; or its checkpoint.",
        metavar="RUN|FILE",
        unset="none",
    )
    split: Literal["train", "validation", "test"] = config_field("validation", "Split of the manifest to predict.")
    batch_size: int = config_field(512, "Windows per pass of a head.", within=(1, 100_000))
    allow_missing: bool = config_field(False, "Predict without the videos that the cache lacks, instead of failing.")

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class EnsembleConfig:
    """The weights of several models' probabilities."""

    predictions: tuple[str, ...] = config_field(
        (),
        "Predictions files to combine.",
        unset="validation predictions of the runs cnn, gru and transformer in the folder `out`",
    )
    step: float = config_field(
        0.01,
        "Step of the weights on the search grid.",
        within=(0.001, 1),
        rule="one over a whole number, from 0.001 to 1",
    )
    folds: int = config_field(
        5,
        "Folds of the cross-validated report, made of whole recordings; 0 skips it.",
        within=(0, 1000),
        rule="0, or from 2 to 1000",
    )
    smoothing: tuple[int, ...] = config_field(
        (0,),
        "Half widths, in frames, of a moving average of the probabilities; the best is chosen. [0]: no smoothing.",
        within=(0, MOST_HALF_WIDTH),
        rule=f"one or more half widths, each from 0 to {MOST_HALF_WIDTH}, as in [0, 5, 15]",
    )
    temperatures: bool = config_field(
        False, "Calibrate each model by temperature scaling of its logits (Guo et al. 2017, arXiv:1706.04599)."
    )
    thresholds: bool = config_field(
        True, "Multilabel tasks: choose a threshold for each action unit; false: 0.5 for all."
    )

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

    setting: Literal["steady", "transitions"] = config_field(
        "steady",
        "steady: every frame shows its label; transitions: only the order of frames shows it.",
        rule="steady or transitions",
    )
    train: int = config_field(
        24,
        "Recordings in the training split; one in six shows two people and gives two videos.",
        within=(0, 100_000),
        rule="from 0 to 100000, and one split above 0",
    )
    validation: int = config_field(10, "Recordings in the validation split.", within=(0, 100_000))
    test: int = config_field(4, "Recordings without annotations.", within=(0, 100_000))
    seconds: float = config_field(
        8.0, "Mean length of a recording.", within=(1, 3600), rule="from 1 (transitions: from 3) to 3600"
    )
    fps: float = config_field(
        30.0,
        "Frames per second; 30 is what most of Aff-Wild2 has.",
        within=(5, 120),
        rule="from 5 (transitions: from 10) to 120",
    )
    image_size: int = config_field(112, "Side of the square crops, in pixels.", within=(32, 224))

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
    """The paper's tables: the data, the initial weights of each CNN, and the rows."""

    data: str = config_field(
        "affwild2",
        "Folder with cropped_aligned/ and annotations/; synth: faces drawn as the section `synth` describes.",
        metavar="FOLDER|synth",
    )
    lengths: str | None = config_field(
        None,
        "CSV of video_id,frames: the true lengths of videos.",
        metavar="FILE",
        unset="from labels, else the last image",
    )
    vggface2: str = config_field("weights/resnet50_ft_dag.pth", "Weights of the VGGFace2 ResNet50.", metavar="FILE")
    vggface: str = config_field(
        "weights/vgg_face_dag.pth", "Weights of VGG-Face, the challenge's baseline.", metavar="FILE"
    )
    resnet50: str = config_field(
        "none",
        "Initial weights of the row ResNet50: none (random) or imagenet; the paper does not say which.",
        metavar="none|imagenet|FILE",
    )
    expr: tuple[str, ...] = config_field(
        (), "Rows for expressions: [vggface, vggface2+gru].", unset="none, if `au` is set; else the paper's table"
    )
    au: tuple[str, ...] = config_field(
        (), "Rows for action units.", unset="none, if `expr` is set; else the paper's table"
    )


@dataclass(frozen=True)
class Config:
    """What all commands share, and the section of each."""

    task: str | None = config_field(
        None,
        "What is recognised: expressions or action units, by the rules of which challenge.",
        metavar="NAME",
        unset="that of the manifest",
    )
    seed: int = config_field(0, "Seed of all random numbers.", within=(0, MOST_SEED))
    threads: int | None = config_field(
        None, "CPU threads.", within=(1, 1024), unset="SLURM_CPUS_PER_TASK, else the cores this process may use"
    )
    manifest: str | None = config_field(
        None, "The manifest: the list of videos, splits and labels.", metavar="FILE", unset="none"
    )
    cache: str | None = config_field(
        None, "The cache of embeddings: its folder, or a packed file.", metavar="PATH", unset="none"
    )
    out: str | None = config_field(
        None,
        "The project's folder, in which commands write results that --out does not name.",
        metavar="FOLDER",
        unset="none; --out names each result",
    )
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


def as_plain(config: object) -> dict[str, Any]:
    """A config, or a section of it, as plain values that YAML and JSON can hold."""
    return {key: _plain(value) for key, value in dataclasses.asdict(config).items()}  # type: ignore[call-overload]


def _plain(value: Any) -> Any:  # noqa: ANN401 - plain values of any type
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value
