"""The mouth: lips, teeth, tongue, open jaw, and the nostrils above, drawn anew each frame.

Legend: curves run over _U, N points from the left corner (-1) to the right one (1).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fercache.synth.person import Person
from fercache.synth.shapes import MIDDLE, Draw, band
from fercache.synth.units import Intensities

_U = np.linspace(-1, 1, 17)
_FLAT = (1 - np.abs(_U) ** 3.2) ** 0.8
_ROUND = np.sqrt(1 - _U**2)
_CORNER = np.abs(_U) ** 1.9
_BOW = np.clip(1 - np.abs(_U) ** 1.7, 0, None) * (1 - 0.28 * np.exp(-((_U / 0.16) ** 2)))
_TEETH, _INNER = slice(2, 15), slice(4, 13)
"""The points between which teeth show, and the middle half of the mouth."""


def jaw_drop(au: Intensities) -> float:
    """How many pixels the chin moves down."""
    return 13.0 * au["AU26"] + 25.0 * au["AU27"] * (1 - 0.3 * au["AU26"])


@dataclass(frozen=True)
class Lips:
    """x and the four edges, each float64 (N,)."""

    x: np.ndarray
    upper: np.ndarray
    upper_inner: np.ndarray
    lower_inner: np.ndarray
    lower: np.ndarray


def _lips(person: Person, au: Intensities) -> Lips:
    """The lips' edges at these intensities."""
    smile, sneer, open_ = au["AU12"], max(au["AU10"], 0.5 * au["AU9"]), au["AU25"]
    drop = jaw_drop(au)
    thin = 1 - 0.45 * au["AU23"] - 0.62 * au["AU24"] - 0.18 * smile - 0.25 * au["AU20"]
    width = person.mouth_width + 8.5 * smile + 8.0 * au["AU20"] - 3.0 * au["AU23"] - 2.0 * au["AU24"]
    width += 1.0 * au["AU15"] - 0.34 * drop * (1 - smile) + 1.5 * sneer * au["AU16"]
    corner = -11.5 * smile + 8.5 * au["AU15"] + 2.5 * au["AU20"] - 1.0 * au["AU10"] + 0.34 * drop
    middle = person.mouth_y - 3.5 * au["AU17"] - 1.0 * au["AU24"] + 1.5 * smile
    up = open_ * (1.2 + 2.2 * smile) + 0.12 * drop + open_ * 3.0 * sneer
    down = open_ * (2.2 + 2.0 * smile + 1.5 * au["AU20"]) + 0.95 * drop * max(open_, 0.6) + 4.5 * au["AU16"] * open_
    lift = 3.5 * sneer * (1 - np.abs(_U) ** 3)
    # A smiling upper lip is drawn straight between the raised corners; the lower one hangs.
    upper_line = middle + corner * (_CORNER * (1 - 0.35 * smile) + 0.35 * smile * (0.4 + 0.6 * _U**2)) - lift
    lower_line = middle + corner * _CORNER - 0.8 * lift
    bend = _ROUND if drop > 6 and smile < 0.5 else _FLAT
    upper_inner = upper_line - up * bend
    lower_inner = np.maximum(lower_line + down * (_ROUND if drop > 6 else _FLAT), upper_inner)
    upper = upper_inner - (person.lip_upper * thin * _BOW + 0.4)
    pout = 1 + 0.35 * au["AU17"] * (1 - au["AU24"])
    lower = lower_inner + (person.lip_lower * thin * pout * _ROUND**1.2 + 0.4)
    return Lips(MIDDLE + width * _U, upper, upper_inner, lower_inner, lower)


