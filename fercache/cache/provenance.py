"""What a cache was made by: the record that decides whether two embeddings may be mixed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fercache.documents import parse_json
from fercache.errors import CacheError
from fercache.files import read_bytes, write_text_once

SCHEMA = 2
FILE_NAME = "provenance.json"
TYPES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("weights", "architecture", "precision", "dtype"), (str,)),
    **dict.fromkeys(("classifier", "task"), (str, type(None))),
    "preprocessing": (dict,),
    "schema": (int,),
}
"""Of the fingerprint's fields."""
DTYPES = ("float16", "float32")
FILE_DIGEST = "weights_sha256"
"""Noted beside the fingerprint: SHA-256 of the file that the network came from; it is faster told than its digest."""


@dataclass(frozen=True)
class Provenance:
    """The fields of the fingerprint."""

    weights: str
    """Digest of the backbone."""
    classifier: str | None
    """Digest of the classifier whose logits are cached."""
    task: str | None
    architecture: str
    preprocessing: dict[str, Any]
    precision: str
    """What the network computed in."""
    dtype: str
    """What the embeddings are stored in."""
    schema: int = SCHEMA

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the fields."""
        return hashlib.sha256(self.as_json().encode()).hexdigest()

    def as_json(self) -> str:
        """The fields, always in the same form."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Provenance:
        """The record from what `as_json` gave; ValueError or TypeError where that is none."""
        return cls.from_plain(parse_json(text))

    @classmethod
    def from_plain(cls, fields: Mapping[str, Any]) -> Provenance:
        """The record from its fields; ValueError or TypeError where they are no record's."""
        record = cls(**fields)
        wrong = [name for name, kinds in TYPES.items() if not isinstance(getattr(record, name), kinds)]
        if wrong or record.dtype not in DTYPES:
            raise TypeError(f"{', '.join(wrong) or 'dtype'} is not what a cache records")
        return record

    def differences(self, other: Provenance) -> list[str]:
        """The fields in which `other` differs, in words."""
        mine, theirs = asdict(self), asdict(other)
        return [f"{key} is {mine[key]!r} there, {theirs[key]!r} here" for key in mine if mine[key] != theirs[key]]


@dataclass(frozen=True)
class CacheRecord:
    """What stands in `provenance.json`, and in a packed cache."""

    provenance: Provenance
    noted: Mapping[str, Any]
    """Noted beside the fingerprint's fields: backend, batch size, threads, device, the weights' file."""

    def as_json(self) -> str:
        """The record as text."""
        made_by = self.provenance
        content = {"fingerprint": made_by.fingerprint, "fields": asdict(made_by), "recorded": dict(self.noted)}
        return json.dumps(content, indent=2) + "\n"


def parse_record(place: Path, text: str | bytes) -> CacheRecord:
    """The record in `text`, found in `place`; CacheError where it is none, was edited, or is another fercache's."""
    try:
        content = parse_json(text)
        provenance, fingerprint = Provenance.from_plain(content["fields"]), content["fingerprint"]
        noted = content.get("recorded", {})
        if not isinstance(noted, dict):
            raise TypeError(f"recorded is {noted!r}")
    except (ValueError, TypeError, KeyError) as error:
        raise CacheError(f"{place}: is no provenance record: {error}") from error
    if provenance.schema != SCHEMA:
        raise CacheError(f"{place}: found schema {provenance.schema}, this fercache reads {SCHEMA}")
    if fingerprint != provenance.fingerprint:
        raise CacheError(f"{place}: was edited: its fingerprint is not that of its fields")
    return CacheRecord(provenance, noted)


def begin_record(folder: Path, record: CacheRecord) -> CacheRecord:
    """Write the record of a new cache; returns the one that stands there then, which may be another process's."""
    write_text_once(folder / FILE_NAME, record.as_json())
    return read_record(folder)


def read_record(folder: Path) -> CacheRecord:
    """The record of the cache in `folder`; CacheError where there is none or it was edited."""
    path = folder / FILE_NAME
    try:
        text = read_bytes(path)
    except FileNotFoundError as error:
        raise CacheError(f"{folder}: is no cache: it has no {FILE_NAME}") from error
    except OSError as error:
        raise CacheError(f"{path}: cannot be read: {error.strerror}") from error
    return parse_record(path, text)
