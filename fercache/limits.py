"""Upper limits of numbers from files, configs and commands.

Such a number may be a typo or tampered with; without a limit it could exhaust the machine.
"""

from __future__ import annotations

MOST_FRAME = 99_999_999
"""Number of a frame, and length of a video in frames: eight digits."""
MOST_HALF_WIDTH = 100_000
"""Half width of the smoothing of probabilities, in frames; about an hour."""
MOST_IMAGE_SIZE = 1024
"""Side of a network's input, in pixels."""
MOST_RATE = 1e30
"""Learning rate; near the largest float32."""
MOST_SEED = 2**63 - 1
"""Seed of a random number generator."""
MOST_WINDOW = 9999
"""Length of a window, in frames."""
MOST_WORKERS = 256
"""Processes that decode frames."""
