"""Stage one, second half: the embedding of every frame of every video, into the cache.

Legend: F present frames of a video, B batch, D embedding, C classes.
"""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
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
from fercache.stages.extract.plan import Setup, prepare_extraction
from fercache.stages.extract.run import Extraction, make_extractor, measure

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

    `weights`: a run folder, a weights file, imagenet or none. Any number of processes may work on one cache; one that
    was stopped or killed is gone on with, inside a video too. Of several ranks each takes a shard of its own. A video
    with a frame that cannot be decoded is left out (or the frame, with `bad_frames: skip`); the others are finished,
    then DataError lists all of them. CacheError where the cache is another's or cannot be written.
    """
    settings = settings or ExtractConfig()
    with runtime.stop_signals() as stop, runtime.memory_errors(_memory_remedy(settings)):
        given = (manifest, weights, cache, settings, _shard_of_rank(shard), task, seed, threads)
        setup = prepare_extraction(*given)
        stop.check()
        # The record is written once it is sure that this machine can compute what it says.
        extractor = make_extractor(setup)
        stop.check()
        if begin_record(cache, setup.record) != setup.record:
            setup = prepare_extraction(*given)  # another process has begun the cache meanwhile
            extractor = make_extractor(setup)
        remove_useless(cache)
        if (needed := _bytes_needed(setup)) > (free := _bytes_free(cache)):
            log.warning("%s: %.2f GB are needed, and %.2f GB free", cache, needed / 1e9, free / 1e9)
        log.info(
            "%s: %d of %d videos done, %d frames to extract",
            *(cache, setup.videos - len(setup.jobs), setup.videos, setup.missing),
        )
        extraction = Extraction(Cache(cache), setup, settings, extractor)
        if setup.jobs:
            extraction.run(stop)
    extraction.tell()
    return cache


def _memory_remedy(settings: ExtractConfig) -> str:
    return "lower batch_size" + (f" (found {settings.batch_size})" if settings.batch_size else " or image_size")


def _shard_of_rank(shard: Shard | None) -> Shard:
    """The `shard`, else all videos; of several ranks its own part, and ConfigError where there is a `shard`, too."""
    here = runtime.ranks()
    if shard is not None and here.count > 1:
        raise ConfigError(f"--shard: found {shard}, but {here.count} ranks deal the videos out among themselves")
    return shard or Shard(here.rank + 1, here.count)


@dataclass(frozen=True)
class Plan:
    """What an extraction would take."""

    setup: Setup
    bytes_needed: int
    """On the disk of the cache, for what is missing."""
    bytes_free: int
    frames_per_s: float | None
    """Measured on the first frames of the missing videos; None where none is, or none could be decoded."""
    unreadable: tuple[str, ...]
    """What is wrong with the frames, of those that were measured, that could not be decoded."""

    def __str__(self) -> str:
        setup = self.setup
        done, rate = setup.frames - setup.missing, self.frames_per_s
        needed, free = (f"{count / 1e9:.2f} GB" for count in (self.bytes_needed, self.bytes_free))
        shape, device = setup.shape, device_of(setup.backend).type
        lines = [
            f"videos   {setup.videos}, of which {setup.videos - len(setup.jobs)} are done",
            f"frames   {setup.frames}, of which {done} are done",
            f"disk     {needed} needed in {shape.dtype}, {free} free" + ("" if self.fits else ": TOO LITTLE"),
            f"compute  {setup.backend}, {setup.record.provenance.precision}, {setup.batch_size} frames a pass,"
            f" {setup.threads} threads, {device}",
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
    setup = prepare_extraction(manifest, weights, cache, settings, shard or Shard(), task, seed, threads)
    with runtime.stop_signals() as stop, runtime.memory_errors(_memory_remedy(settings)):
        rate, unreadable = measure(setup, settings, stop) if setup.missing else (None, [])
    return Plan(setup, _bytes_needed(setup), _bytes_free(cache), rate, tuple(unreadable))


def _bytes_needed(setup: Setup) -> int:
    """The files, and the longest video a second time: its rows lie in a journal until its file is whole."""
    counts = [len(job.frames.path) for job in setup.jobs]
    return setup.shape.row_bytes * (sum(counts) + max(counts, default=0)) + FILE_BYTES * len(counts)


def _bytes_free(cache: Path) -> int:
    return shutil.disk_usage(nearest(cache)).free


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes >= 60 else f"{seconds / 60:.1f} min"
