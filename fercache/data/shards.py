"""Dealing a manifest's videos among jobs that know nothing of each other."""

from __future__ import annotations

import heapq
import re
from collections.abc import Sequence
from dataclasses import dataclass

from fercache.data.manifest import Video
from fercache.errors import ConfigError


@dataclass(frozen=True)
class Shard:
    """Part `number` (from 1) of `count`."""

    number: int = 1
    count: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise ConfigError(f"--shard: found {self}, expected I/N with I from 1 to N, as in 2/7")

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @classmethod
    def parse(cls, text: str) -> Shard:
        """The shard that `I/N` names; ConfigError where that is none."""
        match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
        if not match:
            raise ConfigError(f"--shard: found {text!r}, expected I/N with I from 1 to N, as in 2/7")
        return cls(int(match[1]), int(match[2]))


def deal(videos: Sequence[Video], count: int) -> list[list[Video]]:
    """The videos of each of `count` shards, in the manifest's order.

    By length, the longest first onto the shard with the fewest frames (Graham 1969, SIAM J. Appl. Math. 17:416).
    It depends on ids and lengths alone, so all jobs deal alike; each video is in one shard.
    """
    loads = [(0, number) for number in range(count)]  # a heap
    owner: dict[str, int] = {}
    for video in sorted(videos, key=lambda video: (-frames_of(video), video.video_id)):
        load, shard = loads[0]
        owner[video.video_id] = shard
        heapq.heapreplace(loads, (load + frames_of(video), shard))
    shards: list[list[Video]] = [[] for _ in range(count)]
    for video in videos:
        shards[owner[video.video_id]].append(video)
    return shards


def frames_of(video: Video) -> int:
    """What a video counts in dealing: its length, or nothing where it has no face at all."""
    return 0 if video.frames_dir is None else video.num_frames


def imbalance(shards: Sequence[Sequence[Video]]) -> float:
    """By how much the longest shard is longer than the mean, as a share of the mean."""
    loads = [sum(map(frames_of, shard)) for shard in shards]
    return max(loads) * len(loads) / sum(loads) - 1 if sum(loads) else 0.0
