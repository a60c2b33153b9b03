"""The largest numbers that are taken from a file, a config or a command, each once.

A number may be a slip of the finger, or tampered with, and must not be asked of the machine as it stands.
"""

from __future__ import annotations

MOST_FRAME = 99_999_999
"""Number of a frame, and length of a video: eight digits."""
MOST_HALF_WIDTH = 100_000
"""Frames to either side over which probabilities are smoothed; about an hour."""
MOST_IMAGE_SIZE = 1024
"""Side of a network's input, in pixels."""
MOST_RATE = 1e30
"""Learning rate; what float32 holds."""
MOST_SEED = 2**63 - 1
"""What a generator of random numbers takes."""
MOST_WINDOW = 9999
"""Positions of a window."""
MOST_WORKERS = 256
"""Processes that decode frames."""
