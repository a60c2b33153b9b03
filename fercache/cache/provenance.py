"""What made a cache: the record that decides whether two embeddings may be mixed."""

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
PROVENANCE_FILE = "provenance.json"
FIELD_TYPES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("weights", "architecture", "precision", "dtype"), (str,)),
    **dict.fromkeys(("classifier", "task"), (str, type(None))),
    "preprocessing": (dict,),
    "schema": (int,),
}
"""Of the fingerprint's fields."""
DTYPES = ("float16", "float32")
FILE_DIGEST = "weights_sha256"
"""Recorded beside the fingerprint: SHA-256 of the weights' file, faster to compute than their digest."""


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
        """The record from the output of `as_json`; ValueError or TypeError where `text` is something else."""
        return cls.from_plain(parse_json(text))

    @classmethod
    def from_plain(cls, fields: Mapping[str, Any]) -> Provenance:
        """The record from its fields; ValueError or TypeError where they are not those of a record."""
        record = cls(**fields)
        wrong = [name for name, kinds in FIELD_TYPES.items() if not isinstance(getattr(record, name), kinds)]
        if wrong or record.dtype not in DTYPES:
            raise TypeError(f"{', '.join(wrong) or 'dtype'} is not what a cache records")
        return record

    def differences(self, other: Provenance) -> list[str]:
        """The fields in which `other`, which is expected, differs, in words."""
        actual, expected = asdict(self), asdict(other)
        differing = [key for key in actual if actual[key] != expected[key]]
        return [f"{key}: found {actual[key]!r}, expected {expected[key]!r}" for key in differing]


@dataclass(frozen=True)
class CacheRecord:
    """The contents of `provenance.json`, which a packed cache has inside."""

    provenance: Provenance
    recorded: Mapping[str, Any]
    """What the fingerprint leaves out: backend, batch size, threads, device, the weights' file."""

    def as_json(self) -> str:
        """The record as text."""
        made_by = self.provenance
        content = {"fingerprint": made_by.fingerprint, "fields": asdict(made_by), "recorded": dict(self.recorded)}
        return json.dumps(content, indent=2) + "\n"


def parse_record(path: Path, text: str | bytes) -> CacheRecord:
    """The record in `text`, read from `path`; CacheError where it is none, was edited, or is of another schema."""
    try:
        content = parse_json(text)
        provenance, fingerprint = Provenance.from_plain(content["fields"]), content["fingerprint"]
        recorded = content.get("recorded", {})
        if not isinstance(recorded, dict):
            raise TypeError(f"recorded is {recorded!r}")
    except (ValueError, TypeError, KeyError) as error:
        raise CacheError(f"{path}: is no provenance record: {error}") from error
    if provenance.schema != SCHEMA:
        raise CacheError(f"{path}: found schema {provenance.schema}, this fercache reads {SCHEMA}")
    if fingerprint != provenance.fingerprint:
        raise CacheError(f"{path}: was edited: its fingerprint is not that of its fields")
    return CacheRecord(provenance, recorded)


def begin_record(folder: Path, record: CacheRecord) -> CacheRecord:
    """Write the record of a new cache; returns the one in the folder then, which another process may have written."""
    write_text_once(folder / PROVENANCE_FILE, record.as_json())
    return read_record(folder)


def read_record(folder: Path) -> CacheRecord:
    """The record of the cache in `folder`; CacheError where it is missing or was edited."""
    path = folder / PROVENANCE_FILE
    try:
        text = read_bytes(path)
    except FileNotFoundError as error:
        raise CacheError(f"{folder}: is no cache: it has no {PROVENANCE_FILE}") from error
    except OSError as error:
        raise CacheError(f"{path}: cannot be read: {error.strerror}") from error
    return parse_record(path, text)
