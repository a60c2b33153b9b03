"""Everything about a video that the face does and that is annotated: units, gaze, blinks, labels.

Legend: T frames, U = len(UNITS) units, A = 12 labelled units.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fercache.synth.episodes import Episode, steady_episodes, steady_units
from fercache.synth.settings import PlannedVideo, SynthSettings
from fercache.synth.timing import BLINK_CLOSING_S, BLINK_SHUT_S, BLINKS_PER_S, Track
from fercache.synth.transitions import ramp_labels, ramp_units, ramps
from fercache.synth.units import NUM_LABELLED
from fercache.tasks import EXPRESSIONS

EXPRESSION_THRESHOLD = 0.3
"""An episode's expression is the label while its intensity is over this; else the frame is neutral."""
AU_THRESHOLD = 0.2
"""A unit is labelled 1 over this. FACS grades A to E taken as fifths of 0..1: from B on it counts."""

# How often and how long labels and faces are missing. Chosen to be as patchy as Aff-Wild2 looks, not measured.
_BORDER, _BORDER_S = 0.3, (0.1, 0.35)
_UNLABELLED, _UNLABELLED_S = 0.3, (0.2, 0.8)
_UNIT_UNLABELLED, _UNIT_S = 0.5, (0.2, 1.5)
_NO_FACE, _NO_FACE_S = 0.4, (0.1, 0.6)


@dataclass(frozen=True)
class Timeline:
    """A video before it is drawn."""

    units: np.ndarray
    """float32 (T, U), 0..1, without the person's resting look."""
    expression: np.ndarray
    """int8 (T,): the EXPR label, -1 = unlabelled."""
    action_units: np.ndarray
    """int8 (T, A): 0, 1, or -1 = unlabelled."""
    face: np.ndarray
    """bool (T,): False where no face was found."""
    gaze: np.ndarray
    """float32 (T, 2): canvas pixels to the right and down."""
    blink: np.ndarray
    """float32 (T,): 0 open to 1 shut."""


def make_timeline(settings: SynthSettings, video: PlannedVideo) -> Timeline:
    """The timeline of one video, from its own seeds."""
    num_frames, fps = video.num_frames, settings.fps
    track = Track(video.rng(settings, "episodes"), num_frames, fps)
    if settings.setting == "transitions":
        ramp_episodes = ramps(settings, video, track.rng)
        units, expression = ramp_units(track, ramp_episodes), ramp_labels(ramp_episodes, num_frames)
        borders = np.empty(0, np.int64)
    else:
        episodes = steady_episodes(settings, video, track.rng)
        units, expression = steady_units(track, episodes), expression_labels(episodes, num_frames, fps)
        borders = np.flatnonzero(np.diff(expression)) + 1
    action_units = (units[:, :NUM_LABELLED] > AU_THRESHOLD).astype(np.int8)
    gaze, blink = _gaze(track), _blinks(track)
    # Labels have their own generator, so that a change to them leaves the pictures as they were.
    track = Track(video.rng(settings, "labels"), num_frames, fps)
    face = _faces(track)
    _unlabel(track, expression, action_units, borders)
    expression[~face] = -1
    action_units[~face] = -1
    return Timeline(units, expression, action_units, face, gaze, blink)


def expression_labels(episodes: list[Episode], num_frames: int, fps: float) -> np.ndarray:
    """The expression shown over EXPRESSION_THRESHOLD, else Neutral: int8 (T,)."""
    times = np.arange(num_frames) / fps
    labels = np.full(num_frames, EXPRESSIONS.index("Neutral"), dtype=np.int8)
    for episode in episodes:
        labels[episode.intensity(times) > EXPRESSION_THRESHOLD] = EXPRESSIONS.index(episode.expression)
    return labels


def _unlabel(track: Track, expression: np.ndarray, action_units: np.ndarray, borders: np.ndarray) -> None:
    """Set labels to -1, in place: around some borders of episodes, random stretches, stretches of one unit."""
    rng = track.rng
    for border in borders:
        if rng.random() < _BORDER:
            reach = max(1, round(rng.uniform(*_BORDER_S) * track.fps / 2))
            expression[max(0, border - reach) : border + reach] = -1
    for labels in (expression, action_units):
        if rng.random() < _UNLABELLED:
            labels[track.stretch(*_UNLABELLED_S)] = -1
    if rng.random() < _UNIT_UNLABELLED:
        action_units[track.stretch(*_UNIT_S), int(rng.integers(NUM_LABELLED))] = -1


def _faces(track: Track) -> np.ndarray:
    """bool (T,): stretches without a face now and then, never the whole video."""
    face = np.ones(track.num_frames, dtype=bool)
    if track.rng.random() < _NO_FACE:
        face[track.stretch(*_NO_FACE_S)] = False
    if not face.any():
        face[:] = True
    return face


def _gaze(track: Track) -> np.ndarray:
    """Fixations with jumps between them about every second: float32 (T, 2)."""
    fixation = np.cumsum(track.rng.random(track.num_frames) < 1.0 / track.fps)
    directions = track.rng.normal(0, (1.8, 0.7), (track.num_frames + 1, 2)).clip((-4, -1.5), (4, 1.5))
    directions[0] *= 0.5
    return directions[fixation].astype(np.float32)


def _blinks(track: Track) -> np.ndarray:
    """0..1: blinks at random times: float32 (T,)."""
    times, shut = track.times, np.zeros(track.num_frames)
    for _ in range(track.rng.poisson(BLINKS_PER_S * track.num_frames / track.fps)):
        distance = np.abs(times - track.rng.uniform(0, times[-1] + 1 / track.fps)) - BLINK_SHUT_S / 2
        shut = np.maximum(shut, 1 - np.clip(distance / BLINK_CLOSING_S, 0, 1))
    return shut.astype(np.float32)
