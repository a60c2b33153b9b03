"""Light and shade that action units put on the skin: folds, wrinkles, raised cheeks, hollows.

Each is a map drawn once a person; a frame's shade is their sum weighted by intensities, so that it
costs one matrix product. Legend: K maps, P pixels of BOX.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fercache.data.synth.person import Person
from fercache.data.synth.shapes import MIDDLE, blob, both, stroke

BOX = (36, 44, 188, 208)
"""Left, top, right, bottom of the part of the canvas that creases."""


def draw_creases(person: Person) -> np.ndarray:
    """Darkening (negative: lightening) at full intensity, in the order of `weights`: float32 (K, P)."""
    eye_x, eye_y, nose_y, mouth_y = person.eye_x, person.eye_y, person.nose_y, person.mouth_y
    brow_y, wing, outer = person.brow_y, person.nose_width, person.eye_x + person.eye_width
    smile = [(wing - 1, nose_y - 9), (wing + 9, nose_y - 2), (34, mouth_y - 8), (38, mouth_y + 5)]
    sneer = [(wing - 4, nose_y - 15), (wing + 6, nose_y - 9), (27, nose_y + 5), (33, mouth_y + 2)]
    maps = [
        0.46 * stroke(smile, 3, 1.6) + 0.10 * both(33, mouth_y - 3, 6, 9) - 0.12 * both(46, mouth_y - 14, 9, 9),
        0.50 * stroke(sneer, 3, 1.5) + 0.10 * both(22, nose_y + 4, 6, 8) - 0.10 * both(36, nose_y - 8, 9, 8),
        0.28 * stroke([(eye_x - 13, eye_y + 8), (eye_x, eye_y + 11), (outer + 2, eye_y + 7)], 3, 1.4)
        - 0.18 * both(eye_x + 10, eye_y + 23, 13, 7),
        0.26
        * _rays([(outer + 2, eye_y + 1)], [(outer + 12, eye_y - 6), (outer + 13, eye_y + 1), (outer + 11, eye_y + 8)]),
        sum(0.24 * stroke([(0, y), (22, y - 2), (42, y + 3)], 2, 1.1) for y in (brow_y - 13, brow_y - 20, brow_y - 27)),
        sum(0.30 * stroke([(0, y + 1), (9, y), (20, y + 3)], 2, 1.1) for y in (brow_y - 12, brow_y - 18, brow_y - 24)),
        0.55 * stroke([(5.5, brow_y - 9), (4.5, brow_y), (6.5, brow_y + 9)], 3, 1.1)
        + 0.16 * blob(MIDDLE, brow_y + 6, 9, 7)
        + 0.14 * both(eye_x - 3, eye_y - 9, 13, 5),
        sum(0.40 * stroke([(0, y), (5, y + 0.5), (10, y - 3)], 2, 1.0) for y in (eye_y - 4, eye_y + 3, eye_y + 10))
        + 0.36 * stroke([(7, eye_y + 16), (12, eye_y + 6), (15, eye_y + 4)], 2, 1.2),
        0.26 * stroke([(0, mouth_y + 13), (10, mouth_y + 14.5), (17, mouth_y + 19)], 3, 1.6)
        + 0.12 * _dimples(person)
        - 0.08 * blob(MIDDLE, person.chin_y - 12, 10, 6),
        0.40 * stroke([(person.mouth_width + 2, mouth_y + 3), (person.mouth_width + 6, mouth_y + 14)], 3, 1.6),
        0.20 * both(42, 158, 8, 18) + 0.10 * stroke([(30, mouth_y - 14), (37, mouth_y + 8), (33, mouth_y + 24)], 3, 2),
        0.30
        * stroke(
            [(person.mouth_width + 6, mouth_y - 6), (person.mouth_width + 12, mouth_y + 4), (36, mouth_y + 15)], 3, 1.6
        ),
    ]
    left, top, right, bottom = BOX
    deep = 0.75 + 0.5 * person.age
    return np.stack([deep * crease[top:bottom, left:right].ravel() for crease in maps]).astype(np.float32)


def weights(au: Mapping[str, float]) -> np.ndarray:
    """How strongly each crease shows at these intensities: float32 (K,), 0..1."""
    raised = min(au["AU1"], au["AU2"])
    return np.asarray(
        [
            au["AU12"],
            max(au["AU10"], 0.9 * au["AU9"]),
            max(au["AU6"], 0.5 * au["AU7"], 0.6 * au["AU9"]),
            au["AU6"],
            raised * (1 - 0.5 * au["AU4"]),
            max(0.0, au["AU1"] - 0.6 * au["AU2"]),
            au["AU4"],
            au["AU9"],
            max(au["AU17"], 0.6 * au["AU24"], 0.4 * au["AU23"]),
            au["AU15"],
            max(au["AU27"], 0.5 * au["AU26"]),
            au["AU20"],
        ],
        dtype=np.float32,
    )


def _rays(starts: list[tuple[float, float]], ends: list[tuple[float, float]]) -> np.ndarray:
    return sum(stroke([start, end], 2, 0.9) for start in starts for end in ends)


def _dimples(person: Person) -> np.ndarray:
    """The chin's skin bunched up: small dark dots."""
    spots = ((-7, -13), (0, -10), (6, -14), (-3, -17), (9, -10))
    return sum(blob(MIDDLE + x, person.chin_y + y, 2.2, 1.8) for x, y in spots)
