"""What the sections of the configuration are made of: fields with rules in words."""

from __future__ import annotations

import dataclasses
from dataclasses import field
from typing import Any, Literal

from fercache.errors import ConfigError, raise_problems

MOST_IMAGE_SIZE, MOST_WORKERS, MOST_SEED, MOST_RATE = 1024, 256, 2**63 - 1, 1e30
"""Pixels to a side, processes, what a generator of random numbers takes, and learning rates that float32 holds."""
Precision = Literal["auto", "fp32", "bf16", "fp16"]


def check(config: object, **conditions: bool) -> None:
    """Raise ConfigError naming each key that is out of its bounds, or whose condition (key=condition) does not hold."""
    fields = {f.name: f.metadata for f in dataclasses.fields(config)}  # type: ignore[arg-type]
    bad = [key for key, metadata in fields.items() if not _within(getattr(config, key), metadata.get("bounds"))]
    bad += [key for key, holds in conditions.items() if not holds and key not in bad]
    raise_problems(
        [f"{key}: found {getattr(config, key)!r}, expected {fields[key]['rule']}" for key in bad], ConfigError
    )


def _within(value: Any, bounds: tuple[float, float, bool] | None) -> bool:  # noqa: ANN401 - a field is of any type
    if bounds is None or value is None:
        return True
    low, high, above = bounds
    numbers = value if isinstance(value, tuple) else (value,)
    return all((low < number if above else low <= number) and number <= high for number in numbers)


def value(default: Any, rule: str) -> Any:  # noqa: ANN401 - a dataclass field is of any type
    """A field with its default and the words that say which values it takes."""
    return field(default=default, metadata={"rule": rule})


def number(
    default: Any,  # noqa: ANN401 - a number, several, or None
    low: float,
    high: float,
    rule: str | None = None,
    *,
    above: bool = False,
) -> Any:  # noqa: ANN401 - a dataclass field is of any type
    """A field of numbers from `low` (or `above` it) to `high`; None where that is its default, which means nothing.

    Every number has an upper bound: what is read may be a slip of the finger, or tampered with, and must not be asked
    of the machine.
    """
    words = rule or f"{'above' if above else 'from'} {low:,} {'and at most' if above else 'to'} {high:,}".replace(
        ",", ""
    )
    if default is None and rule is None:
        words += ", or nothing"
    return field(default=default, metadata={"rule": words, "bounds": (low, high, above)})
