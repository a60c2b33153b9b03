"""What the sections of the configuration are made of: fields with rules in words."""

from __future__ import annotations

import dataclasses
from dataclasses import field
from typing import Any, Literal

from fercache.errors import ConfigError, raise_problems

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

    `rule` says which values it takes, where the bounds do not say it all.
    """
    if rule is None:
        rule = f"above {low} and at most {high}" if above else f"from {low} to {high}"
        rule += ", or nothing" if default is None else ""
    return field(default=default, metadata={"rule": rule, "bounds": (low, high, above)})
