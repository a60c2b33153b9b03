"""Stage one, second half: the embedding of every frame of every video, into the cache.

Legend: F present frames of a video, B batch, D embedding, C classes.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fercache import runtime
from fercache.cache.journal import remove_useless, rows_left
from fercache.cache.provenance import FILE_NAME, CacheRecord, Provenance, begin_record, read_record
from fercache.cache.reader import Cache
from fercache.config import ExtractConfig
from fercache.data.frames import FrameList
from fercache.data.manifest import Video, read_manifest
from fercache.data.shards import Shard, deal, frames_of, imbalance
from fercache.errors import CacheError, ConfigError, DataError, raise_problems
from fercache.files import contents
from fercache.models.backends import choose_backend, device_of
from fercache.models.weights import FrameWeights, load_weights
from fercache.stages.extraction import Extraction, Job, Setup, measure, source_problem

log = logging.getLogger(__name__)

GPU_BATCH, CPU_BATCH, CPU_SMALL_BATCH = 128, 32, 64
"""Frames a pass of the network, where nothing is said; the last for inputs up to 128 px on a processor."""
FILE_BYTES = 6000
"""Of a video's file beside its rows."""


def extract(
    manifest: Path,
    weights: str,
    cache: Path,
    settings: ExtractConfig | None = None,
    *,
    shard: Shard | None = None,
    task: str | None = None,
    seed: int = 0,
    threads: int | None = None,
) -> Path:
    """Write the embeddings of all videos of `manifest`, or of a shard, that `cache` lacks; returns the cache's folder.

    `weights`: a run folder, a weights file, imagenet or none. Any number of processes may work on one cache; one that
    was stopped or killed is gone on with, inside a video too. A video with a frame that cannot be decoded is left out
    (or the frame, with `bad_frames: skip`); the others are finished, then DataError lists all of them. CacheError where
    the cache is another's or cannot be written.
    """
    settings = settings or ExtractConfig()
    with runtime.stop_signals() as stop:
        runtime.seed_everything(seed)
        given = (manifest, weights, cache, settings, shard or Shard(), task, threads)
        setup = prepare_extraction(*given)
        if begin_record(cache, setup.record) != setup.record:
            setup = prepare_extraction(*given)  # another process has begun the cache meanwhile
        remove_useless(cache)
        log.info(
            "%s: %d of %d videos are there; %d frames to extract",
            *(cache, setup.videos - len(setup.jobs), setup.videos, setup.missing),
        )
        extraction = Extraction(Cache(cache), setup, settings)
        if setup.jobs:
            extraction.run(stop)
    extraction.tell()
    return cache


@dataclass(frozen=True)
class Plan:
    """What an extraction would take."""

    setup: Setup
    bytes_needed: int
    """On the disk of the cache, for what is missing."""
    bytes_free: int
    frames_per_s: float | None
    """Measured on the first frames that are missing; None where none is, or none could be decoded."""
    unreadable: tuple[str, ...]
    """What is wrong with the frames, of those that were measured, that could not be decoded."""

    def __str__(self) -> str:
        setup = self.setup
        done, rate = setup.frames - setup.missing, self.frames_per_s
        needed, free = (f"{count / 1e9:.2f} GB" for count in (self.bytes_needed, self.bytes_free))
        shape, noted = setup.shape, setup.record.noted
        lines = [
            f"videos   {setup.videos}, of which {setup.videos - len(setup.jobs)} are done",
            f"frames   {setup.frames}, of which {done} are done",
            f"disk     {needed} needed in {shape.dtype}, {free} free" + ("" if self.fits else ": TOO LITTLE"),
            f"compute  {noted['backend']}, {setup.record.provenance.precision}, {setup.batch_size} frames a pass,"
            f" {setup.threads} threads, {noted['device']}",
        ]
        if rate:
            lines.append(f"time     {_duration(setup.missing / rate)}, by {rate:.1f} frames/s measured here")
        return "\n".join([*lines, *(f"unreadable: {message}" for message in self.unreadable)])

    @property
    def fits(self) -> bool:
        """Whether the disk has room."""
        return self.bytes_needed <= self.bytes_free


def plan_extraction(
    manifest: Path,
    weights: str,
    cache: Path,
    settings: ExtractConfig | None = None,
    *,
    shard: Shard | None = None,
    task: str | None = None,
    seed: int = 0,
    threads: int | None = None,
) -> Plan:
    """What `extract` would do with the same arguments, and how long it would take; nothing is written.

    The first batches that are missing go through the network and are thrown away.
    """
    settings = settings or ExtractConfig()
    runtime.seed_everything(seed)
    setup = prepare_extraction(manifest, weights, cache, settings, shard or Shard(), task, threads)
    with runtime.stop_signals() as stop:
        rate, unreadable = measure(setup, settings, stop) if setup.missing else (None, [])
    folder = next(place for place in (cache.absolute(), *cache.absolute().parents) if place.exists())
    return Plan(setup, _bytes_needed(setup), shutil.disk_usage(folder).free, rate, tuple(unreadable))


