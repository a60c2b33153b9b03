"""Who is seen: everything that distinguishes one drawn person from another, and nothing that moves.

Lengths are in canvas pixels (the canvas is 224 wide; a 112 px crop halves them); y points down.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from fercache.synth.units import unit_vector

Colour = tuple[int, int, int]
HAIR_STYLES = ("short", "parted", "long", "fringe", "tied", "curly", "bald")
_MASCULINE_STYLES = (0.40, 0.26, 0.06, 0.03, 0.03, 0.10, 0.12)
_FEMININE_STYLES = (0.08, 0.10, 0.34, 0.20, 0.18, 0.10, 0.0)
"""How likely each hair style is."""
FACIAL_HAIR = ("none", "stubble", "moustache", "beard")

# From very light to very dark, in the spirit of the Monk scale's ten steps (Monk 2019); RGB.
_SKIN = ((243, 210, 188), (232, 188, 158), (214, 163, 127), (186, 132, 96), (148, 99, 68), (120, 79, 56), (96, 64, 47))
_HAIR = ((32, 26, 24), (54, 38, 30), (88, 58, 38), (132, 88, 52), (186, 146, 92), (124, 58, 34), (150, 146, 142))
_IRIS = ((74, 48, 30), (96, 66, 38), (104, 116, 62), (92, 128, 152), (118, 134, 138))
_CLOTHES = ((52, 70, 104), (120, 44, 48), (60, 92, 72), (190, 186, 178), (40, 40, 46), (150, 120, 70), (108, 82, 128))
_RESTING: tuple[dict[str, float], ...] = (
    {},
    {"AU4": 0.22},
    {"AU1": 0.18},
    {"AU12": 0.15},
    {"AU15": 0.18},
    {"AU1": 0.15, "AU2": 0.2},
    {"AU7": 0.2},
)
"""Looks at rest: below every label's threshold, but enough to mislead a mean face."""


def _between(low: float, high: float, masculine: float = 0.0) -> float:
    """A feature drawn evenly from a range, to which `masculine` is added in masculine faces."""
    return field(metadata={"range": (low, high), "masculine": masculine})


@dataclass(frozen=True)
class Person:
    """A face at rest. Half widths are measured from the face's middle line."""

    skin: Colour
    hair: Colour
    iris: Colour
    clothes: Colour
    hair_style: str
    facial_hair: str
    glasses: bool
    chin_y: float
    mouth_y: float
    lash: float
    """Thickness of the upper lash line."""
    age: float
    """0..1: how deep the folds are that stay at rest, and how deep creases get."""
    resting: np.ndarray
    """float32 (len(UNITS),): the face's look at rest, such as a slight frown."""
    light_x: float
    """-1..1: light from the picture's left or right."""
    light_strength: float
    background: tuple[Colour, Colour]
    """Upper and lower colour of what is behind."""
    texture_seed: int
    temple: float = _between(58, 65)
    cheek: float = _between(62, 70)
    jaw: float = _between(47, 54, masculine=4)
    chin_width: float = _between(17, 24, masculine=4)
    hairline_y: float = _between(44, 53)
    hairline_peak: float = _between(-8, 10)
    """How much higher the hairline's middle is than its corners; negative for a widow's peak."""
    eye_x: float = _between(28.5, 33)
    eye_y: float = _between(95, 100)
    eye_width: float = _between(13.5, 16.5)
    eye_open: float = _between(5.6, 7.6)
    """Height of the upper lid above the corner line."""
    eye_tilt: float = _between(-1.5, 2.5)
    """How much higher the outer corner lies than the inner one."""
    brow_y: float = _between(77, 82, masculine=1.5)
    brow_thick: float = _between(2.6, 4.0, masculine=1.2)
    brow_arch: float = _between(1.5, 5, masculine=-1)
    nose_y: float = _between(133, 138)
    nose_width: float = _between(12, 17)
    mouth_width: float = _between(20, 25)
    lip_upper: float = _between(3.4, 5.4, masculine=-0.6)
    lip_lower: float = _between(4.8, 7.2, masculine=-0.6)


def sample_person(seed: np.random.SeedSequence) -> Person:
    """Draw a person; the same seed gives the same person, so that the order of the draws must stay."""
    rng = np.random.default_rng(seed)
    masculine = bool(rng.random() < 0.5)
    skin, darkness = _skin(rng)
    style = str(rng.choice(HAIR_STYLES, p=_MASCULINE_STYLES if masculine else _FEMININE_STYLES))
    chin_y, mouth_y = rng.uniform(193, 201) + 3 * masculine, rng.uniform(157, 162)
    return Person(
        skin=skin,
        hair=_pick(rng, _HAIR if darkness < 0.45 else _HAIR[:2]),
        iris=_pick(rng, _IRIS if darkness < 0.45 else _IRIS[:2]),
        clothes=_pick(rng, _CLOTHES),
        hair_style=style,
        facial_hair=_pick(rng, FACIAL_HAIR) if masculine else "none",
        glasses=bool(rng.random() < 0.15),
        chin_y=chin_y,
        mouth_y=mouth_y,
        **_features(rng, masculine),
        lash=rng.uniform(1.4, 2.0) if masculine else rng.uniform(2.2, 3.2),
        age=float(rng.beta(2, 3)),
        resting=unit_vector({unit: value * rng.uniform(0.4, 1.0) for unit, value in _pick(rng, _RESTING).items()}),
        light_x=rng.uniform(-1, 1),
        light_strength=rng.uniform(0.3, 1.0),
        background=(_any_colour(rng), _any_colour(rng)),
        texture_seed=int(rng.integers(2**31)),
    )


def _features(rng: np.random.Generator, masculine: bool) -> dict[str, float]:
    """The features that are drawn from a range, in their order."""
    drawn = [feature for feature in fields(Person) if feature.metadata]
    return {f.name: rng.uniform(*f.metadata["range"]) + f.metadata["masculine"] * masculine for f in drawn}


def _skin(rng: np.random.Generator) -> tuple[Colour, float]:
    """A tone between two neighbours of the scale, and how dark it is (0..1)."""
    position = rng.uniform(0, len(_SKIN) - 1.001)
    low, part = int(position), position - int(position)
    tone = (1 - part) * np.asarray(_SKIN[low]) + part * np.asarray(_SKIN[low + 1])
    return _colour(tone + rng.normal(0, 3, 3)), position / (len(_SKIN) - 1)


def _any_colour(rng: np.random.Generator) -> Colour:
    grey = rng.uniform(40, 215)
    return _colour(grey + rng.normal(0, 18, 3))


def _colour(values: np.ndarray) -> Colour:
    red, green, blue = np.clip(values, 0, 255).astype(int).tolist()
    return red, green, blue


def _pick(rng: np.random.Generator, choices: tuple[Any, ...]) -> Any:  # noqa: ANN401 - whatever the choices are
    return choices[int(rng.integers(len(choices)))]
