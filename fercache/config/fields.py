"""Fields of the configuration's dataclasses: default, meaning and range of a setting stand here once."""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Mapping
from typing import Any, Literal

from fercache.errors import ConfigError, raise_problems

Precision = Literal["auto", "fp32", "bf16", "fp16"]


def config_field(
    default: Any,  # noqa: ANN401 - a setting is of any type
    meaning: str,
    *,
    within: tuple[float, float] | None = None,
    above: tuple[float, float] | None = None,
    rule: str | None = None,
    unset: str | None = None,
    metavar: str | None = None,
    heading: str | None = None,
) -> Any:  # noqa: ANN401 - a dataclass field is of any type
    """A field with its meaning in one or two sentences, as help and documentation print it.

    Numbers, and each number of a list, range from the first to the second number of `within`, or from above the first
    to the second of `above`. `rule` puts the range into words where these do not say it all. `unset` says what applies
    by default where the default is None or empty. `metavar` is what help shows for a text, such as FILE. `heading`
    begins a group of settings: it covers this field and those after it, up to the next heading.
    """
    if rule is None and within is not None:
        rule = f"from {within[0]} to {within[1]}"
    elif rule is None and above is not None:
        rule = f"above {above[0]} and at most {above[1]}"
    metadata = {"meaning": meaning, "within": within, "above": above, "rule": rule, "unset": unset}
    return dataclasses.field(default=default, metadata=metadata | {"metavar": metavar, "heading": heading})


def check(config: object, **conditions: bool) -> None:
    """Raise ConfigError naming each key that is out of its bounds, or whose condition (key=condition) does not hold."""
    fields = {f.name: f for f in dataclasses.fields(config)}  # type: ignore[arg-type]
    bad = [key for key, field in fields.items() if not _in_range(getattr(config, key), field.metadata)]
    bad += [key for key, holds in conditions.items() if not holds and key not in bad]
    problems = []
    for key in bad:
        or_null = ", or null" if fields[key].default is None else ""
        problems.append(f"{key}: found {getattr(config, key)!r}, expected {fields[key].metadata['rule']}{or_null}")
    raise_problems(problems, ConfigError)


def _in_range(value: Any, metadata: Mapping[str, Any]) -> bool:  # noqa: ANN401 - a setting is of any type
    within, above = metadata.get("within"), metadata.get("above")
    numbers = value if isinstance(value, tuple) else () if value is None else (value,)
    return (within is None or all(within[0] <= number <= within[1] for number in numbers)) and (
        above is None or all(above[0] < number <= above[1] for number in numbers)
    )


@functools.cache
def field_types(owner: type) -> dict[str, Any]:
    """Field names of a dataclass with their types, in order."""
    hints = typing.get_type_hints(owner)
    return {f.name: hints[f.name] for f in dataclasses.fields(owner)}
