"""What an extraction has to do: everything that was given, checked and resolved before anything is written.

Legend: F present frames of a video.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fercache import runtime
from fercache.cache.journal import begun_videos, header_of, journal_path, rows_left
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
class Job:
    """A video that is to be extracted, and its frames."""

    video: Video
    frames: FrameList
    left: int
    """Rows that an earlier process left for it."""


@dataclass(frozen=True)
class Setup:
    """What an extraction will do, with all that was given checked; nothing is written yet."""

    weights: FrameWeights
    shape: Shape
    record: CacheRecord
    backend: str
    batch_size: int
    threads: int
    videos: int
    frames: int
    """Present frames of all these videos."""
    jobs: tuple[Job, ...]
    """The videos that the cache lacks."""

    @property
    def missing(self) -> int:
        """Frames that have to be computed."""
        return sum(len(job.frames.path) - job.left for job in self.jobs)


def prepare_extraction(
    manifest: Path,
    weights: str,
    cache: Path,
    settings: ExtractConfig,
    shard: Shard,
    task: str | None,
    seed: int,
    threads: int | None,
) -> Setup:
    """Check everything that was given, and resolve what is `auto`; writes nothing."""
    runtime.keep_freed_memory()
    threads = runtime.configure_torch(threads)
    runtime.seed_everything(seed)
    every = read_manifest(manifest, task, frames=True).videos
    videos = _of_shard(every, shard)
    _check_names(cache, videos)
    loaded = _load(weights, settings)
    frames = _list_frames(videos)
    before = _read_begun(cache)
    noted = _checked(cache, before.recorded) if before else {}
    size = loaded.preprocessing.image_size
    # By the whole manifest: what one shard takes all the others have to take.
    work = sum(map(frames_of, every))
    choice = choose_backend(settings.backend, noted.get("backend"), work, size, runtime.device())
    device = device_of(choice.name)
    provenance = _provenance(loaded, settings, before, device)
    if before and before.provenance != provenance:
        found = "; ".join(before.provenance.differences(provenance))
        raise CacheError(f"{cache}: contains a different cache: {found}; choose another folder, or remove this one")
    shape = _shape(loaded, provenance)
    missing = _what_is_missing(Cache(cache), videos, frames) if before else list(zip(videos, frames, strict=True))
    begun = begun_videos(cache)
    jobs = [Job(video, found, _rows_begun(cache, begun, video, found, provenance, shape)) for video, found in missing]
    standard = noted.get("batch_size", standard_batch_size(device, size))
    now = {
        "backend": choice.name,
        "batch_size": settings.batch_size or standard,
        "threads": threads,
        "device": device.type,
        FILE_DIGEST: _file_digest(loaded),
    }
    log.info("backend %s, %s: %s", choice.name, provenance.precision, choice.reason)
    if before:
        _compare_noted(cache, noted, now)
    return Setup(
        weights=loaded,
        shape=shape,
        record=before or CacheRecord(provenance, now),
        backend=choice.name,
        batch_size=now["batch_size"],
        threads=threads,
        videos=len(videos),
        frames=sum(len(found.path) for found in frames),
        jobs=tuple(jobs),
    )


def _of_shard(videos: Sequence[Video], shard: Shard) -> list[Video]:
    if shard.count == 1:
        return list(videos)
    shards = deal(videos, shard.count)
    own = shards[shard.number - 1]
    log.info(
        "shard %s: %d of %d videos, %d frames; the longest shard is %.1f %% over the mean",
        *(shard, len(own), len(videos), sum(map(frames_of, own)), 100 * imbalance(shards)),
    )
    return own


def _load(weights: str, settings: ExtractConfig) -> FrameWeights:
    loaded = load_weights(weights, form=settings.weights_format)
    own = loaded.preprocessing.image_size
    if settings.image_size not in (None, own):
        if loaded.tuned:
            raise ConfigError(f"image_size: found {settings.image_size}, but {weights} was fine-tuned at {own}")
        log.info("image_size: %d instead of the weights' %d", settings.image_size, own)
    return loaded.with_image_size(settings.image_size)


def _read_begun(cache: Path) -> CacheRecord | None:
    """The record of the cache that is there; CacheError where something else is."""
    if cache.is_file():
        raise CacheError(f"{cache}: is a file, expected a folder (a packed cache is not added to)")
    if (cache / PROVENANCE_FILE).exists():
        return read_record(cache)
    refuse_other_contents(cache, f"a cache ({PROVENANCE_FILE})", CacheError)
    return None


def _provenance(
    loaded: FrameWeights, settings: ExtractConfig, before: CacheRecord | None, device: torch.device
) -> Provenance:
    return Provenance(
        weights=loaded.backbone_digest,
        classifier=loaded.classifier_digest,
        task=loaded.task,
        architecture=loaded.backbone.name,
        preprocessing=loaded.preprocessing.as_plain(),
        precision=runtime.resolve_precision(settings.precision, before and before.provenance.precision, device),
        dtype=settings.dtype,
    )


def _checked(cache: Path, begun: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a cache was begun with, if it is something that could have been."""
    batch_size = begun.get("batch_size")
    if begun.get("backend") not in BACKENDS or not isinstance(batch_size, int) or not 1 <= batch_size <= 512:
        raise CacheError(
            f"{cache / PROVENANCE_FILE}: was edited: recorded has no backend, or no batch_size from 1 to 512"
        )
    return begun


def _compare_noted(cache: Path, begun: Mapping[str, object], now: Mapping[str, object]) -> None:
    """Refuse another backend than the cache was begun with; warn of what else may change the last bits."""
    if begun.get("backend") != now["backend"]:
        raise CacheError(f"{cache}: was begun with backend {begun.get('backend')}, found {now['backend']}")
    for key in ("batch_size", "threads", "device"):
        if begun.get(key) != now[key]:
            log.warning(
                "%s: begun with %s %s, resuming with %s: last bits may differ", cache, key, begun.get(key), now[key]
            )


def _list_frames(videos: Sequence[Video]) -> list[FrameList]:
    """The frames of each video; DataError with all folders that cannot be used."""
    found, problems = [], []
    for video in videos:
        try:
            found.append(video.frames())
        except DataError as error:
            problems += error.problems
    raise_problems(problems, DataError)
    return found


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


def _rows_begun(
    cache: Path,
    begun: Mapping[str, Sequence[Path]],
    video: Video,
    frames: FrameList,
    provenance: Provenance,
    shape: Shape,
) -> int:
    """How many of a video's rows an earlier process left."""
    file = cache / f"{video.video_id}.h5"
    if file.name not in begun:
        return 0
    return rows_left(begun[file.name], header_of(file, provenance, shape, frames.number, frames.digest(0)))


def _what_is_missing(
    cache: Cache, videos: Sequence[Video], frames: Sequence[FrameList]
) -> list[tuple[Video, FrameList]]:
    """The videos that the cache lacks, with their frames.

    Raises CacheError with all files that are of another cache, or hold other frames (of another data
    set, or from before frames were added).
    """
    missing, problems, skipped = [], [], 0
    for video, found in zip(videos, frames, strict=True):
        try:
            if not cache.has(video.video_id):
                missing.append((video, found))
            elif problem := source_problem(cache, video.video_id, found, video.frames_dir):
                problems.append(f"{problem} Remove the file to extract anew, or take another cache")
            else:
                skipped += cache.entry(video.video_id).skipped_count
        except (CacheError, DataError) as error:
            problems += error.problems
    raise_problems(problems, CacheError)
    if skipped:
        log.warning("%s: lacks %d frames of finished videos, which could not be decoded", cache.path, skipped)
    return missing
