"""Pictures of one video: the face on its background, seen by the camera.

Legend: S side of the crop in pixels.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from fercache.synth.camera import Camera
from fercache.synth.face import Face
from fercache.synth.person import Colour, Person
from fercache.synth.timeline import Timeline

_POOL = 512
"""Side of the square of noise that every frame takes a piece of."""


class Scene:
    """Draws the frames of one video."""

    def __init__(self, person: Person, timeline: Timeline, camera: Camera, size: int, rng: np.random.Generator) -> None:
        self._face, self._timeline, self._camera, self._size = Face(person), timeline, camera, size
        self._background = _background(person, size, rng)
        self._corner = rng.integers(0, _POOL - size, (len(timeline.units), 2)).tolist()
        self._occluder = _hand(person.skin, size) if rng.random() < 0.6 else _object(person.clothes, size)

    def frame(self, index: int) -> Image.Image:
        """The crop of frame `index` (from 0): RGB (S, S)."""
        camera, timeline, size = self._camera, self._timeline, self._size
        face, mask = self._face.draw(timeline.units[index], timeline.gaze[index], float(timeline.blink[index]))
        crop = self._background.copy()
        crop.paste(camera.view(face, index), (0, 0), camera.view(mask, index))
        if not np.isnan(camera.cover[index, 0]):
            x, y = (camera.cover[index] * size).astype(int).tolist()
            crop.paste(self._occluder, (x - self._occluder.width // 2, y - self._occluder.height // 2), self._occluder)
        top, left = self._corner[index]
        return camera.expose(crop, index, _noise_pool()[top : top + size, left : left + size])


@cache
def _noise_pool() -> np.ndarray:
    """Sensor noise of variance 1, most of it common to the three colours: float32 (_POOL, _POOL, 3)."""
    rng = np.random.default_rng(0)
    grey = rng.normal(0, 0.85, (_POOL, _POOL, 1))
    return (grey + rng.normal(0, 0.53, (_POOL, _POOL, 3))).astype(np.float32)


def _background(person: Person, size: int, rng: np.random.Generator) -> Image.Image:
    """A blurred room: a gradient with a few soft rectangles, RGB (S, S)."""
    upper, lower = (np.asarray(colour, dtype=np.float32) for colour in person.background)
    down = np.linspace(0, 1, size, dtype=np.float32)[:, None, None]
    image = Image.fromarray(np.broadcast_to(upper + (lower - upper) * down, (size, size, 3)).astype(np.uint8))
    draw = ImageDraw.Draw(image, "RGBA")
    for _ in range(int(rng.integers(2, 7))):
        x, y = rng.uniform(-0.2, 1, 2) * size
        wide, high = rng.uniform(0.1, 0.6, 2) * size
        grey = int(rng.integers(20, 235))
        draw.rectangle([x, y, x + wide, y + high], fill=(grey, grey, grey, int(rng.integers(30, 110))))
    return image.filter(ImageFilter.GaussianBlur(rng.uniform(1.5, 5) * size / 112))


def _hand(skin: Colour, size: int) -> Image.Image:
    """A hand seen from its back, RGBA, about half the crop wide."""
    side = 4 * size // 5
    image = Image.new("RGBA", (4 * side, 4 * side))
    draw = ImageDraw.Draw(image)
    unit = 4 * side / 100
    for shade, grow in ((0.55, 2.0), (0.88, 0.0)):
        fill = (*(int(shade * value) for value in skin), 255)
        for left, top in ((26, 22), (38, 12), (50, 10), (62, 18)):
            box = [left - grow / 2, top - grow / 2, left + 10 + grow / 2, 60]
            draw.rounded_rectangle([value * unit for value in box], radius=5 * unit, fill=fill)
        draw.rounded_rectangle([value * unit for value in (25 - grow, 46, 73 + grow, 100)], radius=12 * unit, fill=fill)
        draw.line([value * unit for value in (27, 74, 14, 52)], fill=fill, width=round((9 + grow) * unit))
    return image.reduce(4).filter(ImageFilter.GaussianBlur(0.5 * size / 112))


def _object(colour: Colour, size: int) -> Image.Image:
    """A mug or a phone: a rounded block, RGBA."""
    wide, high = 2 * size // 5, size // 2
    image = Image.new("RGBA", (2 * wide, 2 * high))
    draw = ImageDraw.Draw(image)
    draw.rounded_rectangle([0, 0, 2 * wide - 1, 2 * high - 1], radius=wide // 4, fill=(*colour, 255))
    light = tuple(min(255, value + 40) for value in colour)
    draw.rectangle([wide // 4, high // 8, wide // 2, 2 * high - high // 8], fill=(*light, 255))
    return image.reduce(2)