def draw_mouth(draw: Draw, person: Person, au: Intensities) -> None:
    """Draw the mouth, the moustache and the nostrils."""
    lips = _lips(person, au)
    x, upper_inner, lower_inner = lips.x, lips.upper_inner, lips.lower_inner
    red, shine, dark = _lip_colours(person)
    if person.facial_hair in ("moustache", "beard"):
        _moustache(draw, person, lips)
    _nostrils(draw, person, au)
    is_open = (lower_inner - upper_inner).max() > 1.5
    if is_open:
        _inside(draw, lips, au)
    band(draw, x, lips.upper, upper_inner + 0.3, (*dark, 225))
    band(draw, x, lower_inner - 0.3, lips.lower, (*red, 225))
    thick = lips.lower - lower_inner
    band(draw, x, lower_inner + 0.3 * thick, lower_inner + 0.62 * thick, (*shine, 110), _INNER)
    if not is_open:
        band(draw, x, upper_inner - 0.8, lower_inner + 0.8, (70, 28, 28, 215))
    # Light from above leaves a shadow below the lower lip.
    band(draw, x, lips.lower, lips.lower + 2.6 * _ROUND, (60, 30, 20, 40), _INNER)
    for end, side in ((0, -1), (-1, 1)):
        corner_x, corner_y = x[end] + side * 0.6, upper_inner[end]
        draw.ellipse([corner_x - 1.6, corner_y - 1.5, corner_x + 1.6, corner_y + 1.7], fill=(60, 28, 26, 130))


def _inside(draw: Draw, lips: Lips, au: Intensities) -> None:
    """The open mouth: dark, tongue, lower and upper teeth."""
    x, top, bottom = lips.x, lips.upper_inner, lips.lower_inner
    gap = bottom - top
    band(draw, x, top, bottom, (52, 18, 20, 255))
    if gap.max() > 13:
        band(draw, x, bottom - np.minimum(0.34 * gap, 9) * _ROUND, bottom, (158, 74, 74, 255), _INNER)
    bare = 4.5 * max(au["AU16"], 0.7 * au["AU20"])
    if bare > 1:
        band(draw, x, bottom - np.minimum(bare * _FLAT, 0.45 * gap), bottom, (206, 198, 184, 255), _TEETH)
    # A dropped jaw bares few of the upper teeth, a smile or a sneer most of them.
    dropped = min(1.0, jaw_drop(au) / 12) * (1 - au["AU12"])
    bare = np.minimum((3.0 + 5.5 * au["AU12"] + 3.0 * au["AU10"]) * _FLAT, (0.86 - 0.58 * dropped) * gap)
    band(draw, x, top, top + bare, (236, 230, 220, 255), _TEETH)


def _moustache(draw: Draw, person: Person, lips: Lips) -> None:
    colour = tuple(int(0.55 * value) for value in person.hair)
    x = MIDDLE + 1.18 * (lips.x - MIDDLE)
    # It hangs from under the nose and leaves the red of the lip free.
    low = lips.upper - 0.6 + 2.5 * np.abs(_U) ** 3
    top = np.maximum(low - 9.0 * (1 - 0.6 * np.abs(_U) ** 1.5), person.nose_y + 4.5)
    for alpha, extra in ((70, 1.0), (150, 0.0)):
        band(draw, x, np.minimum(top - extra, low), low + extra, (*colour, alpha))


def _nostrils(draw: Draw, person: Person, au: Intensities) -> None:
    rise = 3.0 * au["AU9"] + 1.5 * au["AU10"]
    x, y = 0.46 * person.nose_width + 0.6 * au["AU9"], person.nose_y + 0.5 - rise
    for side in (-1, 1):
        middle = MIDDLE + side * x
        draw.ellipse([middle - 3, y - 1.6, middle + 3, y + 1.6], fill=(52, 26, 22, 165))
        # Raised wings of the nose.
        if rise > 0.5:
            wing = MIDDLE + side * (person.nose_width + 0.5)
            draw.ellipse([wing - 1.6, y - 6 - rise, wing + 1.6, y + 1], fill=(70, 36, 28, int(20 * rise)))


def _lip_colours(person: Person) -> tuple[tuple, tuple, tuple]:
    """Lower lip, its shine, and the upper lip, which faces away from the light."""
    skin = np.asarray(person.skin, dtype=np.float64)
    red = 0.45 * skin * (0.95, 0.72, 0.72) + 0.55 * np.asarray((176, 84, 82)) * (0.45 + 0.55 * skin.mean() / 200)
    shades = (red, 0.6 * red + 0.4 * np.asarray((240, 190, 185)) * skin.mean() / 220, 0.80 * red)
    lower, shine, upper = (tuple(np.clip(shade, 0, 255).astype(int).tolist()) for shade in shades)
    return lower, shine, upper
