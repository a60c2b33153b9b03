"""How long expressions last, how fast they come and go, and random courses along the frames of a video.

The figures are rounded readings of the literature, taken once; they are not tuned to any result.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Duration:
    """A log-normal duration, clipped: `median` and the clip's ends in seconds, `spread` of its logarithm."""

    median: float
    spread: float
    low: float
    high: float

    def draw(self, rng: np.random.Generator) -> float:
        """One duration in seconds."""
        return float(np.clip(self.median * np.exp(self.spread * rng.standard_normal()), self.low, self.high))


# Felt expressions last about 0.5 to 4 s from first to last trace: Ekman & Friesen 1982 ("Felt, false, and
# miserable smiles", about 2/3 to 4 s); Frank, Ekman & Friesen 1993 for smiles of enjoyment (about 0.5 to 4 s).
TOTAL_S = (0.5, 4.0)
# Onsets of spontaneous smiles take about half a second: Schmidt, Cohn & Tian 2003; Schmidt et al. 2006.
# Faster onsets, below about 0.26 s, mark micro-expressions (Yan et al. 2013), which are not drawn here.
ONSET = Duration(0.5, 0.35, 0.27, 1.2)
# Onset durations are rather constant, peak and offset durations vary more (Schmidt, Cohn & Tian 2003); no
# figure is taken from there: hold and fall share what the total leaves.
APEX = Duration(1.1, 0.5, 0.2, 2.6)
OFFSET = Duration(0.8, 0.4, 0.3, 1.6)

# Blinks: about 17 a minute at rest (Bentivoglio et al. 1997); closing and reopening take about 0.1 s each
# (Stern, Walrath & Goldstein 1984).
BLINKS_PER_S = 17 / 60
BLINK_CLOSING_S = 0.1
BLINK_SHUT_S = 0.04

# The mouth opens and closes about 2 to 7 times a second in speech (Chandrasekaran et al. 2009).
SYLLABLES_HZ = (2.5, 6.0)


def minimum_jerk(t: np.ndarray) -> np.ndarray:
    """0 to 1 as `t` goes from 0 to 1, clipped outside: the smoothest movement (Flash & Hogan 1985)."""
    t = np.clip(t, 0, 1)
    return t**3 * (10 - 15 * t + 6 * t**2)


def rise_hold_fall(times: np.ndarray, onset: float, apex: float, offset: float) -> np.ndarray:
    """0..1 at `times` (seconds since the episode's start) for phases of these lengths in seconds."""
    return minimum_jerk(times / onset) * (1 - minimum_jerk((times - onset - apex) / offset))


@dataclass(frozen=True)
class Track:
    """The frames of one video, T = `num_frames`, and a generator of what happens along them."""

    rng: np.random.Generator
    num_frames: int
    fps: float

    @property
    def times(self) -> np.ndarray:
        """Seconds since the start of the video: float64 (T,)."""
        return np.arange(self.num_frames) / self.fps

    def wander(self, memory_s: float) -> np.ndarray:
        """Smooth stationary Gaussian noise of variance 1 that forgets within about `memory_s`: float64 (T,)."""
        sigma = max(memory_s * self.fps, 1e-3)
        reach = int(np.ceil(3 * sigma))
        kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
        noise = self.rng.standard_normal(self.num_frames + 2 * reach)
        return np.convolve(noise, kernel / np.sqrt((kernel**2).sum()), "valid")

    def stretch(self, low_s: float, high_s: float) -> slice:
        """A random stretch of frames between `low_s` and `high_s` long, cut off at the ends of the video."""
        length = max(1, round(self.rng.uniform(low_s, high_s) * self.fps))
        start = int(self.rng.integers(-length // 2, max(1, self.num_frames - length // 2)))
        return slice(max(0, start), min(self.num_frames, start + length))
