"""The setting "transitions": the label is the direction in time, and order alone carries it.

Definition. Two classes form a pair and share one combination of action units. An episode raises it from 0 to its peak
at a constant rate and lowers it again at the same rate, so that the intensity k frames after the apex equals that k
frames before it. While the intensity is over THRESHOLD, a frame's label is the pair's first class where the face is
rising, its second class where it is falling, and -1 within GUARD frames of the apex, where a window would hold both;
elsewhere it is Neutral. The AU labels are those of the intensities, as ever.

Why one frame cannot tell. Reversing time maps each episode onto itself and swaps the two labels, so the intensities
given the first class are distributed exactly as those given the second, and a classifier of frames can do no better on
a pair than toss a coin. Everything else that is drawn (person, camera, light, blinks) is independent of the episodes.

Why an order-blind window cannot tell. The window of 9 frames centred k before the apex is the reverse of the one
centred k after it: as a set of frames (mean, maximum, histogram) they are equal.

Why an ordered window can. A labelled frame is more than GUARD = 4 frames from the apex, so the intensity is monotone in
its window of 9: it changes by 8 / (ramp_s x fps) of the peak, at 30 fps by at least 0.22, many times JITTER.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fercache.synth.episodes import deal_in_turn, random_starts
from fercache.synth.settings import PlannedVideo, SynthSettings
from fercache.synth.timing import Track
from fercache.synth.units import UNITS, unit_vector
from fercache.tasks import EXPRESSIONS

PAIRS: dict[str, tuple[str, str, dict[str, float]]] = {
    "smile": ("Happiness", "Sadness", {"AU6": 0.8, "AU12": 1.0, "AU25": 0.8}),
    "scowl": ("Anger", "Disgust", {"AU4": 1.0, "AU7": 0.7, "AU9": 0.8, "AU10": 0.9, "AU23": 0.4}),
    "gape": ("Surprise", "Fear", {"AU1": 1.0, "AU2": 1.0, "AU5": 0.9, "AU25": 0.9, "AU26": 0.9}),
}
"""Rising class, falling class, and the units both share."""
PAIR_FREQUENCY = {"smile": 3, "scowl": 2, "gape": 1}
"""How often each pair comes in a block of episodes."""
# A construction, not a measurement: as slow as long onsets and common offsets are (see timing.py).
RAMP_S = (0.8, 1.2)
PEAK = (0.9, 1.0)
THRESHOLD = 0.25
GUARD = 4
"""Frames on each side of the apex; half of a window of 9."""
JITTER = 0.01
_SECONDS_PER_EPISODE = 3.0


@dataclass(frozen=True)
class Ramp:
    """An episode: up for `ramp` frames to `peak` at frame `apex` (from 0), and down again."""

    pair: str
    apex: int
    ramp: int
    peak: float

    def intensity(self, num_frames: int) -> np.ndarray:
        """0..peak at each frame: float64 (T,), symmetric about the apex."""
        distance = np.abs(np.arange(num_frames) - self.apex)
        return self.peak * np.clip(1 - distance / self.ramp, 0, None)


def ramps(settings: SynthSettings, video: PlannedVideo, rng: np.random.Generator) -> list[Ramp]:
    """The episodes of a video, in order; whole ones only, since a cut one would break the symmetry."""
    num = max(1, round(settings.seconds / _SECONDS_PER_EPISODE))
    lengths = [max(1, round(rng.uniform(*RAMP_S) * settings.fps)) for _ in range(num)]
    pairs = deal_in_turn(settings, video, PAIR_FREQUENCY, num)
    while len(lengths) > 1 and 2 * sum(lengths) + len(lengths) > video.num_frames:
        lengths.pop()
    starts = random_starts(rng, float(video.num_frames), [2.0 * length + 1 for length in lengths])
    return [
        Ramp(pair, int(start) + length, length, rng.uniform(*PEAK))
        for pair, start, length in zip(pairs, starts, lengths, strict=False)
        if int(start) + 2 * length < video.num_frames
    ]


def ramp_units(track: Track, episodes: list[Ramp]) -> np.ndarray:
    """Intensities of the units over the video, 0..1: float32 (T, U)."""
    units = np.zeros((track.num_frames, len(UNITS)))
    for episode in episodes:
        units += episode.intensity(track.num_frames)[:, None] * unit_vector(PAIRS[episode.pair][2])
    units += JITTER * np.stack([track.wander(0.3) for _ in UNITS], 1) * (units > 0)
    return np.clip(units, 0, 1).astype(np.float32)


def ramp_labels(episodes: list[Ramp], num_frames: int) -> np.ndarray:
    """The label of each frame by the definition above: int8 (T,)."""
    labels = np.full(num_frames, EXPRESSIONS.index("Neutral"), dtype=np.int8)
    frame = np.arange(num_frames)
    for episode in episodes:
        shown = episode.intensity(num_frames) > THRESHOLD
        rising, falling, _ = PAIRS[episode.pair]
        labels[shown & (frame < episode.apex)] = EXPRESSIONS.index(rising)
        labels[shown & (frame > episode.apex)] = EXPRESSIONS.index(falling)
        labels[np.abs(frame - episode.apex) <= GUARD] = -1
    return labels
