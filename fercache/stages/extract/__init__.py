"""Stage one, second half: the embedding of every frame of every video, into the cache."""

from fercache.stages.extract.stage import Plan, extract, plan_extraction

__all__ = ["Plan", "extract", "plan_extraction"]