def _bytes_needed(setup: Setup) -> int:
    """The files, and the longest video a second time: its rows lie in a journal until its file is whole."""
    counts = [len(job.frames.path) for job in setup.jobs]
    return setup.shape.row_bytes * (sum(counts) + max(counts, default=0)) + FILE_BYTES * len(counts)


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes >= 60 else f"{seconds / 60:.1f} min"


def prepare_extraction(
    manifest: Path,
    weights: str,
    cache: Path,
    settings: ExtractConfig,
    shard: Shard,
    task: str | None,
    threads: int | None,
) -> Setup:
    """Check everything that was given, and resolve what is `auto`; writes nothing."""
    runtime.keep_freed_memory()
    threads = runtime.use_threads(threads)
    videos = _of_shard(read_manifest(manifest, task, frames=True).videos, shard)
    loaded = _load(weights, settings)
    frames = _list_frames(videos)
    before = _read_begun(cache)
    noted = before.noted if before else {}
    provenance = _provenance(loaded, settings, before)
    if before and before.provenance != provenance:
        found = "; ".join(before.provenance.differences(provenance))
        raise CacheError(f"{cache}: holds another cache: {found}")
    jobs = _what_is_missing(Cache(cache), videos, frames) if before else _jobs(cache, videos, frames)
    missing = sum(len(job.frames.path) - job.left for job in jobs)
    size = loaded.preprocessing.image_size
    choice = choose_backend(settings.backend, noted.get("backend"), missing, size, runtime.device())
    device = device_of(choice.name)
    on_cpu = CPU_SMALL_BATCH if size <= 128 else CPU_BATCH
    standard = noted.get("batch_size", GPU_BATCH if device.type == "cuda" else on_cpu)
    now = {
        "backend": choice.name,
        "batch_size": settings.batch_size or standard,
        "threads": threads,
        "device": device.type,
    }
    log.info("backend %s, %s: %s", choice.name, provenance.precision, choice.reason)
    _compare_noted(cache, noted or now, now)
    return Setup(
        weights=loaded,
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
        if loaded.task is not None:
            raise ConfigError(f"image_size: found {settings.image_size}, but {weights} was fine-tuned at {own}")
        log.info("image_size: %d instead of the weights' %d", settings.image_size, own)
    return loaded.with_image_size(settings.image_size)


def _read_begun(cache: Path) -> CacheRecord | None:
    """The record of the cache that is there; CacheError where something else is."""
    if cache.is_file():
        raise CacheError(f"{cache}: is a file, expected a folder (a packed cache is not added to)")
    if (cache / FILE_NAME).exists():
        return read_record(cache)
    if contents(cache):
        raise CacheError(f"{cache}: is not empty and is no cache; choose another folder")
    return None


def _provenance(loaded: FrameWeights, settings: ExtractConfig, before: CacheRecord | None) -> Provenance:
    return Provenance(
        weights=loaded.backbone_digest,
        classifier=loaded.classifier_digest,
        task=loaded.task,
        architecture=loaded.architecture.name,
        preprocessing=loaded.preprocessing.as_plain(),
        precision=runtime.resolve_precision(settings.precision, before and before.provenance.precision),
        dtype=settings.dtype,
    )


def _compare_noted(cache: Path, begun: dict[str, object], now: dict[str, object]) -> None:
    """Refuse another backend than the cache was begun with; warn of what else may change the last bits."""
    if begun.get("backend") != now["backend"]:
        raise CacheError(f"{cache}: was begun with backend {begun.get('backend')}, found {now['backend']}")
    for key in ("batch_size", "threads", "device"):
        if begun.get(key) != now[key]:
            log.warning(
                "%s: begun with %s %s, goes on with %s: last bits may differ", cache, key, begun.get(key), now[key]
            )


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


def _jobs(cache: Path, videos: Sequence[Video], frames: Sequence[FrameList]) -> list[Job]:
    return [
        Job(video, found, min(len(found.path), rows_left(cache / f"{video.video_id}.h5")))
        for video, found in zip(videos, frames, strict=True)
    ]


def _what_is_missing(cache: Cache, videos: Sequence[Video], frames: Sequence[FrameList]) -> list[Job]:
    """The videos that the cache lacks.

    Raises CacheError with all files that are of another cache, or hold other frames (of another data
    set, or from before frames were added).
    """
    missing, problems = [], []
    for video, found in zip(videos, frames, strict=True):
        try:
            if not cache.has(video.video_id):
                missing += _jobs(cache.path, [video], [found])
            elif problem := source_problem(cache, video, found):
                problems.append(f"{problem}; remove the file to extract anew, or take another cache")
        except (CacheError, DataError) as error:
            problems += str(error).splitlines()
    raise_problems(problems, CacheError)
    return missing
