"""The way of the frames through an extraction: from the list of what is missing to the files of the cache.

Legend: F present frames of a video, B batch, D embedding, C classes.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial

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
from fercache.stages.extract.engine import BackgroundWriter, EmbeddedBatch, Extractor, StageTimes
from fercache.stages.extract.plan import ExtractionSetup, MissingVideo

log = logging.getLogger(__name__)

MOST_LOST = 2048
"""Frames that a kill loses at most."""
MEASURED_BATCHES = 6
MOST_LINES = 1000
"""Frames named that could not be decoded; more only where a whole data set is broken."""


@dataclass
class _VideoInProgress:
    """A video some of whose rows are computed."""

    video: MissingVideo
    journal: Journal
    remaining: int
    """Rows that have not been computed yet."""
    unreadable: dict[int, str] = field(default_factory=dict)
    """Row -> what is wrong with the frame."""
    not_finite: list[int] = field(default_factory=list)
    """Frames whose embedding or logits the stored types cannot hold."""


class Extraction:
    """The rows that a cache lacks, computed and written video by video."""

    def __init__(self, cache: Cache, setup: ExtractionSetup, settings: ExtractConfig, extractor: Extractor) -> None:
        self.cache, self.setup, self.settings, self.extractor = cache, setup, settings, extractor
        self.paths = JoinedPaths([video.frames.paths for video in setup.missing])
        self.times = extractor.times
        # Two more batches are in the network's hands.
        self.writer = BackgroundWriter(self.times, max(1, MOST_LOST // setup.batch_size - 2))
        self.in_progress: dict[int, _VideoInProgress] = {}
        """By their index in the setup's missing videos."""
        self.frames_computed = self.videos_written = 0
        self.skipped: list[str] = []
        self.left_out: list[str] = []

    def run(self, stop: runtime.StopFlag) -> None:
        """Extract all that is missing; Stopped after a signal, with everything that was computed saved."""
        with self._closing():
            self._write_recovered(stop)
            batches = self.extractor.load(self.paths, self._missing_rows(), self.settings.workers)
            self.times.restart()
            total = -(-self.setup.missing_frames // self.setup.batch_size)
            for embedded in self.extractor.run(runtime.progress(batches, "extract", total), stop):
                self.save(embedded)

    def save(self, embedded: EmbeddedBatch) -> None:
        """Hand a batch's rows to their videos, and write the videos that have all of theirs."""
        owner = np.array([self.paths.part(index) for index in embedded.index], dtype=np.int64)
        for number in dict.fromkeys(owner.tolist()):
            rows = owner == number
            self._save_rows(number, embedded.index[rows], embedded.embedding[rows], embedded.logits[rows])
        for index, message in embedded.failures.items():
            number = self.paths.part(index)
            video = self._video(number)
            video.unreadable[index - int(self.paths.start[number])] = message
            video.remaining -= 1
        self.frames_computed += len(owner)
        for number in [number for number, video in self.in_progress.items() if not video.remaining]:
            self._finish(number)

    def report(self) -> None:
        """Log what became of the videos; DataError with those that were left out."""
        log.info("%s: %d videos written", self.cache.path, self.videos_written)
        if self.skipped:
            lines = [*self.skipped[:MOST_LINES], *([] if len(self.skipped) <= MOST_LINES else ["..."])]
            log.warning("%d frames could not be decoded and were skipped:\n%s", len(self.skipped), "\n".join(lines))
        raise_problems(self.left_out, DataError, most=MOST_LINES)

    @contextmanager
    def _closing(self) -> Iterator[None]:
        """Finish what is written in the background, however the block ends."""
        try:
            try:
                yield
            finally:
                self.writer.settle()
        finally:
            self.writer.close()
            with ExitStack() as journals:
                for video in self.in_progress.values():
                    journals.callback(video.journal.close)
            elapsed = self.times.elapsed
            rate = self.frames_computed / elapsed
            log.info("%d frames in %.1f s, %.1f a second: %s", self.frames_computed, elapsed, rate, self.times)

    def _write_recovered(self, stop: runtime.StopFlag) -> None:
        """Write the videos of which journals hold all rows, and those without any frame."""
        for number, video in enumerate(self.setup.missing):
            if not len(video.rows):
                stop.check()
                self._video(number)
                self._finish(number)

    def _missing_rows(self) -> Iterator[list[int]]:
        """Batches of indices in `paths`, across the borders of videos.

        A loader asks for them one by one: a video that another process has finished by then is skipped.
        """
        indices = (
            int(start) + row
            for start, video in zip(self.paths.start[:-1], self.setup.missing, strict=True)
            if not self.cache.has(video.video_id)
            for row in video.rows.tolist()
        )
        while batch := list(itertools.islice(indices, self.setup.batch_size)):
            yield batch

    def _video(self, number: int) -> _VideoInProgress:
        """A missing video by its index, with its journal begun."""
        if number not in self.in_progress:
            video, frames = self.setup.missing[number], self.setup.missing[number].frames
            journal = Journal.begin(
                self.cache.file(video.video_id),
                self.setup.record.provenance,
                self.setup.shape,
                frames.frame,
                frames.digest(0) if len(frames.paths) else "",
            )
            self.in_progress[number] = _VideoInProgress(video, journal, remaining=len(video.rows))
        return self.in_progress[number]

    def _save_rows(self, number: int, index: np.ndarray, embedding: np.ndarray, logits: np.ndarray) -> None:
        """Append rows of one video, (n, D) and (n, C), to its journal."""
        video, shape = self._video(number), self.setup.shape
        rows = (index - self.paths.start[number]).astype(np.int32)
        kept_logits = None if shape.classes is None else logits
        stored, bad = as_stored(embedding, kept_logits, shape.dtype)
        video.not_finite += video.video.frames.frame[rows[bad]].tolist()
        video.remaining -= len(rows)
        part = Part(rows[~bad], stored[~bad], None if kept_logits is None else kept_logits[~bad])
        self.writer.submit(partial(video.journal.append, part))

    def _finish(self, number: int) -> None:
        """Write a video that has all its rows, or leave it out."""
        video = self.in_progress.pop(number)
        unreadable = [message for _, message in sorted(video.unreadable.items())]
        reasons = []
        if self.settings.bad_frames == "skip":
            self.skipped += unreadable
        else:
            reasons += unreadable
        if video.not_finite:
            frames = f"{len(video.not_finite)} frames, the first is {min(video.not_finite)}"
            reasons.append(f"embeddings or logits that are not finite in {self.setup.shape.dtype}: {frames}")
        if reasons:
            self.left_out += [f"{video.video.video_id}: left out: {reason}" for reason in reasons]
            # The rows stay, so that only the bad frames have to be computed once they are mended.
            self.writer.submit(video.journal.close)
        else:
            self.writer.submit(partial(self._write, video))
            self.videos_written += 1

    def _write(self, video: _VideoInProgress) -> None:
        """Write a video's file from its journal, which is then removed."""
        frames, journal, video_id = video.video.frames, video.journal, video.video.video_id
        present = np.ones(len(frames.paths), bool)
        present[list(video.unreadable)] = False
        first = np.flatnonzero(present)[:1]
        if not self.cache.has(video_id):  # another process may have finished it meanwhile
            # A row that is neither in the journal nor known to be unreadable is an error there.
            write_video(
                self.cache.file(video_id),
                self.setup.record.provenance,
                self.setup.shape,
                frames.frame,
                present,
                journal.parts(),
                source=frames.digest(int(first[0])) if len(first) else "",
            )
        journal.remove()


def measure_extraction(
    setup: ExtractionSetup, settings: ExtractConfig, stop: runtime.StopFlag
) -> tuple[float | None, list[str]]:
    """Frames/s of the first batches of the missing videos, and what is wrong with those that cannot be decoded."""
    paths = JoinedPaths([video.frames.paths for video in setup.missing])
    batches = in_order(range(min(len(paths), MEASURED_BATCHES * setup.batch_size)), setup.batch_size)
    extractor = make_extractor(setup)
    loader, times = extractor.load(paths, batches, settings.workers), extractor.times
    times.restart()
    results = list(extractor.run(loader, stop))
    frames = sum(len(result.index) for result in results)
    unreadable = [message for result in results for message in result.failures.values()]
    return (frames / times.elapsed if frames else None), unreadable


def make_extractor(setup: ExtractionSetup) -> Extractor:
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
    return Extractor(embed, network, setup.weights.preprocessing, setup.batch_size, device, threads, StageTimes())
