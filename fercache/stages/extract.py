"""Stage one, second half: the embedding of every frame of every video, into the cache.

Legend: F present frames of a video, B batch, D embedding, C classes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from fercache import runtime
from fercache.cache.provenance import FILE_NAME, Provenance, read_provenance, read_recorded, write_provenance
from fercache.cache.reader import Cache
from fercache.cache.writer import video_writer
from fercache.config import ExtractConfig
from fercache.data.datasets import FrameBatch, frame_loader, in_order
from fercache.data.frames import FrameList
from fercache.data.manifest import Video, read_manifest
from fercache.errors import CacheError, ConfigError, DataError, raise_problems
from fercache.files import contents
from fercache.models.frame_network import FrameNetwork
from fercache.models.preprocessing import Preprocessing, filled, prepare
from fercache.models.weights import FrameWeights, load_weights

log = logging.getLogger(__name__)

BACKEND = "eager"
Work = tuple[Video, FrameList]
"""A video that is to be extracted, and its frames."""


def extract(
    manifest: Path,
    weights: str,
    cache: Path,
    settings: ExtractConfig | None = None,
    *,
    task: str | None = None,
    seed: int = 0,
    threads: int | None = None,
) -> Path:
    """Write the embeddings of all videos of `manifest` that `cache` lacks; returns the cache's folder.

    `weights`: a run folder, a weights file, imagenet or none. A video with a frame that cannot be decoded is left out;
    the others are finished, then DataError lists all of them. CacheError where the cache is another's or cannot be
    written.
    """
    settings = settings or ExtractConfig()
    threads = runtime.use_threads(threads)
    videos = read_manifest(manifest, task, frames=True).videos
    runtime.seed_everything(seed)
    loaded = _load(weights, settings)
    frames = _list_frames(videos)
    provenance = _begin(cache, loaded, settings, threads)
    reader = Cache(cache)
    work = _what_is_missing(reader, videos, frames)
    total = sum(len(found.path) for _, found in work)
    log.info("%s: %d of %d videos are there; %d frames to extract", cache, len(videos) - len(work), len(videos), total)
    classes = None if loaded.classifier is None else len(loaded.classifier["bias"])
    network = loaded.network().to(runtime.device(), memory_format=torch.channels_last).eval()
    extractor = Extractor(network, loaded.preprocessing, provenance.precision, settings.batch_size)
    dim, problems = loaded.architecture.embedding_dim, []
    with runtime.stop_signals() as stop:
        paths = [path for _, found in work for path in found.path]
        stream = _RowStream(extractor.run(paths, runtime.decoding_workers(settings.workers), stop))
        for video, found in work:
            try:
                _extract_video(reader, video, found, stream, provenance, dim, classes)
            except DataError as error:
                problems += [f"{video.video_id}: left out: {line}" for line in str(error).splitlines()]
    log.info("%s: %d videos written", cache, len(work) - len({line.partition(":")[0] for line in problems}))
    raise_problems(problems, DataError)
    return cache


def _load(weights: str, settings: ExtractConfig) -> FrameWeights:
    loaded = load_weights(weights, form=settings.weights_format)
    own = loaded.preprocessing.image_size
    if settings.image_size not in (None, own):
        if loaded.task is not None:
            raise ConfigError(f"image_size: found {settings.image_size}, but {weights} was fine-tuned at {own}")
        log.info("image_size: %d instead of the weights' %d", settings.image_size, own)
    return loaded.with_image_size(settings.image_size)


def _begin(cache: Path, loaded: FrameWeights, settings: ExtractConfig, threads: int) -> Provenance:
    """The record of the cache: written, or compared with the one that is there."""
    before = read_provenance(cache) if (cache / FILE_NAME).exists() else None
    if before is None and contents(cache):
        raise CacheError(f"{cache}: is not empty and is no cache; choose another folder")
    provenance = Provenance(
        weights=loaded.backbone_digest,
        classifier=loaded.classifier_digest,
        task=loaded.task,
        architecture=loaded.architecture.name,
        preprocessing=loaded.preprocessing.as_plain(),
        precision=runtime.resolve_precision(settings.precision, before and before.precision),
        dtype=settings.dtype,
    )
    noted = {"backend": BACKEND, "batch_size": settings.batch_size, "threads": threads}
    if before is None:
        write_provenance(cache, provenance, noted)
    elif before.fingerprint != provenance.fingerprint:
        found = "; ".join(before.differences(provenance))
        raise CacheError(f"{cache}: holds another cache: {found}")
    else:
        begun = read_recorded(cache)
        for key in ("batch_size", "threads"):
            if begun.get(key) != noted[key]:
                log.warning(
                    "%s: begun with %s %s, goes on with %s: last bits may differ",
                    cache,
                    key,
                    begun.get(key),
                    noted[key],
                )
    return provenance


def _list_frames(videos: Sequence[Video]) -> list[FrameList]:
    """The frames of each video; DataError with all folders that cannot be used."""
    found, problems = [], []
    for video in videos:
        try:
            found.append(video.frames())
        except DataError as error:
            problems += str(error).splitlines()
    raise_problems(problems, DataError)
    return found


def _what_is_missing(cache: Cache, videos: Sequence[Video], frames: Sequence[FrameList]) -> list[Work]:
    """The videos that the cache lacks, with their frames.

    Raises CacheError with all files that are of another cache, or hold other frames (of another data
    set, or from before frames were added).
    """
    missing, problems = [], []
    for video, found in zip(videos, frames, strict=True):
        try:
            if not cache.has(video.video_id):
                missing.append((video, found))
            elif not np.array_equal(cache.frame(video.video_id), found.number):
                there = len(cache.frame(video.video_id))
                problems.append(
                    f"{cache.path(video.video_id)}: its {there} frames are not the {len(found.path)} that"
                    f" {video.frames_dir} has: another data set? Remove the file to extract anew, or take another cache"
                )
        except CacheError as error:
            problems += str(error).splitlines()
    raise_problems(problems, CacheError)
    return missing


@dataclass(frozen=True)
class Rows:
    """Consecutive frames' results. A frame that could not be decoded has zeros, and stands in `failures`."""

    embedding: np.ndarray
    """float32 (B, D)."""
    logits: np.ndarray
    """float32 (B, C)."""
    failures: dict[int, str]
    """Row -> what is wrong."""

    def __len__(self) -> int:
        return len(self.embedding)

    def part(self, start: int, end: int) -> Rows:
        """Rows start to end."""
        failures = {row - start: text for row, text in self.failures.items() if start <= row < end}
        return Rows(self.embedding[start:end], self.logits[start:end], failures)


