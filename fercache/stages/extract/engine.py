"""The engine of extraction: frames through the network in full batches, and a thread that writes meanwhile.

Legend: B frames of a batch, S side of the input, D embedding, C classes.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch

from fercache import runtime
from fercache.data.loader import FrameBatch, FrameLoader
from fercache.models.backends import Embed
from fercache.models.frame_network import FrameNetwork
from fercache.models.preprocessing import Preprocessing, filled, prepare


@dataclass(frozen=True)
class EmbeddedBatch:
    """The results of a batch."""

    index: np.ndarray
    """int64 (B,): the frames that could be decoded, as indices of the loader's paths."""
    embedding: np.ndarray
    """float32 (B, D)."""
    logits: np.ndarray
    """float32 (B, C)."""
    failures: dict[int, str]
    """Index -> what is wrong with a frame that could not be decoded."""


@dataclass
class StageTimes:
    """Seconds that the main thread spent in each stage; what runs in the background does not appear."""

    seconds: dict[str, float] = field(default_factory=dict)
    started: float = field(default_factory=time.perf_counter)

    def restart(self) -> None:
        """Forget what was counted, and count from now on."""
        self.seconds.clear()
        self.started = time.perf_counter()

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self.started

    @contextmanager
    def of(self, stage: str) -> Iterator[None]:
        """Count the block's time."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start

    def __str__(self) -> str:
        whole = self.elapsed
        parts = {**self.seconds, "other": max(0.0, whole - sum(self.seconds.values()))}
        return ", ".join(f"{stage} {seconds / whole:.1%}" for stage, seconds in parts.items())


@dataclass(frozen=True)
class Extractor:
    """The network over a stream of batches.

    Every batch is filled up to the same number of frames, so that a frame's bits do not depend on its neighbours.
    """

    embed: Embed
    network: FrameNetwork
    """For its classifier."""
    record: Preprocessing
    batch_size: int
    device: torch.device
    threads: int
    """Of torch, while it runs."""
    times: StageTimes

    def load(self, paths: Sequence[str], batches: Iterable[list[int]], workers: int | None) -> Iterator[FrameBatch]:
        """Decoded frames, a list of indices of `paths` a batch; loading begins at once."""
        count = runtime.decoding_workers(workers, self.device)
        return iter(FrameLoader(paths, batches, count, pin=self.device.type == "cuda"))

    def run(self, batches: Iterable[FrameBatch], stop: runtime.StopFlag) -> Iterator[EmbeddedBatch]:
        """The results of all batches in order; after a signal Stopped, behind those of the last batch that was begun.

        The results of a batch are waited for only when the next one is on the device, so that a GPU always has work.
        """
        pending: Callable[[], EmbeddedBatch] | None = None
        threads_before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            for batch in self._timed(batches):
                if stop.signal is not None:
                    break
                following = self._begin(batch)
                if pending is not None:
                    yield pending()
                pending = following
            if pending is not None:
                yield pending()
        finally:
            torch.set_num_threads(threads_before)
        stop.check()

    @torch.no_grad()
    def _begin(self, batch: FrameBatch) -> Callable[[], EmbeddedBatch]:
        """Hand a batch to the device; the function returned waits for its results."""
        count, index = len(batch.index), batch.index.numpy()
        if not count:
            nothing = np.empty((0, self.network.classifier.in_features), np.float32)
            no_logits = np.empty((0, self.network.classifier.out_features), np.float32)
            return lambda: EmbeddedBatch(index, nothing, no_logits, batch.failures)
        with self.times.of("preprocessing"):
            inputs = filled(prepare(batch.to(self.device), self.record), self.batch_size)  # (batch_size, 3, S, S)
        with self.times.of("network"):
            embedding = self.embed(inputs)
            logits = self.network.classify(embedding)
            # From a GPU the copies follow the computation, into page-locked memory.
            embedding, logits = (rows[:count].float().to("cpu", non_blocking=True) for rows in (embedding, logits))
            copied = torch.cuda.current_stream(self.device).record_event() if self.device.type == "cuda" else None

        def results() -> EmbeddedBatch:
            if copied is not None:
                with self.times.of("network"):
                    copied.synchronize()
            return EmbeddedBatch(index, embedding.numpy(), logits.numpy(), batch.failures)

        return results

    def _timed(self, batches: Iterable[FrameBatch]) -> Iterator[FrameBatch]:
        iterator = iter(batches)
        while True:
            with self.times.of("waiting for frames"):
                batch = next(iterator, None)
            if batch is None:
                return
            yield batch


class BackgroundWriter:
    """A thread that makes calls in the order in which they are submitted.

    A call's error is raised by the next `submit` or `settle`; the calls behind it, which may build on it, are not made.
    """

    def __init__(self, times: StageTimes, most: int) -> None:
        self.times = times
        self.most = most
        """Calls that may wait: each holds a batch, which a kill would lose."""
        self._pool = ThreadPoolExecutor(1, "writer")
        self._waiting: deque[Future[None]] = deque()
        self._failed = False

    def submit(self, call: Callable[[], None]) -> None:
        """Have `call` made; waits while too many others do."""
        with self.times.of("waiting for writing"):
            while self._waiting and (self._waiting[0].done() or len(self._waiting) >= self.most):
                self._waiting.popleft().result()
        self._waiting.append(self._pool.submit(self._make, call))

    def settle(self) -> None:
        """Wait for all calls."""
        with self.times.of("waiting for writing"):
            while self._waiting:
                self._waiting.popleft().result()

    def close(self) -> None:
        """End the thread; calls that have not begun are not made."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _make(self, call: Callable[[], None]) -> None:
        if self._failed:
            return
        try:
            call()
        except BaseException:
            self._failed = True
            raise
