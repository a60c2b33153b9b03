"""fercache: frame-wise facial expression recognition in video, with cached embeddings.

The stages and what they pass on can be had from here; each is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fercache.cache.predictions import read_predictions
    from fercache.cache.reader import Cache
    from fercache.config import load_config
    from fercache.data.manifest import read_manifest
    from fercache.stages.ensemble import apply_ensemble, search_ensemble
    from fercache.stages.evaluate import evaluate
    from fercache.stages.export import export
    from fercache.stages.extract import extract
    from fercache.stages.finetune import finetune
    from fercache.stages.predict import predict
    from fercache.stages.train_temporal import train_temporal
    from fercache.tasks import Task, get_task

__version__ = "0.1.0"
__all__ = [
    "Cache",
    "Task",
    "apply_ensemble",
    "evaluate",
    "export",
    "extract",
    "finetune",
    "get_task",
    "load_config",
    "predict",
    "read_manifest",
    "read_predictions",
    "search_ensemble",
    "train_temporal",
]
_HOMES = {
    "Cache": "fercache.cache.reader",
    "Task": "fercache.tasks",
    "apply_ensemble": "fercache.stages.ensemble",
    "evaluate": "fercache.stages.evaluate",
    "export": "fercache.stages.export",
    "extract": "fercache.stages.extract",
    "finetune": "fercache.stages.finetune",
    "get_task": "fercache.tasks",
    "load_config": "fercache.config",
    "predict": "fercache.stages.predict",
    "read_manifest": "fercache.data.manifest",
    "read_predictions": "fercache.cache.predictions",
    "search_ensemble": "fercache.stages.ensemble",
    "train_temporal": "fercache.stages.train_temporal",
}
"""Name -> the module that it is loaded from."""


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever is offered
    """What is offered under that name (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """With all that is offered, loaded or not."""
    return sorted({*globals(), *__all__})
