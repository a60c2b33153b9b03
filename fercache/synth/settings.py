"""The settings of a synthetic data set, and the plan of its videos that follows from them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fercache.config import SynthConfig
from fercache.data.manifest import SPLITS

VERSION = 1
"""Raised whenever the same settings give other pictures or labels."""

_PAIR_EVERY = 6
"""One recording in so many shows two people, as X_left and X_right."""
_AGAIN_EVERY = 5
"""One recording in so many shows the person of the recording before it once more."""
_LENGTH_SPREAD = 0.15
"""Recordings are up to this share shorter or longer than `seconds`."""


@dataclass(frozen=True)
class SynthSettings(SynthConfig):
    """The settings of the config, and the seed. Raises ConfigError with all problems at once."""

    seed: int = 0

    def record(self) -> dict[str, Any]:
        """What identifies the data set, as synth.json holds it."""
        return {"version": VERSION, **asdict(self)}


@dataclass(frozen=True)
class PlannedVideo:
    """One video that is to be made: a person in a recording."""

    name: str
    split: str
    number: int
    """Of the recording, within its split."""
    side: int
    """0, and 1 for the second of two people."""
    person: int
    """Number of the person within the split and side."""
    num_frames: int

    def rng(self, settings: SynthSettings, purpose: str) -> np.random.Generator:
        """A generator for one purpose of this video alone."""
        return np.random.default_rng(seed_of(settings, purpose, self.split, self.number, self.side))


def plan_videos(settings: SynthSettings) -> list[PlannedVideo]:
    """All videos. One video's entry depends on its own number only, not on how many others there are."""
    videos = []
    for split in SPLITS:
        for number in range(getattr(settings, split)):
            rng = np.random.default_rng(seed_of(settings, "length", split, number))
            seconds = settings.seconds * rng.uniform(1 - _LENGTH_SPREAD, 1 + _LENGTH_SPREAD)
            num_frames = max(1, round(seconds * settings.fps))
            person = number - 1 if number % _AGAIN_EVERY == _AGAIN_EVERY - 1 else number
            sides = ("_left", "_right") if number % _PAIR_EVERY == 1 else ("",)
            for side, ending in enumerate(sides):
                videos.append(PlannedVideo(f"{split}_{number:03d}{ending}", split, number, side, person, num_frames))
    return videos


_PURPOSES = ("length", "person", "episodes", "labels", "camera", "deck", "scene")


def seed_of(settings: SynthSettings, purpose: str, split: str, *numbers: int) -> np.random.SeedSequence:
    """A generator's seed that no other purpose, split or number shares."""
    return np.random.SeedSequence([settings.seed, _PURPOSES.index(purpose), SPLITS.index(split), *numbers])