@dataclass(frozen=True)
class Extractor:
    """The network over a stream of frames, in batches that are always full.

    A batch crosses the borders of videos, and the last is filled up: the same number of rows goes
    through the network each time, so that a frame's bits do not depend on its place.
    """

    network: FrameNetwork
    record: Preprocessing
    precision: str
    batch_size: int

    def run(self, paths: list[str], workers: int, stop: runtime.StopFlag) -> Iterator[Rows]:
        """The results of all frames in their order."""
        pin = runtime.device().type == "cuda"
        loader = frame_loader(paths, in_order(range(len(paths)), self.batch_size), workers, pin=pin)
        for batch in runtime.progress(loader, "extract", len(loader)):
            stop.check()
            yield self.rows(batch)

    @torch.inference_mode()
    def rows(self, batch: FrameBatch) -> Rows:
        """The results of one batch."""
        count = len(batch.index) + len(batch.failures)
        first = min([*batch.index.tolist(), *batch.failures])
        failures = {index - first: text for index, text in batch.failures.items()}
        classifier = self.network.classifier
        embedding = np.zeros((count, classifier.in_features), np.float32)
        logits = np.zeros((count, classifier.out_features), np.float32)
        if len(batch.index):
            inputs = filled(prepare(batch.to(runtime.device()), self.record), self.batch_size)
            with runtime.autocast(self.precision):
                embedded = self.network.embed(inputs.contiguous(memory_format=torch.channels_last))  # (batch_size, D)
            kept = batch.index.numpy() - first
            embedding[kept] = embedded[: len(kept)].float().cpu().numpy()
            logits[kept] = self.network.classify(embedded)[: len(kept)].cpu().numpy()
        return Rows(embedding, logits, failures)


class _RowStream:
    """Batches of rows, taken by the number of frames of each video."""

    def __init__(self, batches: Iterator[Rows]) -> None:
        self.batches, self.rest = batches, None

    def take(self, count: int) -> Iterator[Rows]:
        """The next `count` rows, in parts."""
        while count:
            rows = self.rest if self.rest is not None else next(self.batches)
            used = min(count, len(rows))
            self.rest = rows.part(used, len(rows)) if used < len(rows) else None
            count -= used
            yield rows.part(0, used)


def _extract_video(
    cache: Cache,
    video: Video,
    found: FrameList,
    stream: _RowStream,
    provenance: Provenance,
    dim: int,
    classes: int | None,
) -> None:
    """Write one video's file; DataError with all of its frames that could not be decoded."""
    path = cache.path(video.video_id)
    failures: list[str] = []
    parts = stream.take(len(found.path))
    with video_writer(path, provenance.fingerprint, found.number, dim, provenance.dtype, classes) as writer:
        try:
            for rows in parts:
                failures += rows.failures.values()
                writer.append(rows.embedding, rows.logits if classes is not None else None)
        except DataError:
            for _ in parts:  # the next video begins behind this one's rows
                pass
            raise
        raise_problems(failures, DataError)
