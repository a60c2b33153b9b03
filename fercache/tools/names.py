"""The names that settings such as `head` choose from, as help and documentation list them."""

from __future__ import annotations

from collections.abc import Callable, Collection

from fercache.config.settings import Setting
from fercache.models.backbones import archs
from fercache.models.heads import HEADS
from fercache.tasks import TASK_NAMES

NAMES: dict[str, Callable[[], Collection[str]]] = {
    "task": lambda: TASK_NAMES,
    "finetune.arch": archs,
    "train_temporal.head": lambda: HEADS,
}
"""Setting -> the names that are registered when it is asked."""


def names_of(setting: Setting) -> tuple[str, ...]:
    """The values that a setting chooses from: of its type, or of a registry; empty for others."""
    return setting.choices or tuple(NAMES.get(setting.name, tuple)())
