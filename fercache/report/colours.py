"""Colours that are told apart without red beside green; lines have dashes, too, since some are equally light.

The series are those of Okabe and Ito (Color Universal Design, 2008); the scale goes from white to dark blue.
"""

from __future__ import annotations

import numpy as np

SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
DASHES = ("none", "6 3", "2 2", "8 3 2 3", "1 3", "10 4", "4 4 1 4")
"""Beside the colour, so that a line is known without it, as in grey print."""
STOPS = np.array([(255, 255, 255), (198, 219, 239), (107, 174, 214), (33, 113, 181), (8, 48, 107)], np.float64)
RIGHT, WRONG, UNKNOWN = (0, 114, 178), (230, 159, 0), (255, 246, 214)
ABSENT = ((190, 190, 190), (228, 228, 228))
"""Two greys in turn, a pattern that the scale does not have."""


def shade(share: np.ndarray) -> np.ndarray:
    """Shares from 0 to 1 on the scale: (...) to uint8 (..., 3)."""
    place = np.linspace(0, 1, len(STOPS))
    return np.stack([np.interp(share, place, channel) for channel in STOPS.T], axis=-1).round().astype(np.uint8)


def css(colour: np.ndarray) -> str:
    """A colour (3,) as CSS writes it."""
    return "#" + "".join(f"{int(channel):02x}" for channel in colour)


def ink(share: float) -> str:
    """The colour of text that can be read on the scale at `share`."""
    return "#ffffff" if share > 0.55 else "#111111"
