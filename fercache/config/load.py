"""Reading a configuration: YAML, `--set` and options of the command line, merged and checked.

Precedence: defaults < YAML < `--set` < options. Relative paths mean the current folder, so that a
shipped config works anywhere.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from fercache.config.coerce import coerce, field_types
from fercache.config.schema import SECTIONS, Config
from fercache.documents import DocumentError, parse_yaml, read_yaml
from fercache.errors import ConfigError, raise_problems

DEFAULT_FILE = Path("fercache.yaml")


def load_config(
    source: str | None = None,
    section: str | None = None,
    sets: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
) -> Config:
    """The configuration of one command.

    `source` is a file or the name of a shipped config; None takes ./fercache.yaml where there is
    one. `sets` are KEY=VALUE as given to `--set`, KEY being looked up in `section` first, then at
    the top level; SECTION.KEY is understood too. `options` are values of the command line, None =
    not given. Raises ConfigError with every unknown key and wrong type at once.
    """
    label, values = _read_source(source)
    merger = _Merger()
    merger.add(f"{label}: ", values, None)
    for text in sets:
        merger.add(f"--set {text}: ", _parse_set(text), section)
    merger.add("", {key: value for key, value in (options or {}).items() if value is not None}, section)
    return merger.build()


def shipped_configs() -> dict[str, str]:
    """Texts of the configs that travel with fercache, by name."""
    folder = resources.files("fercache.configs")
    found = {f.name.removesuffix(".yaml"): f for f in folder.iterdir() if f.name.endswith(".yaml")}
    return {name: found[name].read_text(encoding="utf-8") for name in sorted(found)}


def _read_source(source: str | None) -> tuple[str, dict[str, Any]]:
    """The name to show for a config, and its values."""
    if source is None and not DEFAULT_FILE.exists():
        return "defaults", {}
    name = str(DEFAULT_FILE) if source is None else source
    if Path(name).is_file():
        try:
            return name, _keys(read_yaml(Path(name)), name)
        except OSError as error:
            raise ConfigError(f"{name}: cannot be read: {error.strerror}") from error
        except DocumentError as error:
            raise ConfigError(f"{name}: {error}") from error
    shipped = shipped_configs()
    if name not in shipped:
        raise ConfigError(f"{name}: no such file, nor a shipped config; those are {', '.join(shipped)}")
    return name, _keys(parse_yaml(shipped[name]), name)


def _keys(values: object, label: str) -> dict[str, Any]:
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise ConfigError(f"{label}: found {type(values).__name__}, expected keys with values")
    return {str(key): value for key, value in values.items()}


def _parse_set(text: str) -> dict[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {text}: expected KEY=VALUE")
    try:
        return {key.strip(): parse_yaml(value)}
    except DocumentError as error:
        raise ConfigError(f"--set {text:.200}: the value {error}") from error


def _owner(name: str) -> dict[str, Any] | None:
    """The fields of the section that a key with its sections is in; None where there is no such key."""
    *sections, key = name.split(".")
    kinds = field_types(Config)
    for section in sections:
        if not dataclasses.is_dataclass(kinds.get(section)):
            return None
        kinds = field_types(kinds[section])
    return kinds if key in kinds else None


class _Merger:
    """Layers of values put on top of one another, with where each value came from and what is wrong."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        """By names with their sections, as in finetune.lr."""
        self.sources: dict[str, str] = {}
        self.problems: list[str] = []

    def add(self, source: str, layer: Mapping[str, Any], own: str | None) -> None:
        """Put `layer` on top; a key means the section `own` first, then the top level."""
        for key, value in layer.items():
            name = f"{own}.{key}"
            self._set(source, name if own is not None and _owner(name) is not None else key, value, own)

    def _set(self, source: str, name: str, value: object, own: str | None) -> None:
        *sections, key = name.split(".")
        kinds = _owner(name)
        if kinds is None:
            kinds = field_types(Config)
            while sections and dataclasses.is_dataclass(kinds.get(sections[0])):
                kinds, own = field_types(kinds[sections.pop(0)]), None
            known = [*(field_types(SECTIONS[own]) if own else ()), *kinds]
            self.problems.append(f"{source}unknown key {name!r}; the keys are {', '.join(known)}")
        elif not dataclasses.is_dataclass(kinds[key]):
            self._set_value(source, name, value, kinds[key])
        elif value is not None and not isinstance(value, dict):
            self.problems.append(f"{source}{name}: found {value!r}, expected keys with values")
        else:
            for inner, item in (value or {}).items():
                self._set(source, f"{name}.{inner}", item, None)

    def _set_value(self, source: str, name: str, value: object, kind: object) -> None:
        try:
            self.values[name] = coerce(value, kind)
            self.sources[name] = source
        except ValueError as error:
            self.problems.append(f"{source}{name}: found {value!r}, expected {error}")

    def build(self) -> Config:
        """The dataclasses; ConfigError with all problems of types, ranges and names at once."""
        config = self._construct(Config, "")
        raise_problems(self.problems, ConfigError)
        return config

    def _construct(self, kind: type, prefix: str) -> Any:  # noqa: ANN401 - a dataclass of this kind
        """`kind` of the values whose names begin with `prefix`; where they are out of range its defaults."""
        given, sections = {}, {}
        for key, field_kind in field_types(kind).items():
            if dataclasses.is_dataclass(field_kind):
                sections[key] = self._construct(field_kind, f"{prefix}{key}.")
            elif prefix + key in self.values:
                given[key] = self.values[prefix + key]
        try:
            return kind(**given, **sections)
        except ConfigError as error:
            for problem in error.problems:
                name = prefix + problem
                self.problems.append(self.sources.get(name.partition(":")[0], "") + name)
            return kind(**sections)
