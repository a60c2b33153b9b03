"""What an extraction has to do: all inputs checked and all settings resolved before anything is written.

Legend: F present frames of a video.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fercache import runtime
from fercache.cache.journal import begun_videos, header_of, journal_path, saved_rows
from fercache.cache.provenance import FILE_DIGEST, PROVENANCE_FILE, CacheRecord, Provenance, read_record
from fercache.cache.reader import Cache
from fercache.cache.rows import Shape
from fercache.cache.verify import source_problem
from fercache.config import ExtractConfig
from fercache.data.frames import FrameList
from fercache.data.manifest import Video, read_manifest
from fercache.data.shards import Shard, deal, frames_of, imbalance
from fercache.errors import CacheError, ConfigError, DataError, raise_problems
from fercache.files import refuse_other_contents, sha256_of
from fercache.models.backends import BACKENDS, choose_backend, device_of, standard_batch_size
from fercache.models.weights import FrameWeights, load_weights

log = logging.getLogger(__name__)

MOST_NAME_BYTES = 255
"""Of a file's name, on the file systems that are in use."""


@dataclass(frozen=True)
class MissingVideo:
    """A video that the cache lacks."""

    video_id: str
    frames: FrameList
    rows: np.ndarray
    """int64 (n,), ascending: those of the F frames that have to be computed; journals hold the others."""


@dataclass(frozen=True)
class ExtractionSetup:
    """What an extraction will do, with all inputs checked."""

    weights: FrameWeights
    shape: Shape
    record: CacheRecord
    backend: str
    batch_size: int
    threads: int
    videos: int
    frames: int
    """Present frames of all these videos."""
    missing: tuple[MissingVideo, ...]

    @property
    def missing_frames(self) -> int:
        """Frames that have to be computed."""
        return sum(len(video.rows) for video in self.missing)


def prepare_extraction(
    manifest: Path,
    weights: str,
    cache: Path,
    settings: ExtractConfig,
    shard: Shard,
    task: str | None,
    seed: int,
    threads: int | None,
) -> ExtractionSetup:
    """Check all inputs, and resolve what is `auto`; writes nothing."""
    runtime.keep_freed_memory()
    threads = runtime.configure_torch(threads)
    runtime.seed_everything(seed)
    all_videos = read_manifest(manifest, task, frames=True).videos
    videos = _of_shard(all_videos, shard)
    _check_names(cache, videos)
    loaded = _load(weights, settings)
    frames = _list_frames(videos)
    # What the cache was begun with holds for the rest of it, too.
    existing = _read_record(cache)
    recorded = _check_recorded(cache, existing.recorded) if existing else {}
    size = loaded.preprocessing.image_size
    # By the whole manifest: what one shard takes all the others have to take.
    work = sum(map(frames_of, all_videos))
    choice = choose_backend(settings.backend, recorded.get("backend"), work, size, runtime.device())
    device = device_of(choice.name)
    provenance = _provenance(loaded, settings, existing, device)
    log.info("backend %s, %s: %s", choice.name, provenance.precision, choice.reason)
    if existing and existing.provenance != provenance:
        differences = "; ".join(existing.provenance.differences(provenance))
        raise CacheError(
            f"{cache}: contains a different cache: {differences}; choose another folder, or remove this one"
        )
    batch_size = settings.batch_size or recorded.get("batch_size", standard_batch_size(device, size))
    resolved = {
        "backend": choice.name,
        "batch_size": batch_size,
        "threads": threads,
        "device": device.type,
        FILE_DIGEST: _file_digest(loaded),
    }
    if existing:
        _compare_recorded(cache, recorded, resolved)
    shape = _shape(loaded, provenance)
    return ExtractionSetup(
        weights=loaded,
        shape=shape,
        record=existing or CacheRecord(provenance, resolved),
        backend=choice.name,
        batch_size=batch_size,
        threads=threads,
        videos=len(videos),
        frames=sum(len(listed.paths) for listed in frames),
        missing=tuple(_missing_videos(cache, videos, frames, provenance, shape, cache_exists=existing is not None)),
    )


def _of_shard(videos: Sequence[Video], shard: Shard) -> list[Video]:
    if shard.count == 1:
        return list(videos)
    shards = deal(videos, shard.count)
    shard_videos = shards[shard.number - 1]
    log.info(
        "shard %s: %d of %d videos, %d frames; the longest shard is %.1f %% over the mean",
        shard,
        len(shard_videos),
        len(videos),
        sum(map(frames_of, shard_videos)),
        100 * imbalance(shards),
    )
    return shard_videos


def _load(weights: str, settings: ExtractConfig) -> FrameWeights:
    loaded = load_weights(weights, form=settings.weights_format)
    size = loaded.preprocessing.image_size
    if settings.image_size not in (None, size):
        if loaded.tuned:
            raise ConfigError(f"image_size: found {settings.image_size}, but {weights} was fine-tuned at {size}")
        log.info("image_size: %d instead of the weights' %d", settings.image_size, size)
    return loaded.with_image_size(settings.image_size)


