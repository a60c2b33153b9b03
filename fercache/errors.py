"""The exceptions that fercache raises on purpose.

Anything else that escapes is a defect of fercache and keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

MOST_SHOWN = 20
"""Problems that a message shows: a thousand must not fill the screen."""


class FercacheError(Exception):
    """What is wrong with the input: for each problem one clear sentence that names the file, the key or the line."""

    def __init__(self, *problems: str, most: int = MOST_SHOWN) -> None:
        """The message shows `most` problems, one a line, and counts the rest; `problems` keeps all."""
        self.problems = problems
        shown = list(problems[:most])
        if len(problems) > most:
            shown.append(f"... and {len(problems) - most} more")
        super().__init__("\n".join(shown))


class ConfigError(FercacheError):
    """An unknown key, a wrong type or a value out of range in the configuration."""


class DataError(FercacheError):
    """A manifest, annotation file, frame or folder that is not what it should be."""


class WeightsError(FercacheError):
    """A weights file or checkpoint that does not hold the network it was given for."""


class CacheError(FercacheError):
    """A cache or predictions file that is missing, unfinished, or made by something else."""


class RunError(FercacheError):
    """A run folder that cannot be used, or a training run that cannot go on."""


class Stopped(Exception):
    """A signal asked to stop; finished work is saved, and the same command resumes."""

    EXIT_STATUS = 75
    """Of a command that ends so (EX_TEMPFAIL of sysexits.h)."""

    def __init__(self, signal: str) -> None:
        super().__init__(signal)
        self.signal = signal
        """Its name, as SIGTERM, where it is known."""


def collect_errors(*calls: Callable[[], Any]) -> list[Any]:
    """What each call returns; where several raise a FercacheError, one with the problems of all."""
    results, errors = [], []
    for call in calls:
        try:
            results.append(call())
        except FercacheError as error:
            errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    raise_problems([problem for error in errors for problem in error.problems], FercacheError)
    return results


def raise_problems(problems: Sequence[str], kind: type[FercacheError], most: int = MOST_SHOWN) -> None:
    """Raise `kind` with all problems at once; do nothing where there are none."""
    if problems:
        raise kind(*problems, most=most)
