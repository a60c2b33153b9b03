"""Hair, beards and glasses. Legend: H, W canvas height and width."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from fercache.synth.person import Person
from fercache.synth.shapes import CENTRE, HEIGHT, MIDDLE, WIDTH, blob, mirrored, nothing, region, smooth

_TOP = 10
"""Row of the top of the hair."""
# How far hair on the skull reaches down, and how far beyond the temples.
_DOWN = {"short": 98, "parted": 100, "long": 150, "fringe": 150, "tied": 78, "curly": 100}
_BEYOND = {"short": 5, "parted": 6, "long": 12, "fringe": 10, "tied": 3, "curly": 12}


def colour(person: Person, rng: np.random.Generator, brightness: float) -> np.ndarray:
    """Hair colour with strands: float32 (H, W, 3)."""
    strands = rng.normal(0, 1, (HEIGHT, WIDTH)).astype(np.float32)
    # Averaged along the strands only, which run down (round in every direction where curly).
    reach = (3, 3) if person.hair_style == "curly" else (1, 14)
    image = Image.fromarray(np.clip(128 + 42 * strands, 0, 255).astype(np.uint8))
    blurred = np.asarray(image.filter(ImageFilter.BoxBlur(reach)), dtype=np.float32) / 128
    shine = 1 + 0.35 * blob(MIDDLE - 20 * person.light_x, 30, 34, 9)
    return np.asarray(person.hair, dtype=np.float32) * ((1 + 1.6 * (blurred - 1)) * shine * brightness)[..., None]


def behind_face(person: Person) -> np.ndarray:
    """Hair behind face and neck: float32 (H, W), 0..1."""
    half = person.temple + 15
    right = {
        "long": [(0, _TOP), (half * 0.8, 24), (half + 4, 80), (half + 8, 150), (half + 6, HEIGHT + 6)],
        "fringe": [(0, _TOP), (half * 0.8, 24), (half + 2, 80), (half + 4, 140), (half - 6, 180), (34, 186)],
        "curly": [(0, _TOP - 6), (half * 0.8, 14), (half + 14, 58), (half + 11, 92), (half - 2, 116), (40, 124)],
    }
    if person.hair_style not in right:
        return nothing()
    edge = smooth(right[person.hair_style])
    return region(np.concatenate([edge, edge[::-1] * (-1, 1)]) + CENTRE, 1.2)


def on_skull(person: Person, rng: np.random.Generator) -> np.ndarray:
    """Hair on the skull, in front of the forehead, down to the hairline: float32 (H, W), 0..1."""
    style = person.hair_style
    if style == "bald":
        return nothing()
    line, edge, top = person.hairline_y, person.temple, _TOP + (8 if style == "tied" else 0)
    down, outer = _DOWN[style], edge + _BEYOND[style]
    left = [(-outer, down), (-outer - 1, 66), (-0.72 * outer, 24)]
    right = [
        (edge + 1, down),
        (edge - 3, 78),
        (0.84 * edge, line + 15),
        (0.52 * edge, line + 0.6 * person.hairline_peak),
    ]
    inside = [*right, (0, line - 0.5 * person.hairline_peak), *mirrored(right)]
    if style == "parted":
        inside[3:6] = [(0.5 * edge, line - 8), (0.2 * edge, line - 9), (-0.5 * edge, line + 7)]
    outline = np.concatenate([smooth([*left, (0, top), *mirrored(left)]), smooth(inside)]) + CENTRE
    return region(outline + rng.normal(0, 2.2 if style == "curly" else 0.7, outline.shape), 1.3)


def beard(person: Person, face: np.ndarray) -> np.ndarray:
    """How much beard covers the skin, 0..0.9: float32 (H, W). The moustache moves and is drawn with the mouth."""
    strength = {"stubble": 0.22, "beard": 0.88}.get(person.facial_hair)
    if strength is None:
        return nothing()
    mouth = person.mouth_y
    left = [(-72, 112), (-56, 138), (-36, mouth - 6), (-22, mouth - 13)]
    upper = smooth([*left, (0, mouth - 11), *mirrored(left)])
    grown = region(np.concatenate([upper + CENTRE, [(190, HEIGHT), (34, HEIGHT)]]), 4)
    return strength * grown * face * (1 - 0.9 * blob(MIDDLE, mouth + 1, 15, 5))


def in_front(person: Person, rng: np.random.Generator) -> np.ndarray | None:
    """Fringe and glasses, which lie over brows and eyes: uint8 (H, W, 4), or None where there are none."""
    layer = np.zeros((HEIGHT, WIDTH, 4), dtype=np.float32)
    if person.hair_style == "fringe":
        low = person.brow_y - 7
        edge = smooth([(-60, low + 8), (-30, low - 2), (0, low - 5), (30, low), (60, low + 9)]) + CENTRE
        mask = region(np.concatenate([edge + rng.normal(0, 1.6, edge.shape), [(166, 34), (58, 34)]]), 1.4)
        layer[..., :3], layer[..., 3] = colour(person, rng, 0.95), 245 * mask
    if person.glasses:
        glasses = _glasses(person)
        layer = np.where(glasses[..., 3:] > layer[..., 3:], glasses, layer)
    return np.clip(layer, 0, 255).astype(np.uint8) if layer[..., 3].any() else None


def _glasses(person: Person) -> np.ndarray:
    """Two rims, a bridge and the temples' start: float32 (H, W, 4)."""
    image = Image.new("L", (WIDTH, HEIGHT))
    draw = ImageDraw.Draw(image)
    x, y = person.eye_x, person.eye_y + 3
    for side in (-1, 1):
        middle = MIDDLE + side * x
        draw.rounded_rectangle([middle - 22, y - 16, middle + 22, y + 17], radius=13, outline=255, width=3)
        draw.line([(middle + side * 22, y - 6), (MIDDLE + side * (person.cheek + 2), y - 10)], fill=255, width=3)
    draw.arc([MIDDLE - x + 20, y - 9, MIDDLE + x - 20, y + 5], 190, 350, fill=255, width=3)
    frame = np.asarray(image.filter(ImageFilter.GaussianBlur(0.6)), dtype=np.float32)
    return np.concatenate([np.full((HEIGHT, WIDTH, 3), 34, np.float32), frame[..., None] * 0.92], 2)
