"""What a synthetic data set is made from: its settings, and the plan of recordings that follows from them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fercache.errors import ConfigError, raise_problems

VERSION = 1
"""Raised whenever the same settings give other pictures or labels."""
SETTINGS = ("steady", "transitions")
SPLITS = ("train", "validation", "test")

_PAIR_EVERY = 6
"""One recording in so many shows two people, as X_left and X_right."""
_AGAIN_EVERY = 5
"""One recording in so many shows the person of the recording before it once more."""
_LENGTH_SPREAD = 0.15
"""Recordings are up to this share shorter or longer than `seconds`."""


@dataclass(frozen=True)
class SynthSettings:
    """Settings of a synthetic data set. Raises ConfigError with everything that is wrong at once."""

    setting: str = "steady"
    """"steady": a face tells its label in every frame; "transitions": only the order of frames tells it."""
    seed: int = 0
    train: int = 24
    """Recordings in the training split; one in six gives two videos."""
    validation: int = 10
    test: int = 4
    """Recordings without annotations."""
    seconds: float = 8.0
    """Mean length of a recording."""
    fps: float = 30.0
    """Frames per second; 30 is what most of Aff-Wild2 has."""
    image_size: int = 112
    """Side of the square crops, in pixels."""

    def __post_init__(self) -> None:
        problems = []
        if self.setting not in SETTINGS:
            problems.append(f"synth.setting: {self.setting!r} is not a setting; the settings are {', '.join(SETTINGS)}")
        whole = {name: getattr(self, name) for name in ("seed", *SPLITS)}
        problems += [
            f"synth.{name}: {value!r} must be an integer, 0 or more"
            for name, value in whole.items()
            if not isinstance(value, int) or isinstance(value, bool) or value < 0
        ]
        if not problems and not any(whole[name] for name in SPLITS):
            problems.append("synth: train, validation and test are all 0; there is nothing to make")
        # A rise of "transitions" must hold frames beyond its guard, and a recording a rise and a fall.
        slow, short = (10, 3) if self.setting == "transitions" else (5, 1)
        for name, low, high in (("seconds", short, 3600), ("fps", slow, 120), ("image_size", 32, 224)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
                problems.append(f"synth.{name}: {value!r} must be a number from {low} to {high}")
        if isinstance(self.image_size, float):
            problems.append(f"synth.image_size: {self.image_size!r} must be an integer")
        raise_problems(problems, ConfigError)

    def record(self) -> dict[str, Any]:
        """What identifies the data set, as synth.json holds it."""
        return {"version": VERSION, **asdict(self)}


@dataclass(frozen=True)
class Video:
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


def plan_videos(settings: SynthSettings) -> list[Video]:
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
                videos.append(Video(f"{split}_{number:03d}{ending}", split, number, side, person, num_frames))
    return videos


_PURPOSES = ("length", "person", "episodes", "labels", "camera", "deck", "scene")


def seed_of(settings: SynthSettings, purpose: str, split: str, *numbers: int) -> np.random.SeedSequence:
    """A generator's seed that no other purpose, split or number shares."""
    return np.random.SeedSequence([settings.seed, _PURPOSES.index(purpose), SPLITS.index(split), *numbers])
