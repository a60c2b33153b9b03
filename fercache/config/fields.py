"""Fields of the configuration's dataclasses: default, meaning and range of a setting stand here once."""

from __future__ import annotations

import dataclasses
import functools
import typing
from typing import Any, Literal

from fercache.errors import ConfigError, raise_problems

Precision = Literal["auto", "fp32", "bf16", "fp16"]


def config_field(
    default: Any,  # noqa: ANN401 - a setting is of any type
    meaning: str,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    rule: str | None = None,
    unset: str | None = None,
    metavar: str | None = None,
    heading: str | None = None,
) -> Any:  # noqa: ANN401 - a dataclass field is of any type
    """A field with its meaning in one or two sentences, as help and documentation print it.

    Numbers, and each number of a list, range from `least` (or `above`) to `most`. `rule` puts the range into words
    where these bounds do not say it all. `unset` says what applies by default where the default is None or empty.
    `metavar` is what help shows for a text, such as FILE. `heading` begins a group of settings: it covers this field
    and those after it, up to the next heading.
    """
    bounds = None if most is None else (least, above, most)
    if rule is None and most is not None:
        rule = f"from {least} to {most}" if above is None else f"above {above} and at most {most}"
    metadata = {"meaning": meaning, "bounds": bounds, "rule": rule, "unset": unset}
    return dataclasses.field(default=default, metadata=metadata | {"metavar": metavar, "heading": heading})


def check(config: object, **conditions: bool) -> None:
    """Raise ConfigError naming each key that is out of its bounds, or whose condition (key=condition) does not hold."""
    fields = {f.name: f for f in dataclasses.fields(config)}  # type: ignore[arg-type]
    bad = [key for key, field in fields.items() if not _within(getattr(config, key), field.metadata.get("bounds"))]
    bad += [key for key, holds in conditions.items() if not holds and key not in bad]
    problems = []
    for key in bad:
        or_null = ", or null" if fields[key].default is None else ""
        problems.append(f"{key}: found {getattr(config, key)!r}, expected {fields[key].metadata['rule']}{or_null}")
    raise_problems(problems, ConfigError)


def _within(value: Any, bounds: tuple[float | None, float | None, float] | None) -> bool:  # noqa: ANN401 - of any type
    if bounds is None or value is None:
        return True
    least, above, most = bounds
    numbers = value if isinstance(value, tuple) else (value,)
    return all((above < n if above is not None else least <= n) and n <= most for n in numbers)


@functools.cache
def field_types(owner: type) -> dict[str, Any]:
    """Field names of a dataclass with their types, in order."""
    hints = typing.get_type_hints(owner)
    return {f.name: hints[f.name] for f in dataclasses.fields(owner)}
