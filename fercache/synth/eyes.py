"""Eyes and brows, drawn anew each frame.

Legend: N = len(_U) points of a lid from the outer (-1) to the inner corner (1).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw

from fercache.synth.person import Person
from fercache.synth.shapes import MIDDLE, band, smooth

_U = np.linspace(-1, 1, 13)
_UPPER = (1 - _U**2) ** 0.75 * (1 + 0.12 * _U)
"""The upper lid is highest a little towards the nose, the lower one lowest away from it."""
_LOWER = (1 - _U**2) ** 0.9 * (1 - 0.2 * _U)
_TAPER = (1 - np.abs(_U) ** 3) * (1 - 0.35 * _U) + 0.25

_BALL = (36, 24)
"""Half width and half height of the eyeball's picture."""


def draw_eyeball(person: Person) -> Image.Image:
    """White, iris, pupil and catch light, looking straight ahead: RGB, 2 * _BALL in size."""
    scale = 4
    half_x, half_y = _BALL[0] * scale, _BALL[1] * scale
    image = Image.new("RGB", (2 * half_x, 2 * half_y), (226, 220, 215))
    draw = ImageDraw.Draw(image)
    iris = np.asarray(person.iris)
    for radius, colour in (
        (7.4, iris * 0.45),
        (6.5, iris * 0.95),
        (4.6, iris * 1.25),
        (3.0, np.asarray((14, 11, 10))),
    ):
        size = radius * scale
        box = [half_x - size, half_y - size, half_x + size, half_y + size]
        draw.ellipse(box, fill=tuple(np.clip(colour, 0, 255).astype(int).tolist()))
    x, y = half_x + (-2.6 * np.sign(person.light_x) * scale), half_y - 2.8 * scale
    draw.ellipse([x - 1.5 * scale, y - 1.5 * scale, x + 1.5 * scale, y + 1.5 * scale], fill=(250, 250, 250))
    return image.reduce(scale)


def draw_eyes(
    image: Image.Image,
    draw: ImageDraw.ImageDraw,
    person: Person,
    eyeball: Image.Image,
    au: Mapping[str, float],
    gaze: tuple[float, float],
    blink: float,
) -> None:
    """Draw both eyes: `gaze` in pixels (right, down), `blink` 0 open to 1 shut."""
    up, low = _lid_heights(person, au, blink)
    tilt = person.eye_tilt - 3.0 * au["AU1"] * au["AU4"] - 1.5 * au["AU15"]
    lid_colour = tuple(int(0.62 * value) for value in person.skin)
    for side in (-1, 1):
        x = MIDDLE + side * (person.eye_x - person.eye_width * _U)
        line = person.eye_y + tilt * 0.5 * _U
        upper, lower = line - up * _UPPER, line + low * _LOWER
        _paste_eyeball(image, eyeball, person, side, gaze, x, upper, lower)
        # The lid's shadow on the eye, the lashes, the crease above and the edge below.
        band(draw, x, upper - 0.5, upper + np.minimum(2.0, 0.4 * (lower - upper)), (30, 20, 18, 80))
        thick = person.lash * _TAPER
        band(draw, x, upper - 0.6 * thick, upper + 0.5 * thick, (28, 18, 16, 235))
        fold = upper - (2.6 + 1.8 * (1 - blink) + 0.8 * au["AU5"]) * (0.45 + 0.55 * _UPPER)
        band(draw, x, fold - 0.7, fold + 0.7, (*lid_colour, 150))
        band(draw, x[:11], (lower - 0.3)[:11], (lower + 0.9)[:11], (*lid_colour, 190))


def draw_brows(draw: ImageDraw.ImageDraw, person: Person, au: Mapping[str, float]) -> None:
    """Draw both brows, moved by AU1 (inner up), AU2 (outer up) and AU4 (down and together)."""
    inner_up, outer_up, lower = au["AU1"], au["AU2"], au["AU4"]
    # With the inner brow raised, the corrugator draws the brows together more than down.
    pressed = lower * (1 - 0.75 * inner_up) + 0.35 * au["AU9"] * (1 - lower)
    y, arch = person.brow_y, person.brow_arch
    spine = smooth(
        [
            (13.5 - 4.0 * lower, y + 2.5 - 11.0 * inner_up - 0.5 * outer_up + 10.0 * pressed),
            (24.0 - 2.0 * lower, y - 0.4 * arch - 7.0 * inner_up - 3.5 * outer_up + 7.5 * pressed),
            (36.0, y - arch - 2.0 * inner_up - 8.5 * outer_up + 3.0 * pressed),
            (45.0, y - 0.6 * arch - 0.3 * inner_up - 10.0 * outer_up + 0.5 * pressed),
            (53.5, y + 4.5 + 1.2 * inner_up - 7.5 * outer_up - 1.0 * pressed),
        ],
        steps=4,
    )
    place = np.linspace(0, 1, len(spine))
    thick = person.brow_thick * (0.72 + 0.9 * place - 1.5 * place**2)
    colour = tuple(int(0.75 * value) for value in person.hair)
    if sum(colour) > 300:
        colour = tuple(int(0.72 * value) for value in colour)
    for side in (-1, 1):
        x = MIDDLE + side * spine[:, 0]
        band(draw, x, spine[:, 1] - 1.25 * thick - 0.5, spine[:, 1] + 1.2 * thick + 0.5, (*colour, 85))
        band(draw, x, spine[:, 1] - 0.8 * thick, spine[:, 1] + 0.85 * thick, (*colour, 190))


def _lid_heights(person: Person, au: Mapping[str, float], blink: float) -> tuple[float, float]:
    """How far the upper lid's edge is above and the lower one's below the corner line."""
    squint = max(au["AU7"], 0.8 * au["AU9"])
    droop = 0.55 * au["AU1"] * au["AU4"] * (1 - au["AU5"])
    up = person.eye_open * (1 + 0.62 * au["AU5"] - 0.38 * squint - 0.30 * au["AU6"] - 0.45 * droop)
    up += 1.6 * au["AU5"]
    low = 0.66 * person.eye_open * (1 + 0.25 * au["AU5"] - 0.45 * squint - 0.65 * au["AU6"])
    up, low = max(up, 1.6), max(low, 0.8)
    return (1 - blink) * up - blink * 0.7 * low, low


def _paste_eyeball(
    image: Image.Image,
    eyeball: Image.Image,
    person: Person,
    side: int,
    gaze: tuple[float, float],
    x: np.ndarray,
    upper: np.ndarray,
    lower: np.ndarray,
) -> None:
    """Paste the eyeball where it shows between the lids."""
    left, right = int(x.min()) - 1, int(x.max()) + 2
    top, bottom = int(upper.min()) - 1, int(lower.max()) + 2
    if bottom - top < 4:
        return
    mask = Image.new("L", (right - left, bottom - top))
    ring = np.empty((2 * len(_U), 2))
    ring[: len(_U), 0], ring[: len(_U), 1] = x - left, upper - top
    ring[len(_U) :, 0], ring[len(_U) :, 1] = x[::-1] - left, lower[::-1] - top
    ImageDraw.Draw(mask).polygon(ring.ravel().tolist(), fill=255)
    # At rest the upper lid covers the iris's top.
    ball_x = round(MIDDLE + side * person.eye_x + gaze[0] - left)
    ball_y = round(person.eye_y - 1.2 + gaze[1] - top)
    corner = (_BALL[0] - ball_x, _BALL[1] - ball_y)
    image.paste(eyeball.crop((*corner, corner[0] + right - left, corner[1] + bottom - top)), (left, top), mask)
