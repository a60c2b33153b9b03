"""The registry of tasks, with the challenge's own."""

from __future__ import annotations

from fercache.tasks import ACTION_UNITS, EXPRESSIONS
from fercache.tasks.base import Task
from fercache.tasks.classification import Measure
from fercache.tasks.multiclass import Multiclass
from fercache.tasks.multilabel import Multilabel

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        # Aff-Wild2 as in ABAW 2021 (arXiv:2106.15318): E = 0.67 F1 + 0.33 accuracy, AU half and half.
        Multiclass("expr", EXPRESSIONS, "EXPR", Measure(0.67, 0.33)),
        Multilabel("au", ACTION_UNITS, "AU", Measure(0.5, 0.5)),
        # From ABAW3 (arXiv:2202.10659) on: macro F1 alone, and an eighth expression.
        Multiclass("expr8", (*EXPRESSIONS, "Other"), "EXPR", Measure(1.0, 0.0)),
        Multilabel("au_f1", ACTION_UNITS, "AU", Measure(1.0, 0.0)),
    )
}
"""Name -> task."""
