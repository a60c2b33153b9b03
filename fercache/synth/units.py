"""Action units the face can move, and the expressions as combinations of them.

The twelve units of the task come first, in its order, so that `track[:, :12]` is what is labelled;
the rest complete the prototypes and are drawn but never labelled.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fercache.tasks import ACTION_UNITS, EXPRESSIONS

UNITS = (*ACTION_UNITS, "AU5", "AU9", "AU16", "AU17", "AU20", "AU27")
NUM_LABELLED = len(ACTION_UNITS)
Intensities = Mapping[str, float]
"""Of all units, 0..1, by name."""

# Combinations after the emotion prediction table of the FACS Investigator's Guide (Ekman, Friesen &
# Hager 2002; first in Ekman & Friesen 1978, and the base of EMFACS). The starred prototypes there:
#   Anger 4+5+7+23 or 24, with 10 and 25/26 in the open-mouthed ones; Disgust 9 or 10 with 16+25/26 or 17;
#   Fear 1+2+4+5+20 with 25/26/27; Happiness 6+12; Sadness 1+4 with 15, 11 or 6, +17; Surprise 1+2+5+26/27.
# The number is the intensity of the unit, 0..1, where the expression is at its full strength.
# Each expression has several variants, drawn with equal odds; Neutral has one, with nothing in it.
PROTOTYPES: dict[str, tuple[dict[str, float], ...]] = {
    "Neutral": ({},),
    "Anger": (
        {"AU4": 1.0, "AU5": 0.45, "AU7": 0.8, "AU23": 0.9, "AU17": 0.3},
        {"AU4": 1.0, "AU5": 0.4, "AU7": 0.8, "AU24": 0.95, "AU17": 0.5},
        {"AU4": 1.0, "AU5": 0.5, "AU7": 0.7, "AU10": 0.55, "AU23": 0.7, "AU25": 0.7, "AU16": 0.8},
    ),
    "Disgust": (
        {"AU9": 1.0, "AU10": 0.9, "AU17": 0.5, "AU4": 0.45, "AU7": 0.6},
        {"AU9": 0.9, "AU10": 1.0, "AU16": 0.6, "AU25": 0.6, "AU15": 0.45, "AU4": 0.4, "AU7": 0.6},
    ),
    "Fear": (
        {"AU1": 1.0, "AU2": 0.6, "AU4": 0.75, "AU5": 1.0, "AU20": 1.0, "AU25": 0.8},
        {"AU1": 1.0, "AU2": 0.6, "AU4": 0.75, "AU5": 1.0, "AU20": 0.9, "AU25": 0.8, "AU26": 0.5},
    ),
    "Happiness": (
        {"AU6": 0.8, "AU12": 0.9},
        {"AU6": 0.9, "AU12": 1.0, "AU25": 0.8},
        {"AU6": 1.0, "AU12": 1.0, "AU25": 1.0, "AU26": 0.5},
    ),
    "Sadness": (
        {"AU1": 1.0, "AU4": 0.7, "AU15": 1.0, "AU17": 0.6},
        {"AU1": 0.9, "AU4": 0.8, "AU15": 0.8, "AU17": 0.4, "AU6": 0.4},
    ),
    "Surprise": (
        {"AU1": 1.0, "AU2": 1.0, "AU5": 0.8, "AU25": 1.0, "AU26": 1.0},
        {"AU1": 1.0, "AU2": 1.0, "AU5": 0.9, "AU25": 1.0, "AU27": 0.8},
    ),
}
assert tuple(PROTOTYPES) == EXPRESSIONS


def unit_vector(intensities: Mapping[str, float]) -> np.ndarray:
    """Named intensities as float32 (len(UNITS),); units that are not named are 0."""
    return np.asarray([intensities.get(unit, 0.0) for unit in UNITS], dtype=np.float32)


def prototype(expression: str, variant: int = 0) -> np.ndarray:
    """One variant of an expression at full strength: float32 (len(UNITS),), 0..1."""
    variants = PROTOTYPES[expression]
    return unit_vector(variants[variant % len(variants)])
