"""YAML and JSON that come from files and commands: read with limits on size and depth, and as plain values alone."""

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
    """A text that is no document of plain values within the limits; its words say why."""


def read_yaml(path: Path) -> Any:  # noqa: ANN401 - plain values of any type
    """The values in a YAML file; OSError where it cannot be read, DocumentError as `parse_yaml`."""
    return parse_yaml(_text(path))


def read_json(path: Path) -> Any:  # noqa: ANN401 - plain values of any type
    """The values in a JSON file; OSError where it cannot be read, DocumentError as `parse_json`."""
    return parse_json(_text(path))


def _text(path: Path) -> str:
    try:
        return read_text(path)
    except UnicodeDecodeError as error:
        raise DocumentError(f"is not text: {error.reason} at byte {error.start}") from error


def parse_json(text: str | bytes) -> Any:  # noqa: ANN401 - plain values of any type
    """The values of a JSON text; DocumentError where it is none, too long or nested too deep."""
    _check_length(text)
    try:
        return json.loads(text)
    except RecursionError as error:
        raise DocumentError("is no JSON: is nested too deep") from error
    except ValueError as error:
        raise DocumentError(f"is no JSON: {error}") from error


def parse_yaml(text: str) -> Any:  # noqa: ANN401 - plain values of any type
    """The values of a YAML text: mappings, sequences, text, numbers, true, false, null.

    DocumentError where it is no YAML, has aliases (whose repetition can fill any memory), tags beyond those of plain
    values, or a key twice (of which plain YAML takes the last, in silence), is too long or nested too deep.
    """
    _check_length(text)
    try:
        _check_events(text)
        return yaml.load(text, Loader=_PlainLoader)
    except DocumentError:
        raise
    except Exception as error:  # the library raises what it meets on a tag that does not fit its value
        raise DocumentError(f"is not valid YAML: {' '.join(str(error).split())}") from error


def _check_length(text: str | bytes) -> None:
    if len(text) > MOST_CHARACTERS:
        raise DocumentError(f"has {len(text)} characters, the limit is {MOST_CHARACTERS}")


def _check_events(text: str) -> None:
    """Look at the document before anything is built of it."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        assert event.start_mark is not None  # of text that is parsed here
        where = f"line {event.start_mark.line + 1}"
        if isinstance(event, yaml.AliasEvent):
            raise DocumentError(f"{where}: has an alias (*{event.anchor}), which is not read here; write the value out")
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
    """Safe YAML of plain values: a date is text, and a key that stands twice an error."""


def _unique_mapping(loader: _PlainLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [loader.construct_object(key, deep=True) for key, _ in node.value]
    if not all(isinstance(key, (str, int, float, bool, type(None))) for key in keys):
        raise DocumentError(f"line {node.start_mark.line + 1}: has a key that is no plain value")
    twice = sorted({str(key) for key in keys if keys.count(key) > 1})
    if twice:
        raise DocumentError(f"line {node.start_mark.line + 1}: duplicate key {', '.join(twice)}")
    return loader.construct_mapping(node, deep=True)


def _bool(loader: _PlainLoader, node: yaml.ScalarNode) -> bool:
    """Of a value that the resolver or a tag calls one."""
    if node.value.lower() not in loader.bool_values:
        raise DocumentError(f"line {node.start_mark.line + 1}: found {node.value!r}, expected true or false")
    return loader.bool_values[node.value.lower()]


_PlainLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)
_PlainLoader.add_constructor("tag:yaml.org,2002:bool", _bool)
# Without the pattern of a date, a date is text, as in JSON; without that of <<, it is a key.
_PlainLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag in PLAIN_TAGS]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
