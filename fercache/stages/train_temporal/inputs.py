"""What a head is trained on, checked before anything is written: windows with labels, and the network to begin with.

Legend: F present frames of a split, N windows, L positions, D embedding, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fercache import runtime
from fercache.cache.mapped import MappedRows
from fercache.cache.reader import Cache
from fercache.cache.verify import check_before_use
from fercache.config import TrainTemporalConfig
from fercache.data.frames import FrameList, JoinedPaths
from fercache.data.manifest import Manifest, Video
from fercache.data.time_line import TimeLine, WindowSet
from fercache.errors import CacheError, ConfigError, DataError, raise_problems
from fercache.models.checkpoint import END_TO_END, HEAD, digest, load_run
from fercache.models.heads import get_head
from fercache.models.temporal import EndToEnd, Standardise, TemporalNetwork, network_of
from fercache.models.weights import FrameWeights, load_weights
from fercache.training.sources import CachedRows, OpenedFrames, Source, cached_videos, trained_on

USED_SPLITS = ("train", "validation")
Numbers = Mapping[str, np.ndarray]
"""Video -> the numbers of its present frames, int (F_v,), ascending."""


@dataclass(frozen=True)
class Split:
    """The windows of a split: those to train on, or one around each labelled frame."""

    labels: np.ndarray
    """int8 (F,) or (F, C), of all present frames."""
    windows: WindowSet
    source: Source

    def position_labels(self, rows: np.ndarray, present: np.ndarray, invalid: int) -> torch.Tensor:
        """Of windows whose positions take `rows` (B, L): int8 (B, L) or (B, L, C), `invalid` where one is held."""
        labels = self.labels[rows]
        labels[~present] = invalid
        return torch.from_numpy(labels)

    def middle_labels(self) -> np.ndarray:
        """Of each window, that of its middle: int8 (N,) or (N, C)."""
        return self.labels[np.searchsorted(self.windows.line.position, self.windows.centre)]


@dataclass(frozen=True)
class Inputs:
    """What is trained, and on what."""

    splits: dict[str, Split]
    network: Callable[[], TemporalNetwork]
    """Makes the network that training begins with."""
    check: Callable[[Callable[[], None]], None]
    """Reads everything; raises CacheError for what is wrong. Calls its argument in between, which may raise, too."""
    kind: str
    """Of its checkpoint."""
    header: dict[str, Any]
    """What the checkpoint records of the network's input."""
    values: dict[str, Any]
    """What the run records of all this."""


def from_cache(data: Manifest, settings: TrainTemporalConfig, path: Path) -> Inputs:
    """Windows of the rows of a cache."""
    cache, head = Cache(path), get_head(settings.head)
    if head.sees == "logits" and cache.provenance.task != data.task.name:
        contents = f"logits of task {cache.provenance.task}" if cache.provenance.classifier else "no logits"
        needed = f"head {settings.head} needs the cache of a frame network that was fine-tuned for {data.task.name}"
        raise CacheError(f"{path}: has {contents}; {needed}")
    videos = [video for split in USED_SPLITS for video in data.split(split)]
    cached = cached_videos(cache, videos, settings.allow_missing)
    chosen = {split: [video for video in cached if video.split == split] for split in USED_SPLITS}
    numbers = {video.video_id: cache.frame(video.video_id) for video in cached}
    splits = _splits(data, settings, chosen, numbers)
    rows = {split: MappedRows(cache, windows.line.video_ids, head.sees) for split, (_, windows) in splits.items()}
    width, device = rows["train"].width, runtime.device()

    def network() -> TemporalNetwork:
        standardise = standardised(rows["train"]) if settings.standardise else None
        return TemporalNetwork(head(len(data.task.classes), width), standardise)

    return Inputs(
        splits={
            split: Split(labels, windows, CachedRows(rows[split], device))
            for split, (labels, windows) in splits.items()
        },
        network=network,
        check=lambda stop: check_before_use(cache, list(numbers), embedding=head.sees == "embedding", stop=stop),
        kind=HEAD,
        header={"embedding_dim": width, "provenance": asdict(cache.provenance)},
        values={
            "cache": str(path.resolve()),
            "cache_fingerprint": cache.provenance.fingerprint,
            "missing": sorted({video.video_id for video in videos} - {video.video_id for video in cached}),
        },
    )


