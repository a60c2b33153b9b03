"""The tasks: what is recognised, how it is annotated, decided and scored.

Callers ask the task and never test its name or kind. A new kind is a class that implements `base.Task`; a new task is
an entry of `TASKS`. NumPy only, and loaded when a task is first used, so that `--help` stays fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fercache.errors import ConfigError

if TYPE_CHECKING:
    from fercache.tasks.base import Task
    from fercache.tasks.builtin import TASKS

__all__ = ["ACTION_UNITS", "EXPRESSIONS", "TASKS", "TASK_NAMES", "Task", "get_task"]

TASK_NAMES = ("expr", "au", "expr8", "au_f1")
"""The built-in tasks, as help lists them."""
EXPRESSIONS = ("Neutral", "Anger", "Disgust", "Fear", "Happiness", "Sadness", "Surprise")
ACTION_UNITS = ("AU1", "AU2", "AU4", "AU6", "AU7", "AU10", "AU12", "AU15", "AU23", "AU24", "AU25", "AU26")


def get_task(name: str) -> Task:
    """The task of that name; ConfigError with the valid names otherwise."""
    from fercache.tasks.builtin import TASKS

    if name not in TASKS:
        raise ConfigError(f"task: {name!r} is not a task; the tasks are {', '.join(TASKS)}")
    return TASKS[name]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - `Task` and `TASKS`, when they are first used (PEP 562)
    if name == "Task":
        from fercache.tasks.base import Task

        return Task
    if name == "TASKS":
        from fercache.tasks.builtin import TASKS

        return TASKS
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
