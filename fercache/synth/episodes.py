"""The setting "steady": episodes of expressions along a video, and their action units over time.

Legend: T frames, U = len(UNITS) units.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fercache.synth.settings import PlannedVideo, SynthSettings, seed_of
from fercache.synth.timing import APEX, OFFSET, ONSET, SYLLABLES_HZ, TOTAL_S, Track, rise_hold_fall
from fercache.synth.units import PROTOTYPES, UNITS, prototype, unit_vector

FREQUENCY: dict[str, int] = {"Happiness": 6, "Sadness": 4, "Surprise": 3, "Anger": 2, "Disgust": 2, "Fear": 1}
"""How often each expression comes in a block of episodes. The order is Aff-Wild2's: Neutral fills the time between
episodes and is the most common, happiness next, fear the rarest."""
_SECONDS_PER_EPISODE = 4.0
_MOST_EXPRESSIVE = 0.75
"""Share of a video that episodes may fill; holds are shortened beyond it."""
_PEAK = (0.65, 1.0)
_JITTER = 0.05
"""Standard deviation of a unit's wavering, as a share of its intensity."""
_TALKS, _TALK_S = 0.35, (0.6, 2.0)
_LONE, _LONE_S = 0.5, (0.4, 1.2)
_LONE_UNITS = ({"AU1": 0.7, "AU2": 0.8}, {"AU4": 0.6}, {"AU24": 0.7}, {"AU7": 0.6}, {"AU23": 0.6}, {"AU15": 0.5})
"""Movements that are no expression: a brow flash, a puzzled frown, pressed lips."""


@dataclass(frozen=True)
class Episode:
    """One expression. Times in seconds of the video."""

    expression: str
    start: float
    onset: float
    apex: float
    offset: float
    peak: float
    variant: int

    def intensity(self, times: np.ndarray) -> np.ndarray:
        """0..peak at `times` in seconds: float64 of the same shape."""
        return self.peak * rise_hold_fall(times - self.start, self.onset, self.apex, self.offset)


def deal_in_turn(settings: SynthSettings, video: PlannedVideo, counts: Mapping[str, int], num: int) -> list[str]:
    """The `num` kinds of episode that are this video's part of the split's sequence.

    The sequence runs in blocks that hold each kind as often as `counts` says, and each once before any comes again:
    a split of few recordings has most kinds, and a large one has the stated rates.
    """
    size = sum(counts.values())
    rest = [kind for kind, count in counts.items() for _ in range(count - 1)]
    kinds = []
    for index in range(video.number * num, (video.number + 1) * num):
        rng = np.random.default_rng(seed_of(settings, "deck", video.split, video.side, index // size))
        block = [*rng.permutation(list(counts)).tolist(), *rng.permutation(rest).tolist()]
        kinds.append(block[index % size])
    return kinds


def random_starts(rng: np.random.Generator, total: float, lengths: list[float]) -> list[float]:
    """Start times of episodes of these lengths within `total`, with random gaps before, between and after."""
    shares = rng.gamma(3.0, size=len(lengths) + 1)
    gaps = max(0.0, total - sum(lengths)) * shares / shares.sum()
    return [sum(lengths[:i]) + float(gaps[: i + 1].sum()) for i in range(len(lengths))]


def steady_episodes(settings: SynthSettings, video: PlannedVideo, rng: np.random.Generator) -> list[Episode]:
    """The episodes of a video, in order and without overlap."""
    seconds = video.num_frames / settings.fps
    num = max(1, round(settings.seconds / _SECONDS_PER_EPISODE))
    phases = [_phases(rng, min(TOTAL_S[1], _MOST_EXPRESSIVE * seconds / num)) for _ in range(num)]
    starts = random_starts(rng, seconds, [sum(phase) for phase in phases])
    expressions = deal_in_turn(settings, video, FREQUENCY, num)
    return [
        Episode(name, start, *phase, peak=rng.uniform(*_PEAK), variant=int(rng.integers(len(PROTOTYPES[name]))))
        for name, start, phase in zip(expressions, starts, phases, strict=True)
    ]


def _phases(rng: np.random.Generator, longest: float) -> tuple[float, float, float]:
    """Onset, apex and offset in seconds; the apex is shortened where the whole would last too long."""
    onset, apex, offset = ONSET.draw(rng), APEX.draw(rng), OFFSET.draw(rng)
    apex = max(0.05, min(apex, longest - onset - offset))
    return onset, max(apex, TOTAL_S[0] - onset - offset), offset


def steady_units(track: Track, episodes: list[Episode]) -> np.ndarray:
    """Intensities of the units over the video, 0..1: float32 (T, U)."""
    units, neutral = np.zeros((track.num_frames, len(UNITS))), np.zeros(track.num_frames)
    for episode in episodes:
        intensity = episode.intensity(track.times)
        units += intensity[:, None] * prototype(episode.expression, episode.variant)
        neutral += intensity
    neutral = (1 - neutral)[:, None]
    units *= 1 + _JITTER * np.stack([track.wander(0.3) for _ in UNITS], 1)
    if track.rng.random() < _TALKS:
        units = np.maximum(units, _talk(track) * neutral)
    if track.rng.random() < _LONE:
        units = np.maximum(units, _lone_movement(track) * neutral)
    return np.clip(units, 0, 1).astype(np.float32)


def _talk(track: Track) -> np.ndarray:
    """Speech-like opening of the mouth for a stretch: (T, U)."""
    syllables = np.cumsum(track.rng.uniform(*SYLLABLES_HZ) * (1 + 0.25 * track.wander(0.2))) / track.fps
    talking = np.zeros(track.num_frames)
    talking[track.stretch(*_TALK_S)] = 1
    opening = talking * np.clip(0.5 - 0.5 * np.cos(2 * np.pi * syllables), 0, 1)
    return opening[:, None] * unit_vector({"AU25": 0.7, "AU26": 0.4})


def _lone_movement(track: Track) -> np.ndarray:
    """A movement of one or two units that is no expression: (T, U)."""
    part = track.stretch(*_LONE_S)
    start, length = part.start / track.fps, (part.stop - part.start) / track.fps
    shape = unit_vector(_LONE_UNITS[int(track.rng.integers(len(_LONE_UNITS)))])
    return rise_hold_fall(track.times - start, 0.4 * length, 0.1 * length, 0.5 * length)[:, None] * shape
