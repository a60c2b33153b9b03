"""Colours that colour-blind readers can tell apart; lines also have dashes, since some colours are equally light.

The series are those of Okabe and Ito (Color Universal Design, 2008); the scale goes from white to dark blue.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
DASHES = ("none", "6 3", "2 2", "8 3 2 3", "1 3", "10 4", "4 4 1 4")
"""One for each of `SERIES`, so that lines differ in grey print, too."""
STOPS = np.array([(255, 255, 255), (198, 219, 239), (107, 174, 214), (33, 113, 181), (8, 48, 107)], np.float64)
RIGHT, WRONG, UNKNOWN = (0, 114, 178), (230, 159, 0), (255, 246, 214)
ABSENT = ((190, 190, 190), (228, 228, 228))
"""Two greys in turn, a pattern that the scale does not have."""


def shade(share: np.ndarray | float) -> np.ndarray:
    """RGB, uint8 (..., 3), of shares (...) from 0, white, to 1, dark blue."""
    at = np.linspace(0, 1, len(STOPS))
    return np.stack([np.interp(share, at, channel) for channel in STOPS.T], axis=-1).round().astype(np.uint8)


def css(colour: Iterable[int]) -> str:
    """A colour, three numbers from 0 to 255, in CSS."""
    return "#" + "".join(f"{int(channel):02x}" for channel in colour)


def ink(share: float) -> str:
    """The colour of text that can be read on the scale at `share`."""
    return "#ffffff" if share > 0.55 else "#111111"
