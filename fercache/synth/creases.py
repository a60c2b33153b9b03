"""Light and shade that action units put on the skin: folds, wrinkles, raised cheeks, hollows.

Each crease is a map drawn once per person; a frame's shade is their sum weighted by intensities, which costs one
matrix product. Legend: K maps, H, W canvas height and width, P pixels of the part of the canvas that creases.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable

import numpy as np
from PIL import Image

from fercache.synth.person import Person
from fercache.synth.shapes import MIDDLE, blob, both, stroke
from fercache.synth.units import Intensities

# Left, top, right and bottom of the part of the canvas that creases.
_LEFT, _TOP, _RIGHT, _BOTTOM = 36, 44, 188, 208
# The shade is a blend of the head darkened and lightened by these factors.
_DARKEST, _BRIGHTEST = 0.40, 1.12
_NEUTRAL = (1 - _DARKEST) / (_BRIGHTEST - _DARKEST)


class Creases:
    """Draws a person's creases over a head, uint8 (H, W, 3)."""

    def __init__(self, person: Person, head: np.ndarray) -> None:
        box = head[_TOP:_BOTTOM, _LEFT:_RIGHT].astype(np.float32)
        self._dark = Image.fromarray((box * _DARKEST).astype(np.uint8))
        self._bright = Image.fromarray(np.clip(box * _BRIGHTEST, 0, 255).astype(np.uint8))
        maps = {**_upper_face(person), **_lower_face(person)}
        self._names = tuple(maps)
        depth = 0.75 + 0.5 * person.age
        darkening = np.stack([depth * part[_TOP:_BOTTOM, _LEFT:_RIGHT].ravel() for part in maps.values()])
        self._maps = darkening * 255 / (_BRIGHTEST - _DARKEST)  # (K, P)

    def paste(self, image: Image.Image, au: Intensities) -> None:
        """Draw the creases at these intensities into a picture of the head."""
        strengths = _strengths(au)
        weights = np.asarray([strengths[name] for name in self._names], dtype=np.float32)
        shade = np.clip(255 * _NEUTRAL - weights @ self._maps, 0, 255).astype(np.uint8)
        mask = Image.fromarray(shade.reshape(_BOTTOM - _TOP, _RIGHT - _LEFT))
        image.paste(Image.composite(self._bright, self._dark, mask), (_LEFT, _TOP))


def _strengths(au: Intensities) -> dict[str, float]:
    """How strongly each crease shows at these intensities, 0..1."""
    return {
        "forehead": min(au["AU1"], au["AU2"]) * (1 - 0.5 * au["AU4"]),
        "inner forehead": max(0.0, au["AU1"] - 0.6 * au["AU2"]),
        "glabella": au["AU4"],
        "nose root": au["AU9"],
        "crow's feet": au["AU6"],
        "raised cheek": max(au["AU6"], 0.5 * au["AU7"], 0.6 * au["AU9"]),
        "smile fold": au["AU12"],
        "sneer fold": max(au["AU10"], 0.9 * au["AU9"]),
        "chin": max(au["AU17"], 0.6 * au["AU24"], 0.4 * au["AU23"]),
        "mouth corner": au["AU15"],
        "hollow cheek": max(au["AU27"], 0.5 * au["AU26"]),
        "stretch": au["AU20"],
    }


def _sum(pictures: Iterable[np.ndarray]) -> np.ndarray:
    return functools.reduce(np.add, pictures)


def _upper_face(person: Person) -> dict[str, np.ndarray]:
    """Creases of forehead, eyes and nose root at full strength; negative values lighten: float32 (H, W) each."""
    eye_x, eye_y, brow_y = person.eye_x, person.eye_y, person.brow_y
    outer = eye_x + person.eye_width
    rays = [(outer + 12, eye_y - 6), (outer + 13, eye_y + 1), (outer + 11, eye_y + 8)]
    return {
        "forehead": _sum(
            0.24 * stroke([(0, y), (22, y - 2), (42, y + 3)], 2, 1.1) for y in (brow_y - 13, brow_y - 20, brow_y - 27)
        ),
        "inner forehead": _sum(
            0.30 * stroke([(0, y + 1), (9, y), (20, y + 3)], 2, 1.1) for y in (brow_y - 12, brow_y - 18, brow_y - 24)
        ),
        "glabella": 0.55 * stroke([(5.5, brow_y - 9), (4.5, brow_y), (6.5, brow_y + 9)], 3, 1.1)
        + 0.16 * blob(MIDDLE, brow_y + 6, 9, 7)
        + 0.14 * both(eye_x - 3, eye_y - 9, 13, 5),
        "nose root": _sum(
            0.40 * stroke([(0, y), (5, y + 0.5), (10, y - 3)], 2, 1.0) for y in (eye_y - 4, eye_y + 3, eye_y + 10)
        )
        + 0.36 * stroke([(7, eye_y + 16), (12, eye_y + 6), (15, eye_y + 4)], 2, 1.2),
        "crow's feet": _sum(0.26 * stroke([(outer + 2, eye_y + 1), end], 2, 0.9) for end in rays),
        "raised cheek": 0.28 * stroke([(eye_x - 13, eye_y + 8), (eye_x, eye_y + 11), (outer + 2, eye_y + 7)], 3, 1.4)
        - 0.18 * both(eye_x + 10, eye_y + 23, 13, 7),
    }


def _lower_face(person: Person) -> dict[str, np.ndarray]:
    """Creases of cheeks, mouth and chin at full strength; negative values lighten: float32 (H, W) each."""
    nose_y, wing, mouth_y, mouth_x = person.nose_y, person.nose_width, person.mouth_y, person.mouth_width
    smile = [(wing - 1, nose_y - 9), (wing + 9, nose_y - 2), (34, mouth_y - 8), (38, mouth_y + 5)]
    sneer = [(wing - 4, nose_y - 15), (wing + 6, nose_y - 9), (27, nose_y + 5), (33, mouth_y + 2)]
    # The chin's skin bunches up into small dark dots.
    dots = ((-7, -13), (0, -10), (6, -14), (-3, -17), (9, -10))
    return {
        "smile fold": 0.46 * stroke(smile, 3, 1.6)
        + 0.10 * both(33, mouth_y - 3, 6, 9)
        - 0.12 * both(46, mouth_y - 14, 9, 9),
        "sneer fold": 0.50 * stroke(sneer, 3, 1.5)
        + 0.10 * both(22, nose_y + 4, 6, 8)
        - 0.10 * both(36, nose_y - 8, 9, 8),
        "chin": 0.26 * stroke([(0, mouth_y + 13), (10, mouth_y + 14.5), (17, mouth_y + 19)], 3, 1.6)
        + 0.12 * _sum(blob(MIDDLE + x, person.chin_y + y, 2.2, 1.8) for x, y in dots)
        - 0.08 * blob(MIDDLE, person.chin_y - 12, 10, 6),
        "mouth corner": 0.40 * stroke([(mouth_x + 2, mouth_y + 3), (mouth_x + 6, mouth_y + 14)], 3, 1.6),
        "hollow cheek": 0.20 * both(42, 158, 8, 18)
        + 0.10 * stroke([(30, mouth_y - 14), (37, mouth_y + 8), (33, mouth_y + 24)], 3, 2),
        "stretch": 0.30 * stroke([(mouth_x + 6, mouth_y - 6), (mouth_x + 12, mouth_y + 4), (36, mouth_y + 15)], 3, 1.6),
    }
