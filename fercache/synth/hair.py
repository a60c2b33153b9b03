"""Hair, beards and glasses. Legend: H, W canvas height and width."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from fercache.synth.person import Person
from fercache.synth.shapes import CENTRE, HEIGHT, MIDDLE, WIDTH, blob, region, smooth

TOP = 10
"""Row of the top of the hair."""


def colour(person: Person, rng: np.random.Generator, brightness: float) -> np.ndarray:
    """Hair colour with strands: float32 (H, W, 3)."""
    strands = rng.normal(0, 1, (HEIGHT, WIDTH)).astype(np.float32)
    # Averaged along the strands only, which run down (round in every direction where curly).
    reach = (3, 3) if person.hair_style == "curly" else (1, 14)
    image = Image.fromarray(np.clip(128 + 42 * strands, 0, 255).astype(np.uint8))
    blurred = np.asarray(image.filter(ImageFilter.BoxBlur(reach)), dtype=np.float32) / 128
    shine = 1 + 0.35 * blob(MIDDLE - 20 * person.light_x, 30, 34, 9)
    return np.asarray(person.hair, dtype=np.float32) * ((1 + 1.6 * (blurred - 1)) * shine * brightness)[..., None]


def behind(person: Person) -> np.ndarray:
    """Hair behind face and neck: float32 (H, W), 0..1."""
    half = person.temple + 15
    if person.hair_style == "long":
        sides = [(0, TOP), (half * 0.8, 24), (half + 4, 80), (half + 8, 150), (half + 6, HEIGHT + 6)]
    elif person.hair_style == "fringe":
        sides = [(0, TOP), (half * 0.8, 24), (half + 2, 80), (half + 4, 140), (half - 6, 180), (34, 186)]
    elif person.hair_style == "curly":
        sides = [(0, TOP - 6), (half * 0.8, 14), (half + 14, 58), (half + 11, 92), (half - 2, 116), (40, 124)]
    else:
        return np.zeros((HEIGHT, WIDTH), dtype=np.float32)
    return _mirrored(sides, 1.2)


def cap(person: Person, rng: np.random.Generator) -> np.ndarray:
    """Hair on the skull, in front of the forehead, down to the hairline: float32 (H, W), 0..1."""
    if person.hair_style == "bald":
        return np.zeros((HEIGHT, WIDTH), dtype=np.float32)
    line, edge, top = person.hairline_y, person.temple, TOP + (8 if person.hair_style == "tied" else 0)
    down = {"short": 98, "parted": 100, "long": 150, "fringe": 150, "tied": 78, "curly": 100}[person.hair_style]
    outer = edge + {"short": 5, "parted": 6, "long": 12, "fringe": 10, "tied": 3, "curly": 12}[person.hair_style]
    outside = [(-outer, down), (-outer - 1, 66), (-0.72 * outer, 24), (0, top), (0.72 * outer, 24), (outer + 1, 66)]
    corner = (0.52 * edge, line + 0.6 * person.hairline_peak)
    right = [(edge + 1, down), (edge - 3, 78), (0.84 * edge, line + 15), corner]
    inside = [*right, (0, line - 0.5 * person.hairline_peak), *((-x, y) for x, y in reversed(right))]
    if person.hair_style == "parted":
        inside[3:6] = [(0.5 * edge, line - 8), (0.2 * edge, line - 9), (-0.5 * edge, line + 7)]
    ring = np.concatenate([smooth([*outside, (outer, down)]), smooth(inside)]) + CENTRE
    ragged = ring + rng.normal(0, 0.7 if person.hair_style != "curly" else 2.2, ring.shape)
    return region(ragged, 1.3)


def on_face(person: Person, face: np.ndarray) -> np.ndarray:
    """How much beard covers the skin, 0..0.9: float32 (H, W). The moustache moves and is drawn with the mouth."""
    strength = {"none": 0.0, "stubble": 0.22, "moustache": 0.0, "beard": 0.88}[person.facial_hair]
    if not strength:
        return np.zeros((HEIGHT, WIDTH), dtype=np.float32)
    mouth = person.mouth_y
    upper = [(-72, 112), (-56, 138), (-36, mouth - 6), (-22, mouth - 13), (0, mouth - 11)]
    upper += [(-x, y) for x, y in reversed(upper[:-1])]
    grown = region(np.concatenate([smooth(upper) + CENTRE, [(190, HEIGHT), (34, HEIGHT)]]), 4)
    return strength * grown * face * (1 - 0.9 * blob(MIDDLE, mouth + 1, 15, 5))


def front(person: Person, rng: np.random.Generator) -> np.ndarray | None:
    """Fringe and glasses, which lie over brows and eyes: uint8 (H, W, 4), or None where there are none."""
    layer = np.zeros((HEIGHT, WIDTH, 4), dtype=np.float32)
    if person.hair_style == "fringe":
        low = person.brow_y - 7
        edge = smooth([(-60, low + 8), (-30, low - 2), (0, low - 5), (30, low), (60, low + 9)]) + CENTRE
        mask = region(np.concatenate([edge + rng.normal(0, 1.6, edge.shape), [(166, 34), (58, 34)]]), 1.4)
        layer[..., :3], layer[..., 3] = colour(person, rng, 0.95), 245 * mask
    if person.glasses:
        layer = np.where(_glasses(person)[..., 3:] > layer[..., 3:], _glasses(person), layer)
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


def _mirrored(right: list[tuple[float, float]], soft: float) -> np.ndarray:
    """A region from its right half, given from top to bottom relative to the middle line."""
    half = smooth(right)
    ring = np.concatenate([half, np.stack([-half[::-1, 0], half[::-1, 1]], 1)])
    return region(ring + CENTRE, soft)
