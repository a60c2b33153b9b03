"""The way of the frames through an extraction: into batches, and back into videos.

Legend: F present frames of a video, B batch, D embedding, C classes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np
import torch

from fercache import runtime
from fercache.cache.journal import Journal
from fercache.cache.reader import Cache
from fercache.cache.rows import Part, as_stored
from fercache.cache.writer import write_video
from fercache.config import ExtractConfig
from fercache.data.datasets import in_order
from fercache.data.frames import JoinedPaths
from fercache.errors import DataError, raise_problems
from fercache.models.backends import device_of, make_backend
from fercache.stages.extract.engine import Behind, Embedded, Extractor, Times
from fercache.stages.extract.plan import Job, Setup

log = logging.getLogger(__name__)

MOST_LOST = 2048
"""Frames that are computed anew after a kill."""
MEASURED_BATCHES = 6
MOST_LINES = 1000
"""Of frames that could not be decoded: they are all named, unless a whole data set is broken."""


@dataclass
class _Open:
    """A video whose frames are on their way."""

    job: Job
    journal: Journal
    coming: int
    """Rows that have not come yet."""
    unreadable: dict[int, str] = field(default_factory=dict)
    """Row -> what is wrong with the frame."""
    not_finite: list[int] = field(default_factory=list)
    """Numbers of frames whose embedding or logits the stored types cannot hold."""


class Extraction:
    """The videos that are missing, from their frames to their files."""

    def __init__(self, cache: Cache, setup: Setup, settings: ExtractConfig, extractor: Extractor) -> None:
        self.cache, self.setup, self.settings, self.extractor = cache, setup, settings, extractor
        self.paths = JoinedPaths([job.frames.path for job in setup.jobs])
        self.times = extractor.times
        # Two more batches are in the network's hands.
        self.behind = Behind(self.times, max(1, MOST_LOST // setup.batch_size - 2))
        self.open: dict[int, _Open] = {}
        self.frames = self.videos = 0
        """Frames that were computed, videos that were written."""
        self.skipped: list[str] = []
        self.left_out: list[str] = []

    def run(self, stop: runtime.StopFlag) -> None:
        """Extract all; Stopped after a signal, when everything that was computed is saved."""
        loader = self.extractor.decoded(self.paths, self.batches(), self.settings.workers)
        self.times.restart()
        total = -(-self.setup.missing // self.setup.batch_size)
        try:
            try:
                for result in self.extractor.run(runtime.progress(loader, "extract", total), stop):
                    self.take(result)
            finally:
                self.behind.settle()
        finally:
            self.behind.close()
            with ExitStack() as closing:
                for video in self.open.values():
                    closing.callback(video.journal.close)
            rate = self.frames / self.times.elapsed
            log.info("%d frames in %.1f s, %.1f a second: %s", self.frames, self.times.elapsed, rate, self.times)

    def batches(self) -> Iterator[list[int]]:
        """Places in `paths`, across the borders of videos; a video is begun when its turn comes."""
        batch: list[int] = []
        for number in range(len(self.setup.jobs)):
            for row in self._begin(number):
                batch.append(int(self.paths.start[number]) + int(row))
                if len(batch) == self.setup.batch_size:
                    yield batch
                    batch = []
        if batch:
            yield batch

    def take(self, result: Embedded) -> None:
        """Hand a batch's rows to their videos, and end those that have all."""
        owners = [self.paths.part(place) for place in result.place]
        for number in dict.fromkeys(owners):
            own = np.flatnonzero(np.asarray(owners) == number)
            self._add(number, result.place[own], result.embedding[own], result.logits[own])
        for place, message in result.failures.items():
            video = self.open[number := self.paths.part(place)]
            video.unreadable[place - int(self.paths.start[number])] = message
            video.coming -= 1
        self.frames += len(owners)
        for number in [number for number, video in self.open.items() if not video.coming]:
            self._end(number)

    def tell(self) -> None:
        """Say what became of the videos; DataError with those that were left out."""
        log.info("%s: %d videos written", self.cache.path, self.videos)
        if self.skipped:
            lines = [*self.skipped[:MOST_LINES], *([] if len(self.skipped) <= MOST_LINES else ["..."])]
            log.warning("%d frames could not be decoded and were skipped:\n%s", len(self.skipped), "\n".join(lines))
        raise_problems(self.left_out, DataError, most=MOST_LINES)

    def _begin(self, number: int) -> np.ndarray:
        """Begin a video, where no other process has finished it meanwhile; returns the rows that are missing."""
        job = self.setup.jobs[number]
        if self.cache.has(job.video.video_id):
            return np.empty(0, int)
        journal = Journal.begin(
            self.cache.file(job.video.video_id),
            self.setup.record.provenance,
            self.setup.shape,
            job.frames.number,
            job.frames.digest(0) if len(job.frames.path) else "",
        )
        missing = np.flatnonzero(~journal.there)
        self.open[number] = _Open(job, journal, len(missing))
        if not len(missing):
            self._end(number)
        return missing

    def _add(self, number: int, places: np.ndarray, embedding: np.ndarray, logits: np.ndarray) -> None:
        """Journal rows of one video, (n, D) and (n, C)."""
        video, shape = self.open[number], self.setup.shape
        rows = (places - self.paths.start[number]).astype(np.int32)
        kept_logits = None if shape.classes is None else logits
        stored, bad = as_stored(embedding, kept_logits, shape.dtype)
        video.not_finite += video.job.frames.number[rows[bad]].tolist()
        video.coming -= len(rows)
        part = Part(rows[~bad], stored[~bad], None if kept_logits is None else kept_logits[~bad])
        self.behind.call(video.journal.append, part)

    def _end(self, number: int) -> None:
        """A video has all its rows: write it, or leave it out."""
        video = self.open.pop(number)
        video_id, dtype = video.job.video.video_id, self.setup.shape.dtype
        problems = [f"{video_id}: left out: {message}" for _, message in sorted(video.unreadable.items())]
        if self.settings.bad_frames == "skip":
            self.skipped += [message for _, message in sorted(video.unreadable.items())]
            problems = []
        if video.not_finite:
            which = f"{len(video.not_finite)} frames, the first is {min(video.not_finite)}"
            problems.append(f"{video_id}: left out: embeddings or logits that are not finite in {dtype}: {which}")
        self.left_out += problems
        if problems:
            # The rows stay, so that only the bad frames have to be done once they are mended.
            self.behind.call(video.journal.close)
        else:
            self.behind.call(self._write, video)
            self.videos += 1

    def _write(self, video: _Open) -> None:
        frames, journal = video.job.frames, video.journal
        there = np.ones(len(frames.path), bool)
        there[list(video.unreadable)] = False
        first = np.flatnonzero(there)[:1]
        # A row that is neither in the journal nor known to be unreadable is an error there.
        write_video(
            self.cache.file(video.job.video.video_id),
            self.setup.record.provenance,
            self.setup.shape,
            frames.number,
            there,
            journal.parts(),
            source=frames.digest(int(first[0])) if len(first) else "",
        )
        journal.remove()


