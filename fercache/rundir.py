"""The run folder of a training: the names of its files, and the settings that its run was begun with."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from fercache.documents import parse_yaml
from fercache.errors import RunError
from fercache.files import PARTIAL, read_text, refuse_other_contents, write_text

log = logging.getLogger(__name__)

NO_EFFECT = ("manifest", "cache", "weights", "weights_format", "init", "workers", "save_minutes")
"""Recorded values that change no result: paths (the digests of what they name are compared), and who decoded."""
INFERRED = ("arch", "image_size")
"""Settings that are recorded as the weights have them where they are not set."""
MAY_CHANGE = {"threads": "the last bits differ", "ranks": "batch norm sees other parts of a step"}
"""Values that may differ when a run resumes, and what that does to it."""
SEAL = "# A record, not to be edited; SHA-256 of all below: "
"""Beginning of a record's first line, which ends with the digest of the rest."""
MOST_DIFFERENCES = 4
"""That `describe_differences` shows."""


class Difference(NamedTuple):
    """A setting that is not what it was when an output was made."""

    key: str
    before: Any
    now: Any


def describe_differences(differences: Sequence[Difference]) -> str:
    """Differences as a part of a sentence."""
    shown = [f"{key}: found {before!r}, expected {now!r}" for key, before, now in differences[:MOST_DIFFERENCES]]
    more = len(differences) - len(shown)
    return "; ".join([*shown, *([f"and {more} more"] if more else [])])


@dataclass(frozen=True)
class RunDir:
    """The files of one run."""

    path: Path

    @property
    def config(self) -> Path:
        """All resolved values, as YAML."""
        return self.path / "config.yaml"

    @property
    def metrics(self) -> Path:
        """A JSON line an epoch."""
        return self.path / "metrics.jsonl"

    @property
    def last(self) -> Path:
        """The checkpoint that an interrupted run resumes from."""
        return self.path / "last.pt"

    @property
    def best(self) -> Path:
        """The checkpoint that other stages read."""
        return self.path / "best.pt"

    @property
    def environment(self) -> Path:
        """Versions, commit, seed, threads, host, as JSON."""
        return self.path / "environment.json"

    @property
    def has_checkpoint(self) -> bool:
        """Whether anything was saved that another run would overwrite."""
        return self.last.exists() or self.best.exists()

    def recorded(self) -> dict[str, Any]:
        """The resolved values of the run in this folder; {} where there is none.

        Raises RunError where the folder contains something else.
        """
        if not self.config.exists():
            refuse_other_contents(self.path, f"a run ({self.config.name})", RunError)
            return {}
        try:
            values = parse_yaml(_unsealed(read_text(self.config)))
        except (OSError, ValueError) as error:
            raise RunError(f"{self.config}: cannot be read: {' '.join(str(error).split())}") from error
        if not isinstance(values, dict):
            raise RunError(f"{self.config}: found {type(values).__name__}, expected keys with values")
        return values

    def begin(self, values: dict[str, Any], environment: dict[str, Any]) -> None:
        """Begin a run with these resolved values, or check that the run in this folder has the same.

        Paths may differ, since the digests of their files are compared. Another number of threads or ranks is only
        warned of. A run without a checkpoint has nothing to lose and begins anew. RunError where a run with other
        values, or something else than a run, is in the folder.
        """
        before = self.recorded()
        resuming = self.has_checkpoint and bool(before)
        if not resuming:
            write_text(self.config, _sealed(yaml.safe_dump(values, sort_keys=False)))
        for partial in self.path.glob(f".*{PARTIAL}"):
            partial.unlink(missing_ok=True)
        if not self.environment.exists():
            write_text(self.environment, json.dumps(environment, indent=2) + "\n")
        if resuming:
            self._check_same(before, values)

    def _check_same(self, before: dict[str, Any], now: dict[str, Any]) -> None:
        differences = [
            Difference(key, before.get(key), now.get(key))
            for key in {**now, **before}
            if now.get(key) != before.get(key) and key not in NO_EFFECT
        ]
        for key, old, new in differences:
            if key in MAY_CHANGE:
                log.warning("%s: begun with %s %s, resuming with %s: %s", self.path, key, old, new, MAY_CHANGE[key])
        refused = [difference for difference in differences if difference.key not in MAY_CHANGE]
        if refused:
            raise RunError(
                f"{self.path}: contains a different run ({describe_differences(refused)}); choose another folder,"
                " or remove this one"
            )

    def changed(self, settings: Mapping[str, Any]) -> list[Difference]:
        """The settings that differ from those of this run, if it has a checkpoint.

        Paths are not compared, nor settings whose recorded value was inferred: from `auto`, or from the weights.
        """
        recorded = self.recorded() if self.has_checkpoint else {}
        return [
            Difference(key, recorded[key], now)
            for key, now in settings.items()
            if key in recorded
            and recorded[key] != now
            and key not in NO_EFFECT
            and now != "auto"
            and not (now is None and key in INFERRED)
        ]

    def write_metrics(self, epochs: list[dict[str, Any]]) -> None:
        """Write the lines of all epochs so far."""
        write_text(self.metrics, "".join(json.dumps(line) + "\n" for line in epochs))

    def finished(self, epochs: int) -> bool:
        """Whether all epochs are done and their best checkpoint exists."""
        return self.best.exists() and self.epochs_done() >= epochs

    def epochs_done(self) -> int:
        """Epochs whose metrics are written."""
        return len(self.metrics.read_text(encoding="utf-8").splitlines()) if self.metrics.exists() else 0


def _sealed(text: str) -> str:
    """A record with a first line that shows whether the rest was changed."""
    return f"{SEAL}{hashlib.sha256(text.encode()).hexdigest()}\n{text}"


def _unsealed(text: str) -> str:
    """The record without its first line; ValueError where either was changed."""
    if re.match(r"[a-z_]+: ", text):  # records of earlier versions have no such line
        return text
    record = text.partition("\n")[2]
    if _sealed(record) != text:
        raise ValueError("it was changed or damaged since it was written; train into another folder")
    return record
