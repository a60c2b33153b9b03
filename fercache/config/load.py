"""Reading a configuration: YAML, `--set` and options of the command line, merged and checked.

Precedence: defaults < YAML < `--set` < options. Relative paths mean the current folder, so that a
shipped config works anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from fercache.config.coerce import coerce, field_types
from fercache.config.schema import SECTIONS, Config
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
    problems: list[str] = []
    layers = [(f"{label}: ", values, None)]
    layers += [(f"--set {text}: ", _parse_set(text), section) for text in sets]
    given = {key: value for key, value in (options or {}).items() if value is not None}
    layers.append(("", given, section))
    merged: dict[str, Any] = {}
    for prefix, layer, own in layers:
        for key, value in layer.items():
            _merge(merged, key, value, own, lambda text, prefix=prefix: problems.append(prefix + text))
    raise_problems(problems, ConfigError)
    return _build(merged, label)


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
        return name, _parse_yaml(_read_text(Path(name)), name)
    shipped = shipped_configs()
    if name not in shipped:
        raise ConfigError(f"{name}: no such file, nor a shipped config; those are {', '.join(shipped)}")
    return name, _parse_yaml(shipped[name], name)


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as text: {error}") from error


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML in which a key that stands twice is an error: plain YAML takes the last, in silence."""


def _unique_mapping(loader: _StrictLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [loader.construct_object(key, deep=True) for key, _ in node.value]
    twice = sorted({str(key) for key in keys if keys.count(key) > 1})
    if twice:
        raise yaml.constructor.ConstructorError(None, None, f"key stands twice: {', '.join(twice)}", node.start_mark)
    return loader.construct_mapping(node, deep=True)


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)


def _parse_yaml(text: str, label: str) -> dict[str, Any]:
    try:
        values = yaml.load(text, Loader=_StrictLoader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{label}: is not valid YAML: {' '.join(str(error).split())}") from error
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise ConfigError(f"{label}: found {type(values).__name__}, expected keys with values")
    return {str(key): value for key, value in values.items()}


def _parse_set(text: str) -> dict[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {text}: expected KEY=VALUE")
    try:
        return {key.strip(): yaml.safe_load(value)}
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {text}: the value is not valid YAML: {' '.join(str(error).split())}") from error


def _merge(merged: dict[str, Any], key: str, value: object, own: str | None, report: Callable[[str], None]) -> None:
    """Put one key with its value into `merged`, in the section it belongs to; report what is wrong with it."""
    section, dot, name = key.partition(".")
    if dot and section in SECTIONS:
        _merge_field(merged.setdefault(section, {}), SECTIONS[section], name, value, f"{section}.", report)
    elif own is not None and key in field_types(SECTIONS[own]):
        _merge_field(merged.setdefault(own, {}), SECTIONS[own], key, value, "", report)
    elif key not in SECTIONS:
        also = "" if own is None else f"{', '.join(field_types(SECTIONS[own]))}; "
        _merge_field(merged, Config, key, value, "", report, also)
    elif value is not None and not isinstance(value, dict):
        report(f"{key}: found {value!r}, expected keys with values")
    else:
        for inner, item in (value or {}).items():  # type: ignore[attr-defined]
            _merge_field(merged.setdefault(key, {}), SECTIONS[key], str(inner), item, f"{key}.", report)


def _merge_field(
    target: dict[str, Any],
    owner: type,
    name: str,
    value: object,
    prefix: str,
    report: Callable[[str], None],
    also: str = "",
) -> None:
    kinds = field_types(owner)
    if name not in kinds:
        report(f"unknown key {prefix + name!r}; the keys are {also}{', '.join(kinds)}")
        return
    try:
        target[name] = coerce(value, kinds[name])
    except ValueError as error:
        report(f"{prefix}{name}: found {value!r}, expected {error}")


def _build(merged: dict[str, Any], label: str) -> Config:
    """The dataclasses of the merged values; the checks across fields add the section's name to their words."""
    problems: list[str] = []
    for name, kind in SECTIONS.items():
        try:
            merged[name] = kind(**merged.get(name, {}))
        except ConfigError as error:
            problems += [f"{label}: {name}.{line}" for line in str(error).splitlines()]
            del merged[name]
    try:
        config = Config(**merged)
    except ConfigError as error:
        problems += [f"{label}: {line}" for line in str(error).splitlines()]
    raise_problems(problems, ConfigError)
    return config
