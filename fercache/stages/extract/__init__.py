"""Stage one, second half: the embedding of every frame of every video, into the cache."""

from fercache.stages.extract.stage import ExtractionPlan, extract, plan_extraction

__all__ = ["ExtractionPlan", "extract", "plan_extraction"]