def measure(setup: Setup, settings: ExtractConfig, stop: runtime.StopFlag) -> tuple[float | None, list[str]]:
    """Frames/s of the first batches of the missing videos, and what is wrong with those that cannot be decoded."""
    paths = JoinedPaths([job.frames.path for job in setup.jobs])
    batches = in_order(range(min(len(paths), MEASURED_BATCHES * setup.batch_size)), setup.batch_size)
    extractor = make_extractor(setup)
    loader, times = extractor.decoded(paths, iter(batches), settings.workers), extractor.times
    times.restart()
    results = list(extractor.run(loader, stop))
    frames = sum(len(result.place) for result in results)
    unreadable = [message for result in results for message in result.failures.values()]
    return (frames / times.elapsed if frames else None), unreadable


def make_extractor(setup: Setup) -> Extractor:
    """The network in the form of its backend, warmed up; ConfigError where that cannot run here."""
    device, size = device_of(setup.backend), setup.weights.preprocessing.image_size
    network = setup.weights.network().eval()
    precision = setup.record.provenance.precision
    embed = make_backend(setup.backend, network.backbone, setup.batch_size, size, precision, setup.threads)
    network.classifier.to(device)  # the backbone is there already, in its frozen form
    with torch.no_grad():
        embed(torch.zeros(setup.batch_size, 3, size, size, device=device))
    # OpenVINO's own threads fill the processor; torch's would wait for their turn at each step.
    threads = 1 if setup.backend == "openvino" else setup.threads
    return Extractor(embed, network, setup.weights.preprocessing, setup.batch_size, device, threads, Times())
