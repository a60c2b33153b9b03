"""What of a person does not move with the expression: skin with its light and shade, hair, neck, clothes.

Drawn once a person. Legend: H, W canvas height and width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fercache.synth import hair
from fercache.synth.person import Person
from fercache.synth.shapes import (
    CENTRE,
    HEIGHT,
    MIDDLE,
    WIDTH,
    blob,
    both,
    grid,
    mirrored,
    region,
    smooth,
    soften,
    stroke,
)


@dataclass(frozen=True)
class Layers:
    """The still parts of a person, ready to be drawn over."""

    head: np.ndarray
    """uint8 (H, W, 3): everything behind brows, eyes and mouth, mouth shut."""
    alpha: np.ndarray
    """uint8 (H, W): 255 where the person is, 0 where the background shows."""
    front: np.ndarray | None
    """uint8 (H, W, 4): hair and glasses in front of brows and eyes, or None."""


def draw_layers(person: Person) -> Layers:
    """Draw the still parts of a person."""
    rng = np.random.default_rng(person.texture_seed)
    face = region(_face_outline(person), 0.7)
    skin = np.asarray(person.skin, dtype=np.float32)
    lit = _shade(person, face)[..., None] * _tint(person, skin)
    neck_shadow = (1 - 0.35 * blob(MIDDLE, person.chin_y, 60, 14))[..., None]
    canvas, alpha = np.zeros((HEIGHT, WIDTH, 3), dtype=np.float32), np.zeros_like(face)
    # From the back to the front; the order of the random draws is a part of the data set.
    for colour, mask in (
        (hair.colour(person, rng, 0.75), hair.behind_face(person)),
        (skin * 0.66 * neck_shadow, _neck(person)),
        (np.asarray(person.clothes, dtype=np.float32) * _folds(rng), _shoulders()),
        (skin * 0.8, _ears(person)),
        (lit * _pores(rng), face),
        (hair.colour(person, rng, 0.62), hair.beard(person, face)),
        (hair.colour(person, rng, 1.0), hair.on_skull(person, rng)),
    ):
        canvas += (colour - canvas) * mask[..., None]
        alpha = np.maximum(alpha, mask)
    canvas *= _side_light(person)
    head = np.clip(canvas, 0, 255).astype(np.uint8)
    return Layers(head, (np.clip(alpha, 0, 1) * 255).astype(np.uint8), hair.in_front(person, rng))


def _face_outline(person: Person) -> np.ndarray:
    """The face's edge from the forehead over temples, cheeks and jaw to the chin: (N, 2)."""
    right = [
        (0.55 * person.temple, 38),
        (person.temple, 70),
        (person.cheek, 106),
        (0.93 * person.cheek, 136),
        (person.jaw, 163),
        (0.62 * person.jaw + 0.2 * person.chin_width, 183),
        (person.chin_width, person.chin_y - 3),
    ]
    return smooth(np.add([(0, 30), *right, (0, person.chin_y), *mirrored(right)], CENTRE), closed=True)