def from_frames(data: Manifest, settings: TrainTemporalConfig, seed: int) -> Inputs:
    """Windows of the frames themselves, and the frame network in front of the head."""
    runtime.seed_everything(seed)  # of random weights
    weights = load_weights(str(settings.weights))
    start = _start(data, settings, weights)
    videos = {split: data.split(split) for split in USED_SPLITS}
    frames: dict[str, FrameList] = {}
    problems: list[str] = []
    for video in [video for split in USED_SPLITS for video in videos[split]]:
        try:
            frames[video.video_id] = video.frames()
        except DataError as error:
            problems += error.problems
    raise_problems(problems, DataError)
    splits = _splits(data, settings, videos, {video_id: listed.frame for video_id, listed in frames.items()})
    paths = {split: JoinedPaths([frames[video.video_id].paths for video in videos[split]]) for split in USED_SPLITS}
    sources = {
        split: OpenedFrames(
            split_paths,
            tuple(paths.values()),
            weights.preprocessing,
            settings.crop_scale,
            settings.flip,
            settings.workers,
            seed,
            runtime.device(),
        )
        for split, split_paths in paths.items()
    }

    def network() -> TemporalNetwork:
        begun = start or TemporalNetwork(get_head(settings.head)(len(data.task.classes), width))
        frozen = settings.cnn_lr == 0
        return EndToEnd(
            weights.network().backbone,
            begun.head,
            begun.standardise,
            frozen=frozen,
            checkpointing=settings.checkpointing,
        )

    width = weights.backbone.embedding_dim
    return Inputs(
        splits={split: Split(labels, windows, sources[split]) for split, (labels, windows) in splits.items()},
        network=network,
        check=lambda stop: None,
        kind=END_TO_END,
        header={
            "embedding_dim": width,
            "architecture": weights.backbone.name,
            "preprocessing": weights.preprocessing.as_plain(),
        },
        values={
            "weights_digest": weights.backbone_digest,
            "init_digest": digest(start.state_dict()) if start else None,
        },
    )


def standardised(rows: MappedRows) -> Standardise:
    """With mean and standard deviation of all rows, summed up in float64."""
    total, squares = torch.zeros(2, rows.width, dtype=torch.float64)
    # From the first row on, so that what never changes has a deviation of exactly 0.
    origin = rows.gather(np.zeros(1, np.int64))[0].double()
    for _, block in rows.blocks():
        distance = block.double() - origin
        total += distance.sum(dim=0)
        squares += distance.square().sum(dim=0)
    mean = total / len(rows)
    record = Standardise(rows.width)
    record.set(origin + mean, (squares / len(rows) - mean.square()).clamp(min=0).sqrt())
    return record


def _start(data: Manifest, settings: TrainTemporalConfig, weights: FrameWeights) -> TemporalNetwork | None:
    """The head that `init` names, trained on the cache of this very frame network; None where none is named."""
    if settings.init is None:
        return None
    path = Path(settings.init)
    checkpoint = load_run(path, HEAD)
    expected = {"head": settings.head, "task": data.task.name, "window": settings.window}
    problems = [
        f"{path}: {key}: found {checkpoint[key]!r}, expected {value!r}"
        for key, value in expected.items()
        if checkpoint[key] != value
    ]
    raise_problems(problems, ConfigError)
    made_by = trained_on(path, checkpoint)
    wanted = (weights.backbone_digest, weights.backbone.name, weights.preprocessing.as_plain())
    if (made_by.weights, made_by.architecture, made_by.preprocessing) != wanted:
        raise CacheError(f"{path}: was trained on a cache of another frame network than {settings.weights}")
    return network_of(path, checkpoint)


def _splits(
    data: Manifest, settings: TrainTemporalConfig, videos: Mapping[str, Sequence[Video]], numbers: Numbers
) -> dict[str, tuple[np.ndarray, WindowSet]]:
    """Labels and windows of both splits; DataError with all that is wrong with labels."""
    made: dict[str, tuple[np.ndarray, WindowSet]] = {}
    problems: list[str] = []
    for split in USED_SPLITS:
        try:
            labels = _row_labels(data, split, videos[split], numbers)
        except DataError as error:
            problems += error.problems
            continue
        line = TimeLine.of({video.video_id: numbers[video.video_id] for video in videos[split]}, settings.window)
        counts = data.task.labelled(labels)
        if split == "train":
            centre = line.training_centres(counts, settings.window, settings.stride)
        else:
            centre = line.position[counts]
        made[split] = (labels, WindowSet(line, centre, settings.window))
    raise_problems(problems, DataError)
    return made


def _row_labels(data: Manifest, split: str, videos: Sequence[Video], numbers: Numbers) -> np.ndarray:
    """The labels of all present frames, int8 (F,) or (F, C)."""
    row_labels: list[np.ndarray] = []
    problems: list[str] = []
    for video in videos:
        frame = numbers[video.video_id]
        try:
            if len(frame) and frame[-1] > video.num_frames:
                raise DataError(
                    f"{video.video_id}: has frame {frame[-1]}, but the manifest says {video.num_frames} frames"
                )
            row_labels.append(video.labels(data.task)[frame - 1])
        except DataError as error:
            problems += error.problems
    raise_problems(problems, DataError)
    if not any(data.task.labelled(labels).any() for labels in row_labels):
        raise DataError(f"split {split}: no labelled frame in its {len(videos)} videos")
    return np.concatenate(row_labels)
