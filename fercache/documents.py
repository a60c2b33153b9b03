"""YAML and JSON from files and commands, read as plain values only, with limits on size and depth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from fercache.files import read_text

MOST_CHARACTERS = 1 << 24
MOST_DEPTH = 50
PLAIN_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "seq", "map")}


class DocumentError(ValueError):
    """A text that is not a document of plain values within the limits; the message says why."""


def read_yaml(path: Path) -> Any:  # noqa: ANN401 - plain values of any type
    """The values in a YAML file. Raises OSError where it cannot be read, and DocumentError as `parse_yaml` does."""
    return parse_yaml(_text(path))


def read_json(path: Path) -> Any:  # noqa: ANN401 - plain values of any type
    """The values in a JSON file. Raises OSError where it cannot be read, and DocumentError as `parse_json` does."""
    return parse_json(_text(path))


def _text(path: Path) -> str:
    try:
        return read_text(path)
    except UnicodeDecodeError as error:
        raise DocumentError(f"is not text: {error.reason} at byte {error.start}") from error


def parse_json(text: str | bytes) -> Any:  # noqa: ANN401 - plain values of any type
    """The values of a JSON text. Raises DocumentError where it is invalid, too long or nested too deep."""
    _check_length(text)
    try:
        return json.loads(text)
    except RecursionError as error:
        raise DocumentError("is no JSON: is nested too deep") from error
    except ValueError as error:
        raise DocumentError(f"is no JSON: {error}") from error


def parse_yaml(text: str) -> Any:  # noqa: ANN401 - plain values of any type
    """The values of a YAML text: mappings, sequences, text, numbers, true, false, null.

    Raises DocumentError where the text is not valid YAML, is too long or nested too deep, or has aliases (whose
    repetition can fill any memory), tags other than those of plain values, or a duplicate key (PyYAML silently takes
    the last one).
    """
    _check_length(text)
    try:
        _check_events(text)
        return yaml.load(text, Loader=_PlainLoader)
    except DocumentError:
        raise
    except Exception as error:  # PyYAML raises all kinds of errors where a tag does not match its value
        raise DocumentError(f"is not valid YAML: {' '.join(str(error).split())}") from error


def _check_length(text: str | bytes) -> None:
    if len(text) > MOST_CHARACTERS:
        raise DocumentError(f"has {len(text)} characters, the limit is {MOST_CHARACTERS}")


def _check_events(text: str) -> None:
    """Refuse aliases, tags and deep nesting before any value is built."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        assert event.start_mark is not None  # of text that is parsed here
        where = f"line {event.start_mark.line + 1}"
        if isinstance(event, yaml.AliasEvent):
            raise DocumentError(f"{where}: has an alias (*{event.anchor}), which is not supported; write the value out")
        tag = getattr(event, "tag", None)
        if tag is not None and tag not in PLAIN_TAGS:
            raise DocumentError(f"{where}: has the tag {tag}, expected plain values")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MOST_DEPTH:
            raise DocumentError(f"{where}: is nested more than {MOST_DEPTH} deep")


class _PlainLoader(yaml.SafeLoader):
    """Safe YAML of plain values: a date is text, a duplicate key an error."""


def _unique_mapping(loader: _PlainLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [loader.construct_object(key, deep=True) for key, _ in node.value]
    if not all(isinstance(key, (str, int, float, bool, type(None))) for key in keys):
        raise DocumentError(f"line {node.start_mark.line + 1}: has a key that is not a plain value")
    if duplicates := sorted({str(key) for key in keys if keys.count(key) > 1}):
        raise DocumentError(f"line {node.start_mark.line + 1}: duplicate key {', '.join(duplicates)}")
    return loader.construct_mapping(node, deep=True)


def _bool(loader: _PlainLoader, node: yaml.ScalarNode) -> bool:
    """true or false, of a scalar that the resolver or a tag calls a bool."""
    if node.value.lower() not in loader.bool_values:
        raise DocumentError(f"line {node.start_mark.line + 1}: found {node.value!r}, expected true or false")
    return loader.bool_values[node.value.lower()]


_PlainLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)
_PlainLoader.add_constructor("tag:yaml.org,2002:bool", _bool)
# Without the resolver of dates a date is text, as in JSON; without that of <<, << is an ordinary key.
_PlainLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag in PLAIN_TAGS]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
