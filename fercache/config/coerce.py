"""Values of YAML and of the command line, brought to the types of the dataclasses' fields."""

from __future__ import annotations

import math
import types
import typing
from typing import Any, Literal

_WORDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
_LISTS = {int: "whole numbers", float: "numbers", str: "texts"}


def without_none(kind: Any) -> Any:  # noqa: ANN401 - a type or a union of types
    """`X` of the type `X | None`; any other type as it is."""
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        return next(part for part in typing.get_args(kind) if part is not type(None))
    return kind


def choices(kind: Any) -> tuple[str, ...]:  # noqa: ANN401 - a type or a union of types
    """The values of a Literal; empty for any other type."""
    kind = without_none(kind)
    return typing.get_args(kind) if typing.get_origin(kind) is Literal else ()


def type_words(kind: Any) -> str:  # noqa: ANN401 - a type or a union of types
    """What a value of the type is, as errors and documentation say it."""
    if names := choices(kind):
        return f"one of {', '.join(names)}"
    kind = without_none(kind)
    if typing.get_origin(kind) is not tuple:
        return _WORDS[kind]
    items = typing.get_args(kind)
    count = "" if items[-1] is Ellipsis else f"{len(items)} "
    return f"a list of {count}{_LISTS[items[0]]}"


def coerce(value: object, kind: Any) -> Any:  # noqa: ANN401 - a type or a union of types
    """`value` as the type `kind`; ValueError where it is of another type."""
    if value is None and without_none(kind) is not kind:
        return None
    kind = without_none(kind)
    if typing.get_origin(kind) is tuple:
        return _coerce_list(value, typing.get_args(kind))
    if kind is float:
        return _coerce_float(value)
    if value not in choices(kind) if choices(kind) else type(value) is not kind:
        raise ValueError(f"expected {type_words(kind)}")
    return value


def _coerce_float(value: object) -> float:
    # YAML 1.1 reads 5e-4, without a point, as text.
    try:
        number = float(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else math.nan
    except OverflowError:  # a whole number of hundreds of digits
        number = math.nan
    if not math.isfinite(number):
        raise ValueError("expected a finite number")
    return number


def _coerce_list(value: object, items: tuple[Any, ...]) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)) or (items[-1] is not Ellipsis and len(value) != len(items)):
        raise ValueError("expected a list")
    return tuple(coerce(item, items[0]) for item in value)
