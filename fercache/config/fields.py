"""What the sections of the configuration are made of: fields with rules in words."""

from __future__ import annotations

import dataclasses
from dataclasses import field
from typing import Any, Literal

from fercache.errors import ConfigError, raise_problems

Precision = Literal["auto", "fp32", "bf16", "fp16"]


def check(config: object, **conditions: bool) -> None:
    """Raise ConfigError naming each key whose condition (given as key=condition) does not hold."""
    rules = {f.name: f.metadata.get("rule", "") for f in dataclasses.fields(config)}  # type: ignore[arg-type]
    bad = [key for key, holds in conditions.items() if not holds]
    raise_problems([f"{key}: found {getattr(config, key)!r}, expected {rules[key]}" for key in bad], ConfigError)


def value(default: Any, rule: str) -> Any:  # noqa: ANN401 - a dataclass field is of any type
    """A field with its default and the words that say which values it takes."""
    return field(default=default, metadata={"rule": rule})
