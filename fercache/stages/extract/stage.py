"""Stage one, second half: the embedding of every frame of every video, into the cache.

Legend: F present frames of a video, B batch, D embedding, C classes.
"""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fercache import runtime
from fercache.cache.journal import remove_useless
from fercache.cache.provenance import begin_record
from fercache.cache.reader import Cache
from fercache.cache.rows import FILE_BYTES
from fercache.config import ExtractConfig
from fercache.data.shards import Shard
from fercache.errors import ConfigError
from fercache.files import nearest
from fercache.models.backends import device_of
from fercache.stages.extract.plan import ExtractionSetup, prepare_extraction
from fercache.stages.extract.run import Extraction, make_extractor, measure_extraction

log = logging.getLogger(__name__)


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

    `weights`: a run folder, a weights file, imagenet or none. Any number of processes may work on one cache. A run that
    was stopped or killed resumes where it ended, even inside a video. Of several ranks each takes a shard of its own.
    A video with a frame that cannot be decoded is left out (or the frame, with `bad_frames: skip`); the others are
    finished, then DataError lists all of them. CacheError where the cache was made with different settings, or cannot
    be written.
    """
    settings = settings or ExtractConfig()
    prepare = partial(
        prepare_extraction, manifest, weights, cache, settings, _shard_of_rank(shard), task, seed, threads
    )
    with runtime.stop_signals() as stop, runtime.memory_errors(_memory_remedy(settings)):
        setup = prepare()
        stop.check()
        # The record is written once it is certain that this machine can compute what it says.
        extractor = make_extractor(setup)
        stop.check()
        if begin_record(cache, setup.record) != setup.record:
            setup = prepare()  # another process has begun the cache meanwhile
            extractor = make_extractor(setup)
        remove_useless(cache)
        _log_work(cache, setup)
        extraction = Extraction(Cache(cache), setup, settings, extractor)
        if setup.missing:
            extraction.run(stop)
    extraction.report()
    return cache


def _log_work(cache: Path, setup: ExtractionSetup) -> None:
    needed, free = _bytes_needed(setup), _bytes_free(cache)
    if needed > free:
        log.warning("%s: %.2f GB are needed, and %.2f GB free", cache, needed / 1e9, free / 1e9)
    finished = setup.videos - len(setup.missing)
    log.info("%s: %d of %d videos done, %d frames to extract", cache, finished, setup.videos, setup.missing_frames)


def _memory_remedy(settings: ExtractConfig) -> str:
    return "lower batch_size" + (f" (found {settings.batch_size})" if settings.batch_size else " or image_size")


def _shard_of_rank(shard: Shard | None) -> Shard:
    """The `shard`, else all videos; of several ranks its own part, and ConfigError where there is a `shard`, too."""
    ranks = runtime.ranks()
    if shard is not None and ranks.count > 1:
        raise ConfigError(f"--shard: found {shard}, but {ranks.count} ranks deal the videos out among themselves")
    return shard or Shard(ranks.rank + 1, ranks.count)


@dataclass(frozen=True)
class ExtractionPlan:
    """What an extraction would take."""

    setup: ExtractionSetup
    bytes_needed: int
    """On the disk of the cache, for what is missing."""
    bytes_free: int
    frames_per_s: float | None
    """Measured on the first frames of the missing videos; None where none is missing, or none could be decoded."""
    unreadable: tuple[str, ...]
    """What is wrong with the frames of the measurement that could not be decoded."""

    def __str__(self) -> str:
        setup = self.setup
        rate, device = self.frames_per_s, device_of(setup.backend).type
        needed, free = (f"{count / 1e9:.2f} GB" for count in (self.bytes_needed, self.bytes_free))
        shape = setup.shape
        lines = [
            f"videos   {setup.videos}, of which {setup.videos - len(setup.missing)} are done",
            f"frames   {setup.frames}, of which {setup.frames - setup.missing_frames} are done",
            f"disk     {needed} needed in {shape.dtype}, {free} free" + ("" if self.fits else ": TOO LITTLE"),
            f"compute  {setup.backend}, {setup.record.provenance.precision}, {setup.batch_size} frames a pass,"
            f" {setup.threads} threads, {device}",
        ]
        if rate:
            lines.append(f"time     {_duration(setup.missing_frames / rate)}, by {rate:.1f} frames/s measured here")
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
) -> ExtractionPlan:
    """What `extract` would do with the same arguments, and how long it would take; nothing is written.

    The first missing batches go through the network; their results are discarded.
    """
    settings = settings or ExtractConfig()
    setup = prepare_extraction(manifest, weights, cache, settings, shard or Shard(), task, seed, threads)
    with runtime.stop_signals() as stop, runtime.memory_errors(_memory_remedy(settings)):
        rate, unreadable = measure_extraction(setup, settings, stop) if setup.missing_frames else (None, [])
    return ExtractionPlan(setup, _bytes_needed(setup), _bytes_free(cache), rate, tuple(unreadable))


def _bytes_needed(setup: ExtractionSetup) -> int:
    """The files, and the longest video a second time: its rows lie in a journal until its file is whole."""
    counts = [len(video.frames.paths) for video in setup.missing]
    return setup.shape.row_bytes * (sum(counts) + max(counts, default=0)) + FILE_BYTES * len(counts)


def _bytes_free(cache: Path) -> int:
    return shutil.disk_usage(nearest(cache)).free


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes >= 60 else f"{seconds / 60:.1f} min"
