"""Eyes and brows, drawn anew each frame.

Legend: N = len(_U) points of a lid from the outer (-1) to the inner corner (1).
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from fercache.synth.person import Person
from fercache.synth.shapes import MIDDLE, Draw, band, ring, smooth
from fercache.synth.units import Intensities

_U = np.linspace(-1, 1, 13)
# The upper lid is highest a little towards the nose, the lower one lowest away from it.
_UPPER = (1 - _U**2) ** 0.75 * (1 + 0.12 * _U)
_LOWER = (1 - _U**2) ** 0.9 * (1 - 0.2 * _U)
_TAPER = (1 - np.abs(_U) ** 3) * (1 - 0.35 * _U) + 0.25

Gaze = tuple[float, float]
_BALL = (36, 24)
"""Half width and half height of the eyeball's picture."""


class Eyes:
    """Draws a person's eyes and brows."""

    def __init__(self, person: Person) -> None:
        self._person, self._eyeball = person, _draw_eyeball(person)

    def draw(self, image: Image.Image, draw: Draw, au: Intensities, gaze: Gaze, blink: float) -> None:
        """Draw into `image`, which `draw` draws on: `gaze` in pixels (right, down), `blink` 0 open to 1 shut."""
        person = self._person
        up, low = _lid_heights(person, au, blink)
        tilt = person.eye_tilt - 3.0 * au["AU1"] * au["AU4"] - 1.5 * au["AU15"]
        lid_colour = tuple(int(0.62 * value) for value in person.skin)
        for side in (-1, 1):
            x = MIDDLE + side * (person.eye_x - person.eye_width * _U)
            line = person.eye_y + tilt * 0.5 * _U
            upper, lower = line - up * _UPPER, line + low * _LOWER
            self._paste_eyeball(image, side, gaze, ring(x, upper, lower))
            # The lid's shadow on the eye, the lashes, the crease above and the edge below.
            band(draw, x, upper - 0.5, upper + np.minimum(2.0, 0.4 * (lower - upper)), (30, 20, 18, 80))
            thick = person.lash * _TAPER
            band(draw, x, upper - 0.6 * thick, upper + 0.5 * thick, (28, 18, 16, 235))
            fold = upper - (2.6 + 1.8 * (1 - blink) + 0.8 * au["AU5"]) * (0.45 + 0.55 * _UPPER)
            band(draw, x, fold - 0.7, fold + 0.7, (*lid_colour, 150))
            band(draw, x, lower - 0.3, lower + 0.9, (*lid_colour, 190), slice(11))
        _draw_brows(draw, person, au)

    def _paste_eyeball(self, image: Image.Image, side: int, gaze: Gaze, opening: np.ndarray) -> None:
        """Paste the eyeball where it shows between the lids, whose outline is `opening`, (2N, 2)."""
        left, top = opening.min(0).astype(int).tolist()
        right, bottom = opening.max(0).astype(int).tolist()
        left, top, right, bottom = left - 1, top - 1, right + 2, bottom + 2
        if bottom - top < 4:
            return
        mask = Image.new("L", (right - left, bottom - top))
        ImageDraw.Draw(mask).polygon((opening - (left, top)).ravel().tolist(), fill=255)
        # At rest the upper lid covers the iris's top.
        x = _BALL[0] - round(MIDDLE + side * self._person.eye_x + gaze[0] - left)
        y = _BALL[1] - round(self._person.eye_y - 1.2 + gaze[1] - top)
        image.paste(self._eyeball.crop((x, y, x + right - left, y + bottom - top)), (left, top), mask)


def _draw_eyeball(person: Person) -> Image.Image:
    """White, iris, pupil and catch light, looking straight ahead: RGB, 2 * _BALL in size."""
    scale = 4
    middle = np.multiply(_BALL, scale)
    image = Image.new("RGB", tuple(2 * middle), (226, 220, 215))
    draw = ImageDraw.Draw(image)

    def disc(x: float, y: float, radius: float, colour: np.ndarray) -> None:
        centre, reach = middle + np.multiply((x, y), scale), radius * scale
        box = [*(centre - reach), *(centre + reach)]
        draw.ellipse(box, fill=tuple(np.clip(colour, 0, 255).astype(int).tolist()))

    for radius, brightness in ((7.4, 0.45), (6.5, 0.95), (4.6, 1.25)):
        disc(0, 0, radius, np.multiply(person.iris, brightness))
    disc(0, 0, 3.0, np.asarray((14, 11, 10)))
    disc(-2.6 * np.sign(person.light_x), -2.8, 1.5, np.asarray((250, 250, 250)))
    return image.reduce(scale)


def _draw_brows(draw: Draw, person: Person, au: Intensities) -> None:
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
    along = np.linspace(0, 1, len(spine))
    thick = person.brow_thick * (0.72 + 0.9 * along - 1.5 * along**2)
    colour = tuple(int(0.75 * value) for value in person.hair)
    if sum(colour) > 300:
        colour = tuple(int(0.72 * value) for value in colour)
    for side in (-1, 1):
        x = MIDDLE + side * spine[:, 0]
        band(draw, x, spine[:, 1] - 1.25 * thick - 0.5, spine[:, 1] + 1.2 * thick + 0.5, (*colour, 85))
        band(draw, x, spine[:, 1] - 0.8 * thick, spine[:, 1] + 0.85 * thick, (*colour, 190))


def _lid_heights(person: Person, au: Intensities, blink: float) -> tuple[float, float]:
    """How far the upper lid's edge is above and the lower one's below the corner line."""
    squint = max(au["AU7"], 0.8 * au["AU9"])
    droop = 0.55 * au["AU1"] * au["AU4"] * (1 - au["AU5"])
    up = person.eye_open * (1 + 0.62 * au["AU5"] - 0.38 * squint - 0.30 * au["AU6"] - 0.45 * droop)
    up += 1.6 * au["AU5"]
    low = 0.66 * person.eye_open * (1 + 0.25 * au["AU5"] - 0.45 * squint - 0.65 * au["AU6"])
    up, low = max(up, 1.6), max(low, 0.8)
    return (1 - blink) * up - blink * 0.7 * low, low
