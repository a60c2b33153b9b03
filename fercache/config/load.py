"""Reading a configuration: YAML, `--set` and options of the command line, merged and checked.

Precedence: defaults < YAML < `--set` < options. Relative paths are relative to the current folder, so
that a shipped config works anywhere.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from fercache.config.coerce import coerce, without_none
from fercache.config.fields import field_types
from fercache.config.schema import Config
from fercache.config.settings import SECTIONS, Setting, get_setting, join
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

    `source` is a file or the name of a shipped config; None: ./fercache.yaml where there is one. `sets` are the
    KEY=VALUE of `--set`: KEY is looked up in `section` first, then at the top level; SECTION.KEY works too. `options`
    are values of command-line options by key, None where an option is absent; a str is read as YAML unless the
    setting is text. Raises ConfigError with every unknown key, wrong type and value out of range at once.
    """
    return load_with_sources(source, section, sets, options)[0]


def load_with_sources(
    source: str | None = None,
    section: str | None = None,
    sets: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
) -> tuple[Config, dict[str, str]]:
    """As `load_config`, and where each value that is not a default comes from: full name -> file, `--set` or option."""
    label, values = _read_source(source)
    merger = _Merger()
    merger.add(label, values)
    for text in sets:
        merger.add(f"--set {text}", _parse_set(text), section)
    for key, value in (options or {}).items():
        if value is not None:
            merger.add_option(key, value, section)
    return merger.build(), merger.sources


def shipped_configs() -> dict[str, str]:
    """Texts of the configs that come with fercache, by name."""
    folder = resources.files("fercache.configs")
    files = {f.name.removesuffix(".yaml"): f for f in folder.iterdir() if f.name.endswith(".yaml")}
    return {name: files[name].read_text(encoding="utf-8") for name in sorted(files)}


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
    return {key.strip(): _parse_value(f"--set {text:.200}", value)}


def _parse_value(label: str, text: str) -> Any:  # noqa: ANN401 - plain values of any type
    try:
        return parse_yaml(text)
    except DocumentError as error:
        raise ConfigError(f"{label}: the value {error}") from error


def _full_name(key: str, section: str | None) -> str:
    """The setting or section that a key means: one of `section` first, then one of the top level."""
    name = join(section or "", key)
    return name if get_setting(name) is not None or name in SECTIONS else key


class _Merger:
    """Layers of values on top of one another, with the source of each value and all problems."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        """By full name, as in finetune.lr."""
        self.sources: dict[str, str] = {}
        self.problems: list[str] = []

    def add(self, source: str, layer: Mapping[str, Any], section: str | None = None) -> None:
        """Put `layer` on top; its keys mean those of `section` first, then those of the top level."""
        for key, value in layer.items():
            name = _full_name(key, section)
            setting = get_setting(name)
            if setting is not None:
                self._set(source, setting, value)
            elif name not in SECTIONS:
                self.problems.append(f"{source}: unknown key {name!r}; the keys are {_valid_keys(name, section)}")
            elif value is None or isinstance(value, dict):
                self.add(source, {join(name, inner): item for inner, item in (value or {}).items()})
            else:
                self.problems.append(f"{source}: {name}: found {value!r}, expected keys with values")

    def add_option(self, key: str, value: Any, section: str | None) -> None:  # noqa: ANN401 - of any type
        """Put the value of the option `--key` on top."""
        option = f"--{key.replace('_', '-')}"
        label = {True: option, False: f"--no-{option[2:]}"}[value] if isinstance(value, bool) else f"{option} {value}"
        setting = get_setting(_full_name(key, section))
        if isinstance(value, str) and setting is not None and not setting.takes_text:
            value = _parse_value(label, value)
        self.add(label, {key: value}, section)

    def _set(self, source: str, setting: Setting, value: object) -> None:
        try:
            self.values[setting.name] = coerce(value, setting.kind)
            self.sources[setting.name] = source
        except ValueError:
            is_text = without_none(setting.kind) is str
            expected = "text, in quotes where YAML reads something else" if is_text else setting.expected
            self.problems.append(f"{source}: {setting.name}: found {value!r}, expected {expected}")

    def build(self) -> Config:
        """The dataclasses; ConfigError with all problems of types, ranges and names at once."""
        config = self._construct(Config, "")
        raise_problems(self.problems, ConfigError)
        return config

    def _construct(self, kind: type, name: str) -> Any:  # noqa: ANN401 - a dataclass of this kind
        """The section `name`; its defaults where a value is out of range."""
        values, sections = {}, {}
        for key, field_kind in field_types(kind).items():
            full_name = join(name, key)
            if isinstance(field_kind, type) and dataclasses.is_dataclass(field_kind):
                sections[key] = self._construct(field_kind, full_name)
            elif full_name in self.values:
                values[key] = self.values[full_name]
        try:
            return kind(**values, **sections)
        except ConfigError as error:
            for problem in error.problems:
                full_problem = join(name, problem)
                source = self.sources.get(full_problem.partition(":")[0])
                self.problems.append(f"{source}: {full_problem}" if source else full_problem)
            return kind(**sections)


def _valid_keys(name: str, section: str | None) -> str:
    """The keys that an unknown one could have been: of the innermost section that it names, else of the command's."""
    inner = name.rpartition(".")[0]
    while inner and inner not in SECTIONS:
        inner = inner.rpartition(".")[0]
    if inner:
        return ", ".join(field_types(SECTIONS[inner]))
    return ", ".join([*(field_types(SECTIONS[section]) if section else ()), *field_types(Config)])