def _shade(person: Person, face: np.ndarray) -> np.ndarray:
    """How bright each pixel of the skin is, about 0.4..1.15: float32 (H, W)."""
    eye_y, nose_y, mouth_y = person.eye_y, person.nose_y, person.mouth_y
    inside = soften(face, 13)
    # A curved surface turns away from the viewer at its edge and darkens.
    shade = 0.62 + 0.40 * np.clip(1.35 * inside - 0.35, 0, 1)
    forehead, cheeks, chin = blob(MIDDLE, 62, 34, 16), both(38, 126, 15, 11), blob(MIDDLE, person.chin_y - 14, 13, 7)
    shade += 0.07 * forehead + 0.07 * cheeks + 0.05 * chin
    shade -= 0.20 * both(0.78 * person.eye_x, eye_y - 7, 14, 6) + 0.12 * both(13, eye_y - 3, 5, 9)
    shade -= (0.05 + 0.09 * person.age) * both(person.eye_x, eye_y + 11, 13, 3.5)
    # The nose: lit ridge and tip, one side in shadow, a shadow under it, the wings' edge.
    away = np.sign(person.light_x) or 1.0
    ridge = MIDDLE - away
    shade += 0.10 * blob(ridge, 0.5 * (eye_y + nose_y), 3.5, 16) + 0.12 * blob(ridge, nose_y - 7, 5, 4.5)
    shade -= 0.15 * blob(MIDDLE + 9 * away, nose_y - 12, 4, 14) + 0.07 * blob(MIDDLE - 10 * away, nose_y - 10, 4, 12)
    shade -= 0.20 * blob(MIDDLE, nose_y + 4, person.nose_width * 0.7, 3)
    wing = [(person.nose_width - 3, nose_y - 9), (person.nose_width, nose_y - 3), (person.nose_width - 3, nose_y + 2)]
    shade -= 0.25 * stroke(wing, 2, 1.2)
    shade -= 0.10 * stroke([(3, nose_y + 6), (4, mouth_y - 8)], 2, 2) + 0.16 * blob(MIDDLE, mouth_y + 13, 14, 3)
    shade -= 0.07 * both(46, 152, 10, 14)
    fold = [(person.nose_width + 3, nose_y - 2), (26, nose_y + 9), (31, mouth_y)]
    shade -= (0.05 + 0.16 * person.age) * stroke(fold, 2, 1.8)
    shade -= 0.10 * person.age * stroke([(0, 60), (24, 58), (38, 62)], 1, 1.2)
    return shade


def _tint(person: Person, skin: np.ndarray) -> np.ndarray:
    """Skin colour with redder cheeks, nose and ears: float32 (H, W, 3)."""
    flush = 0.8 * both(40, 131, 15, 11) + 0.5 * blob(MIDDLE, person.nose_y - 5, 9, 7)
    return skin + flush[..., None] * np.asarray((6, -13, -11), dtype=np.float32) * (skin.mean() / 200)


def _side_light(person: Person) -> np.ndarray:
    """Brightness falling off away from the light: float32 (H, W, 1), about 0.6..1.2."""
    xs, ys = grid()
    across = (xs - MIDDLE) / 70 * person.light_x
    down = (ys - 110) / 90
    return (1 - person.light_strength * (0.20 * across + 0.07 * down))[..., None].astype(np.float32)


def _pores(rng: np.random.Generator) -> np.ndarray:
    """Fine unevenness of skin around 1: float32 (H, W, 1)."""
    fine = rng.normal(0, 1, (HEIGHT, WIDTH)).astype(np.float32)
    coarse = soften(0.5 + 0.16 * rng.normal(0, 1, (HEIGHT, WIDTH)), 3) - 0.5
    return (1 + 0.012 * fine + 0.5 * coarse)[..., None]


def _folds(rng: np.random.Generator) -> np.ndarray:
    """Broad folds of cloth around 1: float32 (1, W, 1)."""
    xs, _ = grid()
    waves = np.sin(xs / rng.uniform(6, 14) + rng.uniform(0, 6)) * np.sin(xs / 31)
    return (0.9 + 0.1 * waves)[..., None]


def _neck(person: Person) -> np.ndarray:
    half = 0.68 * person.jaw
    right = [(half, 150), (half + 4, 215), (half + 14, HEIGHT)]
    return region(np.add([*right, *mirrored(right)], CENTRE), 1)


def _shoulders() -> np.ndarray:
    edge = smooth(
        [(-10, 238), (40, 226), (76, 212), (90, 222), (MIDDLE, 236), (134, 222), (148, 212), (184, 226), (234, 238)]
    )
    return region(np.concatenate([edge, [(240, HEIGHT + 4), (-16, HEIGHT + 4)]]), 1)


def _ears(person: Person) -> np.ndarray:
    x, y = person.cheek - 1, person.eye_y + 10
    right = smooth([(x - 4, y - 16), (x + 5, y - 18), (x + 9, y - 6), (x + 5, y + 12), (x - 3, y + 18)])
    return np.maximum(region(right + CENTRE, 0.8), region(right * (-1, 1) + CENTRE, 0.8))
