"""A person's face at given action units: the still layers with everything that moves drawn over them.

Legend: H, W canvas height and width.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from fercache.synth import creases, eyes, mouth
from fercache.synth.person import Person
from fercache.synth.shapes import HEIGHT
from fercache.synth.skin import draw_layers
from fercache.synth.units import UNITS

# The creases' shade is a blend of the head darkened and lightened by these factors.
_DARKEST, _BRIGHTEST = 0.40, 1.12
_NEUTRAL = (1 - _DARKEST) / (_BRIGHTEST - _DARKEST)


class Face:
    """Draws one person. Everything that does not depend on the frame is drawn when it is made."""

    def __init__(self, person: Person) -> None:
        self.person = person
        layers = draw_layers(person)
        head = layers.head.astype(np.float32)
        self._head = Image.fromarray(layers.head)
        self._alpha = layers.alpha
        left, top, right, bottom = creases.BOX
        box = head[top:bottom, left:right]
        self._dark = Image.fromarray((box * _DARKEST).astype(np.uint8))
        self._bright = Image.fromarray(np.clip(box * _BRIGHTEST, 0, 255).astype(np.uint8))
        self._creases = np.ascontiguousarray(creases.draw_creases(person) * 255 / (_BRIGHTEST - _DARKEST))
        self._eyeball = eyes.draw_eyeball(person)
        self._front: tuple[Image.Image, Image.Image, int] | None = None
        if layers.front is not None:
            rows = np.flatnonzero(layers.front[..., 3].any(axis=1))
            part = Image.fromarray(layers.front[rows[0] : rows[-1] + 1])
            self._front = (part.convert("RGB"), part.getchannel("A"), int(rows[0]))

    def draw(self, units: np.ndarray, gaze: tuple[float, float], blink: float) -> tuple[Image.Image, Image.Image]:
        """The face on its canvas: RGB and the L mask of where the person is, both (W, H).

        `units` are intensities (len(UNITS),), 0..1, to which the person's resting look is added;
        `gaze` is in canvas pixels, `blink` 0 open to 1 shut.
        """
        total = np.maximum(units, self.person.resting + units * (1 - self.person.resting)).clip(0, 1)
        au = dict(zip(UNITS, total.tolist(), strict=True))
        image, alpha = self._with_jaw(self._creased(au), mouth.jaw_drop(au))
        draw = ImageDraw.Draw(image, "RGBA")
        eyes.draw_eyes(image, draw, self.person, self._eyeball, au, gaze, blink)
        eyes.draw_brows(draw, self.person, au)
        mouth.draw_mouth(draw, self.person, au)
        if self._front:
            part, mask, top = self._front
            image.paste(part, (0, top), mask)
        return image, alpha

    def _creased(self, au: dict[str, float]) -> Image.Image:
        left, top, right, bottom = creases.BOX
        shade = 255 * _NEUTRAL - creases.weights(au) @ self._creases
        np.clip(shade, 0, 255, out=shade)
        mask = Image.fromarray(shade.astype(np.uint8).reshape(bottom - top, right - left))
        image = self._head.copy()
        image.paste(Image.composite(self._bright, self._dark, mask), (left, top))
        return image

    def _with_jaw(self, image: Image.Image, drop: float) -> tuple[Image.Image, Image.Image]:
        """Move the chin down by `drop` pixels: rows between mouth and chin stretch, those of the neck shrink."""
        if drop < 0.5:
            return image, Image.fromarray(self._alpha)
        lip, chin = self.person.mouth_y - 4, self.person.chin_y
        rows = np.interp(np.arange(HEIGHT), [0, lip, chin + drop, HEIGHT - 1], [0, lip, chin, HEIGHT - 1])
        index = np.rint(rows).astype(np.intp)
        return Image.fromarray(np.asarray(image)[index]), Image.fromarray(self._alpha[index])
