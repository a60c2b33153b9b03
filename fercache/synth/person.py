"""Who is seen: everything that tells one drawn person from another, and nothing that moves.

Lengths are in canvas pixels (the canvas is 224 wide; a 112 px crop halves them); y points down.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fercache.synth.units import UNITS, unit_vector

Colour = tuple[int, int, int]
HAIR_STYLES = ("short", "parted", "long", "fringe", "tied", "curly", "bald")
FACIAL_HAIR = ("none", "stubble", "moustache", "beard")

# From very light to very dark, in the spirit of the Monk scale's ten steps (Monk 2019); RGB.
_SKIN = ((243, 210, 188), (232, 188, 158), (214, 163, 127), (186, 132, 96), (148, 99, 68), (120, 79, 56), (96, 64, 47))
_HAIR = ((32, 26, 24), (54, 38, 30), (88, 58, 38), (132, 88, 52), (186, 146, 92), (124, 58, 34), (150, 146, 142))
_IRIS = ((74, 48, 30), (96, 66, 38), (104, 116, 62), (92, 128, 152), (118, 134, 138))
_CLOTHES = ((52, 70, 104), (120, 44, 48), (60, 92, 72), (190, 186, 178), (40, 40, 46), (150, 120, 70), (108, 82, 128))


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
    temple: float
    cheek: float
    jaw: float
    chin_width: float
    chin_y: float
    hairline_y: float
    hairline_peak: float
    """How much higher the hairline's middle is than its corners; negative for a widow's peak."""
    eye_x: float
    eye_y: float
    eye_width: float
    eye_open: float
    """Height of the upper lid above the corner line."""
    eye_tilt: float
    """How much higher the outer corner lies than the inner one."""
    brow_y: float
    brow_thick: float
    brow_arch: float
    nose_y: float
    nose_width: float
    mouth_y: float
    mouth_width: float
    lip_upper: float
    lip_lower: float
    lash: float
    """Thickness of the upper lash line."""
    age: float
    """0..1: how deep the folds are that stay at rest, and how deep creases get."""
    resting: np.ndarray
    """float32 (len(UNITS),): the face's own look at rest, a slight frown of one or lip corners of another."""
    light_x: float
    """-1..1: light from the picture's left or right."""
    light_strength: float
    background: tuple[Colour, Colour]
    """Upper and lower colour of what is behind."""
    texture_seed: int


def sample_person(seed: np.random.SeedSequence) -> Person:
    """Draw a person; the same seed gives the same person."""
    rng = np.random.default_rng(seed)
    masculine = bool(rng.random() < 0.5)
    skin, darkness = _skin(rng)
    hair_choices = _HAIR if darkness < 0.45 else _HAIR[:2]
    style = _hair_style(rng, masculine)
    chin_y = rng.uniform(193, 201) + 3 * masculine
    mouth_y = rng.uniform(157, 162)
    return Person(
        skin=skin,
        hair=_pick(rng, hair_choices),
        iris=_pick(rng, _IRIS if darkness < 0.45 else _IRIS[:2]),
        clothes=_pick(rng, _CLOTHES),
        hair_style=style,
        facial_hair=_pick(rng, FACIAL_HAIR) if masculine else "none",
        glasses=bool(rng.random() < 0.15),
        temple=rng.uniform(58, 65),
        cheek=rng.uniform(62, 70),
        jaw=rng.uniform(47, 54) + 4 * masculine,
        chin_width=rng.uniform(17, 24) + 4 * masculine,
        chin_y=chin_y,
        hairline_y=rng.uniform(44, 53),
        hairline_peak=rng.uniform(-8, 10),
        eye_x=rng.uniform(28.5, 33),
        eye_y=rng.uniform(95, 100),
        eye_width=rng.uniform(13.5, 16.5),
        eye_open=rng.uniform(5.6, 7.6),
        eye_tilt=rng.uniform(-1.5, 2.5),
        brow_y=rng.uniform(77, 82) + 1.5 * masculine,
        brow_thick=rng.uniform(2.6, 4.0) + 1.2 * masculine,
        brow_arch=rng.uniform(1.5, 5) - 1 * masculine,
        nose_y=rng.uniform(133, 138),
        nose_width=rng.uniform(12, 17),
        mouth_y=mouth_y,
        mouth_width=rng.uniform(20, 25),
        lip_upper=rng.uniform(3.4, 5.4) - 0.6 * masculine,
        lip_lower=rng.uniform(4.8, 7.2) - 0.6 * masculine,
        lash=rng.uniform(1.4, 2.0) if masculine else rng.uniform(2.2, 3.2),
        age=float(rng.beta(2, 3)),
        resting=_resting(rng),
        light_x=rng.uniform(-1, 1),
        light_strength=rng.uniform(0.3, 1.0),
        background=(_any_colour(rng), _any_colour(rng)),
        texture_seed=int(rng.integers(2**31)),
    )


def _skin(rng: np.random.Generator) -> tuple[Colour, float]:
    """A tone between two neighbours of the scale, and how dark it is (0..1)."""
    place = rng.uniform(0, len(_SKIN) - 1.001)
    low, part = int(place), place - int(place)
    tone = (1 - part) * np.asarray(_SKIN[low]) + part * np.asarray(_SKIN[low + 1])
    return _colour(tone + rng.normal(0, 3, 3)), place / (len(_SKIN) - 1)


def _hair_style(rng: np.random.Generator, masculine: bool) -> str:
    odds = (0.40, 0.26, 0.06, 0.03, 0.03, 0.10, 0.12) if masculine else (0.08, 0.10, 0.34, 0.20, 0.18, 0.10, 0.0)
    return HAIR_STYLES[int(rng.choice(len(HAIR_STYLES), p=odds))]


def _resting(rng: np.random.Generator) -> np.ndarray:
    """Slight standing intensities: below every label's threshold, but enough to mislead a mean face."""
    looks = ({}, {"AU4": 0.22}, {"AU1": 0.18}, {"AU12": 0.15}, {"AU15": 0.18}, {"AU1": 0.15, "AU2": 0.2}, {"AU7": 0.2})
    look = dict(looks[int(rng.integers(len(looks)))])
    assert set(look) <= set(UNITS)
    return unit_vector({unit: value * float(rng.uniform(0.4, 1.0)) for unit, value in look.items()})


def _any_colour(rng: np.random.Generator) -> Colour:
    grey = rng.uniform(40, 215)
    return _colour(grey + rng.normal(0, 18, 3))


def _colour(values: np.ndarray) -> Colour:
    red, green, blue = np.clip(values, 0, 255).astype(int).tolist()
    return red, green, blue


def _pick(rng: np.random.Generator, choices: tuple) -> object:
    return choices[int(rng.integers(len(choices)))]