def _read_record(cache: Path) -> CacheRecord | None:
    """The record of an existing cache, None where there is none; CacheError where the folder is something else."""
    if cache.is_file():
        raise CacheError(f"{cache}: is a file, expected a folder (a packed cache is not added to)")
    if (cache / PROVENANCE_FILE).exists():
        return read_record(cache)
    refuse_other_contents(cache, f"a cache ({PROVENANCE_FILE})", CacheError)
    return None


def _provenance(
    loaded: FrameWeights, settings: ExtractConfig, existing: CacheRecord | None, device: torch.device
) -> Provenance:
    recorded = existing.provenance.precision if existing else None
    return Provenance(
        weights=loaded.backbone_digest,
        classifier=loaded.classifier_digest,
        task=loaded.task,
        architecture=loaded.backbone.name,
        preprocessing=loaded.preprocessing.as_plain(),
        precision=runtime.resolve_precision(settings.precision, recorded, device),
        dtype=settings.dtype,
    )


def _check_recorded(cache: Path, recorded: Mapping[str, Any]) -> Mapping[str, Any]:
    """The settings that a cache was begun with; CacheError where they are none that fercache writes."""
    batch_size = recorded.get("batch_size")
    if recorded.get("backend") not in BACKENDS or not isinstance(batch_size, int) or not 1 <= batch_size <= 512:
        raise CacheError(
            f"{cache / PROVENANCE_FILE}: was edited: recorded has no backend, or no batch_size from 1 to 512"
        )
    return recorded


def _compare_recorded(cache: Path, recorded: Mapping[str, object], resolved: Mapping[str, object]) -> None:
    """Refuse another backend than the cache was begun with; warn of what else may change the last bits."""
    if recorded.get("backend") != resolved["backend"]:
        raise CacheError(f"{cache}: was begun with backend {recorded.get('backend')}, found {resolved['backend']}")
    for key in ("batch_size", "threads", "device"):
        if recorded.get(key) != resolved[key]:
            log.warning(
                "%s: begun with %s %s, resuming with %s: last bits may differ",
                *(cache, key, recorded.get(key), resolved[key]),
            )


def _list_frames(videos: Sequence[Video]) -> list[FrameList]:
    """The frames of each video; DataError with all folders that cannot be used."""
    frames: list[FrameList] = []
    problems: list[str] = []
    for video in videos:
        try:
            frames.append(video.frames())
        except DataError as error:
            problems += error.problems
    raise_problems(problems, DataError)
    return frames


def _file_digest(loaded: FrameWeights) -> str | None:
    """SHA-256 of the file that the network came from."""
    return None if loaded.origin.file is None else sha256_of(loaded.origin.file)


def _shape(loaded: FrameWeights, provenance: Provenance) -> Shape:
    classes = None if loaded.classifier is None else len(loaded.classifier["bias"])
    return Shape(loaded.backbone.embedding_dim, provenance.dtype, classes)


def _check_names(cache: Path, videos: Sequence[Video]) -> None:
    """Raise DataError with all ids that are too long to be the names of files, journals included."""
    longest = [len(os.fsencode(journal_path(cache / f"{video.video_id}.h5").name)) for video in videos]
    raise_problems(
        [
            f"video_id {video.video_id}: is {length - MOST_NAME_BYTES} bytes too long for the names of its files"
            for video, length in zip(videos, longest, strict=True)
            if length > MOST_NAME_BYTES
        ],
        DataError,
    )


def _missing_videos(
    cache: Path,
    videos: Sequence[Video],
    frames: Sequence[FrameList],
    provenance: Provenance,
    shape: Shape,
    *,
    cache_exists: bool,
) -> list[MissingVideo]:
    """The videos that the cache lacks, with the rows that no journal holds."""
    lacking = list(zip(videos, frames, strict=True))
    if cache_exists:
        lacking = _unfinished(Cache(cache), videos, frames)
    begun = begun_videos(cache)
    missing = []
    for video, listed in lacking:
        file, count = cache / f"{video.video_id}.h5", len(listed.paths)
        saved = np.zeros(count, bool)
        if file.name in begun:
            header = header_of(file, provenance, shape, listed.frame, listed.digest(0) if count else "")
            saved = saved_rows(begun[file.name], header, shape, count)
        missing.append(MissingVideo(video.video_id, listed, np.flatnonzero(~saved)))
    return missing


def _unfinished(cache: Cache, videos: Sequence[Video], frames: Sequence[FrameList]) -> list[tuple[Video, FrameList]]:
    """The videos without a file in the cache, with their frames.

    Raises CacheError with all files that are of another cache, or hold other frames (of another data
    set, or from before frames were added).
    """
    unfinished: list[tuple[Video, FrameList]] = []
    problems: list[str] = []
    skipped = 0
    for video, listed in zip(videos, frames, strict=True):
        try:
            if not cache.has(video.video_id):
                unfinished.append((video, listed))
            elif problem := source_problem(cache, video.video_id, listed, video.frames_dir):
                problems.append(f"{problem} Remove the file to extract anew, or take another cache")
            else:
                skipped += cache.entry(video.video_id).skipped_count
        except (CacheError, DataError) as error:
            problems += error.problems
    raise_problems(problems, CacheError)
    if skipped:
        log.warning("%s: lacks %d frames of finished videos, which could not be decoded", cache.path, skipped)
    return unfinished
