"""Stage two: train a temporal head on windows of cached rows, or on frames together with the frame network."""

from fercache.stages.train_temporal.stage import measure_head, train_temporal

__all__ = ["measure_head", "train_temporal"]
