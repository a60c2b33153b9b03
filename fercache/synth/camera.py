"""The camera: how the head lies in each crop, light, blur, noise and what passes in front of it.

Legend: T frames, S side of the crop in pixels.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter

from fercache.synth.shapes import MIDDLE, WIDTH
from fercache.synth.timing import Track

# Chosen to look like hand-held and webcam footage after face alignment; none is a measurement.
_ZOOM = (1.06, 1.22)
"""The face a crop is aligned to fills it a little more than the canvas does."""
_SHIFT_PX, _TURN_DEG, _ZOOM_SD = (3.5, 2.5), 4.0, 0.02
_YAW_SD, _PITCH_SD = 0.35, 0.2
_MEMORY_S = 0.35
_NOD, _NOD_HZ, _NOD_PX = 0.3, (1.5, 3.0), (3.0, 6.0)
_LIGHT_SD, _LIGHT_STEP = 0.05, 0.2
_DEFOCUS, _DEFOCUS_PX = 0.35, (0.4, 1.1)
_OCCLUDED, _OCCLUDED_S = 0.25, (0.5, 1.5)
_NOISE = (1.0, 4.0)
"""Standard deviation of sensor noise, of 255."""
_QUALITY = (78, 95)
_MOVING_PX = 0.7
"""A head slower than this, in pixels a frame, is drawn sharp."""


class Camera:
    """Films one video: turns the drawn canvas into crops of `size` pixels."""

    def __init__(self, track: Track, size: int) -> None:
        rng, self._size = track.rng, size
        shift = np.stack([sd * track.wander(_MEMORY_S) for sd in _SHIFT_PX], 1)
        if rng.random() < _NOD:
            part = track.stretch(0.5, 1.5)
            phase = 2 * np.pi * rng.uniform(*_NOD_HZ) * np.arange(part.stop - part.start) / track.fps
            window = np.hanning(len(phase) + 2)[1:-1]
            shift[part, int(rng.integers(2))] += rng.uniform(*_NOD_PX) * window * np.sin(phase)
        zoom = rng.uniform(*_ZOOM) * (1 + _ZOOM_SD * track.wander(_MEMORY_S))
        turn = np.deg2rad(_TURN_DEG) * (0.6 * rng.standard_normal() + 0.6 * track.wander(_MEMORY_S))
        yaw = _YAW_SD * (0.6 * rng.standard_normal() + 0.7 * track.wander(_MEMORY_S))
        pitch = _PITCH_SD * track.wander(_MEMORY_S)
        # (T, 8): from a crop's pixel to the canvas, as Pillow's PERSPECTIVE takes it.
        self._pose = _homographies(shift, zoom, turn, yaw, pitch, WIDTH / size)
        # (T, 2): the head's motion in crop pixels a frame.
        speed = np.gradient(shift, axis=0) * (size / WIDTH) if track.num_frames > 1 else np.zeros((1, 2))
        self._speed = speed * zoom[:, None]
        self._gain = _gain(track)
        # (T,): how much brighter the crop's right edge is than its middle.
        self._side = (0.10 * rng.standard_normal() + 0.06 * track.wander(0.6)).astype(np.float32)
        self._blur = _defocus(track) * size / 112
        self.cover = _cover(track)
        """float64 (T, 2): centre of what passes in front, in shares of the crop; NaN where nothing does."""
        self._noise = float(rng.uniform(*_NOISE))
        self.quality = int(rng.integers(_QUALITY[0], _QUALITY[1] + 1))
        """Of the JPEG, 1..95."""

    def view(self, canvas: Image.Image, index: int) -> Image.Image:
        """What of the canvas lies in the crop of frame `index`, (S, S)."""
        shape, pose = (self._size, self._size), self._pose[index].tolist()
        return canvas.transform(shape, Image.Transform.PERSPECTIVE, pose, Image.Resampling.BILINEAR)

    def expose(self, crop: Image.Image, index: int, noise: np.ndarray) -> Image.Image:
        """Defocus, light, motion blur and `noise`, float32 (S, S, 3) of variance 1, added to a crop."""
        if self._blur[index] > 0:
            crop = crop.filter(ImageFilter.GaussianBlur(float(self._blur[index])))
        across = np.linspace(-1, 1, self._size, dtype=np.float32)[:, None]
        pixels = np.asarray(crop) * (self._gain[index] * (1 + self._side[index] * across))
        if np.hypot(*self._speed[index]) > _MOVING_PX:
            pixels = _smeared(pixels, self._speed[index])
        pixels += noise * np.float32(self._noise)
        return Image.fromarray(np.clip(pixels, 0, 255, out=pixels).astype(np.uint8))


def _homographies(
    shift: np.ndarray, zoom: np.ndarray, turn: np.ndarray, yaw: np.ndarray, pitch: np.ndarray, scale: float
) -> np.ndarray:
    """Crop pixel to canvas pixel as a homography per frame: float64 (T, 8)."""
    num_frames = len(zoom)
    zeros, ones = np.zeros(num_frames), np.ones(num_frames)
    # From the crop's middle, in canvas pixels ...
    centred = np.asarray([[scale, 0, -MIDDLE], [0, scale, -MIDDLE], [0, 0, 1]])
    cos, sin = np.cos(turn) / zoom, np.sin(turn) / zoom
    # ... turned and zoomed; a head turned aside is narrower, and its far half more so ...
    turned = _matrices([cos, sin, -shift[:, 0], -sin, cos, -shift[:, 1], zeros, zeros, ones])
    aside = _matrices([1 / np.cos(0.5 * yaw), zeros, zeros, zeros, ones, zeros, 0.0018 * yaw, 0.0015 * pitch, ones])
    # ... to the canvas, where the middle of the face is a little above the middle of the crop's rows.
    placed = np.asarray([[1, 0, MIDDLE], [0, 1, MIDDLE + 4], [0, 0, 1.0]])
    whole = placed @ aside @ turned @ centred
    return (whole / whole[:, 2:, 2:]).reshape(num_frames, 9)[:, :8]


def _matrices(entries: list[np.ndarray]) -> np.ndarray:
    return np.stack(entries, 1).reshape(-1, 3, 3)


def _smeared(pixels: np.ndarray, move: np.ndarray) -> np.ndarray:
    """Motion blur: the mean along the way that a half-open shutter sees."""
    steps = max(1, round(float(np.abs(move).max()) * 0.5))
    total = pixels.copy()
    for step in range(1, steps + 1):
        x, y = np.rint(0.5 * move * step / steps + 1e-9 * move).astype(int).tolist()
        total += np.roll(pixels, (y, x), (0, 1))
    return total / np.float32(steps + 1)


def _gain(track: Track) -> np.ndarray:
    """Exposure and colour of the light: a tint for the video, slow changes, a step now and then: float32 (T, 3)."""
    rng = track.rng
    tint = 1 + 0.035 * rng.standard_normal(3)
    gain = rng.uniform(0.9, 1.12) * (1 + _LIGHT_SD * track.wander(0.8))
    if rng.random() < _LIGHT_STEP:
        since = np.arange(track.num_frames) - rng.uniform(0, track.num_frames)
        gain = gain * (1 + rng.choice((-1, 1)) * 0.12 * np.tanh(since / (0.15 * track.fps)))
    return (gain[:, None] * tint).astype(np.float32)


def _defocus(track: Track) -> np.ndarray:
    """Radius of blur at a 112 px crop, 0 in most videos and stretches: float64 (T,)."""
    blur = np.zeros(track.num_frames)
    if track.rng.random() < _DEFOCUS:
        blur[track.stretch(0.5, 3.0)] = track.rng.uniform(*_DEFOCUS_PX)
    return blur


def _cover(track: Track) -> np.ndarray:
    """The path of a hand or object from below or the side, over part of the face and away again: float64 (T, 2)."""
    rng, path = track.rng, np.full((track.num_frames, 2), np.nan)
    if rng.random() < _OCCLUDED:
        part = track.stretch(*_OCCLUDED_S)
        side = rng.choice((-1, 1))
        far = np.asarray((0.5 + side * 0.95, 1.25))
        near = np.asarray((0.5 + side * rng.uniform(0.0, 0.22), rng.uniform(0.6, 0.95)))
        length = part.stop - part.start
        nearness = np.sin(np.pi * (np.arange(length) + 0.5) / length) ** 0.7
        path[part] = far + (near - far) * nearness[:, None]
    return path
