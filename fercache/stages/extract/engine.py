"""The engine of extraction: frames through the network in full batches, and work done behind it.

Legend: B frames of a batch, S side of the input, D embedding, C classes.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from fercache import runtime
from fercache.data.loader import FrameBatch, FrameLoader
from fercache.models.backends import Embed
from fercache.models.frame_network import FrameNetwork
from fercache.models.preprocessing import Preprocessing, filled, prepare


@dataclass(frozen=True)
class Embedded:
    """The results of a batch."""

    place: np.ndarray
    """int64 (B,): which frames, of those that could be decoded."""
    embedding: np.ndarray
    """float32 (B, D)."""
    logits: np.ndarray
    """float32 (B, C)."""
    failures: dict[int, str]
    """Place -> what is wrong with a frame that could not be decoded."""


@dataclass
class Times:
    """Seconds that the main thread spent in each stage; what is hidden behind the network does not appear."""

    seconds: dict[str, float] = field(default_factory=dict)
    begun: float = field(default_factory=time.perf_counter)

    def restart(self) -> None:
        """Count from now on."""
        self.seconds.clear()
        self.begun = time.perf_counter()

    @property
    def elapsed(self) -> float:
        """Seconds since it was begun."""
        return time.perf_counter() - self.begun

    @contextmanager
    def of(self, stage: str) -> Iterator[None]:
        """Count the block."""
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

    Every batch is filled up to the same number of frames, so that a frame's bits do not depend on its place.
    """

    embed: Embed
    network: FrameNetwork
    """For its classifier."""
    record: Preprocessing
    batch_size: int
    device: torch.device
    threads: int
    """Of torch, while it runs."""
    times: Times

    def decoded(self, paths: Sequence[str], batches: Iterator[list[int]], workers: int | None) -> Iterator[FrameBatch]:
        """The decoded frames, whose loading begins at once."""
        count = runtime.decoding_workers(workers, self.device)
        return iter(FrameLoader(paths, batches, count, pin=self.device.type == "cuda"))

    def run(self, batches: Iterable[FrameBatch], stop: runtime.StopFlag) -> Iterator[Embedded]:
        """The results of all batches in their order; Stopped behind the last one that was begun.

        A batch's results are taken when the next one was handed to the device, so that a GPU has always work.
        """
        begun: Callable[[], Embedded] | None = None
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            for batch in self._waited_for(batches):
                if stop.signal is not None:
                    break
                following = self._begin(batch)
                if begun is not None:
                    yield begun()
                begun = following
            if begun is not None:
                yield begun()
        finally:
            torch.set_num_threads(before)
        stop.check()

    @torch.no_grad()
    def _begin(self, batch: FrameBatch) -> Callable[[], Embedded]:
        """Hand a batch to the device; what is returned waits for its results."""
        count, place = len(batch.index), batch.index.numpy()
        if not count:
            shape = self.network.classifier.in_features, self.network.classifier.out_features
            return lambda: Embedded(place, *(np.empty((0, width), np.float32) for width in shape), batch.failures)
        with self.times.of("preprocessing"):
            inputs = filled(prepare(batch.to(self.device), self.record), self.batch_size)  # (batch_size, 3, S, S)
        with self.times.of("network"):
            embedding = self.embed(inputs)
            outputs = embedding, self.network.classify(embedding)
            # From a GPU the copies follow the computation, into page-locked memory.
            kept = [rows[:count].float().to("cpu", non_blocking=True) for rows in outputs]
            copied = torch.cuda.current_stream(self.device).record_event() if self.device.type == "cuda" else None

        def results() -> Embedded:
            if copied is not None:
                with self.times.of("network"):
                    copied.synchronize()
            return Embedded(place, *(rows.numpy() for rows in kept), batch.failures)

        return results

    def _waited_for(self, batches: Iterable[FrameBatch]) -> Iterator[FrameBatch]:
        iterator = iter(batches)
        while True:
            with self.times.of("waiting for frames"):
                batch = next(iterator, None)
            if batch is None:
                return
            yield batch


class Behind:
    """Calls that one thread makes in order, behind the work of the caller."""

    def __init__(self, times: Times, most: int) -> None:
        self.times = times
        self.most = most
        """Calls that may wait: each holds a batch, which a kill would lose."""
        self._pool = ThreadPoolExecutor(1, "writer")
        self._waiting: deque[Future[None]] = deque()
        self._failed = False

    def call(self, action: Callable[..., None], *given: Any) -> None:  # noqa: ANN401 - whatever the action takes
        """Have `action` called; what an earlier one raised is raised here."""
        with self.times.of("waiting for writing"):
            while self._waiting and (self._waiting[0].done() or len(self._waiting) >= self.most):
                self._waiting.popleft().result()
        self._waiting.append(self._pool.submit(self._make, action, *given))

    def settle(self) -> None:
        """Wait for all calls; what one raised is raised here."""
        with self.times.of("waiting for writing"):
            while self._waiting:
                self._waiting.popleft().result()

    def _make(self, action: Callable[..., None], *given: Any) -> None:  # noqa: ANN401 - as in `call`
        if self._failed:
            return  # what comes behind a failure may build on it
        try:
            action(*given)
        except BaseException:
            self._failed = True
            raise

    def close(self) -> None:
        """End the thread; calls that have not begun are not made."""
        self._pool.shutdown(wait=True, cancel_futures=True)
