"""What a cache was made by: the record that decides whether two embeddings may be mixed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fercache.errors import CacheError
from fercache.files import write_text

SCHEMA = 1
FILE_NAME = "provenance.json"


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
        text = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def differences(self, other: Provenance) -> list[str]:
        """The fields in which `other` differs, in words."""
        mine, theirs = asdict(self), asdict(other)
        return [f"{key} is {mine[key]!r} there, {theirs[key]!r} here" for key in mine if mine[key] != theirs[key]]


def write_provenance(folder: Path, provenance: Provenance, recorded: Mapping[str, Any]) -> None:
    """Write the record of a cache; `recorded` is only noted beside it (backend, batch size, threads)."""
    content = {"fingerprint": provenance.fingerprint, "fields": asdict(provenance), "recorded": dict(recorded)}
    write_text(folder / FILE_NAME, json.dumps(content, indent=2) + "\n")


def read_recorded(folder: Path) -> dict[str, Any]:
    """What is noted beside the fingerprint's fields; {} where nothing is."""
    noted = json.loads((folder / FILE_NAME).read_text(encoding="utf-8")).get("recorded")
    return noted if isinstance(noted, dict) else {}


def read_provenance(folder: Path) -> Provenance:
    """The record of the cache in `folder`; CacheError where there is none or it was edited."""
    path = folder / FILE_NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CacheError(f"{folder}: is no cache: it has no {FILE_NAME}") from error
    except (OSError, ValueError) as error:
        raise CacheError(f"{path}: cannot be read: {error}") from error
    try:
        provenance = Provenance(**content["fields"])
        fingerprint = content["fingerprint"]
    except (TypeError, KeyError) as error:
        raise CacheError(f"{path}: is no provenance record: {error}") from error
    if provenance.schema != SCHEMA:
        raise CacheError(f"{path}: found schema {provenance.schema}, this fercache reads {SCHEMA}")
    if fingerprint != provenance.fingerprint:
        raise CacheError(f"{path}: was edited: its fingerprint is not that of its fields")
    return provenance
