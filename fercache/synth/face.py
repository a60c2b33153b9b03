"""A person's face at given action units: the still layers with everything that moves drawn over them."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from fercache.synth import mouth
from fercache.synth.creases import Creases
from fercache.synth.eyes import Eyes, Gaze
from fercache.synth.person import Person
from fercache.synth.shapes import HEIGHT
from fercache.synth.skin import draw_layers
from fercache.synth.units import UNITS


class Face:
    """Draws one person. Everything that does not depend on the frame is drawn when it is made."""

    def __init__(self, person: Person) -> None:
        self.person = person
        layers = draw_layers(person)
        self._head, self._alpha = Image.fromarray(layers.head), layers.alpha
        self._creases, self._eyes = Creases(person, layers.head), Eyes(person)
        self._front: tuple[Image.Image, tuple[int, int, int, int] | None, Image.Image] | None = None
        if layers.front is not None:
            picture = Image.fromarray(layers.front)
            mask = picture.getchannel("A")
            box = mask.getbbox()
            self._front = picture.convert("RGB").crop(box), box, mask.crop(box)

    def draw(self, units: np.ndarray, gaze: Gaze, blink: float) -> tuple[Image.Image, Image.Image]:
        """The face on its canvas: RGB and the L mask of where the person is.

        `units` are intensities (len(UNITS),), 0..1, to which the person's resting look is added;
        `gaze` is in canvas pixels (right, down), `blink` 0 open to 1 shut.
        """
        total = np.maximum(units, self.person.resting + units * (1 - self.person.resting)).clip(0, 1)
        au = dict(zip(UNITS, total.tolist(), strict=True))
        image = self._head.copy()
        self._creases.paste(image, au)
        image, alpha = self._with_jaw(image, mouth.jaw_drop(au))
        draw = ImageDraw.Draw(image, "RGBA")
        self._eyes.draw(image, draw, au, gaze, blink)
        mouth.draw_mouth(draw, self.person, au)
        if self._front is not None:
            picture, box, mask = self._front
            image.paste(picture, box, mask)
        return image, alpha

    def _with_jaw(self, image: Image.Image, drop: float) -> tuple[Image.Image, Image.Image]:
        """Move the chin down by `drop` pixels: rows between mouth and chin stretch, those of the neck shrink."""
        if drop < 0.5:
            return image, Image.fromarray(self._alpha)
        lip, chin = self.person.mouth_y - 4, self.person.chin_y
        rows = np.interp(np.arange(HEIGHT), [0, lip, chin + drop, HEIGHT - 1], [0, lip, chin, HEIGHT - 1])
        index = np.rint(rows).astype(np.intp)
        return Image.fromarray(np.asarray(image)[index]), Image.fromarray(self._alpha[index])
