"""A cache of one small video, and predictions of two."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fercache.cache.predictions import Predictions, VideoPredictions
from fercache.cache.provenance import Provenance
from fercache.cache.rows import Part, Shape
from fercache.cache.writer import write_video
from fercache.tasks import TASKS

MADE_BY = Provenance("w" * 64, "c" * 64, "expr", "resnet50-vggface2", {"image_size": 112}, "fp32", "float16")
SHAPE = Shape(embedding_dim=4, dtype="float16", classes=7)
FRAME = np.array([1, 2, 5])


def parts(rows=range(3), value=1.5):
    for row in rows:
        yield Part(np.array([row]), np.full((1, 4), row * value, np.float16), np.full((1, 7), row, np.float32))


def write(cache, video="v", rows=range(3), made_by=MADE_BY, value=1.5):
    face = np.ones(3, bool)
    write_video(cache.file(video), made_by, SHAPE, FRAME, face, parts(rows, value), source="s" * 64)


def predictions(**changes):
    videos = {"b": VideoPredictions(FRAME, np.eye(3, 7)), "a": VideoPredictions(FRAME[:0], np.empty((0, 7)))}
    base = Predictions(TASKS["expr"], "validation", "m", "c", "best", np.full(7, 1 / 7), videos)
    return replace(base, **changes)
