"""Values of YAML and of the command line, brought to the types of the dataclasses' fields."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from typing import Any, Literal

WORDS = {
    int: "a whole number",
    float: "a number",
    str: "text, in quotes where YAML takes it for something else",
    bool: "true or false",
}


def field_types(owner: type) -> dict[str, Any]:
    """Field names with their types, in order."""
    hints = typing.get_type_hints(owner)
    return {f.name: hints[f.name] for f in dataclasses.fields(owner)}


def coerce(value: object, kind: Any) -> Any:  # noqa: ANN401 - a type or a union of types
    """`value` as the type `kind`; ValueError in words that say what was expected."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        if value is None:
            return None
        return coerce(value, next(a for a in arguments if a is not type(None)))
    if origin is Literal:
        if value not in arguments:
            raise ValueError(f"one of {', '.join(map(str, arguments))}")
        return value
    if origin is tuple:
        return _coerce_tuple(value, arguments)
    if kind is float:
        return _coerce_float(value)
    if type(value) is not kind:
        raise ValueError(WORDS[kind])
    return value


def _coerce_float(value: object) -> float:
    # YAML 1.1 reads 5e-4, without a point, as text.
    try:
        number = float(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):  # the latter of a whole number of hundreds of digits
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(WORDS[float])
    return number


def _coerce_tuple(value: object, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    words = {int: "whole numbers", float: "numbers", str: "texts"}[arguments[0]]
    count = "" if arguments[-1] is Ellipsis else f"{len(arguments)} "
    if not isinstance(value, (list, tuple)) or (count and len(value) != len(arguments)):
        raise ValueError(f"a list of {count}{words}, as in [a, b]")
    try:
        return tuple(coerce(item, arguments[0]) for item in value)
    except ValueError:
        raise ValueError(f"a list of {count}{words}, as in [a, b]") from None
