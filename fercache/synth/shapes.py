"""Drawing on the canvas: smooth curves, soft blobs, regions and strokes.

Legend: H, W canvas height and width; N points of a curve, (x, y) in pixels. "Relative" points have x = 0 on the face's
middle line; adding CENTRE moves them onto the canvas.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

WIDTH = 224
"""Canvas width: twice the usual crop, so that halving it smooths the edges of polygons."""
HEIGHT = 248
"""Taller than wide: shoulders reach below the crop, for when the head moves up."""
MIDDLE = WIDTH / 2
CENTRE = np.asarray((MIDDLE, 0.0))

Points = Sequence[tuple[float, float]]
Draw = ImageDraw.ImageDraw
_ALL = slice(None)


def smooth(points: Points | np.ndarray, closed: bool = False, steps: int = 8) -> np.ndarray:
    """A Catmull-Rom curve through `points`: float64 (N, 2)."""
    knots = np.asarray(points, dtype=np.float64)
    if closed:
        knots = np.concatenate([knots[-1:], knots, knots[:2]])
    else:
        knots = np.concatenate([2 * knots[:1] - knots[1:2], knots, 2 * knots[-1:] - knots[-2:-1]])
    weights = _catmull_rom(steps)
    pieces = [weights @ knots[i : i + 4] for i in range(len(knots) - 3)]
    if not closed:
        pieces.append(knots[-2:-1])
    return np.concatenate(pieces)


@cache
def _catmull_rom(steps: int) -> np.ndarray:
    """(steps, 4): weights of the four knots around a piece, at `steps` positions along it."""
    t = np.linspace(0, 1, steps, endpoint=False)
    return 0.5 * np.stack([-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, -(t**2) + t**3], 1)


def mirrored(points: Points) -> Points:
    """The mirror image of relative points, in reverse order, so that it closes a ring."""
    return [(-x, y) for x, y in reversed(points)]


def ring(x: np.ndarray, upper: np.ndarray, lower: np.ndarray) -> np.ndarray:
    """The outline of the area between two curves over the same `x`, each (N,): (2N, 2)."""
    return np.concatenate([x, x[::-1], upper, lower[::-1]]).reshape(2, -1).T


def band(draw: Draw, x: np.ndarray, upper: np.ndarray, lower: np.ndarray, fill: tuple, part: slice = _ALL) -> None:
    """Fill between two curves over the same `x`, each (N,), or between a part of them."""
    draw.polygon(ring(x[part], upper[part], lower[part]).ravel().tolist(), fill=fill)


@cache
def grid() -> tuple[np.ndarray, np.ndarray]:
    """x (1, W) and y (H, 1) of the canvas's pixels, float32."""
    return (np.arange(WIDTH, dtype=np.float32) + 0.5)[None], (np.arange(HEIGHT, dtype=np.float32) + 0.5)[:, None]


def nothing() -> np.ndarray:
    """An empty field: float32 (H, W)."""
    return np.zeros((HEIGHT, WIDTH), dtype=np.float32)


def blob(x: float, y: float, across: float, down: float) -> np.ndarray:
    """A Gaussian bump of height 1, with standard deviations in pixels: float32 (H, W)."""
    xs, ys = grid()
    return np.exp(-0.5 * (((xs - x) / across) ** 2 + ((ys - y) / down) ** 2)).astype(np.float32)


def both(x: float, y: float, across: float, down: float) -> np.ndarray:
    """A blob at `x` to the right of the middle line and its mirror image."""
    return blob(MIDDLE - x, y, across, down) + blob(MIDDLE + x, y, across, down)


def region(polygon: np.ndarray, soft: float) -> np.ndarray:
    """1 inside the polygon and 0 outside, its edge softened by a Gaussian of `soft` pixels: float32 (H, W)."""
    image = Image.new("L", (WIDTH, HEIGHT))
    ImageDraw.Draw(image).polygon(polygon.ravel().tolist(), fill=255)
    return _blurred(image, soft)


def stroke(points: Points, width: int, soft: float) -> np.ndarray:
    """A soft line through relative points, and its mirror image: float32 (H, W), 0..1."""
    image = Image.new("L", (WIDTH, HEIGHT))
    draw = ImageDraw.Draw(image)
    curve = smooth(points)
    for side in (-1, 1):
        draw.line((curve * (side, 1) + CENTRE).ravel().tolist(), fill=255, width=width, joint="curve")
    return _blurred(image, soft)


def soften(field: np.ndarray, soft: float) -> np.ndarray:
    """A Gaussian blur of a 0..1 field, to the 8 bits of Pillow's blur: float32 (H, W)."""
    return _blurred(Image.fromarray((np.clip(field, 0, 1) * 255).astype(np.uint8)), soft)


def _blurred(image: Image.Image, soft: float) -> np.ndarray:
    return np.asarray(image.filter(ImageFilter.GaussianBlur(soft)), dtype=np.float32) / 255
